//! The circuit breaker before a real socket.

use std::sync::Arc;

use autoglm_domain::{Clock, Generator as _, Later, ManualClock, Timestamp};
use autoglm_upstream::{CircuitConfig, CircuitState, Config, RetryConfig, Upstream};
use futures::StreamExt as _;

use crate::{
    ask, chat, config,
    fault_injector::{Fault, FaultInjector, word},
    with_clock,
};

fn careful(base: &str) -> Config {
    Config {
        circuit: CircuitConfig { window_s: 30, min_requests: 4, error_rate: 0.5, open_s: 5, max_open_s: 60 },
        retry: RetryConfig { attempts: 1, ..RetryConfig::default() },
        ..config(base)
    }
}

fn with_manual_clock(config: Config) -> (Upstream, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::at(Timestamp(1_700_000_000_000)));
    (with_clock(config, Arc::clone(&clock) as Arc<dyn Clock>), clock)
}

#[tokio::test]
async fn an_upstream_that_fails_is_left_alone_and_found_again_by_a_probe() {
    let server = FaultInjector::start(vec![Fault::Status(500, None, "boom"); 3]).await;
    let (upstream, clock) = with_manual_clock(careful(&server.base));
    // The list of models is the first of four requests, and the only one that succeeds.
    upstream.capabilities().await.unwrap();
    for _ in 0..3 {
        assert!(ask(&upstream).await.unwrap_err().message.contains("boom"));
    }
    assert_eq!(upstream.circuit(), CircuitState::Open);
    for _ in 0..100 {
        let refused = ask(&upstream).await.unwrap_err();
        assert_eq!(refused.later, Some(Later::Down { after_s: 5 }));
        assert!(refused.message.ends_with("failed too often and is left alone"), "{refused}");
    }
    assert_eq!(server.seen().len(), 3, "nothing was sent");
    clock.advance_ms(5000);
    assert_eq!(ask(&upstream).await.unwrap().text, "hello world");
    assert_eq!(upstream.circuit(), CircuitState::Closed);
}

#[tokio::test]
async fn one_probe_at_a_time_and_its_first_token_decides() {
    let mut script = vec![Fault::Status(500, None, "boom"); 3];
    script.push(Fault::Stall(vec![word("back")]));
    let server = FaultInjector::start(script).await;
    let (upstream, clock) = with_manual_clock(careful(&server.base));
    upstream.capabilities().await.unwrap();
    for _ in 0..3 {
        ask(&upstream).await.unwrap_err();
    }
    clock.advance_ms(5000);
    let mut probe = upstream.generate(chat("hi")).await.unwrap();
    assert_eq!(upstream.circuit(), CircuitState::HalfOpen);
    assert!(ask(&upstream).await.unwrap_err().message.contains("left alone"));
    probe.next().await.unwrap().unwrap();
    assert_eq!(upstream.circuit(), CircuitState::Closed);
    ask(&upstream).await.unwrap();
}

#[tokio::test]
async fn a_busy_upstream_or_a_bad_request_opens_nothing() {
    let mut script = vec![Fault::Status(429, Some("60"), "slow down"); 10];
    script.extend(vec![Fault::Status(400, None, "bad"); 10]);
    let server = FaultInjector::start(script).await;
    let (upstream, _) = with_manual_clock(careful(&server.base));
    for _ in 0..20 {
        ask(&upstream).await.unwrap_err();
    }
    assert_eq!((upstream.circuit(), server.seen().len()), (CircuitState::Closed, 20));
}

#[tokio::test]
async fn answers_that_break_off_open_it_too() {
    let server = FaultInjector::start(vec![Fault::Cut(vec![word("half")]); 8]).await;
    let (upstream, _) = with_manual_clock(careful(&server.base));
    for _ in 0..8 {
        ask(&upstream).await.unwrap_err();
    }
    assert_eq!(upstream.circuit(), CircuitState::Open);
}
