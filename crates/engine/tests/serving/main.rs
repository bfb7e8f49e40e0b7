//! The serving engine around a double of a model: what it answers, whom it makes wait, whom it drops.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "what fails here fails the test, and what is measured is shown"
)]

mod acceptance;
mod bad_input;
mod flow;
mod hash_decoder;
mod limits;
mod mixes;
mod tiny_model;

use std::{
    sync::{Arc, LazyLock, atomic::Ordering},
    time::{Duration, Instant},
};

use autoglm_domain::{
    Adapter, FinishReason, Generation, GenerationInput, GenerationRequest, GenerationStream, Sampling,
    TokenLogprob, Usage, VersionNumber,
};
use autoglm_engine::{
    Decoder as _, ModelConfig, PagedCache, Sampler, SequenceStep, ServingConfig, ServingEngine, TextCodec,
    TextStream, Tokenizer, train_bpe,
};
use futures::StreamExt as _;

use crate::hash_decoder::{EOS, HashDecoder};

pub(crate) const CONTEXT: usize = 160;

/// A byte-level tokenizer of 280 tokens, `</s>` ending answers; no chat template.
static CODEC: LazyLock<TextCodec> = LazyLock::new(|| {
    let texts = ["the cat sat on the mat and the hat", "in the end the cat ate the rat on the mat"];
    let json = train_bpe(texts.iter(), 280, &["<s>", "</s>"]).unwrap();
    let config = format!(
        r#"{{"model_type": "llama", "vocab_size": 300, "hidden_size": 8, "intermediate_size": 8,
        "num_hidden_layers": 1, "num_attention_heads": 1, "bos_token_id": 0, "eos_token_id": {EOS}}}"#
    );
    let config = ModelConfig::from_json(&config).unwrap();
    TextCodec::new(Tokenizer::from_bytes(json.as_bytes()).unwrap(), None, &config).unwrap()
});

pub(crate) type Engine = ServingEngine<HashDecoder>;

pub(crate) fn engine(config: ServingConfig) -> Engine {
    let decoder = HashDecoder::new(CODEC.tokenizer().vocab_size(), CONTEXT);
    ServingEngine::start(Arc::new(decoder), CODEC.clone(), &config).unwrap()
}

/// An adapter of the double.
pub(crate) fn adapter(salt: u64) -> Adapter {
    Adapter { config: salt.to_string().into_bytes(), weights: Vec::new() }
}

/// The engine with versions 1 to 3 loaded; their salts are 10 times their numbers.
pub(crate) fn engine_with_versions(config: ServingConfig) -> Engine {
    let engine = engine(config);
    for version in 1..=3 {
        engine.load(VersionNumber(version), &adapter(version * 10)).unwrap();
    }
    engine
}

pub(crate) fn request(text: &str, version: u64, max_tokens: u32) -> GenerationRequest {
    let sampling = Sampling { max_tokens: Some(max_tokens), ..Sampling::default() };
    GenerationRequest::new(GenerationInput::Text(text.into()), sampling, VersionNumber(version))
}

/// Naive reference: one sequence, the whole prompt at once, one token after the other.
pub(crate) fn reference(request: &GenerationRequest) -> Generation {
    reference_of(&HashDecoder::new(CODEC.tokenizer().vocab_size(), CONTEXT), request)
}

pub(crate) fn reference_of(decoder: &HashDecoder, request: &GenerationRequest) -> Generation {
    let GenerationRequest { input, sampling, version, .. } = request;
    let prompt = CODEC.encode(input).unwrap();
    let salt = (version.0 > 0).then_some(version.0 * 10);
    let longest = sampling.max_tokens.map_or(usize::MAX, |max| max as usize).min(CONTEXT - prompt.len());
    let mut cache = PagedCache::default();
    let mut sampler = Sampler::new(sampling, 0, &prompt).unwrap();
    let mut stream = TextStream::new(Arc::clone(CODEC.tokenizer()), sampling.stop.clone());
    let (mut text, mut logprobs, mut tokens) = (String::new(), Vec::new(), prompt.clone());
    let mut generated = 0;
    let finish_reason = loop {
        cache.grow(tokens.len(), || decoder.new_page());
        let step =
            SequenceStep { tokens: &tokens, cache: &mut cache, adapter: salt.as_ref(), wants_logits: true };
        let sampled = sampler.sample(&mut decoder.step(&mut [step]).unwrap()).unwrap();
        generated += 1;
        if sampled.id == EOS {
            break FinishReason::Stop;
        }
        let name = |id| CODEC.tokenizer().token_text(id);
        let report = sampled.report.map(|(logprob, top)| TokenLogprob {
            token: name(sampled.id),
            id: sampled.id,
            logprob,
            top: top.into_iter().map(|(id, logprob)| (name(id), logprob)).collect(),
        });
        let piece = stream.push(sampled.id, report).unwrap();
        text.push_str(&piece.text);
        logprobs.extend(piece.logprobs);
        if piece.stopped {
            return Generation {
                text,
                logprobs,
                finish_reason: FinishReason::Stop,
                usage: usage(&prompt, generated),
                ..Generation::default()
            };
        }
        if generated == longest {
            break FinishReason::Length;
        }
        tokens = vec![sampled.id];
    };
    let rest = stream.finish().unwrap();
    text.push_str(&rest.text);
    logprobs.extend(rest.logprobs);
    let finish_reason = if rest.stopped { FinishReason::Stop } else { finish_reason };
    let usage = usage(&prompt, generated);
    Generation { text, logprobs, finish_reason, usage, ..Generation::default() }
}

fn usage(prompt: &[u32], generated: usize) -> Usage {
    Usage { prompt_tokens: prompt.len() as u32, completion_tokens: generated as u32 }
}

/// Reads a stream to its end.
pub(crate) async fn collect(mut stream: GenerationStream) -> autoglm_domain::Result<Generation> {
    let mut generation = Generation::default();
    while let Some(event) = stream.next().await {
        if generation.take_in(event?) {
            assert!(stream.next().await.is_none(), "something follows the end");
            return Ok(generation);
        }
    }
    panic!("the stream ended without saying so");
}

/// Waits until `condition` holds; fails the test after ten seconds.
pub(crate) fn eventually(what: &str, condition: impl Fn() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < Duration::from_secs(10), "never happened: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Waits until nothing waits or runs and every page is given back.
pub(crate) fn is_idle(engine: &Engine) {
    eventually("the engine is idle", || {
        engine.busy().load(Ordering::SeqCst) == 0 && engine.stats().pages_used == 0
    });
}
