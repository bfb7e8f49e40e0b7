//! Load: requests by a number of connections without a pause, or at a rate whatever the server does.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use autoglm_domain::{Clock as _, SystemClock, Timestamp};

use crate::demo::{Answer, Asking, Client, RecallMode, Stream, Utterance};

/// How every request of a load is asked: of the weights, so that each goes through the model.
pub(crate) const ASKING: Asking<'static> =
    Asking { task: None, recall: Some(RecallMode::Off), reference: None };

/// One request of a load.
#[derive(Debug)]
pub(crate) struct Sample {
    /// When it was sent, by the wall clock.
    pub(crate) sent: Timestamp,
    /// From when it was due to the whole answer.
    pub(crate) latency: Duration,
    /// The answer, or the failure in words.
    pub(crate) answer: Result<Answer, String>,
}

/// Requests to draw from, in turn.
#[derive(Debug)]
pub(crate) struct Prompts {
    utterances: Vec<Utterance>,
    next: AtomicUsize,
}

impl Prompts {
    /// The stream's traffic, task by task in turn.
    pub(crate) fn of(stream: &Stream) -> Arc<Self> {
        let longest = stream.tasks.iter().map(|task| task.traffic.len()).max().unwrap_or_default();
        let in_turn =
            (0..longest).flat_map(|at| stream.tasks.iter().filter_map(move |task| task.traffic.get(at)));
        Arc::new(Self { utterances: in_turn.cloned().collect(), next: AtomicUsize::new(0) })
    }

    fn next(&self) -> Option<&Utterance> {
        let at = self.next.fetch_add(1, Ordering::Relaxed);
        self.utterances.get(at % self.utterances.len().max(1))
    }

    async fn ask(&self, client: &Client, due: Instant, asking: Asking<'static>) -> Option<Sample> {
        let utterance = self.next()?;
        let sent = SystemClock.now();
        let answer = client.ask(utterance, asking).await;
        Some(Sample { sent, latency: due.elapsed(), answer })
    }
}

/// `connections` clients that ask without a pause until `stop` is set; each ends the request that it began.
pub(crate) async fn without_pause(
    client: &Client,
    prompts: &Prompts,
    connections: usize,
    stop: &AtomicBool,
) -> Vec<Sample> {
    let clients = (0..connections).map(|_| async {
        let mut samples = Vec::new();
        while !stop.load(Ordering::Acquire) {
            match prompts.ask(client, Instant::now(), ASKING).await {
                Some(sample) => samples.push(sample),
                None => break,
            }
        }
        samples
    });
    futures::future::join_all(clients).await.into_iter().flatten().collect()
}

/// Requests at `rate` a second for `time`, sent when they are due even if earlier ones have no answer yet, and
/// measured from then: a server that stalls is charged for everybody who waited.
pub(crate) async fn at_rate(
    client: &Client,
    prompts: &Arc<Prompts>,
    rate: f64,
    time: Duration,
) -> Vec<Sample> {
    let begin = Instant::now();
    at_rate_while(client, prompts, rate, || (begin.elapsed() < time).then_some(ASKING)).await
}

/// The same for as long as `next` says how the next request is asked.
pub(crate) async fn at_rate_while(
    client: &Client,
    prompts: &Arc<Prompts>,
    rate: f64,
    mut next: impl FnMut() -> Option<Asking<'static>>,
) -> Vec<Sample> {
    let begin = Instant::now();
    let mut requests = tokio::task::JoinSet::new();
    let mut number = 0_u32;
    loop {
        let due = begin + Duration::from_secs_f64(f64::from(number) / rate);
        tokio::time::sleep_until(due.into()).await;
        let Some(asking) = next() else { break };
        let (client, prompts) = (client.clone(), Arc::clone(prompts));
        requests.spawn(async move { prompts.ask(&client, due, asking).await });
        number += 1;
    }
    requests.join_all().await.into_iter().flatten().collect()
}

/// Failures in words, the first few of them.
pub(crate) fn failures(samples: &[Sample]) -> (usize, Vec<String>) {
    const SHOWN: usize = 5;
    let all: Vec<&String> = samples.iter().filter_map(|sample| sample.answer.as_ref().err()).collect();
    (all.len(), all.into_iter().take(SHOWN).cloned().collect())
}
