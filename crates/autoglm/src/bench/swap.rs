//! Swaps under load: promotions and rollbacks by the thousand while clients ask without a pause.
//!
//! Two versions are trained to say one word each, so that every answer shows whose weights gave it. A version may
//! answer a request if it was the champion at some moment of the request's start: from the client's sending to
//! the server's taking it in. Between the order to move and its acknowledgement both versions are.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use autoglm_domain::{
    Clock as _, Error, Event, InteractionId, Result, SystemClock, Timestamp, VersionNumber,
};
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    Host, Latency,
    latency::ms,
    traffic::{self, Prompts, Sample},
};
use crate::{
    printer::{Outcome, Printer, Table},
    settings::Settings,
};

/// What the two versions learn to say.
const WORDS: [&str; 2] = ["balance", "weather"];
/// Steps that teach a word.
const STEPS: u32 = 60;
/// The wall clock counts whole milliseconds, and a request is read a moment after it is taken in.
const SLACK_MS: i64 = 2;
/// Events read at a time.
const PAGE: usize = 1000;

/// What was measured.
#[derive(Debug, Default, Serialize)]
pub(crate) struct SwapReport {
    /// Promotions, each followed by a rollback.
    pub(crate) swaps: usize,
    /// Connections that asked meanwhile.
    pub(crate) connections: usize,
    /// Seconds that the swaps took.
    pub(crate) seconds: f64,
    /// Requests meanwhile.
    pub(crate) requests: usize,
    /// Requests that failed.
    pub(crate) failed: usize,
    /// The first of them in words.
    pub(crate) failures: Vec<String>,
    /// Answers from a version that was no champion any more when the request was sent.
    pub(crate) stale: usize,
    /// Answers from a version that was no champion yet when the request was taken in.
    pub(crate) ahead: usize,
    /// Answers that are not what their version was taught to say.
    pub(crate) wrong_weights: usize,
    /// Requests that each version answered.
    pub(crate) answered: Vec<(VersionNumber, usize)>,
    /// Of the requests.
    pub(crate) latency: Latency,
    /// Of the moves, from order to acknowledgement.
    pub(crate) move_latency: Latency,
}

impl SwapReport {
    /// Whether nothing went wrong.
    pub(crate) fn is_clean(&self) -> bool {
        self.requests > 0 && self.failed + self.stale + self.ahead + self.wrong_weights == 0
    }
}

/// One move of the champion.
#[derive(Debug, Clone, Copy)]
struct Move {
    to: VersionNumber,
    ordered: Timestamp,
    acknowledged: Timestamp,
}

/// Moves the champion `2 * swaps` times while `connections` clients ask.
pub(crate) async fn run(settings: Settings, swaps: usize, connections: usize) -> Result<SwapReport> {
    let host = Host::start(settings).await?;
    let report = measure(&host, swaps, connections).await;
    host.close().await?;
    report
}

async fn measure(host: &Host, swaps: usize, connections: usize) -> Result<SwapReport> {
    let first = host.teach(WORDS[0], STEPS).await?.number;
    let second = host.teach(WORDS[1], STEPS).await?.number;
    let words = HashMap::from([(first, WORDS[0]), (second, WORDS[1])]);
    let orders = Orders::new(host)?;
    let mut moves = vec![orders.promote(first).await?];

    let (client, prompts, stop) = (host.client()?, Prompts::of(&host.stream), AtomicBool::new(false));
    let begin = Instant::now();
    let mover = async {
        let mut latencies = Vec::with_capacity(2 * swaps);
        for _ in 0..swaps {
            for order in [Some(second), None] {
                let ordered = Instant::now();
                let made = match order {
                    Some(version) => orders.promote(version).await,
                    None => orders.rollback().await,
                };
                moves.push(made.inspect_err(|_| stop.store(true, Ordering::Release))?);
                latencies.push(ordered.elapsed());
            }
        }
        stop.store(true, Ordering::Release);
        Ok::<Vec<Duration>, Error>(latencies)
    };
    let (latencies, samples) =
        futures::join!(mover, traffic::without_pause(&client, &prompts, connections, &stop));
    let (latencies, seconds) = (latencies?, begin.elapsed().as_secs_f64());

    let taken_in = arrivals(host).await?;
    let mut report = SwapReport { swaps, connections, seconds, ..judge(&samples, &moves, &words, &taken_in) };
    report.move_latency = Latency::of(latencies);
    Ok(report)
}

/// When the server took in each request.
async fn arrivals(host: &Host) -> Result<HashMap<InteractionId, Timestamp>> {
    let mut arrivals = HashMap::new();
    let mut seq = 0;
    loop {
        let events = host.parts().store.events_after(seq, PAGE).await?;
        let Some(last) = events.last() else { return Ok(arrivals) };
        seq = last.seq;
        arrivals.extend(events.into_iter().filter_map(|recorded| match recorded.event {
            Event::Interaction(interaction) => Some((interaction.id, interaction.at)),
            _ => None,
        }));
    }
}

