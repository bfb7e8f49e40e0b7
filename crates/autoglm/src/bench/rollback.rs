//! A rollback under load: a champion that is watched disappoints while requests come at a fixed rate.
//!
//! Two versions say one word each. The second one passes a canary, for its word is what every request says is right, and
//! becomes champion; then the requests begin to say that the other word is. From there on the product is on its own: it
//! judges the answers, finds the guard broken, and goes back. What is measured is how long the bad version goes on being
//! asked once that is decided, and whether anybody got no answer.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use autoglm_domain::{
    Alias, Clock as _, Error, Event, LiveStage, Outcome as Ruling, Result, Rollout, RolloutId, RolloutState,
    SystemClock, Timestamp, Verdict, VersionNumber,
};
use autoglm_rollout::{MetricConfig, RolloutPolicy, Scanned};
use serde::Serialize;

use super::{
    Host, Latency,
    instant::InstantUpstream,
    latency::ms,
    traffic::{self, ASKING, Prompts, Sample},
};
use crate::{
    demo::Asking,
    printer::{Outcome, Printer, Table},
    settings::Settings,
    starter,
};

/// What the two versions say.
const WORDS: [&str; 2] = ["balance", "weather"];
/// Steps that teach a word.
const STEPS: u32 = 60;
/// How often the rollout is looked at from outside.
const POLL: Duration = Duration::from_millis(10);
/// Longest wait for the promotion, and for the rollback.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long requests go on after the rollback.
const AFTERWARDS: Duration = Duration::from_secs(2);
/// What the time from the decision to the last bad start is held to, milliseconds.
const LIMIT_MS: i64 = 1000;
/// Events read at a time.
const PAGE: usize = 1000;

/// What was measured.
#[derive(Debug, Default, Serialize)]
pub(crate) struct RollbackReport {
    /// What answers behind autoglm.
    pub(crate) answered_by: &'static str,
    /// Requests a second.
    pub(crate) rate: f64,
    /// Requests.
    pub(crate) requests: usize,
    /// Requests that failed.
    pub(crate) failed: usize,
    /// The first of them in words.
    pub(crate) failures: Vec<String>,
    /// Answers of the bad version after it had turned bad.
    pub(crate) bad_answers: usize,
    /// From the first request that it got wrong to the decision, milliseconds.
    pub(crate) breach_to_decision_ms: i64,
    /// From the decision to the last request that the bad version began to answer, milliseconds; 0 where none came.
    pub(crate) decision_to_last_bad_start_ms: i64,
    /// Requests that the bad version began to answer after the decision.
    pub(crate) bad_starts_after_decision: usize,
    /// Why it was rolled back.
    pub(crate) reason: String,
    /// Of the requests.
    pub(crate) latency: Latency,
}

impl RollbackReport {
    /// Whether it went as promised.
    pub(crate) fn is_clean(&self) -> bool {
        self.requests > 0 && self.failed == 0 && self.decision_to_last_bad_start_ms < LIMIT_MS
    }
}

/// Which word is right.
#[derive(Debug, Default)]
struct Right(AtomicU8);

impl Right {
    const ENOUGH: u8 = 2;

    /// How the next request is asked; `None` once there were enough.
    fn asking(&self) -> Option<Asking<'static>> {
        let word = match self.0.load(Ordering::SeqCst) {
            0 => WORDS[1],
            1 => WORDS[0],
            _ => return None,
        };
        Some(Asking { reference: Some(word), ..ASKING })
    }

    fn set(&self, stage: u8) {
        self.0.store(stage, Ordering::SeqCst);
    }
}

/// Measures at `rate` requests a second, with the model of the settings or with a double that answers at once.
pub(crate) async fn run(mut settings: Settings, rate: f64, instant: bool) -> Result<RollbackReport> {
    settings.rollout = policy();
    let double = if instant { Some(InstantUpstream::start(&WORDS).await?) } else { None };
    let folder = double.as_ref().map(|double| behind(&mut settings, double)).transpose()?;
    let host = Host::start(settings).await?;
    let steps = if instant { 1 } else { STEPS };
    let measured = measure(&host, rate, steps).await;
    host.close().await?;
    if let Some(folder) = folder {
        // What stays behind is a few kilobytes in the system's temporary folder.
        let _ = std::fs::remove_dir_all(folder);
    }
    let answered_by = if instant { "an instant upstream (a double)" } else { "the engine" };
    Ok(RollbackReport { answered_by, rate, ..measured? })
}

