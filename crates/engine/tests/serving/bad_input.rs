//! What is refused, and what a failing model takes down with it.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use autoglm_domain::{
    Adapter, AdapterHost as _, ChatMessage, ErrorKind, GenerationInput, Generator as _, VersionNumber,
};
use autoglm_engine::{ServingConfig, ServingEngine};

use crate::{
    CODEC, CONTEXT, adapter, collect, engine, engine_with_versions,
    hash_decoder::{Fault, HashDecoder},
    is_idle, reference, request,
};

#[tokio::test]
async fn a_failing_step_ends_its_sequences_and_no_others() {
    let engine = engine(ServingConfig::default());
    for (fault, message) in [
        (Fault::Error, "the double was told to fail"),
        (Fault::Panic, "the model panicked in a step"),
        (Fault::ShortLogits, "logits, not"),
        (Fault::NotANumber, "1 values that are not numbers"),
    ] {
        *engine.decoder().fault.lock() = Some(fault);
        let error = engine.generate_all(request("the cat", 0, 5)).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Internal);
        assert!(error.message.contains(message), "{error}");
        let after = request("on the mat", 0, 9);
        assert_eq!(engine.generate_all(after.clone()).await.unwrap(), reference(&after));
    }
    is_idle(&engine);
}

#[tokio::test]
async fn a_sequence_that_paused_survives_a_failing_step_of_the_others() {
    let engine = engine(ServingConfig { event_buffer: 1, ..ServingConfig::default() });
    engine.decoder().endless.store(true, Ordering::SeqCst);
    let paused = engine.generate(request("the cat", 0, 40)).await.unwrap();
    // Its events fill the buffer, and the thread comes to rest.
    let steps = || engine.decoder().seen.steps.load(Ordering::SeqCst);
    crate::eventually("the first pauses", || {
        let before = steps();
        std::thread::sleep(Duration::from_millis(50));
        before > 0 && steps() == before
    });
    *engine.decoder().fault.lock() = Some(Fault::Error);
    assert!(engine.generate_all(request("on the mat", 0, 5)).await.is_err());
    let endless = HashDecoder::new(CODEC.tokenizer().vocab_size(), CONTEXT);
    endless.endless.store(true, Ordering::SeqCst);
    let expected = crate::reference_of(&endless, &request("the cat", 0, 40));
    assert_eq!(collect(paused).await.unwrap(), expected);
    is_idle(&engine);
}

#[tokio::test]
async fn a_number_that_is_none_ends_only_its_own_sequence() {
    let engine = engine_with_versions(ServingConfig::default());
    engine.decoder().close();
    *engine.decoder().fault.lock() = Some(Fault::NotANumberInLast);
    let first = engine.generate(request("the cat", 3, 9)).await.unwrap();
    let second = engine.generate(request("on the mat", 0, 9)).await.unwrap();
    engine.decoder().open();
    let error = collect(second).await.unwrap_err();
    assert_eq!(error.hint.as_deref(), Some("the weights or the adapter are damaged"));
    assert_eq!(collect(first).await.unwrap(), reference(&request("the cat", 3, 9)));
    is_idle(&engine);
}

#[tokio::test]
async fn requests_that_cannot_be_answered_are_refused_at_once() {
    let engine = engine_with_versions(ServingConfig::default());
    let refused = async |request| engine.generate(request).await.err().unwrap();
    let long = refused(request(&"x".repeat(CONTEXT), 0, 1)).await;
    assert_eq!(long.kind, ErrorKind::Invalid);
    assert!(long.message.starts_with("the prompt has 160 tokens; the context holds 160"), "{long}");
    let mut hot = request("x", 0, 1);
    hot.sampling.temperature = -1.0;
    assert_eq!(refused(hot).await.message, "`temperature` is -1; it must be from 0 to 100");
    let mut chat = request("x", 0, 1);
    chat.input = GenerationInput::Chat(vec![ChatMessage::user("hi")]);
    assert!(refused(chat).await.message.contains("chat_template.jinja"));
    assert_eq!(refused(request("x", 9, 1)).await.kind, ErrorKind::NotFound);
    assert_eq!(engine.busy().load(Ordering::SeqCst), 0);
    assert_eq!(engine.count_tokens(&GenerationInput::Text("xyz".into())), Ok(3));
}

#[test]
fn broken_adapters_change_nothing() {
    let engine = engine(ServingConfig { max_adapters: 2, ..ServingConfig::default() });
    engine.load(VersionNumber(1), &adapter(10)).unwrap();
    let broken = Adapter { config: b"\x80pickle".to_vec(), weights: Vec::new() };
    for version in [0, 1, 2] {
        assert_eq!(engine.load(VersionNumber(version), &broken).unwrap_err().kind, ErrorKind::Invalid);
    }
    assert_eq!(engine.load(VersionNumber(0), &adapter(1)).unwrap_err().kind, ErrorKind::Invalid);
    engine.load(VersionNumber(2), &adapter(20)).unwrap();
    let full = engine.load(VersionNumber(3), &adapter(30)).unwrap_err();
    assert_eq!(
        (full.kind, full.message.as_str()),
        (ErrorKind::Unavailable, "2 adapters are resident, which is the limit")
    );
    engine.load(VersionNumber(2), &adapter(21)).unwrap();
    assert_eq!(engine.resident(), [0, 1, 2].map(VersionNumber));
}

#[test]
fn limits_that_cannot_work_are_refused() {
    let start = |vocab, config: ServingConfig| {
        ServingEngine::start(Arc::new(HashDecoder::new(vocab, CONTEXT)), CODEC.clone(), &config)
            .err()
            .map(|error| error.to_string())
    };
    let narrow = ServingConfig { max_batch: 8, max_batch_tokens: 7, ..ServingConfig::default() };
    assert_eq!(start(300, narrow).unwrap(), "`max_batch_tokens` 7 is below `max_batch` 8");
    let empty = ServingConfig { max_queue: 0, ..ServingConfig::default() };
    assert!(start(300, empty).unwrap().starts_with("`max_queue` is 0"));
    assert!(start(100, ServingConfig::default()).unwrap().contains("the model has 100"));
}
