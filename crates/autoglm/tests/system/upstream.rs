//! One executable before another: the second answers with the first.

use std::{
    net::{Ipv4Addr, TcpListener},
    path::Path,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::server::{PATIENCE, Server};

const SETTINGS: [(&str, &str); 5] = [
    ("AUTOGLM_UPSTREAM__CIRCUIT__MIN_REQUESTS", "4"),
    ("AUTOGLM_UPSTREAM__CIRCUIT__WINDOW_S", "5"),
    ("AUTOGLM_UPSTREAM__CIRCUIT__OPEN_S", "1"),
    ("AUTOGLM_UPSTREAM__CIRCUIT__MAX_OPEN_S", "2"),
    ("AUTOGLM_UPSTREAM__RETRY__BASE_MS", "20"),
];

/// A port that is free now, and stays so until a server takes it: the address is this process's own, as all of 127.0.0.0/8
/// is the machine itself on Linux. Elsewhere only 127.0.0.1 is, and another process may be quicker.
fn free_address() -> String {
    let [.., a, b] = std::process::id().to_be_bytes();
    let own = if cfg!(target_os = "linux") { Ipv4Addr::new(127, 77, a, b) } else { Ipv4Addr::LOCALHOST };
    TcpListener::bind((own, 0)).unwrap().local_addr().unwrap().to_string()
}

/// The second server.
async fn before(upstream: &str, data: &Path, more: &[(&str, &str)]) -> Server {
    let base = format!("http://{upstream}/v1");
    let mut variables = vec![("AUTOGLM_UPSTREAM__BASE_URL", base.as_str())];
    variables.extend(SETTINGS);
    variables.extend(more);
    Server::start(data, &variables).await
}

fn from_weights(prompt: &str) -> Value {
    json!({"messages": [{"role": "user", "content": prompt}], "max_tokens": 12, "autoglm": {"recall": "off"}})
}

fn content(answer: &Value) -> &str {
    answer.pointer("/choices/0/message/content").unwrap().as_str().unwrap()
}

/// The status, `Retry-After`, and the body.
async fn asked(server: &Server, body: &Value) -> (u16, Option<String>, Value) {
    let url = format!("{}/v1/chat/completions", server.base);
    let response = server.http.post(url).json(body).send().await.unwrap();
    let after = response.headers().get("retry-after").map(|value| value.to_str().unwrap().to_owned());
    (response.status().as_u16(), after, response.json().await.unwrap())
}

/// The text of a streamed answer and its last usage.
async fn streamed(server: &Server, mut body: Value) -> (String, Value) {
    body["stream"] = true.into();
    body["stream_options"] = json!({"include_usage": true});
    let url = format!("{}/v1/chat/completions", server.base);
    let text = server.http.post(url).json(&body).send().await.unwrap().text().await.unwrap();
    assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
    let chunks = text.lines().filter_map(|line| line.strip_prefix("data: ")).filter(|data| *data != "[DONE]");
    let (mut whole, mut usage) = (String::new(), Value::Null);
    for chunk in chunks.map(|chunk| serde_json::from_str::<Value>(chunk).unwrap()) {
        whole += chunk.pointer("/choices/0/delta/content").and_then(Value::as_str).unwrap_or_default();
        if chunk["usage"].is_object() {
            usage = chunk["usage"].clone();
        }
    }
    (whole, usage)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_answers_with_another_one_and_outlives_its_fall() {
    let folder = tempfile::tempdir().unwrap();
    let address = free_address();
    let first = Server::spawn_at(&address, &folder.path().join("first"), &[]).answering().await;
    let second = before(&address, &folder.path().join("second"), &[]).await;

    let question = from_weights("how do I reach the moon by bicycle");
    let direct = first.order("/v1/chat/completions", question.clone()).await;
    let handed_on = second.order("/v1/chat/completions", question.clone()).await;
    assert_eq!(content(&direct), content(&handed_on));
    assert_eq!(direct["usage"], handed_on["usage"]);
    assert_eq!(
        streamed(&second, question.clone()).await,
        (content(&direct).to_owned(), direct["usage"].clone())
    );
    let plain = json!({"prompt": "once upon", "max_tokens": 6, "logprobs": 2, "seed": 5, "temperature": 0.8,
        "autoglm": {"recall": "off"}});
    let direct = first.order("/v1/completions", plain.clone()).await;
    let handed_on = second.order("/v1/completions", plain).await;
    for path in ["/choices/0/text", "/choices/0/logprobs", "/choices/0/finish_reason", "/usage"] {
        assert_eq!(direct.pointer(path), handed_on.pointer(path), "{path}");
    }
    let mut unknown = from_weights("x");
    unknown["model"] = "v3".into();
    assert_eq!(asked(&second, &unknown).await.0, 404);

    // What is corrected is remembered here, and stays so without the first server.
    let (id, _) = second.ask("champion", "how do I reach the moon by bicycle").await;
    second.correct(&id, "space travel").await;
    recalled(&second).await;
    let (status, order) = second.post("/v1/autoglm/train", &json!({})).await.unwrap();
    assert_eq!(status, 409, "{order}");
    assert!(order.to_string().contains("training is off: `model.path` names no local copy"), "{order}");
    assert!(second.log().contains("training is off"), "{}", second.log());

    first.kill();
    let begin = Instant::now();
    let mut refusals = 0;
    while second.status().await["activity"]["upstream"]["circuit"] != "open" {
        let (status, after, body) = asked(&second, &from_weights("is anybody there")).await;
        assert_eq!(status, 503, "{body}");
        assert!(after.is_some_and(|after| after.parse::<u32>().unwrap() >= 1));
        refusals += 1;
        assert!(begin.elapsed() < PATIENCE, "the circuit stays closed after {refusals} failures");
    }
    let quick = Instant::now();
    let (status, after, body) = asked(&second, &from_weights("is anybody there")).await;
    assert_eq!((status, after.is_some()), (503, true), "{body}");
    assert!(quick.elapsed() < Duration::from_secs(10), "{:?}", quick.elapsed());
    let mut stream = from_weights("is anybody there");
    stream["stream"] = true.into();
    assert_eq!(asked(&second, &stream).await.0, 503, "before the first chunk there is a status");
    assert_eq!(second.ask("champion", "how do I reach the moon by bicycle").await.1, "space travel");

    let first = Server::spawn_at(&address, &folder.path().join("first"), &[]).answering().await;
    let begin = Instant::now();
    while asked(&second, &question).await.0 != 200 {
        assert!(begin.elapsed() < PATIENCE, "it never recovers\n{}", second.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(second.status().await["activity"]["upstream"]["circuit"], "closed");
    second.stop();
    first.stop();
}

/// Waits until memory answers.
async fn recalled(server: &Server) {
    let begin = Instant::now();
    while server.ask("champion", "how do I reach the moon by bicycle").await.1 != "space travel" {
        assert!(
            begin.elapsed() < Duration::from_secs(20),
            "the correction changed nothing\n{}",
            server.log()
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_can_take_its_vectors_from_the_upstream() {
    let folder = tempfile::tempdir().unwrap();
    let address = free_address();
    let first = Server::spawn_at(&address, &folder.path().join("first"), &[]).answering().await;
    let embedding = [("AUTOGLM_UPSTREAM__EMBEDDING_MODEL", "base")];
    let second = before(&address, &folder.path().join("second"), &embedding).await;
    let body = json!({"model": "champion", "input": ["where is my card", "a card"]});
    let direct = first.order("/v1/embeddings", body.clone()).await;
    let handed_on = second.order("/v1/embeddings", body).await;
    for (one, other) in direct["data"].as_array().unwrap().iter().zip(handed_on["data"].as_array().unwrap()) {
        let numbers = |entry: &Value| entry["embedding"].as_array().unwrap().clone();
        assert_eq!(numbers(one).len(), numbers(other).len());
        for (a, b) in numbers(one).iter().zip(numbers(other)) {
            assert!((a.as_f64().unwrap() - b.as_f64().unwrap()).abs() < 1e-5);
        }
    }
    let (id, _) = second.ask("champion", "how do I reach the moon by bicycle").await;
    second.correct(&id, "space travel").await;
    recalled(&second).await;
    // Without the upstream there are no vectors, and it says so; nothing hangs.
    first.kill();
    assert_eq!(asked(&second, &from_weights("is anybody there")).await.0, 503);
    second.stop();
    let refused = Server::spawn(
        &folder.path().join("second"),
        &[
            ("AUTOGLM_UPSTREAM__BASE_URL", &format!("http://{address}/v1")),
            ("AUTOGLM_UPSTREAM__MODEL", "champion"),
            embedding[0],
        ],
    );
    assert_eq!(refused.ended(), Some(6), "{}", refused.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_starts_before_its_upstream_and_finds_it_later() {
    let folder = tempfile::tempdir().unwrap();
    let address = free_address();
    let named = [("AUTOGLM_UPSTREAM__MODEL", "champion")];
    let second = before(&address, &folder.path().join("second"), &named).await;
    assert!(second.log().contains("the upstream does not answer yet"), "{}", second.log());
    assert_eq!(asked(&second, &from_weights("hello")).await.0, 503);
    let first = Server::spawn_at(&address, &folder.path().join("first"), &[]).answering().await;
    let begin = Instant::now();
    while asked(&second, &from_weights("hello")).await.0 != 200 {
        assert!(begin.elapsed() < Duration::from_secs(20), "{}", second.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    second.stop();
    first.stop();
}
