//! A fault injector: a server of chats that does, request by request, what a script says.

use std::{
    collections::VecDeque,
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::{get, post},
    serve::ListenerExt as _,
};
use futures::{StreamExt as _, stream};
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// What happens to one request.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// None: the words, each in a chunk.
    Answer(&'static [&'static str]),
    /// A status with a body, and `Retry-After` where there is one.
    Status(u16, Option<&'static str>, &'static str),
    /// The headers come late, and then an answer.
    SlowHeaders(Duration),
    /// These bytes, piece by piece, and then an orderly end.
    Raw(Vec<Vec<u8>>),
    /// These bytes, and then the connection is cut.
    Cut(Vec<Vec<u8>>),
    /// These bytes, and then nothing for ever.
    Stall(Vec<Vec<u8>>),
    /// Words without an end, one every millisecond.
    Endless,
    /// The status of success, but no stream.
    Page(&'static str, &'static str),
}

/// A request as it came in.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

#[derive(Clone, Default)]
pub(crate) struct FaultInjector {
    pub(crate) base: String,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    script: Mutex<VecDeque<Fault>>,
    seen: Mutex<Vec<Seen>>,
    connections: AtomicUsize,
    /// Chunks of endless answers that were taken.
    sent: Arc<AtomicUsize>,
    /// Endless answers that were dropped.
    dropped: Arc<AtomicUsize>,
}

impl FaultInjector {
    /// Plays `script`; after it every request is answered `hello world`.
    pub(crate) async fn start(script: impl IntoIterator<Item = Fault>) -> Self {
        Self::on("127.0.0.1:0".parse().unwrap(), script).await
    }

    pub(crate) async fn on(address: SocketAddr, script: impl IntoIterator<Item = Fault>) -> Self {
        let shared =
            Arc::new(Shared { script: Mutex::new(script.into_iter().collect()), ..Shared::default() });
        let routes = Router::new()
            .route("/v1/models", get(async || Json(json!({"object": "list", "data": [{"id": "small"}]}))))
            .route("/v1/chat/completions", post(play))
            .route("/v1/completions", post(play))
            .route("/v1/embeddings", post(embed))
            .with_state(Arc::clone(&shared));
        let listener = TcpListener::bind(address).await.unwrap();
        let base = format!("http://{}/v1", listener.local_addr().unwrap());
        let counted = Arc::clone(&shared);
        let listener = listener.tap_io(move |_| {
            counted.connections.fetch_add(1, Ordering::SeqCst);
        });
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Self { base, shared }
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().clone()
    }

    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    pub(crate) fn sent(&self) -> usize {
        self.shared.sent.load(Ordering::SeqCst)
    }

    pub(crate) fn dropped(&self) -> usize {
        self.shared.dropped.load(Ordering::SeqCst)
    }

    /// Leaves out the rest of the script.
    pub(crate) fn forget(&self) {
        self.shared.script.lock().unwrap().clear();
    }

    pub(crate) fn then(&self, faults: impl IntoIterator<Item = Fault>) {
        self.shared.script.lock().unwrap().extend(faults);
    }
}

