//! Streams that break, lie, or never end.

use std::time::Duration;

use autoglm_domain::{ErrorKind, GenerationEvent, Generator as _};
use futures::StreamExt as _;
use proptest::prelude::{ProptestConfig, any, proptest};

use crate::{
    ask, chat, config,
    fault_injector::{Fault, FaultInjector, event, word},
    upstream,
};

/// The text that came before the error, and the error.
async fn broken(fault: Fault) -> (String, autoglm_domain::Error) {
    let server = FaultInjector::start([fault]).await;
    let upstream = upstream(config(&server.base));
    let mut stream = upstream.generate(chat("hi")).await.unwrap();
    let mut text = String::new();
    let error = loop {
        match stream.next().await.unwrap() {
            Ok(GenerationEvent::Text { text: more, .. }) => text.push_str(&more),
            Ok(done) => panic!("{done:?}"),
            Err(error) => break error,
        }
    };
    assert!(stream.next().await.is_none(), "an error is the end");
    assert_eq!(server.seen().len(), 1, "nothing is tried again once an answer has begun");
    (text, error)
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_an_error_after_what_had_come() {
    let (text, error) = broken(Fault::Cut(vec![word("half"), word(" an")])).await;
    assert_eq!((text.as_str(), error.kind), ("half an", ErrorKind::Unavailable));
    assert!(error.message.starts_with("the upstream's answer broke off: "), "{error}");
    let (text, error) = broken(Fault::Raw(vec![word("half")])).await;
    assert_eq!(
        (text.as_str(), error.message.as_str()),
        ("half", "the upstream's answer broke off: it ended in the middle")
    );
}

#[tokio::test]
async fn garbage_is_named_and_not_quoted() {
    for garbage in [&b"data: {\"secret\": \n\n"[..], b"data: secret\n\n", b"data: {\"choices\": 5}\n\n"] {
        let (text, error) = broken(Fault::Raw(vec![word("ok"), garbage.to_vec()])).await;
        assert_eq!((text.as_str(), error.kind), ("ok", ErrorKind::Unavailable));
        assert!(error.message.contains("cannot be read") && !error.message.contains("secret"), "{error}");
    }
    let (_, error) = broken(Fault::Raw(vec![b"<html>".to_vec(), b"oops".to_vec()])).await;
    assert_eq!(error.message, "the upstream's answer broke off: it ended in the middle");
}

#[tokio::test]
async fn invalid_utf_8_across_chunks_is_an_error() {
    let mut split = b"data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"\xF0\x9F".to_vec();
    let rest = b"oops\"}}]}\n\n".to_vec();
    let (text, error) = broken(Fault::Raw(vec![word("ok"), std::mem::take(&mut split), rest])).await;
    assert_eq!(
        (text.as_str(), error.message.as_str()),
        ("ok", "the upstream's answer cannot be read: not UTF-8")
    );
}

#[tokio::test]
async fn a_line_without_an_end_is_cut_off_at_the_limit() {
    let mut bytes = vec![word("ok"), b"data: ".to_vec()];
    bytes.extend(vec![vec![b'x'; 64 << 10]; 40]);
    let (text, error) = broken(Fault::Stall(bytes)).await;
    assert_eq!(text, "ok");
    assert_eq!(error.message, "the upstream's answer cannot be read: an event has more than 1048576 bytes");
}

#[tokio::test]
async fn an_error_in_the_stream_keeps_its_kind() {
    let refused = r#"{"error":{"message":"too long","type":"BadRequestError","code":400}}"#;
    let (_, error) = broken(Fault::Raw(vec![event(refused), event("[DONE]")])).await;
    assert_eq!(
        (error.kind, error.message.as_str()),
        (ErrorKind::Invalid, "the upstream refused the request: too long")
    );
    let failed = r#"{"error":{"message":"out of memory","type":"server_error"}}"#;
    let (text, error) = broken(Fault::Raw(vec![word("so"), event(failed)])).await;
    assert_eq!((text.as_str(), error.kind), ("so", ErrorKind::Unavailable));
    assert_eq!(error.message, "the upstream failed (500): out of memory");
}

#[tokio::test]
async fn a_page_instead_of_a_stream_is_refused() {
    let (_, error) = broken(Fault::Page("text/html; charset=utf-8", "<html>secret</html>")).await;
    assert_eq!(
        error.message,
        "the upstream's answer cannot be read: it is `text/html`, not a stream of events"
    );
    let wrong = r#"{"object":"chat.completion","choices":[{"message":{"content":"whole"}}]}"#;
    let (_, error) = broken(Fault::Page("application/json", wrong)).await;
    assert!(error.message.contains("`application/json`"), "{error}");
    let refused = r#"{"error":{"message":"no such model","code":400}}"#;
    let (_, error) = broken(Fault::Page("application/json", refused)).await;
    assert_eq!(error.kind, ErrorKind::Invalid);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Whatever bytes come, in whatever pieces: an end or an error, soon, and no panic.
    #[test]
    fn any_bytes_end_in_an_answer_or_an_error(pieces: Vec<Vec<u8>>, prefix in any::<bool>()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let pieces = pieces.into_iter().map(|piece| {
                let mut bytes = if prefix { b"data: ".to_vec() } else { Vec::new() };
                bytes.extend(piece);
                bytes
            });
            let server = FaultInjector::start([Fault::Raw(pieces.take(8).collect())]).await;
            let upstream = upstream(config(&server.base));
            let answer = tokio::time::timeout(Duration::from_secs(5), ask(&upstream)).await;
            assert_eq!(answer.unwrap().unwrap_err().kind, ErrorKind::Unavailable);
        });
    }
}
