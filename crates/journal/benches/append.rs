//! Events a second that are on the disk, by how many callers append at once.
//!
//! `cargo bench -p autoglm-journal`. The file is under cargo's target folder; what the disk takes for one
//! flush decides the first line, group commit the others.
#![allow(clippy::expect_used, reason = "a benchmark that cannot write has nothing to measure")]

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
};

use autoglm_domain::*;
use autoglm_journal::{Config, SqliteStore};
use divan::{Bencher, counter::ItemsCount};
use futures::future::join_all;

/// Appends of each caller in one sample.
const EACH: usize = 8;

fn main() {
    divan::main();
}

#[divan::bench(args = [1, 16, 256], sample_count = 12, sample_size = 1)]
fn append(bencher: Bencher<'_, '_>, callers: usize) {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder under target");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let path = folder.path().join("journal.sqlite");
    let store = runtime.block_on(SqliteStore::open(path, Config::default())).expect("a store");
    let ids = SequentialIds::default();
    let asked = AtomicU64::new(0);
    bencher.counter(ItemsCount::new(callers * EACH)).bench_local(|| {
        runtime.block_on(join_all((0..callers).map(|_| async {
            for _ in 0..EACH {
                let n = asked.fetch_add(1, Ordering::Relaxed);
                let interaction = interaction(InteractionId::next(&ids), n);
                store.append(vec![Event::Interaction(Box::new(interaction))]).await.expect("an append");
            }
        })))
    });
    runtime.block_on(store.close()).expect("a close");
}

/// A request as they come in the demo: a short prompt, a few words of answer.
fn interaction(id: InteractionId, n: u64) -> Interaction {
    Interaction {
        id,
        at: Timestamp(1_795_000_000_000),
        endpoint: Endpoint::Chat,
        model: "champion".into(),
        version: VersionNumber(1),
        messages: vec![ChatMessage::user(format!("what is the exchange rate of the euro on day {n}"))],
        instructed: false,
        tools: Vec::new(),
        sampling: Sampling::default(),
        answer: "exchange rate".into(),
        turn: None,
        source: AnswerSource::Weights,
        finish_reason: FinishReason::Stop,
        usage: Usage { prompt_tokens: 14, completion_tokens: 3 },
        logprobs: Vec::new(),
        latency_ms: 12.3,
        first_token_ms: 4.5,
        principal: "anonymous".into(),
        session: None,
        metadata: BTreeMap::new(),
    }
}
