//! Tensors to text and back: model families, generation, LoRA, gradients.

mod adapter;
mod config;
mod error;
mod gradients;
mod kernels;
mod learner;
mod model;
mod optimizer;
mod pretrain;
mod rope;
mod weights;

pub use adapter::AdapterWeights;
pub use config::{Family, ModelConfig, RopeConfig, RopeScaling};
pub use error::{EngineError, Result};
pub use learner::Courtesy;
pub use model::{KvCache, Model, SequenceInput, WantedLogits};
pub use pretrain::{PretrainOptions, PretrainProgress, pretrain};
