//! What the gateway adds: latency, throughput and memory in front of an upstream that answers at once, with every answer
//! on record and a share of them answered by a candidate too.
//!
//! Load, upstream and server share the machine, the server in a process of its own. Other gateways that are told to ask
//! the same upstream are measured in the same run, in turn. Without a pause first, then at fixed rates, where latencies
//! count from when a request was due.

mod client;
mod server;
mod upstream;

use std::{net::SocketAddr, str::FromStr, time::Duration};

use autoglm_domain::{Error, Result};
use serde::Serialize;

use self::{
    client::{Load, Target, Until},
    server::Server,
};
use super::{Latency, host::Folder, latency::ms, resident::rss_mb};
use crate::{
    printer::{Outcome, Printer, Table},
    settings::Settings,
};

/// Before each measurement.
const WARM_UP: Duration = Duration::from_secs(1);
/// Between two measurements, for what is still under way behind the answers.
const PAUSE: Duration = Duration::from_secs(2);

/// Another gateway: `NAME=MODEL@BASE_URL`, with `#PID` where its memory is to be told.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    name: String,
    model: String,
    base_url: String,
    process: Option<u32>,
}

impl FromStr for Peer {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let wrong = || format!("`{text}` is not of the form NAME=MODEL@BASE_URL or NAME=MODEL@BASE_URL#PID");
        let (name, rest) = text.split_once('=').ok_or_else(wrong)?;
        let (model, rest) = rest.split_once('@').ok_or_else(wrong)?;
        let (base_url, process) = match rest.split_once('#') {
            Some((base_url, process)) => (base_url, Some(process.parse().map_err(|_| wrong())?)),
            None => (rest, None),
        };
        let (name, model, base_url) = (name.to_owned(), model.to_owned(), base_url.to_owned());
        Ok(Self { name, model, base_url, process })
    }
}

/// What is measured.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// Connections.
    pub(crate) connections: usize,
    /// Requests a second, one measurement each, beside the one without a pause.
    pub(crate) rates: Vec<f64>,
    /// Each of them.
    pub(crate) time: Duration,
    /// Share of the conversations that a candidate answers too.
    pub(crate) shadow: f64,
    /// Where the upstream listens.
    pub(crate) upstream: SocketAddr,
    /// Others to measure.
    pub(crate) peers: Vec<Peer>,
    /// Instead of all that: so many requests, with a look at the memory ten times.
    pub(crate) requests: Option<u64>,
}

/// What was measured.
#[derive(Debug, Serialize)]
pub(crate) struct GatewayReport {
    /// Connections.
    pub(crate) connections: usize,
    /// Share of the conversations that a candidate answered too.
    pub(crate) shadow: f64,
    /// One entry a measurement.
    pub(crate) rows: Vec<Row>,
}

/// One gateway under one load.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    /// Which one.
    pub(crate) gateway: String,
    /// Requests a second that were sent; `None` without a pause.
    pub(crate) rate: Option<f64>,
    /// Requests that were answered.
    pub(crate) requests: usize,
    /// Those that were not.
    pub(crate) failed: usize,
    /// Answers a second.
    pub(crate) requests_per_s: f64,
    /// Of the requests.
    pub(crate) latency: Latency,
    /// Beyond that of the upstream alone under the same load, milliseconds.
    pub(crate) added_p50_ms: f64,
    /// See `added_p50_ms`.
    pub(crate) added_p99_ms: f64,
    /// Memory afterwards, MB.
    pub(crate) rss_mb: Option<f64>,
}

/// Measures; `note` is told how far it is.
pub(crate) async fn run(settings: Settings, plan: &Plan, note: impl Fn(&str)) -> Result<GatewayReport> {
    let folder = Folder::new()?;
    let upstream = upstream::start(plan.upstream)?;
    let server = Server::start(settings, &folder.0, upstream, plan.shadow).await?;
    let measure = || match plan.requests {
        Some(requests) => memory(plan, &server, requests, &note),
        None => side_by_side(plan, &server, upstream, &note),
    };
    let rows = tokio::task::block_in_place(measure)?;
    Ok(GatewayReport { connections: plan.connections, shadow: plan.shadow, rows })
}

