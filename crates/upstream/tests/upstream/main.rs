//! The upstream against servers that behave and servers that do not.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on says so and stops")]

mod adapters;
mod answers;
mod broken_streams;
mod chaos;
mod circuit;
mod embeddings;
mod fault_injector;
mod limits;
mod lora_double;
mod probing;
mod retries;

use std::sync::Arc;

use autoglm_domain::{
    ChatMessage, Clock, Error, Generation, GenerationInput, GenerationRequest, Generator as _, Sampling,
    SystemClock, VersionNumber,
};
use autoglm_upstream::{Config, RetryConfig, Upstream};

/// Settings for a server at `base_url`, with pauses that tests need not wait for.
pub(crate) fn config(base_url: &str) -> Config {
    Config {
        base_url: base_url.into(),
        model: "small".into(),
        retry: RetryConfig { base_ms: 4, max_pause_ms: 20, ..RetryConfig::default() },
        ..Config::default()
    }
}

pub(crate) fn upstream(config: Config) -> Upstream {
    with_clock(config, Arc::new(SystemClock))
}

pub(crate) fn with_clock(config: Config, clock: Arc<dyn Clock>) -> Upstream {
    Upstream::new(config, None, None, clock, 7).unwrap()
}

pub(crate) fn chat(text: &str) -> GenerationRequest {
    let sampling = Sampling { max_tokens: Some(16), ..Sampling::default() };
    GenerationRequest::new(
        GenerationInput::Chat(vec![ChatMessage::user(text)]),
        sampling,
        VersionNumber::BASE,
    )
}

pub(crate) async fn ask(upstream: &Upstream) -> Result<Generation, Error> {
    upstream.generate_all(chat("hi")).await
}
