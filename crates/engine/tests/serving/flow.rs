//! Waiting, leaving, pausing, swapping and ending.

use std::{sync::atomic::Ordering, time::Duration};

use autoglm_domain::{
    AdapterHost as _, ErrorKind, FinishReason, GenerationEvent, Generator as _, Sampling, VersionNumber,
};
use autoglm_engine::{Decoder as _, ServingConfig};
use futures::StreamExt as _;

use crate::{
    CODEC, CONTEXT, adapter, collect, engine, engine_with_versions, eventually, hash_decoder::HashDecoder,
    is_idle, reference, reference_of, request,
};

fn endless() -> HashDecoder {
    let decoder = HashDecoder::new(CODEC.tokenizer().vocab_size(), CONTEXT);
    decoder.endless.store(true, Ordering::SeqCst);
    decoder
}

#[tokio::test]
async fn a_full_queue_refuses_and_places_of_the_departed_are_given_away() {
    let engine = engine(ServingConfig { max_queue: 2, max_batch: 1, ..ServingConfig::default() });
    engine.decoder().close();
    let running = engine.generate(request("the cat", 0, 5)).await.unwrap();
    eventually("the first runs", || engine.queued() == 0);
    let waiting = engine.generate(request("one", 0, 5)).await.unwrap();
    let leaving = engine.generate(request("two", 0, 5)).await.unwrap();
    let error = engine.generate(request("three", 0, 5)).await.err().unwrap();
    assert_eq!(
        (error.kind, error.message.as_str()),
        (ErrorKind::Unavailable, "the queue of 2 requests is full")
    );
    assert_eq!(engine.busy().load(Ordering::SeqCst), 3);
    drop(leaving);
    let late = engine.generate(request("three", 0, 5)).await.unwrap();
    engine.decoder().open();
    for (stream, text) in [(running, "the cat"), (waiting, "one"), (late, "three")] {
        assert_eq!(collect(stream).await.unwrap(), reference(&request(text, 0, 5)));
    }
    is_idle(&engine);
}

#[tokio::test]
async fn a_reader_that_leaves_frees_its_place() {
    let engine = engine(ServingConfig { max_batch: 1, event_buffer: 1, ..ServingConfig::default() });
    engine.decoder().endless.store(true, Ordering::SeqCst);
    let mut leaving = engine.generate(request("the cat", 0, 100)).await.unwrap();
    assert!(matches!(leaving.next().await, Some(Ok(GenerationEvent::Text { .. }))));
    let next = engine.generate(request("on the mat", 0, 3)).await.unwrap();
    drop(leaving);
    assert_eq!(collect(next).await.unwrap(), reference_of(&endless(), &request("on the mat", 0, 3)));
    is_idle(&engine);
}

#[tokio::test]
async fn a_slow_reader_pauses_alone() {
    let engine = engine(ServingConfig { event_buffer: 2, ..ServingConfig::default() });
    engine.decoder().endless.store(true, Ordering::SeqCst);
    let slow = engine.generate(request("the cat", 0, 60)).await.unwrap();
    let fast = engine.generate(request("on the mat", 0, 60)).await.unwrap();
    assert_eq!(collect(fast).await.unwrap(), reference_of(&endless(), &request("on the mat", 0, 60)));
    // The slow one stands still: nothing runs any more, though it is not done.
    eventually("one is left", || engine.busy().load(Ordering::SeqCst) == 1);
    let steps = engine.decoder().seen.steps.load(Ordering::SeqCst);
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(engine.decoder().seen.steps.load(Ordering::SeqCst), steps);
    assert_eq!(collect(slow).await.unwrap(), reference_of(&endless(), &request("the cat", 0, 60)));
    is_idle(&engine);
}

#[tokio::test]
async fn a_stuck_reader_is_cancelled_in_the_end() {
    let engine =
        engine(ServingConfig { event_buffer: 2, stall_s: 0, max_batch: 1, ..ServingConfig::default() });
    engine.decoder().endless.store(true, Ordering::SeqCst);
    let stuck = engine.generate(request("the cat", 0, 100)).await.unwrap();
    is_idle(&engine);
    let got = collect(stuck).await.unwrap();
    assert_eq!(got.finish_reason, FinishReason::Cancelled);
    let whole = reference_of(&endless(), &request("the cat", 0, 100)).text;
    assert!(whole.starts_with(&got.text) && got.text.len() < whole.len());
}

