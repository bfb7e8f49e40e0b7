//! Texts to vectors by the upstream's `/v1/embeddings`.
//!
//! The port is synchronous and its callers are threads of every kind, those of the runtime among them, so the requests
//! are made by a thread with a runtime of its own: whoever waits here cannot be what the answer waits for.

use std::{
    sync::{Arc, mpsc::SyncSender},
    time::Duration,
};

use autoglm_domain::Embedder;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::json;
use tokio::{
    runtime::{Handle, RuntimeFlavor},
    sync::mpsc,
    time::timeout_at,
};

use crate::{
    Config, Result, UpstreamError,
    transport::{Deadline, Opened, Transport, text},
};

/// Texts in one request.
const BATCH: usize = 32;
/// Most bytes of an answer.
const MAX_BODY: usize = 64 << 20;

/// The upstream's embeddings.
pub struct UpstreamEmbedder {
    jobs: mpsc::UnboundedSender<Job>,
    dimensions: usize,
}

impl std::fmt::Debug for UpstreamEmbedder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UpstreamEmbedder").field("dimensions", &self.dimensions).finish_non_exhaustive()
    }
}

type Vectors = Vec<Vec<f32>>;

/// One request. Who sends it waits, so that there are never more than callers.
struct Job {
    texts: Vec<String>,
    reply: SyncSender<Result<Vectors>>,
}

impl UpstreamEmbedder {
    /// Starts the thread, which ends with the embedder, and asks for one vector.
    pub(crate) async fn start(transport: Transport, config: &Config) -> Result<Self> {
        let (jobs, waiting) = mpsc::unbounded_channel();
        let caller = Caller {
            transport,
            model: config.embedding_model.clone(),
            limit: Duration::from_secs(config.embedding_timeout_s),
        };
        let refused =
            |error: std::io::Error| UpstreamError::Embeddings(format!("no thread to ask for them: {error}"));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(refused)?;
        std::thread::Builder::new()
            .name("upstream-embed".into())
            .spawn(move || runtime.block_on(work(Arc::new(caller), waiting)))
            .map_err(refused)?;
        let (mut embedder, first) = tokio::task::spawn_blocking(move || {
            let embedder = Self { jobs, dimensions: 0 };
            let first = embedder.ask(vec!["hello".into()]);
            (embedder, first)
        })
        .await
        .map_err(|error| UpstreamError::Embeddings(error.to_string()))?;
        embedder.dimensions = first?.first().map_or(0, Vec::len);
        if embedder.dimensions == 0 {
            return Err(UpstreamError::Malformed("the vectors have no numbers".into()));
        }
        Ok(embedder)
    }

    fn ask(&self, texts: Vec<String>) -> Result<Vectors> {
        let gone = || UpstreamError::Embeddings("the thread that asks for them has ended".into());
        let (reply, answer) = std::sync::mpsc::sync_channel(1);
        self.jobs.send(Job { texts, reply }).map_err(|_| gone())?;
        let wait = || answer.recv().map_err(|_| gone());
        match Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
            // A worker of the caller's runtime hands its other tasks over before it waits.
            Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(wait)?,
            _ => wait()?,
        }
    }
}

impl Embedder for UpstreamEmbedder {
    fn embed(&self, texts: &[&str]) -> autoglm_domain::Result<Vectors> {
        let mut vectors = Vec::with_capacity(texts.len());
        for batch in texts.chunks(BATCH) {
            // The API takes no empty text.
            let batch = batch.iter().map(|text| if text.is_empty() { " " } else { text });
            for vector in self.ask(batch.map(str::to_owned).collect())? {
                if vector.len() != self.dimensions {
                    return Err(UpstreamError::Malformed(format!(
                        "a vector has {} numbers, the first one had {}",
                        vector.len(),
                        self.dimensions
                    ))
                    .into());
                }
                vectors.push(vector);
            }
        }
        Ok(vectors)
    }

    fn dimensions(&self) -> usize {
        self.dimensions
    }
}

/// Answers jobs, several at once, until nobody can send one.
async fn work(caller: Arc<Caller>, mut waiting: mpsc::UnboundedReceiver<Job>) {
    while let Some(job) = waiting.recv().await {
        let caller = Arc::clone(&caller);
        tokio::spawn(async move {
            // Who asked may have gone.
            let _ = job.reply.send(caller.call(&job.texts).await);
        });
    }
}

struct Caller {
    transport: Transport,
    model: String,
    limit: Duration,
}

#[derive(Deserialize)]
struct Answer {
    data: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    index: usize,
    embedding: Vec<f32>,
}

impl Caller {
    async fn call(&self, texts: &[String]) -> Result<Vectors> {
        let body = json!({"model": self.model, "input": texts, "encoding_format": "float"});
        let deadline = Deadline::after(self.limit, "no embeddings");
        let Opened { response, permit } =
            self.transport.open("/embeddings", Bytes::from(body.to_string()), deadline).await?;
        let read = match timeout_at(deadline.at, text(response, MAX_BODY)).await {
            Ok(text) => text.and_then(|text| vectors(&text, texts.len())),
            Err(_) => Err(deadline.passed()),
        };
        match &read {
            Ok(_) => permit.succeeded(),
            Err(error) => permit.ended_with(error),
        }
        read
    }
}

/// The vectors of an answer in the order of the texts, each of unit length.
fn vectors(text: &str, count: usize) -> Result<Vectors> {
    let answer: Answer = serde_json::from_str(text).map_err(|error| {
        UpstreamError::Malformed(format!(
            "its embeddings are not what they should be (column {})",
            error.column()
        ))
    })?;
    let mut placed: Vec<Option<Vec<f32>>> = vec![None; count];
    for entry in answer.data {
        if let Some(place) = placed.get_mut(entry.index) {
            *place = unit(entry.embedding);
        }
    }
    let missing = || UpstreamError::Malformed("a text has no vector, or one that is not finite".into());
    placed.into_iter().map(|vector| vector.ok_or_else(missing)).collect()
}

/// The vector at unit length; `None` when it has none.
fn unit(mut vector: Vec<f32>) -> Option<Vec<f32>> {
    let length = vector.iter().map(|value| value * value).sum::<f32>().sqrt();
    if !length.is_finite() || length == 0.0 {
        return None;
    }
    vector.iter_mut().for_each(|value| *value /= length);
    Some(vector)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_are_put_in_order_and_brought_to_unit_length() {
        let text = r#"{"data":[{"index":1,"embedding":[0.0,2.0]},{"index":0,"embedding":[3.0,4.0]}]}"#;
        assert_eq!(vectors(text, 2), Ok(vec![vec![0.6, 0.8], vec![0.0, 1.0]]));
        for wrong in [
            r#"{"data":[{"index":0,"embedding":[1.0]}]}"#,
            r#"{"data":[{"index":0,"embedding":[1.0]},{"index":7,"embedding":[1.0]}]}"#,
            r#"{"data":[{"index":0,"embedding":[1.0]},{"index":1,"embedding":[0.0]}]}"#,
            r#"{"data":"secret"}"#,
        ] {
            let error = vectors(wrong, 2).unwrap_err();
            assert!(matches!(error, UpstreamError::Malformed(_)) && !error.to_string().contains("secret"));
        }
    }
}
