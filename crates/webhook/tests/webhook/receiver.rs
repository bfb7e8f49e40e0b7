//! A receiver on a port of its own, and what there is to tell it.

use std::{
    collections::VecDeque,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use autoglm_domain::{Alias, AliasMove, Event, Store, Timestamp, VersionNumber};
use autoglm_doubles::MemoryStore;
use autoglm_webhook::{Secret, verify};
use axum::{Router, body::Bytes, extract::State, http::HeaderMap};
use parking_lot::Mutex;
use serde_json::Value;

pub(crate) const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// A request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Got {
    pub(crate) delivery: String,
    pub(crate) body: Value,
}

/// Answers what it was told to, one after another, the last for ever; keeps what it answered 200.
#[derive(Clone, Default)]
pub(crate) struct Receiver {
    pub(crate) answers: Arc<Mutex<VecDeque<(u16, &'static str)>>>,
    pub(crate) taken: Arc<Mutex<Vec<Got>>>,
    pub(crate) attempts: Arc<Mutex<Vec<Got>>>,
}

impl Receiver {
    /// On a free port, or on `address`, where another one was.
    pub(crate) async fn start(&self, address: Option<&str>) -> (String, Serving) {
        let listener = std::net::TcpListener::bind(address.unwrap_or("127.0.0.1:0")).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let app = Router::new().fallback(take).with_state(self.clone());
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.unwrap();
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            axum::serve(listener, app).await.unwrap();
        });
        (address, Serving(Some(runtime)))
    }

    pub(crate) fn answering(answers: &[(u16, &'static str)]) -> Self {
        let this = Self::default();
        this.answers.lock().extend(answers);
        this
    }

    /// Ids of what was taken, once there are `count`.
    pub(crate) async fn taken(&self, count: usize) -> Vec<u64> {
        for _ in 0..1000 {
            if self.taken.lock().len() >= count {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.taken.lock().iter().map(|got| got.body["id"].as_u64().unwrap()).collect()
    }
}

async fn take(
    State(it): State<Receiver>,
    headers: HeaderMap,
    body: Bytes,
) -> (axum::http::StatusCode, &'static str) {
    let header = |name: &str| headers[name].to_str().unwrap().to_owned();
    let secret = Secret::new("test", SECRET.as_bytes()).unwrap();
    let timestamp = header("x-autoglm-timestamp").parse().unwrap();
    assert_eq!(verify(&secret, timestamp, &body, &header("x-autoglm-signature")), Ok(()));
    let got = Got { delivery: header("x-autoglm-delivery"), body: serde_json::from_slice(&body).unwrap() };
    it.attempts.lock().push(got.clone());
    let (status, text) = {
        let mut answers = it.answers.lock();
        if answers.len() > 1 { answers.pop_front() } else { answers.front().copied() }.unwrap_or((200, ""))
    };
    if status == 0 {
        tokio::time::sleep(Duration::from_secs(3600)).await;
    }
    if status == 200 {
        it.taken.lock().push(got);
    }
    (status.try_into().unwrap(), text)
}

/// A server on a runtime of its own: dropped, all its connections are gone too.
pub(crate) struct Serving(Option<tokio::runtime::Runtime>);

impl Drop for Serving {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// A file with the secret, gone with its owner.
pub(crate) struct SecretFile(pub(crate) PathBuf);

impl SecretFile {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("autoglm-hook-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, format!("{SECRET}\n")).unwrap();
        Self(path)
    }
}

impl Drop for SecretFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A journal with its followers' cursors.
#[derive(Default)]
pub(crate) struct Journal {
    pub(crate) store: Arc<MemoryStore>,
}

impl Journal {
    /// Versions 1 to `count`.
    pub(crate) async fn with_versions(count: u64) -> Arc<Self> {
        let this = Arc::new(Self::default());
        for number in 1..=count {
            let version = autoglm_doubles::version(number);
            this.store.append(vec![Event::Version(Box::new(version))]).await.unwrap();
        }
        this
    }

    /// The champion goes to another version.
    pub(crate) async fn promote(&self, from: u64, to: u64, at: i64) {
        let step = AliasMove {
            alias: Alias::champion(),
            from: VersionNumber(from),
            to: VersionNumber(to),
            at: Timestamp(at),
            by: "test".into(),
            reason: "better".into(),
            rollout: None,
        };
        self.store.append(vec![Event::AliasMoved(step)]).await.unwrap();
    }
}
