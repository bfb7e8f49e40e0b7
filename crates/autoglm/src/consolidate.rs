//! One turn of learning: from what is remembered to a version with a verdict.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use autoglm_domain::{
    AdapterHost as _, Embedder, Event, Experience, ModelVersion, Outcome, Result, Rollout, RolloutState,
    RunState, Timestamp, TrainingRun, Trigger, Verdict, VersionNumber,
};
use autoglm_registry::NewVersion;
use autoglm_rollout::{Finished, Gate, NormalisedMatch, Scorer, Suites, promote_champion};
use autoglm_train::{Budget, Finished as Trained, Plan, PlanConfig, RunRequest, Snapshot, Strategy};
use tokio::sync::oneshot;

use crate::{learning_loop::champion, node::Parts};

/// Time between two looks whether another candidate has ended.
const OTHERS_TURN: Duration = Duration::from_secs(1);

/// A plan with the version that it starts from.
pub(crate) struct Consolidation {
    trigger: Trigger,
    parent: VersionNumber,
    plan: Plan,
    seed: u64,
    note: Option<String>,
}

impl Consolidation {
    /// New experiences with replay, on top of the champion. Scores that are high enough to merge call for
    /// [`Consolidation::merge`].
    pub(crate) async fn plan(parts: &Parts, trigger: Trigger) -> Result<Self> {
        match trigger {
            Trigger::ScoreAbove { .. } => Self::merge(parts, trigger).await,
            _ => {
                let forgetful = forgetful_candidates(parts).await?;
                let config = parts.settings.train.plan.more_careful(forgetful);
                Self::with(parts, trigger, &config).await
            }
        }
    }

    /// Everything verified, the new no more often than the old, on top of the champion.
    pub(crate) async fn merge(parts: &Parts, trigger: Trigger) -> Result<Self> {
        let mut config = parts.settings.train.plan.clone();
        if config.strategy == Strategy::Replay {
            config.strategy = Strategy::Joint;
        }
        Self::with(parts, trigger, &config).await
    }

    async fn with(parts: &Parts, trigger: Trigger, config: &PlanConfig) -> Result<Self> {
        let parent = champion(parts);
        let learned = autoglm_train::learned_by(&*parts.store, &*parts.artifacts, parent).await?;
        let pool = parts.memory.training_pool().iter().map(|experience| (**experience).clone()).collect();
        let (new, replayable) = autoglm_train::divide(pool, &learned);
        let seed = parts.ids.next_uuid().as_u64_pair().1;
        let mut plan = autoglm_train::plan(new, replayable, config, seed)?;
        if config.prefer_corrections {
            autoglm_train::prefer_corrections(&*parts.store, &mut plan).await?;
        }
        Ok(Self { trigger, parent, plan, seed, note: None })
    }

    /// The same with other examples, as a person would submit a candidate of their own.
    pub(crate) fn of(parent: VersionNumber, plan: Plan, seed: u64, note: &str) -> Self {
        Self { trigger: Trigger::Manual, parent, plan, seed, note: Some(note.to_owned()) }
    }

    /// Trains, registers the result together with the end of its run, and makes it resident.
    pub(crate) async fn run(&self, parts: &Parts) -> Result<ModelVersion> {
        self.run_for(parts, &parts.settings.train.budget).await
    }

    /// [`Consolidation::run`] within another budget.
    pub(crate) async fn run_for(&self, parts: &Parts, budget: &Budget) -> Result<ModelVersion> {
        let hyper = autoglm_train::fill(&parts.settings.train.hyper, budget, &self.plan);
        let request = RunRequest {
            trigger: self.trigger.clone(),
            base: parts.base,
            parent: self.parent,
            parent_adapter: parts.registry.adapter(self.parent).await?,
            plan: self.plan.clone(),
            hyper,
            seed: self.seed,
        };
        let finished = parts.runner.run(request, Arc::clone(&parts.trainer)).await?;
        self.register(parts, finished).await
    }

