//! The candidate's answers that nobody hears: a bounded queue behind the gateway, and what comes of it, pairs.
//!
//! The user has the champion's answer by then. A request that finds the queue full is not shadowed; an answer that
//! takes longer than the policy's deadline has failed. Tool calls are read and carried out by nobody.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use autoglm_domain::{
    Endpoint, ErrorKind, Event, GenerationEvent, GenerationRequest, Generator as _, Id, Interaction,
    Priority, ShadowAnswer, ShadowPair, ToolCall, Usage,
};
use autoglm_gateway::ShadowRequest;
use futures::StreamExt as _;
use tokio::{
    sync::{Semaphore, mpsc},
    time::timeout,
};

use super::Parts;

/// How much longer than the deadline is waited for the engine to say that it passed.
const GRACE: Duration = Duration::from_millis(250);
/// Most pairs that are recorded together.
const RECORDED_TOGETHER: usize = 32;
/// Least time from one record of pairs that is not full to the next. Nobody waits for them, and each would hold up the
/// answers that are to be recorded.
const GATHER: Duration = Duration::from_millis(20);

/// The end of the queue that the gateway puts requests into.
#[derive(Debug, Clone)]
pub(crate) struct ShadowQueue(mpsc::Sender<ShadowRequest>);

impl ShadowQueue {
    /// A queue of `length` requests and its other end, for [`answer`].
    pub(crate) fn new(length: usize) -> (Self, mpsc::Receiver<ShadowRequest>) {
        let (sender, receiver) = mpsc::channel(length.max(1));
        (Self(sender), receiver)
    }

    /// Returns at once. Without a place in the queue the request is not shadowed.
    pub(crate) fn offer(&self, request: ShadowRequest) {
        let outcome = if self.0.try_send(request).is_ok() { "queued" } else { "dropped" };
        metrics::counter!("autoglm_shadow_requests_total", "outcome" => outcome).increment(1);
    }
}

/// Answers what comes in and records the pairs, until the task is dropped.
pub(crate) async fn answer(parts: Arc<Parts>, mut queue: mpsc::Receiver<ShadowRequest>) {
    let places = Arc::new(Semaphore::new(parts.settings.rollout.shadow.concurrency.max(1)));
    let (paired, pairs) = mpsc::channel(RECORDED_TOGETHER);
    let answerer = Arc::clone(&parts);
    let answer = async move {
        while let Some(request) = queue.recv().await {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            let (parts, paired) = (Arc::clone(&answerer), paired.clone());
            tokio::spawn(async move {
                // Its place is free again when its pair has one.
                let _place = place;
                let _ = paired.send(pair(&parts, request).await).await;
            });
        }
    };
    tokio::join!(answer, record(&parts, pairs));
}

/// A pair and the answer that the user had.
type Paired = (ShadowPair, Interaction);

/// Records pairs, several at a time.
async fn record(parts: &Parts, mut pairs: mpsc::Receiver<Paired>) {
    let mut some = Vec::with_capacity(RECORDED_TOGETHER);
    while pairs.recv_many(&mut some, RECORDED_TOGETHER).await > 0 {
        let next = tokio::time::Instant::now() + GATHER;
        let is_full = some.len() == RECORDED_TOGETHER;
        let events = some.iter().map(|(pair, _)| Event::ShadowPair(Box::new(pair.clone())));
        let recorded = match parts.store.append(events.collect()).await {
            Ok(()) => std::mem::take(&mut some),
            Err(error) if error.kind == ErrorKind::Unavailable => {
                tracing::warn!(%error, pairs = some.len(), "pairs could not be recorded");
                some.clear();
                continue;
            }
            // One that cannot be recorded must not take the others with it.
            Err(_) => one_by_one(parts, &mut some).await,
        };
        // Where several processes share a database, the leader reads them there.
        if parts.database.shared().is_none() {
            for (pair, interaction) in recorded {
                let asked = parts.judging.offer(&pair, &interaction);
                parts.proving.pair(pair, asked);
            }
        }
        if !is_full {
            tokio::time::sleep_until(next).await;
        }
    }
}

/// Those of the pairs that could be recorded.
async fn one_by_one(parts: &Parts, pairs: &mut Vec<Paired>) -> Vec<Paired> {
    let mut recorded = Vec::with_capacity(pairs.len());
    for paired in pairs.drain(..) {
        match parts.store.append(vec![Event::ShadowPair(Box::new(paired.0.clone()))]).await {
            Ok(()) => recorded.push(paired),
            Err(error) => tracing::warn!(%error, "a pair could not be recorded"),
        }
    }
    recorded
}

/// The candidate's answer to one request beside the user's.
async fn pair(parts: &Parts, request: ShadowRequest) -> Paired {
    let ShadowRequest { shadow, input, sampling, interaction } = request;
    let deadline = Duration::from_millis(parts.settings.rollout.shadow.deadline_ms);
    let request = GenerationRequest {
        timeout: Some(deadline),
        ..GenerationRequest::new(input, sampling, shadow.candidate).with_priority(Priority::Shadow)
    };
    let candidate = generate(parts, request, deadline).await;
    let champion = answer_of(&interaction);
    let pair = ShadowPair {
        id: Id::next(&*parts.ids),
        at: interaction.at,
        interaction: interaction.id,
        rollout: shadow.rollout,
        diff: parts.differ.diff(&interaction, &champion, &candidate),
        champion,
        candidate,
        preference: None,
        route: route(&interaction),
        cluster: parts.memory.cluster_of(task(&interaction), &interaction.messages),
        principal_group: interaction.principal.clone(),
    };
    (pair, interaction)
}

