//! Tensors to text and back: model families, tokens, generation, LoRA, gradients.
//!
//! In: a model as a folder in Hugging Face's form or as a GGUF file, requests, adapters, training jobs. Out: text with
//! log-probabilities, embeddings, trained adapters in PEFT's format. The base weights of a [`Model`] are
//! loaded once and shared by the [`ServingEngine`], the [`ModelEmbedder`] and the [`LoraTrainer`]; versions
//! are small sets of changes to them. Only this crate knows tensors.

#[cfg(feature = "accelerated")]
mod accelerated;
mod adapter;
mod batcher;
mod checkpoint;
mod codec;
mod config;
mod constraint;
mod decoder;
mod device;
mod embedder;
mod error;
mod gguf;
mod gradients;
mod hub;
mod kernels;
mod learner;
mod loss;
mod model;
mod optimizer;
mod paged_cache;
mod peft;
mod perplexity;
mod pretrain;
mod prompt_tokens;
mod resident;
mod rope;
mod sampler;
mod score;
mod scratch;
mod serving;
mod template;
mod text_stream;
mod threads;
mod token_bytes;
mod tokenizer;
mod tools;
mod trainer;
pub mod trial;
mod weights;

#[cfg(feature = "accelerated")]
pub use accelerated::{AcceleratedModel, DeviceAdapter, DevicePage};
pub use codec::{EncodedExample, TextCodec};
pub use config::{Family, ModelConfig, RopeConfig, RopeScaling};
pub use decoder::{Decoder, SequenceStep};
pub use device::ComputeDevice;
pub use embedder::ModelEmbedder;
pub use error::{EngineError, Result};
pub use gguf::{Conversion, TensorType, convert};
pub use hub::resolve_model;
pub use kernels::{KvPage, PAGE_TOKENS, WeightFormat};
pub use learner::Courtesy;
pub use model::{KvCache, Model, SequenceInput, WantedLogits};
pub use paged_cache::PagedCache;
pub use perplexity::{Perplexity, perplexity};
pub use pretrain::{PretrainOptions, PretrainProgress, pretrain};
pub use resident::ResidentAdapter;
pub use rope::rope_frequencies;
pub use sampler::{Sampled, Sampler, check_sampling};
pub use score::{ScoredToken, score};
pub use serving::{ServingConfig, ServingEngine, ServingStats};
pub use template::ChatTemplate;
pub use text_stream::{Piece, TextStream};
pub use threads::set_threads;
pub use tokenizer::{Tokenizer, train_bpe};
pub use tools::ToolStyle;
pub use trainer::LoraTrainer;
