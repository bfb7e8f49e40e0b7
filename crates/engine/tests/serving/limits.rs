//! Pages that run out, time that runs out, and who goes first.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use autoglm_domain::{
    ErrorKind, FinishReason, GenerationRequest, Generator as _, Later, Priority, VersionNumber,
};
use autoglm_engine::{PAGE_TOKENS, ServingConfig};

use crate::{
    CODEC, CONTEXT, Engine, adapter, collect, engine, engine_with_versions, eventually,
    hash_decoder::HashDecoder, is_idle, reference, reference_of, request,
};

const LONG: &str = "the cat sat on the mat and the hat, and in the end the cat ate the rat on the mat";

fn endless() -> HashDecoder {
    let decoder = HashDecoder::new(CODEC.tokenizer().vocab_size(), CONTEXT);
    decoder.endless.store(true, Ordering::SeqCst);
    decoder
}

fn endless_engine(config: ServingConfig) -> Engine {
    let engine = engine(config);
    engine.decoder().endless.store(true, Ordering::SeqCst);
    engine
}

fn with_priority(text: &str, priority: Priority) -> GenerationRequest {
    request(text, 0, 20).with_priority(priority)
}

fn with_timeout(request: GenerationRequest, ms: u64) -> GenerationRequest {
    GenerationRequest { timeout: Some(Duration::from_millis(ms)), ..request }
}

#[tokio::test]
async fn sequences_that_outgrow_the_pages_take_turns() {
    // Five pages; each of three sequences comes to need four.
    let engine = endless_engine(ServingConfig { max_cache_tokens: CONTEXT, ..ServingConfig::default() });
    let requests = ["one", "two", "three"].map(|text| request(text, 0, 110));
    let streams = futures::future::join_all(requests.iter().map(|r| engine.generate(r.clone()))).await;
    let answers = futures::future::join_all(streams.into_iter().map(|stream| collect(stream.unwrap()))).await;
    for (answer, request) in answers.into_iter().zip(&requests) {
        assert_eq!(answer.unwrap(), reference_of(&endless(), request));
    }
    let stats = engine.stats();
    assert_eq!(stats.pages, CONTEXT / PAGE_TOKENS);
    assert!(
        stats.preemptions > 0 && engine.decoder().pages.load(Ordering::SeqCst) <= stats.pages,
        "{stats:?}"
    );
    is_idle(&engine);
}

#[tokio::test]
async fn a_request_that_outgrows_all_pages_is_refused_or_cut_off() {
    let engine =
        endless_engine(ServingConfig { max_cache_tokens: 2 * PAGE_TOKENS, ..ServingConfig::default() });
    assert_eq!(engine.context_length(), 64);
    let refused = engine.generate(request(&"x".repeat(64), 0, 1)).await.err().unwrap();
    assert_eq!(refused.kind, ErrorKind::Invalid);
    assert_eq!(
        refused.message,
        "the prompt has 64 tokens; the context holds 64 with at least one for the answer"
    );
    let answer = engine.generate_all(request(&"x".repeat(40), 0, 100)).await.unwrap();
    assert_eq!((answer.finish_reason, answer.usage.completion_tokens), (FinishReason::Length, 24));
    is_idle(&engine);
}

#[tokio::test]
async fn a_reader_that_stands_still_holds_neither_place_nor_pages() {
    let config = ServingConfig {
        max_batch: 1,
        event_buffer: 1,
        max_cache_tokens: CONTEXT,
        ..ServingConfig::default()
    };
    let engine = endless_engine(config);
    let still = engine.generate(request(LONG, 0, 60)).await.unwrap();
    eventually("it runs", || engine.stats().admitted == 1);
    // The next one needs all pages and the only place.
    let whole = request("on the mat", 0, 140);
    assert_eq!(engine.generate_all(whole.clone()).await.unwrap(), reference_of(&endless(), &whole));
    eventually("its pages are given back", || engine.stats().pages_used == 0);
    // When it is read again, it goes on as if nothing had been.
    assert_eq!(collect(still).await.unwrap(), reference_of(&endless(), &request(LONG, 0, 60)));
    assert!(engine.stats().preemptions > 0);
    is_idle(&engine);
}

#[tokio::test]
async fn a_common_beginning_is_computed_once_for_each_adapter() {
    let engine = engine_with_versions(ServingConfig::default());
    let hits = || engine.stats().prefix_hit_tokens;
    let ask = async |version| engine.generate_all(request(LONG, version, 5)).await.unwrap();
    let tokens = CODEC.encode(&request(LONG, 1, 5).input).unwrap().len();
    let full = (tokens - 1) / PAGE_TOKENS * PAGE_TOKENS;
    assert!(full > 0);
    for version in [0, 1, 2] {
        assert_eq!(ask(version).await, reference(&request(LONG, version, 5)));
    }
    assert_eq!(hits(), 0);
    for version in [0, 1, 2] {
        assert_eq!(ask(version).await, reference(&request(LONG, version, 5)));
    }
    assert_eq!(hits(), 3 * full as u64);
    // Another adapter under the same number begins anew; the double would not bear its old pages.
    let before = ask(1).await;
    engine.load(VersionNumber(1), &adapter(77)).unwrap();
    let hits_before = hits();
    assert_ne!(ask(1).await, before);
    assert_eq!(hits(), hits_before);
    is_idle(&engine);
}