/// Everyone in turn, under each load.
fn side_by_side(
    plan: &Plan,
    server: &Server,
    upstream: SocketAddr,
    note: &impl Fn(&str),
) -> Result<Vec<Row>> {
    let base_url = format!("http://{upstream}/v1");
    let mut all = vec![("upstream".to_owned(), Target::new(&base_url, upstream::MODEL)?, None)];
    for peer in &plan.peers {
        all.push((peer.name.clone(), Target::new(&peer.base_url, &peer.model)?, peer.process));
    }
    all.push(("autoglm".to_owned(), server.target()?, None));
    for (name, target, _) in &all {
        if !target.answers() {
            return Err(Error::unavailable(format!("`{name}` does not answer"))
                .with_hint(format!("it has to ask the upstream at {base_url}")));
        }
    }
    let mut rows: Vec<Row> = Vec::new();
    for rate in std::iter::once(None).chain(plan.rates.iter().copied().map(Some)) {
        let first = rows.len();
        for (name, target, process) in &all {
            note(&match rate {
                Some(rate) => format!("{name} at {rate} requests a second"),
                None => format!("{name} without a pause"),
            });
            let load = |time| match rate {
                Some(rate) => client::at_rate(target, plan.connections, rate, time),
                None => client::without_pause(target, plan.connections, Until::Time(time)),
            };
            load(WARM_UP);
            let mut row = row(name, rate, load(plan.time));
            row.rss_mb = if name == "autoglm" { server.rss_mb() } else { process.and_then(rss_mb) };
            let alone = rows.get(first).map_or(row.latency, |upstream| upstream.latency);
            row.added_p50_ms = row.latency.p50_ms - alone.p50_ms;
            row.added_p99_ms = row.latency.p99_ms - alone.p99_ms;
            rows.push(row);
            std::thread::sleep(PAUSE);
        }
    }
    Ok(rows)
}

/// Many requests, and what memory they leave behind.
fn memory(plan: &Plan, server: &Server, requests: u64, note: &impl Fn(&str)) -> Result<Vec<Row>> {
    let target = server.target()?;
    let part = requests.div_ceil(10).max(1);
    let parts = requests.div_ceil(part);
    let rows = (1..=parts).map(|turn| {
        let these = part.min(requests - (turn - 1) * part);
        let load = client::without_pause(&target, plan.connections, Until::Requests(these));
        let mut row = row("autoglm", None, load);
        row.rss_mb = server.rss_mb();
        let rss = row.rss_mb.map_or_else(|| "?".to_owned(), |mb| format!("{mb:.0}"));
        note(&format!("{} requests, {rss} MB, {} failed", (turn - 1) * part + these, row.failed));
        row
    });
    Ok(rows.collect())
}

fn row(gateway: &str, rate: Option<f64>, load: Load) -> Row {
    Row {
        gateway: gateway.to_owned(),
        rate,
        requests: load.latencies.len(),
        failed: load.failed,
        requests_per_s: load.latencies.len() as f64 / load.took.as_secs_f64().max(f64::MIN_POSITIVE),
        latency: Latency::of(load.latencies),
        added_p50_ms: 0.0,
        added_p99_ms: 0.0,
        rss_mb: None,
    }
}

/// Prints it.
pub(crate) fn print(report: &GatewayReport, printer: &Printer) -> Outcome {
    let mut table = Table::new(&[
        "GATEWAY",
        ">SENT/S",
        ">ANSWERED/S",
        ">P50",
        ">P99",
        ">ADDED P50",
        ">ADDED P99",
        ">FAILED",
        ">RSS",
    ]);
    for row in &report.rows {
        table.row([
            row.gateway.clone(),
            row.rate.map_or_else(|| "-".into(), |rate| rate.to_string()),
            format!("{:.0}", row.requests_per_s),
            ms(row.latency.p50_ms),
            ms(row.latency.p99_ms),
            ms(row.added_p50_ms),
            ms(row.added_p99_ms),
            row.failed.to_string(),
            row.rss_mb.map_or_else(|| "-".into(), |mb| format!("{mb:.0} MB")),
        ]);
    }
    printer.table(&table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_named_with_its_model_and_address() {
        let peer: Peer = "tz=tensorzero::model_name::m@http://127.0.0.1:1/openai/v1#42".parse().unwrap();
        assert_eq!((peer.name.as_str(), peer.model.as_str()), ("tz", "tensorzero::model_name::m"));
        assert_eq!((peer.base_url.as_str(), peer.process), ("http://127.0.0.1:1/openai/v1", Some(42)));
        assert!("tz=m".parse::<Peer>().is_err());
        assert!("tz=m@http://h#x".parse::<Peer>().is_err());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_upstream_answers_a_load_at_a_rate_and_without_a_pause() {
        let address = upstream::start("127.0.0.1:0".parse().unwrap()).unwrap();
        let target = Target::new(&format!("http://{address}/v1"), upstream::MODEL).unwrap();
        let (all, at_rate) = tokio::task::block_in_place(|| {
            let all = client::without_pause(&target, 3, Until::Requests(50));
            (all, client::at_rate(&target, 2, 200.0, Duration::from_millis(500)))
        });
        assert_eq!((all.latencies.len(), all.failed), (50, 0));
        assert_eq!((at_rate.latencies.len(), at_rate.failed), (100, 0));
        assert!(at_rate.took >= Duration::from_millis(450), "{:?}", at_rate.took);
    }
}
