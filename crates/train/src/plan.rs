//! What a run trains on.
//!
//! Experiences come in, divided into what is new and what was learned before ([`divide`]); out comes a
//! [`Plan`]: the examples with their weights and frequencies, all that is new and, against forgetting, the rest.
//!
//! A pass sees each new example once and of the replayed ones as many as a ratio says, another part of them in
//! every pass. So a run costs what its new examples cost, however much was learned before, and yet sees all
//! of it: replaying one fixed sample instead teaches the sample by heart and forgets what is not in it
//! (docs/experiments/0004-demo.md).

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    str::FromStr,
};

use autoglm_domain::{
    ArtifactStore, ChatMessage, ClusterId, Experience, ExperienceId, Objective, Store, TrainExample,
    VersionNumber,
};
use serde::{Deserialize, Serialize};

use crate::{Error, Result, Snapshot, replay::sample};

/// What is trained on besides the new experiences.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// Everything verified earlier, in a fixed proportion to what is new.
    #[default]
    Replay,
    /// Nothing: the lower bound, which forgets.
    Naive,
    /// Everything verified earlier: the upper bound, which costs more with every run.
    Joint,
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Replay => "replay",
            Self::Naive => "naive",
            Self::Joint => "joint",
        })
    }
}

impl FromStr for Strategy {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        match text {
            "replay" => Ok(Self::Replay),
            "naive" => Ok(Self::Naive),
            "joint" => Ok(Self::Joint),
            _ => Err(Error::Strategy(text.to_owned())),
        }
    }
}

/// How a plan is made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PlanConfig {
    /// `replay`, `naive` or `joint`.
    pub strategy: Strategy,
    /// Replayed examples that a pass sees for each new one, as long as there are so many.
    pub replay_per_new: f64,
    /// Fewest replayed examples that a pass sees, as long as there are so many: a run over a handful of new
    /// ones would otherwise forget the rest.
    pub min_replay: usize,
    /// Smallest share of a pass that is replayed, 0 to 1 (exclusive). Where fewer were learned before than come
    /// new, a pass sees each of them several times, so that they are not outnumbered.
    pub min_replay_share: f64,
    /// Most replayed examples in a run; where more were learned before, a stratified sample of them.
    pub max_replay: usize,
    /// Whether clusters, and within a cluster its targets, are seen alike often, instead of every example, among
    /// the new ones and among the replayed.
    pub class_balance: bool,
    /// Most times that a pass sees an example.
    pub max_frequency: f32,
    /// Whether an answer that was corrected is trained against, as a preference of the correction over it (DPO); see
    /// `train.hyper.preference_beta`.
    pub prefer_corrections: bool,
    /// Share of a replayed example's loss, 0 to 1, that is the divergence from the parent version instead of
    /// cross-entropy: what is replayed then keeps to what the parent would say.
    pub distill_share: f32,
    /// Smallest weight of an example.
    pub min_weight: f32,
    /// Largest weight of an example.
    pub max_weight: f32,
}

impl Default for PlanConfig {
    fn default() -> Self {
        Self {
            strategy: Strategy::Replay,
            replay_per_new: 3.0,
            min_replay: 200,
            min_replay_share: 0.5,
            max_replay: 20_000,
            class_balance: true,
            max_frequency: 20.0,
            prefer_corrections: false,
            distill_share: 0.0,
            min_weight: 0.1,
            max_weight: 4.0,
        }
    }
}

impl PlanConfig {
    fn check(&self) -> Result<()> {
        let refuse = |name, value: String, allowed| Err(Error::Setting { name, value, allowed });
        if !(self.replay_per_new >= 0.0 && self.replay_per_new.is_finite()) {
            return refuse("plan.replay_per_new", self.replay_per_new.to_string(), "0 or more");
        }
        if !(0.0..1.0).contains(&self.min_replay_share) {
            let value = self.min_replay_share.to_string();
            return refuse("plan.min_replay_share", value, "0 or more and below 1");
        }
        if !(self.max_frequency >= 1.0 && self.max_frequency.is_finite()) {
            return refuse("plan.max_frequency", self.max_frequency.to_string(), "1 or more");
        }
        if !(0.0..=1.0).contains(&self.distill_share) {
            return refuse("plan.distill_share", self.distill_share.to_string(), "between 0 and 1");
        }
        if !(self.min_weight > 0.0 && self.min_weight.is_finite()) {
            return refuse("plan.min_weight", self.min_weight.to_string(), "above 0");
        }
        if !(self.max_weight >= self.min_weight && self.max_weight.is_finite()) {
            return refuse("plan.max_weight", self.max_weight.to_string(), "`plan.min_weight` or more");
        }
        Ok(())
    }