#[tokio::test]
async fn a_version_can_be_swapped_and_unloaded_under_its_running_requests() {
    let engine = engine_with_versions(ServingConfig { event_buffer: 1, ..ServingConfig::default() });
    let long = request("the cat sat", 2, 80);
    let mut stream = engine.generate(long.clone()).await.unwrap();
    let Some(Ok(GenerationEvent::Text { text: first, .. })) = stream.next().await else { panic!("no text") };
    engine.unload(VersionNumber(2));
    assert_eq!(engine.resident(), [0, 1, 3].map(VersionNumber));
    let error = engine.generate(long.clone()).await.err().unwrap();
    assert_eq!((error.kind, error.message.as_str()), (ErrorKind::NotFound, "version v2 is not resident"));
    // Another adapter under the same number does not reach the running one either.
    engine.load(VersionNumber(2), &adapter(77)).unwrap();
    let rest = collect(stream).await.unwrap();
    let expected = reference(&long);
    assert_eq!((first + &rest.text, rest.usage), (expected.text.clone(), expected.usage));
    assert_ne!(engine.generate_all(long).await.unwrap().text, expected.text);
    engine.unload(VersionNumber(404));
}

#[tokio::test]
async fn answers_end_at_stop_strings_limits_and_the_context() {
    let engine = engine(ServingConfig::default());
    engine.decoder().endless.store(true, Ordering::SeqCst);
    let whole = engine.generate_all(request("the cat", 0, 40)).await.unwrap();
    assert_eq!((whole.finish_reason, whole.usage.completion_tokens), (FinishReason::Length, 40));
    let stop: String = whole.text.chars().skip(9).take(2).collect();
    let mut stopped = request("the cat", 0, 40);
    stopped.sampling.stop = vec!["no such text".into(), stop.clone()];
    let answer = engine.generate_all(stopped).await.unwrap();
    assert_eq!(answer.finish_reason, FinishReason::Stop);
    assert_eq!(answer.text, whole.text[..whole.text.find(&stop).unwrap()]);
    let mut unlimited = request("the cat", 0, 1);
    unlimited.sampling = Sampling { max_tokens: None, ..Sampling::default() };
    let answer = engine.generate_all(unlimited).await.unwrap();
    assert_eq!(answer.finish_reason, FinishReason::Length);
    assert_eq!((answer.usage.prompt_tokens + answer.usage.completion_tokens) as usize, CONTEXT);
}

#[tokio::test]
async fn long_prompts_are_fed_in_parts_within_the_budget() {
    let config = ServingConfig { max_batch: 4, max_batch_tokens: 8, ..ServingConfig::default() };
    let engine = engine(config);
    let text = "the cat sat on the mat and ".repeat(8);
    let requests: Vec<_> = (1..=4).map(|max| request(&text, 0, max * 5)).collect();
    let streams = futures::future::join_all(requests.iter().map(|r| engine.generate(r.clone()))).await;
    for (stream, request) in streams.into_iter().zip(&requests) {
        assert_eq!(collect(stream.unwrap()).await.unwrap(), reference(request));
    }
    assert_eq!(engine.decoder().seen.most_tokens.load(Ordering::SeqCst), 8);
}

#[tokio::test]
async fn requests_without_a_seed_draw_apart_and_a_seed_repeats() {
    let engine = engine(ServingConfig::default());
    let mut drawn = request("the cat", 0, 20);
    drawn.sampling.temperature = 5.0;
    let (one, two) = (engine.generate_all(drawn.clone()).await, engine.generate_all(drawn.clone()).await);
    assert_ne!(one.unwrap().text, two.unwrap().text);
    drawn.sampling.seed = Some(9);
    let (one, two) = (engine.generate_all(drawn.clone()).await, engine.generate_all(drawn).await);
    assert_eq!(one, two);
}

