//! Tensors to text and back: model families, tokens, generation, LoRA, gradients.

mod batcher;
mod codec;
mod config;
mod decoder;
mod error;
mod hub;
mod rope;
mod sampler;
mod serving;
mod template;
mod text_stream;
mod tokenizer;

pub use codec::{EncodedExample, TextCodec};
pub use config::{Family, ModelConfig, RopeConfig, RopeScaling};
pub use decoder::{Decoder, SequenceStep};
pub use error::{EngineError, Result};
pub use hub::resolve_model;
pub use rope::rope_frequencies;
pub use sampler::{Sampled, Sampler, check_sampling};
pub use serving::{ServingConfig, ServingEngine};
pub use template::ChatTemplate;
pub use text_stream::{Piece, TextStream};
pub use tokenizer::{Tokenizer, train_bpe};