    /// The same after `forgetful` candidates in a row that forgot more than the gate allows: each halves the part
    /// of what is new, twice at most, so that learning goes on in smaller steps instead of failing the
    /// same way again.
    #[must_use]
    pub fn more_careful(&self, forgetful: usize) -> Self {
        #[allow(clippy::cast_precision_loss, reason = "a handful")]
        let factor = 2_f64.powi(forgetful.min(MOST_HALVINGS) as i32);
        Self {
            replay_per_new: self.replay_per_new * factor,
            min_replay_share: 1.0 - (1.0 - self.min_replay_share) / factor,
            ..self.clone()
        }
    }

    /// How many experiences may be replayed.
    fn most_replayed(&self) -> usize {
        match self.strategy {
            Strategy::Naive => 0,
            Strategy::Replay => self.max_replay,
            Strategy::Joint => usize::MAX,
        }
    }

    /// How many of the `replayed` examples a pass sees, repetitions counted. Without anything new the run is there
    /// to consolidate, and sees them all.
    fn replay_sightings(&self, new: usize, replayed: usize) -> f64 {
        #[allow(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
        let (new, pool, fewest) = (new as f64, replayed as f64, self.min_replay as f64);
        if self.strategy != Strategy::Replay || new == 0.0 {
            return pool;
        }
        let wanted = (new * self.replay_per_new).max(fewest).min(pool);
        wanted.max(new * self.min_replay_share / (1.0 - self.min_replay_share))
    }
}

/// How often [`PlanConfig::more_careful`] halves the part of what is new at most.
const MOST_HALVINGS: usize = 2;

/// Whether an example is learned or kept from being forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The parent version did not learn it.
    New,
    /// Verified earlier.
    Replay,
}

/// One example of a plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlannedExample {
    /// The experience it is.
    pub experience: ExperienceId,
    /// Why it is there.
    pub role: Role,
    /// Weight of its loss.
    pub weight: f32,
    /// How often a pass sees it.
    #[serde(default = "once", skip_serializing_if = "is_once")]
    pub frequency: f32,
    /// The conversation up to the answer.
    pub prompt: Vec<ChatMessage>,
    /// The answer to learn.
    pub target: String,
    /// What is minimised.
    #[serde(default, skip_serializing_if = "is_plain")]
    pub objective: Objective,
}

/// The objective that a snapshot does not write down.
fn is_plain(objective: &Objective) -> bool {
    *objective == Objective::CrossEntropy
}

/// The frequency that a snapshot does not write down.
const fn once() -> f32 {
    1.0
}

#[allow(
    clippy::trivially_copy_pass_by_ref,
    clippy::float_cmp,
    reason = "the form that serde calls; only the value that is read back when it is left out may be left out"
)]
fn is_once(frequency: &f32) -> bool {
    *frequency == once()
}

/// What a run trains on, in an order that does not depend on how it was found: new before replayed, each
/// by id.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The strategy that made it.
    pub strategy: Strategy,
    /// The examples.
    pub examples: Vec<PlannedExample>,
    /// The new experiences among them.
    pub new_ids: Vec<ExperienceId>,
    /// The replayed ones.
    pub replay_ids: Vec<ExperienceId>,
}

impl Plan {
    /// The plan that a snapshot was taken of.
    pub fn of(snapshot: Snapshot) -> Self {
        let ids = |role: Role| {
            let of_role = snapshot.examples.iter().filter(|example| example.role == role);
            of_role.map(|example| example.experience).collect()
        };
        let (new_ids, replay_ids) = (ids(Role::New), ids(Role::Replay));
        Self { strategy: snapshot.header.strategy, new_ids, replay_ids, examples: snapshot.examples }
    }

    /// The examples as the trainer takes them.
    pub fn train_examples(&self) -> Vec<TrainExample> {
        let example = |it: &PlannedExample| TrainExample {
            prompt: it.prompt.clone(),
            target: it.target.clone(),
            weight: it.weight,
            frequency: it.frequency,
            objective: it.objective.clone(),
        };
        self.examples.iter().map(example).collect()
    }
}

