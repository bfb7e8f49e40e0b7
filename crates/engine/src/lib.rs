//! Tensors to text and back: model families, tokens, generation, LoRA, gradients.

mod config;
mod error;

pub use config::{Family, ModelConfig, RopeConfig, RopeScaling};
pub use error::{EngineError, Result};