/// An event with a word of a chat.
pub(crate) fn word(text: &str) -> Vec<u8> {
    event(&json!({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": null}]}).to_string())
}

/// The events that end an answer.
pub(crate) fn end(finish_reason: &str, prompt_tokens: u32, completion_tokens: u32) -> Vec<u8> {
    let usage = json!({"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens});
    let mut bytes =
        event(&json!({"choices": [{"index": 0, "delta": {}, "finish_reason": finish_reason}]}).to_string());
    bytes.extend(event(&json!({"choices": [], "usage": usage}).to_string()));
    bytes.extend(event("[DONE]"));
    bytes
}

pub(crate) fn event(data: &str) -> Vec<u8> {
    format!("data: {data}\n\n").into_bytes()
}

async fn play(
    State(shared): State<Arc<Shared>>,
    uri: axum::http::Uri,
    headers: HeaderMap,
    Json(body): Json<Value>,
) -> Response {
    shared.seen.lock().unwrap().push(Seen { path: uri.path().to_owned(), headers, body });
    let fault = shared.script.lock().unwrap().pop_front().unwrap_or(Fault::Answer(&["hello", " world"]));
    match fault {
        Fault::Answer(words) => events(pieces(answer(words))),
        Fault::Status(status, retry_after, body) => {
            let mut response = (StatusCode::from_u16(status).unwrap(), body).into_response();
            if let Some(after) = retry_after {
                response.headers_mut().insert(header::RETRY_AFTER, after.parse().unwrap());
            }
            response
        }
        Fault::SlowHeaders(pause) => {
            tokio::time::sleep(pause).await;
            events(pieces(answer(&["late"])))
        }
        Fault::Raw(bytes) => events(pieces(bytes)),
        Fault::Cut(bytes) => {
            // After a moment, in which what was sent gets out.
            let cut = stream::once(async {
                tokio::time::sleep(Duration::from_millis(20)).await;
                Err(std::io::Error::other("cut"))
            });
            events(Body::from_stream(spaced(bytes).map(Ok).chain(cut)))
        }
        Fault::Stall(bytes) => {
            events(Body::from_stream(spaced(bytes).map(Ok::<_, Infallible>).chain(stream::pending())))
        }
        Fault::Endless => events(endless(&shared)),
        Fault::Page(kind, body) => ([(header::CONTENT_TYPE, kind)], body).into_response(),
    }
}

/// A vector `[3, 4 * length]` a text, the last text first.
async fn embed(State(shared): State<Arc<Shared>>, headers: HeaderMap, Json(body): Json<Value>) -> Response {
    shared.seen.lock().unwrap().push(Seen { path: "/v1/embeddings".into(), headers, body: body.clone() });
    if let Some(Fault::Status(status, _, body)) = shared.script.lock().unwrap().pop_front() {
        return (StatusCode::from_u16(status).unwrap(), body).into_response();
    }
    let texts = body["input"].as_array().unwrap();
    let entry = |(index, text): (usize, &Value)| json!({"object": "embedding", "index": index, "embedding": [3.0, 4.0 * text.as_str().unwrap().len() as f64]});
    let data: Vec<_> = texts.iter().enumerate().map(entry).rev().collect();
    Json(json!({"object": "list", "data": data})).into_response()
}

fn answer(words: &[&str]) -> Vec<Vec<u8>> {
    let mut bytes: Vec<_> = words.iter().map(|text| word(text)).collect();
    bytes.push(end("stop", 5, u32::try_from(words.len()).unwrap()));
    bytes
}

fn events(body: Body) -> Response {
    ([(header::CONTENT_TYPE, "text/event-stream; charset=utf-8")], body).into_response()
}

fn pieces(bytes: Vec<Vec<u8>>) -> Body {
    Body::from_stream(spaced(bytes).map(Ok::<_, Infallible>))
}

/// Pieces with a moment between them, so that each is a packet of its own.
fn spaced(bytes: Vec<Vec<u8>>) -> impl futures::Stream<Item = Bytes> {
    stream::iter(bytes).then(async |piece| {
        tokio::time::sleep(Duration::from_millis(2)).await;
        Bytes::from(piece)
    })
}

fn endless(shared: &Shared) -> Body {
    struct Counted(Arc<AtomicUsize>);
    impl Drop for Counted {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    let counted = Counted(Arc::clone(&shared.dropped));
    let sent = Arc::clone(&shared.sent);
    Body::from_stream(stream::repeat_with(move || {
        let _counted = &counted;
        sent.fetch_add(1, Ordering::SeqCst);
        // Large, so that buffers on the way are full after a few.
        Ok::<_, Infallible>(Bytes::from(word(&"so on ".repeat(2000))))
    }))
}

/// Waits until `holds`, for a few seconds.
pub(crate) async fn eventually(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..1000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("never: {what}");
}