/// A canary that is quickly passed, and a guard on the candidate's own accuracy.
fn policy() -> RolloutPolicy {
    let mut policy = RolloutPolicy { live: true, settle_s: 30, ..RolloutPolicy::default() };
    let guard = MetricConfig { absolute: Some(50.0), ..MetricConfig::default() };
    policy.metrics = [("accuracy".to_owned(), guard)].into();
    policy.shadow.min_pairs = 0;
    policy.canary.steps = vec![50.0];
    policy.canary.min_s = 0;
    policy.watch.window_s = 600;
    policy
}

/// Puts the double in the engine's place; gives the folder that adapters go to.
fn behind(settings: &mut Settings, double: &InstantUpstream) -> Result<std::path::PathBuf> {
    let folder = std::env::temp_dir().join(format!("autoglm-bench-adapters-{}", std::process::id()));
    std::fs::create_dir_all(&folder)
        .map_err(|error| Error::unavailable(format!("`{}` cannot be made: {error}", folder.display())))?;
    if settings.model.path.is_empty() {
        let mut at = Settings::default();
        at.store.data_dir.clone_from(&folder);
        settings.model.path = starter::resolve(&at)?.display().to_string();
    }
    settings.upstream.base_url.clone_from(&double.base_url);
    settings.upstream.adapter_dir = folder.join("adapters");
    Ok(folder)
}

async fn measure(host: &Host, rate: f64, steps: u32) -> Result<RollbackReport> {
    let parts = host.parts();
    let good = host.teach(WORDS[0], steps).await?.number;
    let bad = host.teach(WORDS[1], steps).await?.number;
    parts.registry.point(Alias::champion(), None, good, "bench", "the first", None).await?;
    parts.residents.follow(parts).await?;
    // The offline gate is not what is measured.
    let stage = parts.rollouts.begin(bad, good).await?;
    let Scanned::Clean(stage) = stage.scanned(None).await? else {
        return Err(Error::internal("the scan refused nothing and yet refused"));
    };
    let rollout = stage.canary(50.0, parts.clock.now()).await?.rollout().clone();
    parts.traffic.follow(&rollout);
    parts.proving.begun();

    let (client, prompts, right) = (host.client()?, Prompts::of(&host.stream), Arc::new(Right::default()));
    let conduct = async {
        let told = conduct(host, rollout.id, &right).await;
        right.set(Right::ENOUGH);
        told
    };
    let load = traffic::at_rate_while(&client, &prompts, rate, || right.asking());
    let (told, samples) = futures::join!(conduct, load);
    let (turned, verdict) = told?;
    let starts = starts(host, bad).await?;
    Ok(judge(&samples, &starts, turned, &verdict))
}

/// Lets the candidate become champion, turns the traffic against it, and waits for the rollback: when it was turned,
/// and the verdict.
async fn conduct(host: &Host, id: RolloutId, right: &Right) -> Result<(Timestamp, Verdict)> {
    let watched = |rollout: &Rollout| match &rollout.state {
        RolloutState::Live(live) if live.stage == LiveStage::Watch => Some(Ok(())),
        RolloutState::Live(_) => None,
        other => Some(Err(Error::internal(format!("the candidate did not become champion: {other:?}")))),
    };
    until(host, id, "the promotion", watched).await??;
    let turned = SystemClock.now();
    right.set(1);
    let decided = |rollout: &Rollout| match &rollout.state {
        RolloutState::Decided { verdict } => Some(verdict.clone()),
        _ => None,
    };
    let verdict = until(host, id, "the rollback", decided).await?;
    if verdict.outcome != Ruling::Reject {
        return Err(Error::internal(format!("it was not rolled back: {}", verdict.reason)));
    }
    tokio::time::sleep(AFTERWARDS).await;
    Ok((turned, verdict))
}