/// Plans a run over `new` experiences and a `pool` of those verified earlier. Experiences without a
/// positive weight are left out, and so are those of the pool that are new as well. Same input in any
/// order, same seed: same plan.
///
/// Errors with [`Error::HeldOut`] when any experience is held out, and [`Error::Nothing`] when none is left.
pub fn plan(new: Vec<Experience>, pool: Vec<Experience>, config: &PlanConfig, seed: u64) -> Result<Plan> {
    config.check()?;
    let given = new.len() + pool.len();
    if let Some(held_out) = new.iter().chain(&pool).find(|experience| experience.held_out) {
        return Err(Error::HeldOut(held_out.id));
    }
    let new = trainable(new, &BTreeSet::new());
    let new_ids: Vec<ExperienceId> = new.iter().map(|experience| experience.id).collect();
    let pool = trainable(pool, &new_ids.iter().copied().collect());
    let replayed = sample(pool, config.most_replayed(), seed);
    let replay_ids: Vec<ExperienceId> = replayed.iter().map(|experience| experience.id).collect();
    if new.is_empty() && replayed.is_empty() {
        return Err(Error::Nothing { given });
    }
    #[allow(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    let sightings = [new.len() as f64, config.replay_sightings(new.len(), replayed.len())];
    let mut examples = Vec::with_capacity(new_ids.len() + replay_ids.len());
    for (role, experiences, sightings) in
        [(Role::New, new, sightings[0]), (Role::Replay, replayed, sightings[1])]
    {
        let frequencies = frequencies(&experiences, sightings, config);
        let objective = match role {
            Role::Replay if config.distill_share > 0.0 => Objective::Distill { share: config.distill_share },
            _ => Objective::CrossEntropy,
        };
        for (experience, frequency) in experiences.into_iter().zip(frequencies) {
            examples.push(PlannedExample {
                experience: experience.id,
                role,
                weight: experience.weight.clamp(config.min_weight, config.max_weight),
                frequency,
                prompt: experience.prompt,
                target: experience.target,
                objective: objective.clone(),
            });
        }
    }
    Ok(Plan { strategy: config.strategy, examples, new_ids, replay_ids })
}

/// Those with a positive weight that are not in `except`, each once, by id.
fn trainable(experiences: Vec<Experience>, except: &BTreeSet<ExperienceId>) -> Vec<Experience> {
    let mut kept: Vec<Experience> = experiences
        .into_iter()
        .filter(|experience| experience.weight > 0.0 && experience.weight.is_finite())
        .filter(|experience| !except.contains(&experience.id))
        .collect();
    kept.sort_by_key(|experience| experience.id);
    kept.dedup_by_key(|experience| experience.id);
    kept
}

/// How far the frequencies of a balanced plan may differ from those of an even one, as a factor: what is very
/// rare would otherwise be learned by heart.
const MOST_BALANCE: f64 = 4.0;

/// How often a pass sees each of `experiences`, `sightings` in all: all alike, or balanced over clusters and the
/// targets within them.
fn frequencies(experiences: &[Experience], sightings: f64, config: &PlanConfig) -> Vec<f32> {
    #[allow(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    let even = sightings / experiences.len().max(1) as f64;
    #[allow(clippy::cast_possible_truncation, reason = "frequencies are small")]
    let bounded = |frequency: f64| (frequency as f32).min(config.max_frequency);
    if !config.class_balance {
        return vec![bounded(even); experiences.len()];
    }
    let mut strata: BTreeMap<ClusterId, BTreeMap<&str, f64>> = BTreeMap::new();
    for experience in experiences {
        *strata.entry(experience.cluster).or_default().entry(&experience.target).or_default() += 1.0;
    }
    #[allow(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    let balanced = |experience: &Experience| {
        let targets = strata.get(&experience.cluster)?;
        let size = targets.get(experience.target.as_str())?;
        Some(sightings / strata.len() as f64 / targets.len() as f64 / size)
    };
    let wished: Vec<f64> = experiences
        .iter()
        .map(|experience| {
            balanced(experience).unwrap_or(even).clamp(even / MOST_BALANCE, even * MOST_BALANCE)
        })
        .collect();
    // The clamp moved the sum.
    let factor = sightings / wished.iter().sum::<f64>().max(f64::MIN_POSITIVE);
    wished.into_iter().map(|frequency| bounded(frequency * factor)).collect()
}

/// The experiences that a version learned from, itself or through those it was trained from.
pub type Learned = BTreeSet<ExperienceId>;

/// What `version` and its ancestors trained on, read from their snapshots; nothing for the base model.
pub async fn learned_by(
    store: &dyn Store,
    artifacts: &dyn ArtifactStore,
    version: VersionNumber,
) -> Result<Learned> {
    let mut learned = Learned::new();
    let mut next = version;
    while next != VersionNumber::BASE {
        let version = store.version(next).await?;
        if let Some(hash) = version.snapshot {
            let snapshot = Snapshot::load(artifacts, hash).await?;
            learned.extend(snapshot.examples.iter().map(|example| example.experience));
        }
        if version.parent >= next {
            let message = format!("{next} names {} as its parent", version.parent);
            return Err(autoglm_domain::Error::internal(message).into());
        }
        next = version.parent;
    }
    Ok(learned)
}

/// Divides experiences into new ones and those that were `learned`, leaving out what is held out.
pub fn divide(experiences: Vec<Experience>, learned: &Learned) -> (Vec<Experience>, Vec<Experience>) {
    experiences
        .into_iter()
        .filter(|experience| !experience.held_out)
        .partition(|experience| !learned.contains(&experience.id))
}
