//! Over a real socket: clients that go away, servers that stop, ports that are taken.

use std::{sync::atomic::Ordering, time::Duration};

use autoglm_domain::FinishReason;
use autoglm_gateway::{Config, bind};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::harness::{Server, eventually};

async fn ask(server: &Server, content: &str, stream: bool) -> TcpStream {
    let body = format!(r#"{{"messages": [{{"role": "user", "content": "{content}"}}], "stream": {stream}}}"#);
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut connection = TcpStream::connect(&server.address).await.unwrap();
    connection.write_all(request.as_bytes()).await.unwrap();
    connection
}

async fn read_until(connection: &mut TcpStream, text: &str) -> String {
    let mut all = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let read = tokio::time::timeout(Duration::from_secs(5), connection.read(&mut buffer)).await;
        let read = read.expect("the server sent nothing for 5 s").unwrap();
        all.extend_from_slice(&buffer[..read]);
        let so_far = String::from_utf8_lossy(&all).into_owned();
        if so_far.contains(text) || read == 0 {
            return so_far;
        }
    }
}

#[tokio::test]
async fn a_client_that_leaves_a_stream_cancels_it_and_the_part_is_recorded() {
    let server = Server::start(Config::default()).await;
    let mut connection = ask(&server, "endless words", true).await;
    let seen = read_until(&mut connection, "words").await;
    assert!(seen.starts_with("HTTP/1.1 200"), "{seen}");
    drop(connection);
    let doubles = server.doubles.clone();
    eventually("the cancellation", || doubles.generator.cancelled.load(Ordering::SeqCst) == 1).await;
    eventually("the record", || doubles.store.all().len() == 1).await;
    let recorded = doubles.store.all().pop().unwrap();
    assert_eq!(recorded.finish_reason, FinishReason::Cancelled);
    assert!(recorded.answer.starts_with("echo endless words"), "{}", recorded.answer);
    assert_eq!(recorded.usage.prompt_tokens, 2);
    assert_eq!(recorded.usage.completion_tokens as usize, recorded.answer.split_whitespace().count());
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_leaves_a_plain_request_cancels_it_too() {
    let server = Server::start(Config::default()).await;
    let connection = ask(&server, "endless words", false).await;
    let doubles = server.doubles.clone();
    eventually("the request", || doubles.generator.requests.lock().unwrap().len() == 1).await;
    drop(connection);
    eventually("the cancellation", || doubles.generator.cancelled.load(Ordering::SeqCst) == 1).await;
    eventually("the record", || doubles.store.all().len() == 1).await;
    assert_eq!(doubles.store.all()[0].finish_reason, FinishReason::Cancelled);
    server.stop().await;
}

#[tokio::test]
async fn chunks_are_sent_the_moment_they_are_there() {
    let server = Server::start(Config::default()).await;
    let mut connection = ask(&server, "endless words", true).await;
    let first = read_until(&mut connection, "echo").await;
    assert!(!first.contains("words\""), "the first word did not wait for others: {first}");
    drop(connection);
    server.stop().await;
}

#[tokio::test]
async fn a_quiet_stream_is_kept_alive() {
    let server = Server::start(Config { keep_alive_s: 1, ..Config::default() }).await;
    let mut connection = ask(&server, "hangs", true).await;
    let seen = read_until(&mut connection, ": keep-alive").await;
    assert!(seen.contains(": keep-alive\n\n"), "{seen}");
    drop(connection);
    server.stop().await;
}

#[tokio::test]
async fn a_server_that_stops_finishes_what_it_began() {
    let server = Server::start(Config::default()).await;
    server.doubles.store.delay_ms.store(100, Ordering::SeqCst);
    let mut connection = ask(&server, "hello", true).await;
    read_until(&mut connection, "echo").await;
    let store = server.doubles.store.clone();
    let (rest, ()) = tokio::join!(read_until(&mut connection, "[DONE]"), server.stop());
    assert!(rest.contains("[DONE]"), "{rest}");
    assert_eq!(store.all()[0].finish_reason, FinishReason::Stop);
}

#[tokio::test]
async fn after_the_grace_answers_are_cut_off_with_an_error_and_recorded() {
    let server = Server::start(Config { shutdown_grace_s: 0, ..Config::default() }).await;
    let mut connection = ask(&server, "hangs", true).await;
    let doubles = server.doubles.clone();
    eventually("the request", || doubles.generator.requests.lock().unwrap().len() == 1).await;
    let (rest, ()) = tokio::join!(read_until(&mut connection, "shutting_down"), server.stop());
    assert!(rest.contains("\"code\":\"shutting_down\"") && !rest.contains("[DONE]"), "{rest}");
    assert_eq!(doubles.store.all()[0].finish_reason, FinishReason::Cancelled);
}

#[tokio::test]
async fn a_port_in_use_is_named_with_a_hint() {
    let taken = bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let error = autoglm_domain::Error::from(bind(&address).await.unwrap_err());
    assert_eq!(error.kind, autoglm_domain::ErrorKind::Conflict);
    assert_eq!(error.message, format!("{address} is in use by another process"));
    assert_eq!(error.hint.as_deref(), Some("stop it, or choose another address with `server.listen`"));
    let nonsense = bind("nowhere:port").await.unwrap_err().to_string();
    assert!(nonsense.starts_with("cannot listen on `nowhere:port`: "), "{nonsense}");
}