    /// Goes on with a run that the end of the last process cut short, as [`Consolidation::run`] would have. One whose
    /// parent no longer answers users, or that was of another base model, is given up: its trigger still holds.
    pub(crate) async fn resume(parts: &Parts, run: TrainingRun) -> Result<Option<(Self, ModelVersion)>> {
        if run.parent != champion(parts) || run.base != parts.base {
            parts.runner.abandon(&run).await?;
            return Ok(None);
        }
        let snapshot = Snapshot::load(&*parts.artifacts, run.snapshot).await?;
        let (trigger, parent, seed) = (run.trigger.clone(), run.parent, run.seed);
        let this = Self { trigger, parent, plan: Plan::of(snapshot), seed, note: None };
        let adapter = parts.registry.adapter(parent).await?;
        let handle = parts.runner.resume(run, adapter, Arc::clone(&parts.trainer)).await?;
        let version = this.register(parts, handle.wait().await?).await?;
        Ok(Some((this, version)))
    }

    /// Registers what was trained together with the end of its run, and makes it resident.
    async fn register(&self, parts: &Parts, finished: Trained) -> Result<ModelVersion> {
        let run = finished.run;
        let new = NewVersion {
            adapter: finished.trained.adapter.clone(),
            parent: self.parent,
            run: Some(run.id),
            base: parts.base,
            snapshot: Some(run.snapshot),
            hyper: Some(run.hyper.clone()),
            metrics: run.metrics.clone(),
            note: self.note.clone(),
        };
        let registered = parts
            .leaders_registry
            .register_with(new, |version| {
                vec![Event::Run(Box::new(parts.runner.succeeded(&run, version.number)))]
            })
            .await;
        match registered {
            Ok(version) => {
                parts.runner.forget();
                parts.residents.make_room(parts);
                parts.engine.load(version.number, &finished.trained.adapter).await?;
                Ok(version)
            }
            Err(error) => {
                parts.runner.fail(&run, &error.to_string()).await?;
                Err(error.into())
            }
        }
    }

    /// Puts the version through the gate; a verdict to promote has moved the alias when this returns. `None` where the
    /// version goes on on live traffic.
    pub(crate) async fn prove(
        &self,
        parts: &Arc<Parts>,
        candidate: VersionNumber,
    ) -> Result<Option<Verdict>> {
        // An announced model may have set out while this one was trained.
        while parts.store.rollouts().await?.iter().any(Rollout::is_unfinished) {
            tokio::time::sleep(OTHERS_TURN).await;
        }
        prove(parts, candidate, self.seed).await
    }
}

/// Puts `candidate` through the gate against the champion, again where the champion moved meanwhile.
pub(crate) async fn prove(
    parts: &Arc<Parts>,
    candidate: VersionNumber,
    seed: u64,
) -> Result<Option<Verdict>> {
    prove_telling(parts, candidate, seed, None).await
}

/// The same, telling `begun` of the rollout as soon as it is on record.
pub(crate) async fn prove_telling(
    parts: &Arc<Parts>,
    candidate: VersionNumber,
    seed: u64,
    mut begun: Option<oneshot::Sender<Rollout>>,
) -> Result<Option<Verdict>> {
    loop {
        let champion = champion(parts);
        let scan = parts.registry.scan(candidate).await?;
        let suites = suites(parts, champion).await?;
        let stage = parts.rollouts.begin(candidate, champion).await?;
        if let Some(begun) = begun.take() {
            // Whoever asked may have gone.
            let _ = begun.send(stage.rollout().clone());
        }
        let scorer = AnswerScorer { embedder: Arc::clone(&parts.embedder) };
        let gate = Gate {
            generator: &*parts.engine,
            scorer: &scorer,
            cache: &parts.answers,
            clock: &*parts.clock,
            config: &parts.settings.rollout.gate,
        };
        match parts.rollouts.run(stage, gate, &suites, &scan, seed, promote_champion).await? {
            Finished::Decided(decided) => {
                parts.residents.follow(parts).await?;
                if decided.verdict.outcome != Outcome::Promote {
                    parts.engine.unload(candidate);
                }
                tracing::info!(%candidate, %champion, outcome = ?decided.verdict.outcome, "{}", decided.verdict.reason);
                return Ok(Some(decided.verdict));
            }
            Finished::OnTraffic(rollout, verdict) => {
                parts.traffic.follow(&rollout);
                parts.proving.begun();
                tracing::info!(%candidate, %champion, "on live traffic now: {}", verdict.reason);
                return Ok(None);
            }
            Finished::Overtaken(_) => parts.registry.refresh().await?,
        }
    }
}