/// Waits until `seen` gives something of the rollout.
async fn until<T>(host: &Host, id: RolloutId, what: &str, seen: impl Fn(&Rollout) -> Option<T>) -> Result<T> {
    let waiting = async {
        loop {
            let rollouts = host.parts().store.rollouts().await?;
            if let Some(seen) = rollouts.iter().find(|it| it.id == id).and_then(&seen) {
                return Ok(seen);
            }
            tokio::time::sleep(POLL).await;
        }
    };
    let waited = tokio::time::timeout(PATIENCE, waiting).await;
    waited.map_err(|_| Error::unavailable(format!("{what} did not come within {} s", PATIENCE.as_secs())))?
}

/// When `version` began to answer each of its requests.
async fn starts(host: &Host, version: VersionNumber) -> Result<Vec<Timestamp>> {
    let (mut starts, mut seq) = (Vec::new(), 0);
    loop {
        let events = host.parts().store.events_after(seq, PAGE).await?;
        let Some(last) = events.last() else { return Ok(starts) };
        seq = last.seq;
        starts.extend(events.into_iter().filter_map(|recorded| match recorded.event {
            Event::Interaction(answer) if answer.version == version => Some(answer.at),
            _ => None,
        }));
    }
}

fn judge(samples: &[Sample], starts: &[Timestamp], turned: Timestamp, verdict: &Verdict) -> RollbackReport {
    let (failed, failures) = traffic::failures(samples);
    let bad = |sample: &&Sample| sample.answer.as_ref().is_ok_and(|answer| answer.text.trim() == WORDS[1]);
    let after = starts.iter().filter(|at| **at > verdict.at);
    RollbackReport {
        requests: samples.len(),
        failed,
        failures,
        bad_answers: samples.iter().filter(|sample| sample.sent >= turned).filter(bad).count(),
        breach_to_decision_ms: verdict.at.0 - turned.0,
        decision_to_last_bad_start_ms: after.clone().max().map_or(0, |last| last.0 - verdict.at.0),
        bad_starts_after_decision: after.count(),
        reason: verdict.reason.clone(),
        latency: Latency::of(samples.iter().map(|sample| sample.latency)),
        ..RollbackReport::default()
    }
}

/// Prints it.
pub(crate) fn print(report: &RollbackReport, printer: &Printer) -> Outcome {
    let mut table = Table::new(&["MEASURED", ">VALUE"]);
    for (name, value) in [
        ("answered by", report.answered_by.to_owned()),
        ("requests a second", report.rate.to_string()),
        ("requests", report.requests.to_string()),
        ("  failed", report.failed.to_string()),
        ("  wrong, of the bad version", report.bad_answers.to_string()),
        ("first wrong answer to decision", format!("{} ms", report.breach_to_decision_ms)),
        ("decision to last bad start", format!("{} ms", report.decision_to_last_bad_start_ms)),
        ("bad starts after the decision", report.bad_starts_after_decision.to_string()),
        ("request, p50", ms(report.latency.p50_ms)),
        ("request, p99", ms(report.latency.p99_ms)),
    ] {
        table.row([name.to_owned(), value]);
    }
    printer.table(&table)?;
    printer.note(&format!("rolled back because {}", report.reason));
    Ok(())
}

#[cfg(test)]
mod tests {
    use autoglm_domain::Evidence;

    use super::*;

    #[test]
    fn the_last_bad_start_counts_from_the_decision() {
        let verdict = Verdict {
            outcome: Ruling::Reject,
            reason: "accuracy".into(),
            at: Timestamp(1000),
            evidence: Evidence::default(),
        };
        let report = judge(&[], &[990, 1040, 1012].map(Timestamp), Timestamp(700), &verdict);
        assert_eq!((report.breach_to_decision_ms, report.decision_to_last_bad_start_ms), (300, 40));
        assert_eq!(report.bad_starts_after_decision, 2);
        assert!(!report.is_clean(), "nothing was asked");
        let none = judge(&[], &[Timestamp(990)], Timestamp(700), &verdict);
        assert_eq!(none.decision_to_last_bad_start_ms, 0);
    }

    /// The wiring, at a rate that any machine keeps; the figures are those of `autoglm bench rollback`.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_watched_champion_that_turns_bad_is_rolled_back() {
        let report = run(Settings::default(), 40.0, true).await.unwrap();
        assert!(report.is_clean(), "{report:?}");
        assert!(report.bad_answers > 0 && report.reason.contains("accuracy"), "{report:?}");
    }
}
