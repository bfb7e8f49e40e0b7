//! Vectors from the upstream.

use std::sync::Arc;

use autoglm_domain::{Embedder as _, ErrorKind};
use autoglm_upstream::Config;
use serde_json::json;

use crate::{
    config,
    fault_injector::{Fault, FaultInjector},
    upstream,
};

fn embedding(base: &str) -> Config {
    Config { embedding_model: "vectors".into(), ..config(base) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn texts_become_vectors_in_their_order_whichever_threads_wait() {
    let server = FaultInjector::start([]).await;
    let embedder = Arc::new(upstream(embedding(&server.base)).embedder().await.unwrap());
    assert_eq!(embedder.dimensions(), 2);
    // 70 texts are three requests; the text of one letter is [3, 4] at unit length.
    let texts: Vec<String> = (0..70).map(|length| "x".repeat(length)).collect();
    let vectors = embedder.embed(&texts.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
    assert_eq!((vectors.len(), vectors[1].as_slice()), (70, [0.6, 0.8].as_slice()));
    assert_eq!(vectors[0], vectors[1], "an empty text is sent as a blank");
    assert!(vectors[69][1] > vectors[68][1]);
    let sizes: Vec<usize> =
        server.seen().iter().map(|seen| seen.body["input"].as_array().unwrap().len()).collect();
    assert_eq!(sizes, [1, 32, 32, 6]);
    assert_eq!(server.seen()[0].body["model"], json!("vectors"));
    // More waiters than the runtime has workers: what they wait for is done elsewhere.
    let waiters = (0..8).map(|_| {
        let embedder = Arc::clone(&embedder);
        tokio::spawn(async move { embedder.embed(&["x"]).unwrap() })
    });
    for waiter in waiters.collect::<Vec<_>>() {
        assert_eq!(waiter.await.unwrap(), [[0.6, 0.8]]);
    }
}

#[tokio::test]
async fn failures_are_tried_again_and_what_does_not_embed_is_told_at_the_start() {
    let server = FaultInjector::start([Fault::Status(503, None, "loading")]).await;
    let embedder = upstream(embedding(&server.base)).embedder().await.unwrap();
    assert_eq!(server.seen().len(), 2);
    server.then(vec![Fault::Status(400, None, "the text is too long")]);
    let refused = tokio::task::spawn_blocking(move || embedder.embed(&["x"])).await.unwrap().unwrap_err();
    assert_eq!(
        (refused.kind, refused.message.as_str()),
        (ErrorKind::Invalid, "the upstream refused the request: the text is too long")
    );
    let server = FaultInjector::start([Fault::Status(404, None, "no embeddings here")]).await;
    let error = upstream(embedding(&server.base)).embedder().await.unwrap_err();
    assert_eq!(error.to_string(), "the upstream has no such thing: no embeddings here");
}
