//! What a run trains on.
//!
//! Experiences come in, divided into what is new and what was learned before ([`divide`]); out comes a
//! [`Plan`]: the examples with their weights, all that is new and, against forgetting, a share of the rest.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    str::FromStr,
};

use autoglm_domain::{
    ArtifactStore, ChatMessage, Experience, ExperienceId, Store, TrainExample, VersionNumber,
};
use serde::{Deserialize, Serialize};

use crate::{Error, Result, Snapshot, replay::sample};

/// What is trained on besides the new experiences.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// A stratified sample of everything verified earlier.
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
    /// Replayed experiences for each new one.
    pub replay_per_new: f64,
    /// Fewest replayed experiences, as far as there are so many: a run over a handful of new ones would
    /// otherwise forget the rest.
    pub min_replay: usize,
    /// Most replayed experiences.
    pub max_replay: usize,
    /// Whether rare targets weigh more and frequent ones less, so that what came last does not crowd out
    /// what came before.
    pub class_balance: bool,
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
            max_replay: 20_000,
            class_balance: true,
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
        if !(self.min_weight > 0.0 && self.min_weight.is_finite()) {
            return refuse("plan.min_weight", self.min_weight.to_string(), "above 0");
        }
        if !(self.max_weight >= self.min_weight && self.max_weight.is_finite()) {
            return refuse("plan.max_weight", self.max_weight.to_string(), "`plan.min_weight` or more");
        }
        Ok(())
    }

    /// How many to replay. Without anything new the run is there to consolidate, and replays all it may.
    fn replay_count(&self, new: usize, pool: usize) -> usize {
        #[allow(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "counts are far below 2^52, the ratio is checked, and the cast saturates"
        )]
        let wanted = (new as f64 * self.replay_per_new).ceil() as usize;
        match (self.strategy, new) {
            (Strategy::Naive, _) => 0,
            (Strategy::Joint, _) => pool,
            (Strategy::Replay, 0) => pool.min(self.max_replay),
            (Strategy::Replay, _) => wanted.max(self.min_replay).min(self.max_replay).min(pool),
        }
    }
}

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
    /// The conversation up to the answer.
    pub prompt: Vec<ChatMessage>,
    /// The answer to learn.
    pub target: String,
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
    /// The examples as the trainer takes them.
    pub fn train_examples(&self) -> Vec<TrainExample> {
        let example = |it: &PlannedExample| TrainExample {
            prompt: it.prompt.clone(),
            target: it.target.clone(),
            weight: it.weight,
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
    let replayed = sample(pool, config.replay_count(new.len(), usize::MAX), seed);
    let replay_ids: Vec<ExperienceId> = replayed.iter().map(|experience| experience.id).collect();
    if new.is_empty() && replayed.is_empty() {
        return Err(Error::Nothing { given });
    }
    let roles = [(Role::New, new), (Role::Replay, replayed)];
    let balance = class_balance(roles.iter().flat_map(|(_, experiences)| experiences), config);
    let mut examples = Vec::with_capacity(new_ids.len() + replay_ids.len());
    for (role, experiences) in roles {
        for experience in experiences {
            let factor = balance.get(&experience.target).copied().unwrap_or(1.0);
            examples.push(PlannedExample {
                experience: experience.id,
                role,
                weight: (experience.weight * factor).clamp(config.min_weight, config.max_weight),
                prompt: experience.prompt,
                target: experience.target,
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

/// A factor for each target: the mean size of a class over its own, so that all classes weigh the same.
fn class_balance<'a>(
    experiences: impl Iterator<Item = &'a Experience>,
    config: &PlanConfig,
) -> BTreeMap<String, f32> {
    if !config.class_balance {
        return BTreeMap::new();
    }
    let mut sizes: BTreeMap<String, usize> = BTreeMap::new();
    for experience in experiences {
        *sizes.entry(experience.target.clone()).or_default() += 1;
    }
    #[allow(clippy::cast_precision_loss, reason = "counts are far below 2^24")]
    let mean = sizes.values().sum::<usize>() as f32 / sizes.len().max(1) as f32;
    #[allow(clippy::cast_precision_loss, reason = "counts are far below 2^24")]
    let factor = |size: usize| mean / size as f32;
    sizes.into_iter().map(|(target, size)| (target, factor(size))).collect()
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