#[tokio::test]
async fn the_urgent_go_first_and_take_the_place_of_those_that_can_wait() {
    let engine = endless_engine(ServingConfig { max_batch: 1, ..ServingConfig::default() });
    engine.decoder().close();
    // So long that whoever waits for an end is told of it before the next one comes.
    engine.decoder().step_ms.store(25, Ordering::SeqCst);
    let priorities = [Priority::Background, Priority::Background, Priority::Shadow, Priority::Live];
    let mut streams = Vec::new();
    for (text, priority) in ["one", "two", "three", "four"].into_iter().zip(priorities) {
        streams.push(engine.generate(with_priority(text, priority)).await.unwrap());
        eventually("the first runs", || engine.stats().admitted == 1);
    }
    engine.decoder().open();
    let ends = streams.into_iter().zip(["one", "two", "three", "four"]).map(async |(stream, text)| {
        assert_eq!(collect(stream).await.unwrap(), reference_of(&endless(), &request(text, 0, 20)));
        (Instant::now(), text)
    });
    let mut ends = futures::future::join_all(ends).await;
    ends.sort();
    assert_eq!(ends.iter().map(|(_, text)| *text).collect::<Vec<_>>(), ["four", "three", "one", "two"]);
    assert_eq!(engine.stats().preemptions, 1);
    is_idle(&engine);
}

#[tokio::test]
async fn a_full_queue_lets_the_urgent_in_and_tells_others_when_to_come_again() {
    let engine = engine(ServingConfig { max_queue: 1, max_batch: 1, ..ServingConfig::default() });
    engine.decoder().close();
    let running = engine.generate(with_priority("the cat", Priority::Live)).await.unwrap();
    eventually("the first runs", || engine.queued() == 0);
    let displaced = engine.generate(with_priority("one", Priority::Shadow)).await.unwrap();
    let refused = engine.generate(with_priority("two", Priority::Background)).await.err().unwrap();
    let urgent = engine.generate(with_priority("three", Priority::Live)).await.unwrap();
    for error in [refused, collect(displaced).await.unwrap_err()] {
        assert_eq!(error.message, "the queue of 1 requests is full");
        assert!(matches!(error.later, Some(Later::Busy { .. })), "{error:?}");
    }
    engine.decoder().open();
    for (stream, text) in [(running, "the cat"), (urgent, "three")] {
        assert_eq!(collect(stream).await.unwrap(), reference(&request(text, 0, 20)));
    }
    is_idle(&engine);
}

#[tokio::test]
async fn who_would_wait_too_long_is_told_so() {
    let engine = engine(ServingConfig { max_wait_s: 0, max_batch: 1, ..ServingConfig::default() });
    engine.decoder().close();
    let running = engine.generate(request("the cat", 0, 5)).await.unwrap();
    eventually("the first runs", || engine.queued() == 0);
    let waiting = engine.generate(request("one", 0, 5)).await.unwrap();
    std::thread::sleep(Duration::from_millis(20));
    let error = engine.generate(request("two", 0, 5)).await.err().unwrap();
    assert_eq!(error.kind, ErrorKind::Unavailable);
    assert!(matches!(error.later, Some(Later::Busy { .. })), "{error:?}");
    // For how long depends on how fast the machine is.
    let message = &error.message;
    assert!(message.starts_with("the request would wait for about "), "{message}");
    assert!(message.ends_with(" s; the limit is 0 s"), "{message}");
    engine.decoder().open();
    for (stream, text) in [(running, "the cat"), (waiting, "one")] {
        assert_eq!(collect(stream).await.unwrap(), reference(&request(text, 0, 5)));
    }
    is_idle(&engine);
}

#[tokio::test]
async fn a_request_ends_when_its_time_is_up() {
    let engine = endless_engine(ServingConfig { max_batch: 1, event_buffer: 1, ..ServingConfig::default() });
    engine.decoder().close();
    let running = engine.generate(with_timeout(request(LONG, 0, 60), 60_000)).await.unwrap();
    eventually("the first runs", || engine.queued() == 0);
    let waiting = engine.generate(with_timeout(request("one", 0, 5), 0)).await.unwrap();
    engine.decoder().open();
    // Before its first token it fails.
    let error = collect(waiting).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::TimedOut);
    assert_eq!(error.message, "no answer began within the 0 ms that the request allows");
    drop(running);
    // After it, it ends with what there is: its reader stands still, so it cannot get far.
    let late = engine.generate(with_timeout(request(LONG, 0, 60), 2000)).await.unwrap();
    eventually("its pages are given back", || {
        engine.busy().load(Ordering::SeqCst) == 0 && engine.stats().pages_used == 0
    });
    let answer = collect(late).await.unwrap();
    let whole = reference_of(&endless(), &request(LONG, 0, 60));
    assert_eq!(answer.finish_reason, FinishReason::Length);
    assert!(!answer.text.is_empty() && answer.text.len() < whole.text.len());
    assert!(whole.text.starts_with(&answer.text));
    is_idle(&engine);
}