#[tokio::test]
async fn a_shutdown_finishes_what_it_can_and_says_so_of_the_rest() {
    let engine = engine(ServingConfig { max_batch: 1, ..ServingConfig::default() });
    engine.decoder().close();
    let streams = [
        engine.generate(request("one", 0, 5)).await.unwrap(),
        engine.generate(request("two", 0, 5)).await.unwrap(),
    ];
    engine.decoder().open();
    engine.shutdown(Duration::from_secs(10));
    let error = engine.generate(request("three", 0, 5)).await.err().unwrap();
    assert_eq!((error.kind, error.message.as_str()), (ErrorKind::Unavailable, "the engine is shutting down"));
    for (stream, text) in streams.into_iter().zip(["one", "two"]) {
        assert_eq!(collect(stream).await.unwrap(), reference(&request(text, 0, 5)));
    }

    // Both wait for their readers when the time is up.
    let engine = crate::engine(ServingConfig { max_batch: 1, event_buffer: 1, ..ServingConfig::default() });
    engine.decoder().endless.store(true, Ordering::SeqCst);
    let running = engine.generate(request("one", 0, 100)).await.unwrap();
    let waiting = engine.generate(request("two", 0, 100)).await.unwrap();
    eventually("both have run", || engine.queued() == 0);
    engine.shutdown(Duration::from_millis(1));
    for stream in [running, waiting] {
        assert_eq!(collect(stream).await.unwrap().finish_reason, FinishReason::Cancelled);
    }
    is_idle(&engine);
}

#[tokio::test]
async fn every_token_is_reported_where_trainers_ask_for_them() {
    let engine = engine_with_versions(ServingConfig::default());
    let mut asked = request("the cat", 2, 60);
    asked.sampling.token_ids = true;
    asked.sampling.prompt_logprobs = Some(2);
    asked.sampling.stop = vec!["at".into()];
    let found = engine.generate_all(asked.clone()).await.unwrap();
    let ids: Vec<u32> = found.prompt.iter().map(|token| token.id).collect();
    assert_eq!(ids, CODEC.encode(&asked.input).unwrap());
    assert!(found.prompt[0].score.is_none());
    // Scored as the engine itself would draw them: the likeliest alternative of the last place is what a greedy
    // draw after the tokens before it gives.
    let (last, before) = ids.split_last().unwrap();
    let score = found.prompt.last().unwrap().score.clone().unwrap();
    assert_eq!(score.top.len(), 2);
    let decoder = HashDecoder::new(CODEC.tokenizer().vocab_size(), CONTEXT);
    let mut best = None;
    decoder
        .score(&ids, Some(&20), &mut |index, logits| {
            if index == before.len() {
                let place = |id: u32| logits.iter().filter(|other| **other > logits[id as usize]).count();
                assert_eq!(place(*last) as u32 + 1, score.rank);
                best = Some((0..logits.len() as u32).find(|id| place(*id) == 0).unwrap());
            }
        })
        .unwrap();
    assert_eq!(best, Some(score.top[0].0));
    assert_eq!(
        found.logprobs.len(),
        found.usage.completion_tokens as usize,
        "what ends the answer is reported too"
    );

    let mut alone = request("the cat", 0, 1);
    alone.sampling = Sampling { max_tokens: Some(0), prompt_logprobs: Some(0), ..Sampling::default() };
    let found = engine.generate_all(alone).await.unwrap();
    assert_eq!((found.finish_reason, found.usage.completion_tokens), (FinishReason::Length, 0));
    assert_eq!(found.prompt.len(), found.usage.prompt_tokens as usize);
    is_idle(&engine);
}

#[tokio::test]
async fn a_bias_forbids_a_token_and_must_name_one_of_the_vocabulary() {
    let engine = engine(ServingConfig::default());
    let plain = request("the cat", 0, 12);
    let ids: Vec<u32> = {
        let mut reported = plain.clone();
        reported.sampling.logprobs = Some(0);
        engine.generate_all(reported).await.unwrap().logprobs.iter().map(|token| token.id).collect()
    };
    let mut biased = plain;
    biased.sampling.logprobs = Some(0);
    biased.sampling.logit_bias = vec![(ids[0], -100.0)];
    let found = engine.generate_all(biased.clone()).await.unwrap();
    assert_eq!(found, reference(&biased));
    assert!(found.logprobs.iter().all(|token| token.id != ids[0]));
    biased.sampling.logit_bias = vec![(4096, 1.0)];
    let error = engine.generate(biased).await.err().unwrap();
    assert_eq!(error.message, "`logit_bias` names the token 4096; the vocabulary has 269");
}
