//! What is tried again, and what is not.

use std::time::{Duration, Instant};

use autoglm_domain::{ErrorKind, Later};
use autoglm_upstream::{Config, RetryConfig};

use crate::{
    ask, config,
    fault_injector::{Fault, FaultInjector},
    upstream,
};

fn status(status: u16) -> Fault {
    Fault::Status(status, None, r#"{"error":{"message":"not now"}}"#)
}

#[tokio::test]
async fn what_may_pass_is_tried_again() {
    for passing in [408, 429, 500, 502, 503, 504] {
        let server = FaultInjector::start([status(passing), status(passing)]).await;
        let upstream = upstream(config(&server.base));
        assert_eq!(ask(&upstream).await.unwrap().text, "hello world", "{passing}");
        let seen = server.seen();
        assert_eq!(seen.len(), 3, "{passing}");
        assert_eq!(seen[0].body, seen[2].body);
    }
}

#[tokio::test]
async fn what_will_not_pass_is_not() {
    for (lasting, kind) in [
        (400, ErrorKind::Invalid),
        (422, ErrorKind::Invalid),
        (401, ErrorKind::Unavailable),
        (403, ErrorKind::Unavailable),
        (404, ErrorKind::Unavailable),
        (501, ErrorKind::Unavailable),
        (302, ErrorKind::Unavailable),
    ] {
        let server = FaultInjector::start([status(lasting)]).await;
        let upstream = upstream(config(&server.base));
        let error = ask(&upstream).await.unwrap_err();
        assert_eq!((error.kind, server.seen().len()), (kind, 1), "{lasting}");
        // What is said of a key stays here.
        let told = !matches!(lasting, 401 | 403);
        assert_eq!(error.message.contains("not now"), told, "{error}");
    }
}

#[tokio::test]
async fn after_the_last_attempt_the_error_says_what_the_upstream_said() {
    let server = FaultInjector::start(vec![status(503); 9]).await;
    let upstream = upstream(config(&server.base));
    let error = ask(&upstream).await.unwrap_err();
    assert_eq!(error.message, "the upstream failed (503): not now");
    assert_eq!((error.later, server.seen().len()), (Some(Later::Down { after_s: 1 }), 3));
}

#[tokio::test]
async fn retry_after_is_waited_for_when_it_is_short_and_passed_on_when_it_is_long() {
    let wait = Fault::Status(429, Some("1"), "slow down");
    let server = FaultInjector::start([wait]).await;
    let upstream_ = upstream(config(&server.base));
    let begin = Instant::now();
    ask(&upstream_).await.unwrap();
    assert!(begin.elapsed() >= Duration::from_secs(1), "{:?}", begin.elapsed());
    assert_eq!(server.seen().len(), 2);

    let long = Fault::Status(429, Some("60"), "slow down");
    let server = FaultInjector::start([long]).await;
    let upstream = upstream(config(&server.base));
    let begin = Instant::now();
    let error = ask(&upstream).await.unwrap_err();
    assert!(begin.elapsed() < Duration::from_secs(20));
    assert_eq!((error.later, server.seen().len()), (Some(Later::Busy { after_s: 60 }), 1));
    assert_eq!(error.message, "the upstream is busy (429): slow down");
}

#[tokio::test]
async fn while_much_fails_little_is_tried_again() {
    let server = FaultInjector::start(vec![status(429); 100]).await;
    let retry = RetryConfig { share: 0.0, reserve: 4, base_ms: 1, ..RetryConfig::default() };
    let upstream = upstream(Config { retry, ..config(&server.base) });
    for _ in 0..10 {
        ask(&upstream).await.unwrap_err();
    }
    assert_eq!(server.seen().len(), 10 + 4, "each request once, and the reserve");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named_quickly() {
    // A port that nobody is given who asks for a free one.
    let upstream = upstream(config("http://127.0.0.1:1/v1"));
    let begin = Instant::now();
    let error = ask(&upstream).await.unwrap_err();
    assert!(begin.elapsed() < Duration::from_secs(20));
    assert_eq!(error.kind, ErrorKind::Unavailable);
    let expected = "the upstream cannot be reached: Connection refused";
    assert!(error.message.starts_with(expected), "{error}");
    assert_eq!(error.hint.as_deref(), Some("check that it runs, and `upstream.base_url`"));
}
