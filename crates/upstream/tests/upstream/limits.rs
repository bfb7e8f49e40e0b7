//! Limits of time.

use std::time::{Duration, Instant};

use autoglm_domain::{ErrorKind, FinishReason, GenerationEvent, GenerationRequest, Generator as _};
use autoglm_upstream::{CircuitState, Config};
use futures::StreamExt as _;

use crate::{
    ask, chat, config,
    fault_injector::{Fault, FaultInjector, word},
    upstream,
};

async fn timed_out(config: Config) -> String {
    let begin = Instant::now();
    let error = ask(&upstream(config)).await.unwrap_err();
    let took = begin.elapsed();
    assert!(took >= Duration::from_millis(950) && took < Duration::from_secs(15), "{took:?}");
    assert_eq!(error.kind, ErrorKind::Unavailable);
    error.message
}

#[tokio::test]
async fn headers_and_first_token_have_one_limit_together() {
    let server =
        FaultInjector::start([Fault::SlowHeaders(Duration::from_secs(20)), Fault::Stall(vec![])]).await;
    let config = Config { first_token_timeout_s: 1, ..config(&server.base) };
    let said = "the upstream gave no first token within 1 s";
    assert_eq!(timed_out(config.clone()).await, said);
    // Signs of life are no token.
    assert_eq!(timed_out(config.clone()).await, said);
    server.then([Fault::Stall(vec![b": keep-alive\n\n".to_vec(); 2000])]);
    assert_eq!(timed_out(config).await, said);
    assert_eq!(server.seen().len(), 3, "what took too long is not tried again");
}

#[tokio::test]
async fn a_request_has_a_limit_of_its_own_for_which_the_upstream_is_not_to_blame() {
    let mut script = vec![Fault::SlowHeaders(Duration::from_secs(20)); 5];
    script.extend(vec![Fault::Stall(vec![]); 5]);
    let server = FaultInjector::start(script).await;
    let upstream = upstream(config(&server.base));
    let hurried = GenerationRequest { timeout: Some(Duration::from_millis(150)), ..chat("hi") };
    for _ in 0..10 {
        let error = upstream.generate_all(hurried.clone()).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::TimedOut);
        assert_eq!(error.message, "no answer began within the 150 ms that the request has");
    }
    assert_eq!(upstream.circuit(), CircuitState::Closed);
    // One that never came in has left its part of the script; and here the words have to come before the limit does.
    server.forget();
    server.then([Fault::Stall(vec![word("what"), word(" there is")])]);
    let cut = GenerationRequest { timeout: Some(Duration::from_secs(2)), ..chat("hi") };
    let cut = upstream.generate_all(cut).await.unwrap();
    assert_eq!((cut.text.as_str(), cut.finish_reason), ("what there is", FinishReason::Length));
    assert_eq!(cut.usage.completion_tokens, 2);
    let patient = GenerationRequest { timeout: Some(Duration::MAX), ..chat("hi") };
    assert_eq!(upstream.generate_all(patient).await.unwrap().text, "hello world");
}

#[tokio::test]
async fn a_stall_between_tokens_and_an_answer_without_end_are_cut_off() {
    let server = FaultInjector::start([Fault::Stall(vec![word("a")]), Fault::Endless]).await;
    let between = Config { token_timeout_s: 1, ..config(&server.base) };
    assert_eq!(timed_out(between).await, "the upstream gave no next token within 1 s");
    let whole = Config { request_timeout_s: 1, ..config(&server.base) };
    assert_eq!(timed_out(whole).await, "the upstream gave no end of its answer within 1 s");
}

#[tokio::test]
async fn a_reader_that_takes_its_time_does_not_run_into_the_limit_between_tokens() {
    let server = FaultInjector::start([Fault::Answer(&["a", "b"])]).await;
    let upstream = upstream(Config { token_timeout_s: 1, ..config(&server.base) });
    let mut stream = upstream.generate(chat("hi")).await.unwrap();
    let mut events = 0;
    while let Some(event) = stream.next().await {
        assert!(
            matches!(event, Ok(GenerationEvent::Text { .. } | GenerationEvent::Done { .. })),
            "{event:?}"
        );
        events += 1;
        tokio::time::sleep(Duration::from_millis(1200)).await;
    }
    assert_eq!(events, 3);
}
