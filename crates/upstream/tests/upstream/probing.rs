//! What is found out of a server, once.

use autoglm_domain::{ErrorKind, Generator as _};
use autoglm_upstream::{Config, Dialect};

use crate::{ask, config, fault_injector::FaultInjector, lora_double::LoraDouble, upstream};

#[tokio::test]
async fn the_first_listed_model_and_its_context_are_taken() {
    let server = LoraDouble::start(Dialect::Vllm).await;
    let upstream = upstream(Config { model: String::new(), ..config(&server.base) });
    assert_eq!(upstream.context_length(), 4096);
    assert_eq!(ask(&upstream).await.unwrap().text, "big");
    assert_eq!(upstream.context_length(), 8192);
    let known = upstream.known().unwrap();
    assert_eq!(
        known.summary(),
        "model `big`, 8192 tokens; only the base model answers: \
        `upstream.adapter_dir` names no folder for adapters"
    );
    let set = crate::upstream(Config { context_length: 512, ..config(&server.base) });
    assert_eq!(set.context_length(), 512);
}

#[tokio::test]
async fn a_server_that_does_not_answer_yet_is_asked_again_later() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let upstream = upstream(config(&format!("http://{address}/v1")));
    let error = autoglm_domain::Error::from(upstream.capabilities().await.unwrap_err());
    assert_eq!(error.kind, ErrorKind::Unavailable);
    assert!(upstream.known().is_none());
    let server = FaultInjector::on(address, []).await;
    assert_eq!(upstream.capabilities().await.unwrap().model, "small");
    assert_eq!(ask(&upstream).await.unwrap().text, "hello world");
    assert_eq!(server.seen().len(), 1);
}
