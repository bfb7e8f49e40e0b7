//! Many requests at once against a server that does anything.

use std::{sync::Arc, time::Duration};

use autoglm_domain::{ErrorKind, Generator as _};
use autoglm_upstream::{CircuitConfig, Config};
use futures::future::join_all;
use proptest::prelude::{BoxedStrategy, Just, ProptestConfig, Strategy as _, prop, prop_oneof, proptest};

use crate::{
    chat, config,
    fault_injector::{Fault, FaultInjector, event, word},
    upstream,
};

fn fault() -> BoxedStrategy<Fault> {
    prop_oneof![
        4 => Just(Fault::Answer(&["good", " answer"])),
        1 => prop::sample::select(vec![400_u16, 401, 404, 408, 429, 500, 502, 503])
            .prop_map(|status| Fault::Status(status, None, "no")),
        1 => Just(Fault::Status(429, Some("0"), "no")),
        1 => Just(Fault::Cut(vec![word("bad")])),
        1 => Just(Fault::Cut(vec![])),
        1 => Just(Fault::Raw(vec![word("bad"), event("{")])),
        1 => Just(Fault::Raw(vec![b"data: \xFF\n\n".to_vec()])),
        1 => Just(Fault::Stall(vec![word("bad")])),
        1 => Just(Fault::SlowHeaders(Duration::from_millis(30))),
        1 => Just(Fault::Page("application/json", "{}")),
    ]
    .boxed()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// Each answer is one of the server's whole answers or an error of a kind that says what to do; none hangs, and
    /// afterwards the upstream is as usable as before.
    #[test]
    fn every_request_ends_in_a_whole_answer_or_an_error(script in prop::collection::vec(fault(), 40)) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let server = FaultInjector::start(script).await;
            let circuit = CircuitConfig { min_requests: 1000, ..CircuitConfig::default() };
            let upstream =
                Arc::new(upstream(Config { circuit, token_timeout_s: 1, ..config(&server.base) }));
            let asked = (0..30).map(|_| {
                let upstream = Arc::clone(&upstream);
                tokio::spawn(async move { upstream.generate_all(chat("hi")).await })
            });
            let answers = tokio::time::timeout(Duration::from_secs(10), join_all(asked)).await.unwrap();
            for answer in answers {
                match answer.unwrap() {
                    Ok(answer) => {
                        assert!(["good answer", "late", "hello world"].contains(&answer.text.as_str()), "{answer:?}");
                    }
                    Err(error) => {
                        assert!(matches!(error.kind, ErrorKind::Unavailable | ErrorKind::Invalid), "{error:?}");
                    }
                }
            }
            server.forget();
            assert_eq!(upstream.generate_all(chat("hi")).await.unwrap().text, "hello world");
        });
    }
}
