//! Collecting a trace from the store and the snapshots.

use std::collections::{BTreeMap, BTreeSet};

use autoglm_domain::{
    Alias, AliasMove, AnswerSource, Error, Experience, ExperienceId, InteractionId, ModelVersion, Result,
    Rollout, RolloutId, TrainingRunId, VersionNumber, if_found,
};
use autoglm_train::{Role, Snapshot};

use super::{
    super::{data::Data, experiences::question},
    chain::{Behind, ExperienceTrace, Learned, LearnedFrom, Trace, Training, VersionTrace},
    nearest::likeness,
};

/// Collects.
pub(super) struct Gatherer<'a> {
    pub(super) data: &'a Data,
    /// Most experiences to show.
    pub(super) shown: usize,
}

impl Gatherer<'_> {
    /// From an answer.
    pub(super) async fn of_interaction(&self, id: InteractionId) -> Result<Trace> {
        let record = self.data.store.interaction(id).await?;
        let recalled = match record.interaction.source {
            AnswerSource::Memory { experience } => Some(self.recalled(experience).await?),
            _ => None,
        };
        let asked = question(&record.interaction.messages).to_owned();
        let chain = self.chain(record.interaction.version, Some(&asked)).await?;
        Ok(Trace { answer: Some(record), recalled, ..chain })
    }

    /// From a version.
    pub(super) async fn of_version(&self, number: VersionNumber) -> Result<Trace> {
        self.chain(number, None).await
    }

    /// From a training run.
    pub(super) async fn of_run(&self, id: TrainingRunId) -> Result<Trace> {
        let run = self.data.store.run(id).await?;
        match self.data.store.versions().await?.into_iter().find(|version| version.run == Some(id)) {
            Some(version) => self.chain(version.number, None).await,
            None => {
                // A run that made nothing still had a parent and a snapshot.
                let chain = self.chain(run.parent, None).await?;
                Ok(Trace { run: Some(run), ..chain })
            }
        }
    }

    /// From a rollout.
    pub(super) async fn of_rollout(&self, id: RolloutId) -> Result<Trace> {
        let rollouts = self.data.store.rollouts().await?;
        let rollout = rollouts.into_iter().find(|rollout| rollout.id == id);
        let rollout = rollout.ok_or_else(|| Error::not_found(format!("no rollout `{id}`")))?;
        let chain = self.chain(rollout.candidate, None).await?;
        Ok(Trace { rollout: Some(rollout), ..chain })
    }

    /// From an experience to the versions that learned from it.
    pub(super) async fn of_experience(&self, id: ExperienceId) -> Result<Trace> {
        let experience = self.data.store.experience(id).await?;
        let versions = self.data.store.versions().await?;
        let mut learned = Learned::bare(&experience);
        learned.behind = Some(self.behind(&experience).await?);
        let mut touched: BTreeSet<VersionNumber> = BTreeSet::new();
        let mut descendants = Vec::new();
        // Parents come before their children.
        for version in &versions {
            let role = self.snapshot(version).await?.and_then(|snapshot| {
                snapshot.examples.iter().find(|example| example.experience == id).map(|example| example.role)
            });
            if let Some((role, snapshot)) = role.zip(version.snapshot) {
                learned.trained.push(Training { version: version.number, role, snapshot });
                touched.insert(version.number);
            } else if touched.contains(&version.parent) {
                descendants.push(version.number);
                touched.insert(version.number);
            }
        }
        let experience = ExperienceTrace { learned, task: experience.task, descendants };
        Ok(Trace { experience: Some(experience), ..Trace::default() })
    }

    async fn recalled(&self, id: ExperienceId) -> Result<Learned> {
        let experience = self.data.store.experience(id).await?;
        let behind = Some(self.behind(&experience).await?);
        Ok(Learned { behind, ..Learned::bare(&experience) })
    }

    /// A version and all that it was trained from, with what they learned from.
    async fn chain(&self, number: VersionNumber, asked: Option<&str>) -> Result<Trace> {
        let lineage = self.data.registry.lineage(number).await?;
        let aliases = self.data.store.aliases().await?;
        let rollouts = self.data.store.rollouts().await?;
        let moves = self.moves(&aliases).await?;
        let mut versions = Vec::with_capacity(lineage.len());
        let mut learned: BTreeMap<ExperienceId, Learned> = BTreeMap::new();
        for version in lineage {
            let snapshot = self.snapshot(&version).await?;
            let examples = snapshot.map(|snapshot| snapshot.examples).unwrap_or_default();
            let new = examples.iter().filter(|example| example.role == Role::New).count();
            let replayed = examples.len() - new;
            for example in examples {
                let Some(snapshot) = version.snapshot else { continue };
                let training = Training { version: version.number, role: example.role, snapshot };
                learned
                    .entry(example.experience)
                    .or_insert_with(|| Learned {
                        id: example.experience,
                        similarity: None,
                        trained: Vec::new(),
                        prompt: example.prompt,
                        target: example.target,
                        behind: None,
                    })
                    .trained
                    .push(training);
            }
            versions.push(self.version(version, (new, replayed), &aliases, &rollouts, &moves).await?);
        }
        let learned_from = match versions.is_empty() {
            true => None,
            false => Some(self.choose(learned, asked).await?),
        };
        Ok(Trace { versions, learned_from, ..Trace::default() })
    }

    async fn version(
        &self,
        version: ModelVersion,
        (new, replayed): (usize, usize),
        aliases: &[(Alias, VersionNumber)],
        rollouts: &[Rollout],
        moves: &[AliasMove],
    ) -> Result<VersionTrace> {
        let number = version.number;
        let made_by = match version.run {
            Some(run) => Some(self.data.store.run(run).await?),
            None => None,
        };
        let names = aliases.iter().filter(|(_, at)| *at == number).map(|(alias, _)| alias.clone());
        let ways = rollouts.iter().filter(|rollout| rollout.candidate == number).cloned();
        let moves = moves.iter().filter(|step| step.to == number || step.from == number).cloned();
        Ok(VersionTrace {
            version,
            aliases: names.collect(),
            made_by,
            new,
            replayed,
            rollouts: ways.collect(),
            moves: moves.collect(),
        })
    }

    /// Every move of every alias, oldest first.
    async fn moves(&self, aliases: &[(Alias, VersionNumber)]) -> Result<Vec<AliasMove>> {
        let mut moves = Vec::new();
        for (alias, _) in aliases {
            moves.extend(self.data.store.alias_history(alias).await?);
        }
        moves.sort_by_key(|step| step.at);
        Ok(moves)
    }

    async fn snapshot(&self, version: &ModelVersion) -> Result<Option<Snapshot>> {
        match version.snapshot {
            Some(hash) => Ok(Some(Snapshot::load(self.data.artifacts.as_ref(), hash).await?)),
            None => Ok(None),
        }
    }

    /// The nearest to what was asked, or the newest where nothing was, with what vouches for them.
    async fn choose(
        &self,
        learned: BTreeMap<ExperienceId, Learned>,
        asked: Option<&str>,
    ) -> Result<LearnedFrom> {
        let count = learned.len();
        // Ids sort by time.
        let mut all: Vec<Learned> = learned.into_values().rev().collect();
        if let Some(asked) = asked {
            let texts: Vec<&str> = all.iter().map(|one| question(&one.prompt)).collect();
            let likeness = likeness(asked, &texts);
            for (one, like) in all.iter_mut().zip(likeness) {
                one.similarity = Some(like);
            }
            all.sort_by(|a, b| b.similarity.unwrap_or(0.0).total_cmp(&a.similarity.unwrap_or(0.0)));
        }
        all.truncate(self.shown);
        for one in &mut all {
            one.behind = match if_found(self.data.store.experience(one.id).await)? {
                Some(experience) => Some(self.behind(&experience).await?),
                None => None,
            };
        }
        Ok(LearnedFrom { count, experiences: all })
    }

    async fn behind(&self, experience: &Experience) -> Result<Behind> {
        let provenance = &experience.provenance;
        let mut feedback = Vec::new();
        for id in &provenance.interactions {
            // An imported experience names interactions of another store.
            if let Some(record) = if_found(self.data.store.interaction(*id).await)? {
                let behind = record.feedback.into_iter().filter(|it| provenance.feedback.contains(&it.id));
                feedback.extend(behind);
            }
        }
        Ok(Behind {
            weight: experience.weight,
            verifier: provenance.verifier.clone(),
            held_out: experience.held_out,
            interactions: provenance.interactions.clone(),
            feedback,
        })
    }
}
