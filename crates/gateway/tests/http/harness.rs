//! A gateway over doubles, and how to speak with it.

use std::{
    fmt::Write as _,
    sync::{Arc, Mutex, atomic::AtomicU64},
    time::Duration,
};

use autoglm_domain::{ManualClock, SequentialIds, Timestamp};
use autoglm_gateway::{Config, Gateway, MetricsPage, RecallDecision, bind};
use axum::{
    Router,
    body::Body,
    http::{HeaderMap, Request, StatusCode},
};
use serde_json::Value;
use tokio::{sync::oneshot, task::JoinHandle};
use tower::ServiceExt as _;

use crate::doubles::{EchoGenerator, Herald, LengthEmbedder, MemoryStore, Notes, Obedient, Scripted, Table};

/// The doubles behind a gateway.
#[derive(Clone)]
pub(crate) struct Doubles {
    pub(crate) generator: Arc<EchoGenerator>,
    pub(crate) store: Arc<MemoryStore>,
    pub(crate) recall: Arc<Scripted>,
    pub(crate) notes: Arc<Notes>,
    pub(crate) table: Arc<Table>,
}

pub(crate) fn gateway(config: Config) -> (Gateway, Doubles) {
    let doubles = Doubles {
        generator: Arc::default(),
        store: Arc::default(),
        recall: Arc::new(Scripted {
            decision: Mutex::new(Ok(RecallDecision::None)),
            modes: Mutex::default(),
        }),
        notes: Arc::default(),
        table: Arc::new(Table(AtomicU64::new(3))),
    };
    let gateway = Gateway {
        config,
        generator: doubles.generator.clone(),
        embedder: Arc::new(LengthEmbedder),
        store: doubles.store.clone(),
        clock: Arc::new(ManualClock::at(Timestamp(1_700_000_000_000))),
        ids: Arc::new(SequentialIds::default()),
        aliases: doubles.table.clone(),
        recall: doubles.recall.clone(),
        observer: doubles.notes.clone(),
        admin: Arc::new(Obedient),
        announcements: Some(Arc::new(Herald)),
        metrics: MetricsPage::install().unwrap(),
    };
    (gateway, doubles)
}

/// A gateway without a socket.
pub(crate) struct Harness {
    router: Router,
    pub(crate) doubles: Doubles,
}

pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Harness {
    pub(crate) fn new() -> Self {
        Self::with(Config::default())
    }

    pub(crate) fn with(config: Config) -> Self {
        Self::over(gateway(config))
    }

    pub(crate) fn over((gateway, doubles): (Gateway, Doubles)) -> Self {
        Self { router: gateway.router(), doubles }
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Reply {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (head, body) = response.into_parts();
        let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        Reply { status: head.status, headers: head.headers, body: String::from_utf8(body.into()).unwrap() }
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.send(Request::get(path).body(Body::empty()).unwrap()).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Reply {
        self.post_text(path, &body.to_string()).await
    }

    pub(crate) async fn post_text(&self, path: &str, body: &str) -> Reply {
        self.send(Request::post(path).body(Body::from(body.to_owned())).unwrap()).await
    }

    /// One user message; `more` is merged into the request.
    pub(crate) async fn chat(&self, content: &str, more: Value) -> Reply {
        let mut body = serde_json::json!({"messages": [{"role": "user", "content": content}]});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.post("/v1/chat/completions", body).await
    }
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// What a client sees, for snapshots.
    pub(crate) fn show(&self) -> String {
        let mut text = format!("HTTP {}\n", self.status);
        for name in [
            "x-autoglm-model-version",
            "x-request-id",
            "retry-after",
            "allow",
            "www-authenticate",
            "content-type",
        ] {
            if let Some(value) = self.headers.get(name) {
                writeln!(text, "{name}: {}", value.to_str().unwrap()).unwrap();
            }
        }
        text.push('\n');
        match serde_json::from_str::<Value>(&self.body) {
            Ok(json) => text.push_str(&serde_json::to_string_pretty(&json).unwrap()),
            Err(_) => text.push_str(self.body.trim_end()),
        }
        text
    }
}

/// A gateway on a real socket.
pub(crate) struct Server {
    pub(crate) address: String,
    pub(crate) doubles: Doubles,
    stop: oneshot::Sender<()>,
    running: JoinHandle<Result<(), autoglm_gateway::GatewayError>>,
}

impl Server {
    pub(crate) async fn start(config: Config) -> Self {
        let (gateway, doubles) = gateway(config);
        let listener = bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (stop, stopped) = oneshot::channel::<()>();
        let running = tokio::spawn(gateway.serve(listener, async move { drop(stopped.await) }));
        Self { address, doubles, stop, running }
    }

    pub(crate) async fn stop(self) {
        self.stop.send(()).unwrap();
        tokio::time::timeout(Duration::from_secs(20), self.running).await.unwrap().unwrap().unwrap();
    }
}

/// Waits until `done`, at most 5 seconds.
pub(crate) async fn eventually(what: &str, done: impl Fn() -> bool) {
    for _ in 0..1000 {
        if done() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("waited 5 s for: {what}");
}