/// How many candidates in a row the gate kept from replacing this champion because they forgot. Those that somebody
/// submitted say nothing about the loop's own plans.
async fn forgetful_candidates(parts: &Parts) -> Result<usize> {
    let champion = champion(parts);
    let mut rollouts = parts.store.rollouts().await?;
    rollouts.sort_by_key(|rollout| std::cmp::Reverse(rollout.at));
    let mut count = 0;
    for rollout in rollouts.iter().take_while(|rollout| rollout.champion == champion) {
        let RolloutState::Decided { verdict } = &rollout.state else { continue };
        let forgot = verdict.evidence.retention.as_ref().is_some_and(|paired| paired.difference < 0.0);
        let submitted = parts.store.version(rollout.candidate).await?.note.is_some();
        if !submitted && forgot && verdict.outcome != Outcome::Promote {
            count += 1;
        }
    }
    Ok(count)
}

/// Held-out experiences of what this champion did not learn.
pub(crate) async fn held_out_new(parts: &Parts) -> Result<usize> {
    Ok(suites(parts, champion(parts)).await?.new_skill.len())
}

/// Held-out experiences: those that came after the champion's data are what is new.
async fn suites(parts: &Parts, champion: VersionNumber) -> Result<Suites> {
    let learned_until = learned_until(parts, champion).await?;
    let held_out: Vec<Experience> =
        parts.memory.held_out().into_values().flatten().map(|experience| (*experience).clone()).collect();
    let new: BTreeSet<_> = held_out
        .iter()
        .filter(|experience| experience.at > learned_until)
        .map(|experience| experience.id)
        .collect();
    Ok(Suites::split(held_out, |experience| new.contains(&experience.id)))
}

/// When the data that `version` learned from was taken; the beginning of time for the base model.
async fn learned_until(parts: &Parts, version: VersionNumber) -> Result<Timestamp> {
    let runs = parts.store.runs().await?;
    let made =
        runs.iter().filter(|run| matches!(run.state, RunState::Succeeded { version: v } if v == version));
    Ok(made.map(|run| run.at).max().unwrap_or(Timestamp(i64::MIN)))
}

/// Words up to which a target is a label, which is right or wrong.
const LABEL_WORDS: usize = 8;

/// Labels are compared, longer answers graded by meaning with the thresholds of the assessments.
struct AnswerScorer {
    embedder: Arc<dyn Embedder>,
}

impl Scorer for AnswerScorer {
    fn score(&self, experience: &Experience, answer: &str) -> f64 {
        let exact = NormalisedMatch.score(experience, answer);
        if exact >= 1.0 || experience.target.split_whitespace().count() <= LABEL_WORDS {
            return exact;
        }
        match self.embedder.embed(&[&experience.target, answer]).as_deref() {
            Ok([target, answer]) => {
                let cosine: f32 = target.iter().zip(answer).map(|(a, b)| a * b).sum();
                if cosine > 0.85 {
                    0.9
                } else if cosine > 0.6 {
                    0.7
                } else {
                    0.4
                }
            }
            _ => 0.0,
        }
    }
}
