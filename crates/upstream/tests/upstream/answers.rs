//! Answers that come as they should.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use autoglm_domain::{
    ChatMessage, FinishReason, GenerationEvent, GenerationInput, GenerationRequest, Generator as _, Sampling,
    SystemClock, TokenLogprob, Usage, VersionNumber,
};
use autoglm_upstream::Upstream;
use futures::StreamExt as _;
use serde_json::json;

use crate::{
    ask, chat, config,
    fault_injector::{Fault, FaultInjector, end, event, eventually, word},
    upstream,
};

#[tokio::test]
async fn an_answer_is_handed_on_in_its_pieces_with_its_end() {
    let server = FaultInjector::start([Fault::Answer(&["a", "b", "c"])]).await;
    let upstream = upstream(config(&server.base));
    let events: Vec<_> =
        upstream.generate(chat("hi")).await.unwrap().map(|event| event.unwrap()).collect().await;
    let text = |text: &str| GenerationEvent::Text { text: text.into(), logprobs: Vec::new() };
    let usage = Usage { prompt_tokens: 5, completion_tokens: 3 };
    let done = GenerationEvent::Done { finish_reason: FinishReason::Stop, usage };
    assert_eq!(events, [text("a"), text("b"), text("c"), done]);
    let seen = server.seen();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].path, "/v1/chat/completions");
    assert_eq!(
        seen[0].body,
        json!({
            "model": "small", "stream": true, "stream_options": {"include_usage": true}, "temperature": 0.0,
            "messages": [{"role": "user", "content": "hi"}], "max_tokens": 16,
        })
    );
    assert!(seen[0].headers.get("authorization").is_none());
}

#[tokio::test]
async fn a_piece_is_handed_on_before_the_next_one_is_made() {
    let server = FaultInjector::start([Fault::Stall(vec![word("first")])]).await;
    let upstream = upstream(config(&server.base));
    let mut stream = upstream.generate(chat("hi")).await.unwrap();
    let first = tokio::time::timeout(Duration::from_secs(5), stream.next()).await.unwrap();
    assert_eq!(first.unwrap().unwrap(), GenerationEvent::Text { text: "first".into(), logprobs: Vec::new() });
}

#[tokio::test]
async fn a_plain_completion_with_log_probabilities_goes_its_own_way() {
    let chunk = json!({"choices": [{"index": 0, "text": " there", "finish_reason": "length", "logprobs": {
        "tokens": [" there"], "token_logprobs": [-0.25], "top_logprobs": [{" there": -0.25}], "text_offset": [0]}}]});
    let script = Fault::Raw(vec![event(&chunk.to_string()), event("[DONE]")]);
    let server = FaultInjector::start([script]).await;
    let upstream = upstream(config(&server.base));
    let sampling = Sampling { logprobs: Some(1), ..Sampling::default() };
    let input = GenerationInput::Text("hi".into());
    let request = GenerationRequest::new(input, sampling, VersionNumber::BASE);
    let answer = upstream.generate_all(request).await.unwrap();
    let top = vec![(" there".to_owned(), -0.25)];
    assert_eq!(answer.logprobs, [TokenLogprob { token: " there".into(), id: 0, logprob: -0.25, top }]);
    assert_eq!((answer.text.as_str(), answer.finish_reason), (" there", FinishReason::Length));
    // Nothing was reported: one token was seen, and two bytes of prompt are estimated at one.
    assert_eq!(answer.usage, Usage { prompt_tokens: 1, completion_tokens: 1 });
    let seen = &server.seen()[0];
    assert_eq!(seen.path, "/v1/completions");
    assert_eq!((&seen.body["prompt"], &seen.body["max_tokens"]), (&json!("hi"), &json!(4095)));
}

