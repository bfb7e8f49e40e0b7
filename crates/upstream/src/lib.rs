//! An OpenAI-compatible server that answers in place of the engine: vLLM, SGLang, llama.cpp, another autoglm, a
//! hosted API.
//!
//! In: requests and adapters through the ports [`Generator`], [`AdapterHost`] and [`Embedder`]. Out: HTTP to one server, and its
//! answers as they come: every event is handed on when it is there, none is read ahead, and dropping the stream
//! closes the connection, at which such servers stop generating. [`Upstream`] is all of it; [`Config`] says where the
//! server is and how long it may take.
//!
//! What goes wrong between two servers is met here and nowhere above: limits of time for connecting, for the first
//! token, between tokens and for everything; retries before the first byte of an answer, with full jitter, within a
//! budget; a circuit breaker that refuses at once while the server is down. Time comes from the [`Clock`], jitter from
//! a seed.
//!
//! [`Generator`]: autoglm_domain::Generator
//! [`AdapterHost`]: autoglm_domain::AdapterHost
//! [`Embedder`]: autoglm_domain::Embedder
//! [`Clock`]: autoglm_domain::Clock

mod config;
mod error;

mod breaker;
mod circuit;
mod retry;
mod retry_after;
mod transport;

mod answer;
mod body;
mod chunk;
mod events;
mod tokens;

mod adapter_files;
mod adapters;
mod capabilities;
mod dialect;
mod embedder;
mod upstream;

pub use adapters::AdapterProtocol;
pub use capabilities::Capabilities;
pub use circuit::{CircuitConfig, CircuitState};
pub use config::Config;
pub use dialect::Dialect;
pub use embedder::UpstreamEmbedder;
pub use error::{Result, UpstreamError};
pub use retry::RetryConfig;
pub use tokens::CountTokens;
pub use upstream::Upstream;
