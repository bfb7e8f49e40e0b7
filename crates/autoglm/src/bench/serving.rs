//! Serving while training: how much longer short requests take when an adapter is trained beside them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use autoglm_domain::{Control, Error, ErrorKind, HyperParameters, Result, TrainJob, Trainer};
use serde::Serialize;
use tokio::task::JoinHandle;

use super::{
    Host, Latency,
    latency::{median, ms},
    traffic::{self, Prompts},
};
use crate::{
    printer::{Outcome, Printer, Table},
    settings::Settings,
};

/// Most that the 99th percentile may grow by.
const LIMIT: f64 = 2.0;
/// Before anything is measured.
const WARM_UP: Duration = Duration::from_secs(2);

/// What was measured.
#[derive(Debug, Serialize)]
pub(crate) struct ServingReport {
    /// Tokens a second that training goes through when nobody asks.
    pub(crate) training_alone_tokens_per_s: f64,
    /// One entry a rate.
    pub(crate) rates: Vec<RateReport>,
    /// Most that the 99th percentile may grow by, as a factor.
    pub(crate) limit: f64,
}

/// One rate of requests.
#[derive(Debug, Serialize)]
pub(crate) struct RateReport {
    /// Requests a second.
    pub(crate) rate: f64,
    /// Requests that failed.
    pub(crate) failed: usize,
    /// Round by round, without training.
    pub(crate) idle: Vec<Latency>,
    /// Round by round, each right after the one without, while training.
    pub(crate) training: Vec<Latency>,
    /// Medians over the rounds, milliseconds.
    pub(crate) idle_p50_ms: f64,
    /// See `idle_p50_ms`.
    pub(crate) idle_p99_ms: f64,
    /// See `idle_p50_ms`.
    pub(crate) training_p50_ms: f64,
    /// See `idle_p50_ms`.
    pub(crate) training_p99_ms: f64,
    /// Factor between the two 99th percentiles.
    pub(crate) p99_factor: f64,
    /// Whether it keeps to the limit.
    pub(crate) within_limit: bool,
    /// Tokens a second that training went through meanwhile, median.
    pub(crate) training_tokens_per_s: f64,
}

/// Measures every rate for `rounds` rounds of `time` without training and `time` with it.
pub(crate) async fn run(
    settings: Settings,
    rates: &[f64],
    rounds: usize,
    time: Duration,
) -> Result<ServingReport> {
    let host = Host::start(settings).await?;
    let report = measure(&host, rates, rounds, time).await;
    host.close().await?;
    report
}

async fn measure(host: &Host, rates: &[f64], rounds: usize, time: Duration) -> Result<ServingReport> {
    let (client, prompts) = (host.client()?, Prompts::of(&host.stream));
    traffic::at_rate(&client, &prompts, 20.0, WARM_UP).await;
    let mut alone = Training::start(host);
    alone.begun().await;
    tokio::time::sleep(time).await;
    let training_alone_tokens_per_s = alone.stop().await?;
    let mut reports = Vec::with_capacity(rates.len());
    for rate in rates.iter().copied() {
        let (mut idle, mut training, mut speeds, mut failed) = (Vec::new(), Vec::new(), Vec::new(), 0);
        for _ in 0..rounds {
            let mut round = async || {
                let samples = traffic::at_rate(&client, &prompts, rate, time).await;
                failed += traffic::failures(&samples).0;
                Latency::of(samples.iter().map(|sample| sample.latency))
            };
            idle.push(round().await);
            let mut trained = Training::start(host);
            trained.begun().await;
            training.push(round().await);
            speeds.push(trained.stop().await?);
        }
        let over = |rounds: &[Latency], of: fn(&Latency) -> f64| median(rounds.iter().map(of));
        let (idle_p99_ms, training_p99_ms) = (over(&idle, |l| l.p99_ms), over(&training, |l| l.p99_ms));
        let p99_factor = training_p99_ms / idle_p99_ms.max(f64::MIN_POSITIVE);
        reports.push(RateReport {
            rate,
            failed,
            idle_p50_ms: over(&idle, |l| l.p50_ms),
            idle_p99_ms,
            training_p50_ms: over(&training, |l| l.p50_ms),
            training_p99_ms,
            p99_factor,
            within_limit: p99_factor <= LIMIT && failed == 0,
            training_tokens_per_s: median(speeds),
            idle,
            training,
        });
    }
    Ok(ServingReport { training_alone_tokens_per_s, rates: reports, limit: LIMIT })
}

/// A training job that goes on until it is stopped.
struct Training {
    stop: Arc<AtomicBool>,
    tokens: Arc<AtomicU64>,
    /// When its speed begins to count, and its tokens then.
    began: (Instant, u64),
    job: JoinHandle<Result<()>>,
}

impl Training {
    fn start(host: &Host) -> Self {
        let trainer: Arc<dyn Trainer> = Arc::clone(&host.parts().trainer);
        let hyper = HyperParameters {
            steps: u32::MAX,
            max_seconds: 0.0,
            ..host.parts().settings.train.hyper.clone()
        };
        let job = TrainJob::new(host.examples(2000), hyper, 7);
        let (stop, tokens) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (told, seen) = (Arc::clone(&stop), Arc::clone(&tokens));
        let job = tokio::task::spawn_blocking(move || {
            let trained = trainer.train(&job, &mut |progress| {
                seen.store(progress.tokens, Ordering::Relaxed);
                if told.load(Ordering::Acquire) { Control::Cancel } else { Control::Continue }
            });
            match trained {
                Err(error) if error.kind != ErrorKind::Conflict => Err(error),
                _ => Ok(()),
            }
        });
        Self { stop, tokens, began: (Instant::now(), 0), job }
    }

    /// Until the first step is done, so that a round does not measure the preparation.
    async fn begun(&mut self) {
        while self.tokens.load(Ordering::Relaxed) == 0 && !self.job.is_finished() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.began = (Instant::now(), self.tokens.load(Ordering::Relaxed));
    }

    /// Ends it; tokens a second since it had begun.
    async fn stop(self) -> Result<f64> {
        let (began, before) = self.began;
        let tokens = self.tokens.load(Ordering::Relaxed).saturating_sub(before);
        let speed = tokens as f64 / began.elapsed().as_secs_f64();
        self.stop.store(true, Ordering::Release);
        self.job.await.map_err(|error| Error::internal(format!("training was lost: {error}")))??;
        Ok(speed)
    }
}

/// Prints it.
pub(crate) fn print(report: &ServingReport, printer: &Printer) -> Outcome {
    let mut table = Table::new(&[
        ">REQUESTS/S",
        "TRAINING",
        ">P50",
        ">P99",
        ">FACTOR OF P99",
        ">TOKENS/S TRAINED",
        ">FAILED",
    ]);
    table.row([
        "0".into(),
        "yes".into(),
        "-".into(),
        "-".into(),
        "-".into(),
        format!("{:.0}", report.training_alone_tokens_per_s),
        "-".into(),
    ]);
    for rate in &report.rates {
        table.row([
            rate.rate.to_string(),
            "no".into(),
            ms(rate.idle_p50_ms),
            ms(rate.idle_p99_ms),
            "-".into(),
            "-".into(),
            "-".into(),
        ]);
        table.row([
            rate.rate.to_string(),
            "yes".into(),
            ms(rate.training_p50_ms),
            ms(rate.training_p99_ms),
            format!("{:.2}", rate.p99_factor),
            format!("{:.0}", rate.training_tokens_per_s),
            rate.failed.to_string(),
        ]);
    }
    printer.table(&table)
}