#[tokio::test]
async fn the_key_is_sent_and_stands_in_no_debug_output() {
    let server = FaultInjector::start([]).await;
    let upstream =
        Upstream::new(config(&server.base), Some("secret-key"), None, Arc::new(SystemClock), 7).unwrap();
    ask(&upstream).await.unwrap();
    assert_eq!(server.seen()[0].headers["authorization"], "Bearer secret-key");
    assert!(!format!("{upstream:?}").contains("secret"));
    let refused = Upstream::new(config(&server.base), Some("a\nb"), None, Arc::new(SystemClock), 7);
    assert!(refused.unwrap_err().to_string().contains("api_key_env"));
}

#[tokio::test]
async fn connections_are_used_again() {
    let server = FaultInjector::start([]).await;
    let upstream = upstream(config(&server.base));
    for _ in 0..5 {
        ask(&upstream).await.unwrap();
        // The end of the response is read beside.
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!((server.seen().len(), server.connections()), (5, 1));
}

#[tokio::test]
async fn nothing_is_read_ahead_and_dropping_the_stream_stops_the_upstream() {
    let server = FaultInjector::start([Fault::Endless]).await;
    let upstream = upstream(config(&server.base));
    let mut stream = upstream.generate(chat("hi")).await.unwrap();
    for _ in 0..3 {
        stream.next().await.unwrap().unwrap();
    }
    // Until the buffers of the sockets are full; then the upstream stands still, however long nobody reads.
    let begin = Instant::now();
    let full = loop {
        let sent = server.sent();
        tokio::time::sleep(Duration::from_millis(300)).await;
        if server.sent() == sent {
            break sent;
        }
        assert!(begin.elapsed() < Duration::from_secs(20), "{sent} chunks, and no end of them");
    };
    assert!(full < 2000, "{full} chunks of 12 kB were taken for 3 that were read");
    assert_eq!(server.dropped(), 0);
    drop(stream);
    eventually("the upstream notices", || server.dropped() == 1).await;
}

#[tokio::test]
async fn characters_and_lines_may_be_split_anywhere() {
    let mut whole = word("žluťoučký 🐎");
    whole.extend(b": a comment\r\n\r\nevent: ping\ndata: {}\n\n");
    whole.extend(end("stop", 3, 4));
    let bytes = whole.iter().map(|byte| vec![*byte]).collect();
    let server = FaultInjector::start([Fault::Raw(bytes)]).await;
    let upstream = upstream(config(&server.base));
    let answer = ask(&upstream).await.unwrap();
    assert_eq!(answer.text, "žluťoučký 🐎");
    assert_eq!(answer.usage, Usage { prompt_tokens: 3, completion_tokens: 4 });
}

#[tokio::test]
async fn a_stream_that_ends_without_done_after_its_finish_reason_is_whole() {
    let last = json!({"choices": [{"index": 0, "delta": {"content": "x"}, "finish_reason": "stop"}]});
    let server = FaultInjector::start([Fault::Raw(vec![event(&last.to_string())])]).await;
    let upstream = upstream(config(&server.base));
    let answer = ask(&upstream).await.unwrap();
    assert_eq!((answer.text.as_str(), answer.finish_reason), ("x", FinishReason::Stop));
}

#[tokio::test]
async fn tokens_of_prompts_are_estimated_and_the_estimate_follows_what_is_reported() {
    // 400 bytes that the upstream calls 204 tokens, 4 of them for the turn.
    let reported = Fault::Raw(vec![word("x"), end("stop", 204, 1)]);
    let server = FaultInjector::start(vec![reported; 60]).await;
    let upstream = upstream(config(&server.base));
    let long = GenerationInput::Chat(vec![ChatMessage::user("x".repeat(400))]);
    assert_eq!(upstream.count_tokens(&long), Ok(104));
    let request = GenerationRequest::new(long.clone(), Sampling::default(), VersionNumber::BASE);
    for _ in 0..60 {
        upstream.generate_all(request.clone()).await.unwrap();
    }
    let learned = upstream.count_tokens(&long).unwrap();
    assert!((190..=206).contains(&learned), "{learned}");
}
