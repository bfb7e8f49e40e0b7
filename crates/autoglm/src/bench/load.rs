//! Load: how many requests a second, by the number of connections.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use autoglm_domain::Result;
use serde::Serialize;

use super::{
    Host, Latency,
    latency::ms,
    resident::rss_mb,
    traffic::{self, Prompts},
};
use crate::{
    printer::{Outcome, Printer, Table},
    settings::Settings,
};

/// Before each measurement.
const WARM_UP: Duration = Duration::from_secs(1);

/// What was measured.
#[derive(Debug, Serialize)]
pub(crate) struct LoadReport {
    /// One entry a number of connections.
    pub(crate) loads: Vec<ConnectionsReport>,
}

/// One number of connections.
#[derive(Debug, Serialize)]
pub(crate) struct ConnectionsReport {
    /// Connections that ask without a pause.
    pub(crate) connections: usize,
    /// Answers a second.
    pub(crate) requests_per_s: f64,
    /// Of the requests.
    pub(crate) latency: Latency,
    /// Requests that failed.
    pub(crate) failed: usize,
    /// The process's memory afterwards, client and server together; `None` where the system does not say.
    pub(crate) rss_mb: Option<f64>,
}

/// Measures each number of connections for `time`.
pub(crate) async fn run(settings: Settings, connections: &[usize], time: Duration) -> Result<LoadReport> {
    let host = Host::start(settings).await?;
    let report = measure(&host, connections, time).await;
    host.close().await?;
    report
}

async fn measure(host: &Host, connections: &[usize], time: Duration) -> Result<LoadReport> {
    let prompts = Prompts::of(&host.stream);
    let mut loads = Vec::with_capacity(connections.len());
    for connections in connections.iter().copied() {
        let client = host.client()?;
        let for_a_while = async |time| {
            let stop = AtomicBool::new(false);
            let timer = async {
                tokio::time::sleep(time).await;
                stop.store(true, Ordering::Release);
            };
            let begin = Instant::now();
            let ((), samples) =
                futures::join!(timer, traffic::without_pause(&client, &prompts, connections, &stop));
            (samples, begin.elapsed().as_secs_f64())
        };
        for_a_while(WARM_UP).await;
        let (samples, seconds) = for_a_while(time).await;
        let failed = traffic::failures(&samples).0;
        loads.push(ConnectionsReport {
            connections,
            requests_per_s: (samples.len() - failed) as f64 / seconds,
            latency: Latency::of(samples.iter().map(|sample| sample.latency)),
            failed,
            rss_mb: rss_mb(std::process::id()),
        });
    }
    Ok(LoadReport { loads })
}

/// Prints it.
pub(crate) fn print(report: &LoadReport, printer: &Printer) -> Outcome {
    let mut table = Table::new(&[">CONNECTIONS", ">REQUESTS/S", ">P50", ">P99", ">FAILED", ">RSS"]);
    for load in &report.loads {
        table.row([
            load.connections.to_string(),
            format!("{:.1}", load.requests_per_s),
            ms(load.latency.p50_ms),
            ms(load.latency.p99_ms),
            load.failed.to_string(),
            load.rss_mb.map_or_else(|| "-".into(), |mb| format!("{mb:.0} MB")),
        ]);
    }
    printer.table(&table)
}