/// What the candidate answers. Whatever goes wrong is part of the answer.
async fn generate(parts: &Parts, request: GenerationRequest, deadline: Duration) -> ShadowAnswer {
    let began = Instant::now();
    let mut answer = ShadowAnswer {
        version: request.version,
        text: String::new(),
        tool_calls: Vec::new(),
        finish_reason: None,
        error: None,
        usage: Usage::default(),
        latency_ms: 0.0,
        first_token_ms: None,
        scores: BTreeMap::new(),
        overall: None,
    };
    let collected = timeout(deadline + GRACE, collect(parts, request, &mut answer, began)).await;
    answer.latency_ms = began.elapsed().as_secs_f64() * 1e3;
    let late = format!("it took longer than {} ms", deadline.as_millis());
    answer.error = match collected {
        // The engine ends an answer at its deadline with what there is.
        Ok(Ok(())) if answer.latency_ms > deadline.as_secs_f64() * 1e3 => Some(late),
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(error.message),
        Err(_) => Some(late),
    };
    if answer.error.is_some() {
        answer.finish_reason = None;
    }
    answer
}

async fn collect(
    parts: &Parts,
    request: GenerationRequest,
    answer: &mut ShadowAnswer,
    began: Instant,
) -> autoglm_domain::Result<()> {
    let mut stream = parts.engine.generate(request).await?;
    while let Some(event) = stream.next().await {
        let event = event?;
        if !matches!(event, GenerationEvent::Prompt(_)) {
            answer.first_token_ms.get_or_insert_with(|| began.elapsed().as_secs_f64() * 1e3);
        }
        match event {
            GenerationEvent::Text { text, .. } => answer.text.push_str(&text),
            GenerationEvent::ToolCall(piece) => piece.add_to(&mut answer.tool_calls),
            GenerationEvent::Done { finish_reason, usage } => {
                answer.finish_reason = Some(finish_reason);
                answer.usage = usage;
                return Ok(());
            }
            GenerationEvent::Prompt(_) => {}
        }
    }
    Err(autoglm_domain::Error::unavailable("its answer broke off"))
}

/// The champion's side of a pair. Where it called tools, the text is what stood beside the calls.
fn answer_of(interaction: &Interaction) -> ShadowAnswer {
    let turn = interaction.turn.as_ref();
    ShadowAnswer {
        version: interaction.version,
        text: turn.map_or_else(|| interaction.answer.clone(), |turn| turn.content.clone()),
        tool_calls: turn.map(|turn| turn.tool_calls.clone()).unwrap_or_default(),
        finish_reason: Some(interaction.finish_reason),
        error: None,
        usage: interaction.usage,
        latency_ms: interaction.latency_ms,
        first_token_ms: Some(interaction.first_token_ms),
        scores: BTreeMap::new(),
        overall: None,
    }
}

/// The calls of an answer that users heard.
pub(crate) fn calls(interaction: &Interaction) -> &[ToolCall] {
    interaction.turn.as_ref().map_or(&[], |turn| &turn.tool_calls)
}

/// The kind of job that the client names.
fn task(interaction: &Interaction) -> Option<&str> {
    interaction.metadata.get("task").map(String::as_str)
}

/// The kind of a request: its task, else the API call.
fn route(interaction: &Interaction) -> String {
    match task(interaction) {
        Some(task) => task.to_owned(),
        None => match interaction.endpoint {
            Endpoint::Chat => "chat".into(),
            Endpoint::Completion => "completion".into(),
            Endpoint::Responses => "responses".into(),
        },
    }
}

#[cfg(test)]
mod tests {
    use autoglm_domain::PairOrder;
    use autoglm_doubles::samples;

    use super::*;
    use crate::{bench::Host, settings::Settings};

    #[tokio::test(flavor = "multi_thread")]
    async fn a_pair_that_cannot_be_recorded_takes_no_other_with_it() {
        let host = Host::start(Settings::default()).await.unwrap();
        let parts = host.parts();
        let rollout = Id::next(&*parts.ids);
        let paired = |n: u64, distance: f64| {
            let interaction = samples::interaction(n);
            let answer = answer_of(&interaction);
            let mut diff = parts.differ.diff(&interaction, &answer, &answer);
            diff.distance = distance;
            let pair = ShadowPair {
                id: Id::next(&*parts.ids),
                at: interaction.at,
                interaction: interaction.id,
                rollout,
                diff,
                champion: answer.clone(),
                candidate: answer,
                preference: None,
                route: "chat".into(),
                cluster: None,
                principal_group: interaction.principal.clone(),
            };
            (pair, interaction)
        };
        let (send, pairs) = mpsc::channel(4);
        // The store has no place for a distance that is no number.
        for paired in [paired(1, 0.25), paired(2, f64::NAN), paired(3, 0.75)] {
            send.send(paired).await.unwrap();
        }
        drop(send);
        record(parts, pairs).await;
        let kept = parts.store.shadow_pairs(rollout, PairOrder::Oldest, 10).await.unwrap();
        let distances: Vec<_> = kept.iter().map(|pair| pair.diff.distance).collect();
        assert_eq!(distances, [0.25, 0.75]);
        host.close().await.unwrap();
    }
}
