//! Whatever runs beside it, a request is answered as if it were alone.

use std::sync::atomic::Ordering;

use autoglm_domain::{
    GenerationEvent, GenerationInput, GenerationRequest, Generator as _, Priority, Sampling, VersionNumber,
};
use autoglm_engine::ServingConfig;
use futures::{StreamExt as _, future::join_all};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use crate::{Engine, collect, engine_with_versions, is_idle, reference};

/// What the reader of a request does.
#[derive(Debug, Clone, Copy)]
enum Reader {
    Eager,
    Slow,
    LeavesAfter(usize),
}

fn random_request(random: &mut ChaCha8Rng) -> GenerationRequest {
    const WORDS: &[&str] = &["the", " cat", " mat", "é", "👋", " 12", "\n", "x", " and", " hat"];
    let length =
        if random.random_bool(0.2) { random.random_range(20..45) } else { random.random_range(1..12) };
    let beginning =
        ["", "the cat sat on the mat and in the end the cat ate the rat, "][random.random_range(0..2)];
    let rest: String = (0..length).map(|_| WORDS[random.random_range(0..WORDS.len())]).collect();
    let text = format!("{beginning}{rest}");
    let stops = [vec![], vec!["a".into()], vec!["\u{FFFD}q".into(), " t".into()]];
    let sampling = Sampling {
        temperature: [0.0, 0.7, 1.5][random.random_range(0..3)],
        top_k: [0, 5][random.random_range(0..2)],
        top_p: [1.0, 0.9][random.random_range(0..2)],
        repetition_penalty: [1.0, 1.2][random.random_range(0..2)],
        frequency_penalty: [0.0, 0.5][random.random_range(0..2)],
        seed: Some(random.random()),
        stop: stops[random.random_range(0..3)].clone(),
        max_tokens: [None, Some(1), Some(7), Some(30)][random.random_range(0..4)],
        logprobs: [None, None, Some(0), Some(3)][random.random_range(0..4)],
        ..Sampling::default()
    };
    let version = VersionNumber(random.random_range(0..4));
    GenerationRequest {
        priority: [Priority::Live, Priority::Shadow, Priority::Background][random.random_range(0..3)],
        ..GenerationRequest::new(GenerationInput::Text(text), sampling, version)
    }
}

fn random_config(random: &mut ChaCha8Rng) -> ServingConfig {
    let max_batch = random.random_range(1..7);
    ServingConfig {
        max_batch,
        max_batch_tokens: max_batch + random.random_range(0..20),
        max_cache_tokens: [160, 400, 100_000][random.random_range(0..3)],
        max_prefix_tokens: [0, 100, 100_000][random.random_range(0..3)],
        event_buffer: random.random_range(1..4),
        ..ServingConfig::default()
    }
}

/// Reads one request as its reader does, and compares what it got.
async fn check(engine: &Engine, request: GenerationRequest, reader: Reader) {
    let expected = reference(&request);
    let mut stream = engine.generate(request.clone()).await.unwrap();
    match reader {
        Reader::Eager => assert_eq!(collect(stream).await.unwrap(), expected, "{request:?}"),
        Reader::Slow => {
            let slow = async_stream(stream);
            assert_eq!(collect(slow).await.unwrap(), expected, "{request:?}");
        }
        Reader::LeavesAfter(count) => {
            let mut text = String::new();
            for _ in 0..count {
                match stream.next().await {
                    Some(Ok(GenerationEvent::Text { text: more, .. })) => text.push_str(&more),
                    Some(Ok(GenerationEvent::Done { .. })) | None => break,
                    Some(Ok(other)) => panic!("not asked for: {other:?}"),
                    Some(Err(error)) => panic!("{error}"),
                }
            }
            assert!(expected.text.starts_with(&text), "{request:?}");
        }
    }
}

/// The same stream, read with pauses.
fn async_stream(stream: autoglm_domain::GenerationStream) -> autoglm_domain::GenerationStream {
    Box::pin(stream.then(|event| async {
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        event
    }))
}

#[tokio::test]
async fn two_thousand_random_mixes_answer_as_one_at_a_time() {
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let (mut shared, mut mixed) = (0, 0);
    for _ in 0..2_000 {
        let engine = engine_with_versions(random_config(&mut random));
        let readers: Vec<_> = (0..random.random_range(2..8))
            .map(|_| {
                let reader = match random.random_range(0..6) {
                    0 => Reader::LeavesAfter(random.random_range(0..6)),
                    1 => Reader::Slow,
                    _ => Reader::Eager,
                };
                check(&engine, random_request(&mut random), reader)
            })
            .collect();
        join_all(readers).await;
        is_idle(&engine);
        shared += usize::from(engine.decoder().seen.most_sequences.load(Ordering::SeqCst) > 1);
        mixed += usize::from(engine.decoder().seen.most_adapters.load(Ordering::SeqCst) > 1);
    }
    // The test means nothing if the sequences did not meet.
    assert!(shared > 1_000 && mixed > 800, "{shared} mixes shared a step, {mixed} with different adapters");
}
