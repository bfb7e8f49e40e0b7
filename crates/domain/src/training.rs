//! One training run.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{ContentHash, PatternId, Timestamp, TrainingRunId, VersionNumber};

/// Why a run was started.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Trigger {
    /// Mean score of the last assessed interactions rose above the ceiling: merge what was learned.
    ScoreAbove {
        /// The mean, 0 to 100.
        mean: f64,
    },
    /// Mean score fell below the floor.
    ScoreBelow {
        /// The mean, 0 to 100.
        mean: f64,
    },
    /// Enough new experiences.
    NewExperiences {
        /// How many.
        count: u64,
    },
    /// A pattern of failures grows.
    GrowingPattern {
        /// Which.
        pattern: PatternId,
        /// Its size.
        count: u64,
    },
    /// The schedule.
    Schedule,
    /// A person asked for it.
    Manual,
}

/// Hyper-parameters of a LoRA run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HyperParameters {
    /// Rank of the adapter's matrices.
    pub rank: u32,
    /// Scale numerator; the delta is multiplied by `alpha / rank`.
    pub alpha: f32,
    /// Multiply the delta by `alpha / √rank` instead, which keeps the step's size over ranks (rsLoRA,
    /// Kalajdzievski 2023). Rank, scale, projections and layers are those of a fresh adapter; a run that goes on
    /// from an adapter keeps that adapter's.
    pub use_rslora: bool,
    /// Projections that get an adapter (`q_proj`, …).
    pub target_modules: Vec<String>,
    /// Blocks that get an adapter, counted from 0; empty is all of them.
    pub layers_to_transform: Vec<u32>,
    /// Also train the token embedding (PEFT `modules_to_save`).
    pub train_embedding: bool,
    /// Also train the norm scales (PEFT `modules_to_save`).
    pub train_norms: bool,
    /// Peak learning rate.
    pub learning_rate: f32,
    /// Share of the steps spent warming up linearly; the rest decays as a cosine to a tenth.
    pub warmup_share: f32,
    /// AdamW's decoupled weight decay.
    pub weight_decay: f32,
    /// Gradient norm limit; 0 is off.
    pub max_grad_norm: f32,
    /// Tokens in a batch, prompts and targets together.
    pub batch_tokens: u32,
    /// Batches whose gradients are summed before a step.
    pub accumulation: u32,
    /// Optimiser steps; when 0, `passes` over the data decide.
    pub steps: u32,
    /// Passes over the data when `steps` is 0.
    pub passes: f32,
    /// Stop after this many seconds of training, whatever the steps; 0 is off.
    pub max_seconds: f32,
    /// Share of a prompt's tokens, 0 to 0.9, that are replaced by random ones each time that an example is seen
    /// (SwitchOut, Wang et al. 2018), against learning a few examples by heart; 0 is off.
    pub prompt_noise: f32,
    /// How strongly preferences hold the model to the reference (DPO's beta), above 0.
    pub preference_beta: f32,
    /// Weight of the preferred answer's cross-entropy beside a preference (Pang et al. 2024); 0 is DPO alone.
    pub preference_sft: f32,
    /// Keep only the input of each block and compute the rest of the block again on the way back: the same
    /// gradients for a third more arithmetic and a fraction of the memory (Chen et al. 2016).
    pub gradient_checkpointing: bool,
}

impl Default for HyperParameters {
    fn default() -> Self {
        Self {
            rank: 16,
            alpha: 32.0,
            use_rslora: false,
            target_modules: ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
                .map(String::from)
                .to_vec(),
            layers_to_transform: Vec::new(),
            train_embedding: false,
            train_norms: false,
            learning_rate: 1e-3,
            warmup_share: 0.05,
            weight_decay: 0.0,
            max_grad_norm: 1.0,
            batch_tokens: 1024,
            accumulation: 1,
            steps: 0,
            passes: 3.0,
            max_seconds: 0.0,
            prompt_noise: 0.0,
            preference_beta: 0.1,
            preference_sft: 1.0,
            gradient_checkpointing: false,
        }
    }
}

/// How far a run is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum RunState {
    /// Planned, snapshot taken.
    Planned,
    /// Training.
    Running,
    /// Registered as a version.
    Succeeded {
        /// Which.
        version: VersionNumber,
    },
    /// Ended with an error.
    Failed {
        /// What went wrong.
        reason: String,
    },
    /// Stopped by a person, or found unfinished at start-up.
    Cancelled {
        /// Why.
        reason: String,
    },
}

/// One training run; recorded again at every change of state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainingRun {
    /// Its id.
    pub id: TrainingRunId,
    /// When it was planned.
    pub at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// Why.
    pub trigger: Trigger,
    /// Hash of the base model.
    pub base: ContentHash,
    /// The version whose adapter it starts from; 0 is the bare base model.
    pub parent: VersionNumber,
    /// Data-set snapshot.
    pub snapshot: ContentHash,
    /// Experiences in the snapshot that no earlier promoted version trained on.
    pub new_experiences: u64,
    /// Experiences replayed.
    pub replayed_experiences: u64,
    /// Name of the strategy, e.g. `replay`.
    pub strategy: String,
    /// Hyper-parameters.
    pub hyper: HyperParameters,
    /// Seed of everything random in it.
    pub seed: u64,
    /// Loss and the like at the end.
    pub metrics: BTreeMap<String, f64>,
    /// How far it is.
    #[serde(flatten)]
    pub state: RunState,
}