fn judge(
    samples: &[Sample],
    moves: &[Move],
    words: &HashMap<VersionNumber, &str>,
    taken_in: &HashMap<InteractionId, Timestamp>,
) -> SwapReport {
    let (failed, failures) = traffic::failures(samples);
    let mut report = SwapReport { requests: samples.len(), failed, failures, ..SwapReport::default() };
    report.latency = Latency::of(samples.iter().map(|sample| sample.latency));
    let mut answered: std::collections::BTreeMap<VersionNumber, usize> = std::collections::BTreeMap::new();
    for sample in samples {
        let Ok(answer) = &sample.answer else { continue };
        let at = answer.id.parse().ok().and_then(|id: InteractionId| taken_in.get(&id).copied());
        let (Some(version), Some(at)) = (answer.version, at) else {
            // An answer without a version or without a record is a fault like any other.
            report.failed += 1;
            continue;
        };
        *answered.entry(version).or_default() += 1;
        match standing(moves, version, sample.sent, Timestamp(at.0 + SLACK_MS)) {
            Standing::Champion => {}
            Standing::Stale => report.stale += 1,
            Standing::Ahead => report.ahead += 1,
        }
        report.wrong_weights += usize::from(words.get(&version) != Some(&answer.text.trim()));
    }
    report.answered = answered.into_iter().collect();
    report
}

#[derive(Debug, PartialEq)]
enum Standing {
    Champion,
    Stale,
    Ahead,
}

/// What `version` was between `from` and `until`.
fn standing(moves: &[Move], version: VersionNumber, from: Timestamp, until: Timestamp) -> Standing {
    let mut was_before = false;
    for (at, step) in moves.iter().enumerate() {
        if step.to != version {
            continue;
        }
        // It answers from the order at the earliest to the acknowledgement of the next move at the latest.
        let end = moves.get(at + 1).map_or(Timestamp(i64::MAX), |next| next.acknowledged);
        if step.ordered <= until && from <= end {
            return Standing::Champion;
        }
        was_before |= end < from;
    }
    if was_before { Standing::Stale } else { Standing::Ahead }
}

/// The admin API.
struct Orders {
    http: reqwest::Client,
    base_url: String,
}

impl Orders {
    fn new(host: &Host) -> Result<Self> {
        let http = crate::http::client()
            .build()
            .map_err(|error| Error::internal(format!("cannot make an HTTP client: {error}")))?;
        Ok(Self { http, base_url: host.base_url.clone() })
    }

    async fn promote(&self, version: VersionNumber) -> Result<Move> {
        self.post("promote", &json!({"version": version.to_string(), "reason": "bench"})).await
    }

    async fn rollback(&self) -> Result<Move> {
        self.post("rollback", &json!({"reason": "bench"})).await
    }

    async fn post(&self, order: &str, body: &Value) -> Result<Move> {
        let failed = |why: String| Error::unavailable(format!("the order to {order} failed: {why}"));
        let ordered = SystemClock.now();
        let url = format!("{}/v1/autoglm/{order}", self.base_url);
        let response =
            self.http.post(url).json(body).send().await.map_err(|error| failed(error.to_string()))?;
        let moved: Value = response.json().await.map_err(|error| failed(error.to_string()))?;
        let acknowledged = SystemClock.now();
        let to = moved.get("to").and_then(Value::as_str).and_then(|to| to.parse().ok());
        to.map(|to| Move { to, ordered, acknowledged }).ok_or_else(|| failed(moved.to_string()))
    }
}

/// Prints it; an error when something went wrong.
pub(crate) fn print(report: &SwapReport, printer: &Printer) -> Outcome {
    let mut table = Table::new(&["MEASURED", ">VALUE"]);
    let answered: Vec<String> =
        report.answered.iter().map(|(version, count)| format!("{version} {count}")).collect();
    for (name, value) in [
        ("promotions and rollbacks", (2 * report.swaps).to_string()),
        ("seconds", format!("{:.1}", report.seconds)),
        ("connections", report.connections.to_string()),
        ("requests", report.requests.to_string()),
        ("  answered by", answered.join(", ")),
        ("  failed", report.failed.to_string()),
        ("  answered by a former champion", report.stale.to_string()),
        ("  answered by a later champion", report.ahead.to_string()),
        ("  answered with other weights", report.wrong_weights.to_string()),
        ("request, p50", ms(report.latency.p50_ms)),
        ("request, p99", ms(report.latency.p99_ms)),
        ("move, p50", ms(report.move_latency.p50_ms)),
        ("move, p99", ms(report.move_latency.p99_ms)),
    ] {
        table.row([name.to_owned(), value]);
    }
    printer.table(&table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_champion_of_the_requests_start_may_answer() {
        let step = |to, ordered, acknowledged| Move {
            to: VersionNumber(to),
            ordered: Timestamp(ordered),
            acknowledged: Timestamp(acknowledged),
        };
        let moves = [step(1, 0, 10), step(2, 100, 110), step(1, 200, 210)];
        for (version, from, until, expected) in [
            (1, 50, 52, Standing::Champion),
            (2, 50, 52, Standing::Ahead),
            // While the move is under way, both.
            (1, 104, 106, Standing::Champion),
            (2, 104, 106, Standing::Champion),
            (1, 150, 152, Standing::Stale),
            (2, 150, 152, Standing::Champion),
            // A start that spans a move.
            (1, 108, 150, Standing::Champion),
            (1, 205, 206, Standing::Champion),
            (2, 211, 230, Standing::Stale),
            (3, 50, 52, Standing::Ahead),
        ] {
            let found = standing(&moves, VersionNumber(version), Timestamp(from), Timestamp(until));
            assert_eq!(found, expected, "v{version} from {from} to {until}");
        }
    }
}
