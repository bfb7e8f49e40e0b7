//! The demo from the first request to the report.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use autoglm_domain::{
    Alias, Clock as _, Error, ErrorKind, Result, RunState, Store, SystemClock, Timestamp, VersionNumber,
};
use tokio::sync::Mutex;

use super::{
    assemble::{Findings, trigger_word},
    budget::{Pacer, PhasePlan, Rounds},
    client::Client,
    display::{Display, Tone},
    measure::{self, Retention, TaskScore},
    options::{DemoOptions, RecallMode},
    player::Player,
    report::{Report, TimelineEntry},
    report_html,
    server::DemoServer,
    stream::Stream,
    watch::{DemoEvent, Promotion, Watcher, outcome_word},
};

/// How often the journal is looked at.
const POLL: Duration = Duration::from_millis(250);

/// Plays `stream` at `server`, measures, writes `report.json` and `report.html` to the options' folder, and gives
/// the report. Failed requests are counted, not fatal; `Unavailable` when the store cannot be read, `Internal` when
/// the reports cannot be written.
pub(crate) async fn run(
    options: &DemoOptions,
    stream: Stream,
    server: DemoServer,
    display: &Display,
) -> Result<Report> {
    options.check()?;
    prepare(&options.out)?;
    let conductor = Conductor::new(options, stream, server, display).await?;
    let ended = AtomicBool::new(false);
    let playing = async {
        let report = conductor.conduct().await;
        ended.store(true, Ordering::Release);
        report
    };
    let (report, watched) = futures::join!(playing, conductor.watch(&ended));
    display.clear();
    let report = report?;
    watched?;
    write(&options.out.join("report.json"), &report.to_json()?)?;
    write(&options.out.join("report.html"), &report_html::page(&report))?;
    display.finish(&report);
    Ok(report)
}

fn prepare(folder: &Path) -> Result<()> {
    let fault = |error| Error::invalid(format!("cannot make the folder {}: {error}", folder.display()));
    std::fs::create_dir_all(folder).map_err(fault)
}

fn write(path: &Path, text: &str) -> Result<()> {
    let fault = |error| Error::internal(format!("cannot write {}: {error}", path.display()));
    std::fs::write(path, text).map_err(fault)
}

struct Conductor<'a> {
    options: &'a DemoOptions,
    stream: Arc<Stream>,
    server: DemoServer,
    display: &'a Display,
    client: Client,
    player: Player,
    watcher: Mutex<Watcher>,
    began: Timestamp,
    start: Instant,
}

/// What the phases leave behind.
struct Played {
    phases: Vec<TimelineEntry>,
    retention: Retention,
    spoiled: Option<VersionNumber>,
}

impl<'a> Conductor<'a> {
    async fn new(
        options: &'a DemoOptions,
        stream: Stream,
        server: DemoServer,
        display: &'a Display,
    ) -> Result<Self> {
        let stream = Arc::new(stream);
        let client = Client::new(&server.base_url)?;
        let mut watcher = Watcher::new(Arc::clone(&server.store));
        // What a kept data folder holds from before is not this demo's.
        watcher.poll().await?;
        watcher.forget();
        Ok(Self {
            player: Player::new(client.clone(), Arc::clone(&stream), options),
            watcher: Mutex::new(watcher),
            began: SystemClock.now(),
            start: Instant::now(),
            options,
            stream,
            server,
            display,
            client,
        })
    }

    /// Shows what the learning loop does until `ended` is set.
    async fn watch(&self, ended: &AtomicBool) -> Result<()> {
        while !ended.load(Ordering::Acquire) {
            self.look().await?;
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    async fn look(&self) -> Result<()> {
        for event in self.watcher.lock().await.poll().await? {
            self.show(&event);
        }
        Ok(())
    }

    fn show(&self, event: &DemoEvent) {
        let at = SystemClock.now().since_ms(self.began) as f64 / 1e3;
        let (tone, text) = match event {
            DemoEvent::RunStarted(run) => (
                Tone::Faint,
                format!(
                    "training from {} ({}): {} new experiences, {} replayed",
                    run.parent,
                    trigger_word(run).replace('_', " "),
                    run.new_experiences,
                    run.replayed_experiences
                ),
            ),
            DemoEvent::RunEnded(run) => match &run.state {
                RunState::Succeeded { version } => {
                    let rate = run.metrics.get("tokens_per_s");
                    let rate = rate.map(|rate| format!(" at {rate:.0} tokens a second")).unwrap_or_default();
                    (Tone::Faint, format!("trained {version}{rate}"))
                }
                RunState::Failed { reason } => (Tone::Caution, format!("training failed: {reason}")),
                RunState::Cancelled { reason } => (Tone::Faint, format!("training cancelled: {reason}")),
                RunState::Planned | RunState::Running => return,
            },
            DemoEvent::Judged(judged) => {
                let word = outcome_word(judged.verdict.outcome);
                let tone = if word == "promote" { Tone::Good } else { Tone::Caution };
                (tone, format!("{} {word}: {}", judged.version, judged.verdict.reason))
            }
            DemoEvent::Promoted(Promotion { from, to, .. }) => {
                (Tone::Good, format!("{to} answers now, after {from}"))
            }
        };
        self.display.line(tone, &format!("{at:>6.1} s  {text}"));
    }

    async fn conduct(&self) -> Result<Report> {
        let Played { phases, mut retention, spoiled } = self.play().await?;
        let seen = self.stream.tasks.len();
        let champion = champion(&self.server.store).await?;
        let (weights, (recall, failures)) = self
            .player
            .meanwhile(seen, async {
                self.display.working("measuring what the weights know");
                let weights = self.weights(champion).await?;
                self.display.working("measuring with recall");
                Ok::<_, Error>((weights, self.recall().await))
            })
            .await?;
        let most = self.most();
        for (task, score) in weights.iter().enumerate() {
            retention.set(task, champion, score.accuracy(most));
        }
        let seconds = self.start.elapsed().as_secs_f64();
        let measuring_requests = recall.iter().map(|score| score.right.len() as u64).sum();
        let (upper_bound, seconds_upper_bound) = self.upper_bound().await?;
        self.look().await?;
        let watcher = self.watcher.lock().await;
        for failure in failures {
            self.player.failed(failure);
        }
        Ok(self.player.tally(|tally| {
            Findings {
                options: self.options,
                stream: &self.stream,
                tally,
                watcher: &watcher,
                retention: &retention,
                per_task: most
                    .min(self.stream.tasks.iter().map(|t| t.held_out.len()).max().unwrap_or_default()),
                champion,
                weights: &weights,
                recall: &recall,
                upper_bound: &upper_bound,
                phases,
                spoiled,
                began: self.began,
                seconds,
                seconds_upper_bound,
                measuring_requests,
            }
            .report()
        }))
    }

    /// Task after task: traffic, then, where a round ends, training, verdict and measuring.
    async fn play(&self) -> Result<Played> {
        let tasks = self.stream.tasks.len();
        let mut played = Played { phases: Vec::new(), retention: Retention::new(tasks), spoiled: None };
        let rounds = Rounds::new(self.options.minutes, tasks, self.options.runs);
        let mut pacer = Pacer::new(self.start, rounds);
        for (at, task) in self.stream.tasks.iter().enumerate() {
            let plan = pacer.next(Instant::now(), task.traffic.len());
            let start_s = self.elapsed();
            self.display.phase(at + 1, tasks, &task.name, task.traffic.len(), plan.pace);
            self.player.play(at, &plan, &|tally| self.display.answered(tally)).await;
            let traffic_end_s = self.elapsed();
            let mut consolidated = None;
            if rounds.ends_with(at) {
                let spoil = !self.options.no_spoil && at == rounds.halfway();
                consolidated = Some(self.round(&mut played, at + 1, spoil, &plan).await?);
            }
            let (accuracy, requests) = self.player.tally(|tally| tally.of_task(at));
            let (task, end_s) = (task.name.clone(), self.elapsed());
            played.phases.push(TimelineEntry::Phase {
                task,
                start_s,
                traffic_end_s,
                end_s,
                requests,
                accuracy,
                consolidated,
            });
        }
        self.display.working("merging what was learned");
        let merged = self
            .player
            .meanwhile(tasks, async {
                let merged = self.server.control.merge().await;
                self.remeasure(&mut played.retention, tasks).await?;
                Ok::<_, Error>(merged)
            })
            .await?;
        if let Err(error) = merged {
            self.display.line(Tone::Caution, &format!("no merge: {error}"));
        }
        Ok(played)
    }

    /// Training and verdict with a trickle of traffic, then measuring; whether the loop came to rest in time.
    async fn round(&self, played: &mut Played, seen: usize, spoil: bool, plan: &PhasePlan) -> Result<bool> {
        self.display.working("consolidating");
        self.player
            .meanwhile(seen, async {
                self.server.control.consolidate().await;
                let patience = plan.patience(Instant::now());
                let consolidated = self.server.control.wait_consolidated(patience).await;
                if spoil {
                    played.spoiled = self.spoil().await?;
                }
                self.remeasure(&mut played.retention, seen).await?;
                Ok::<_, Error>(consolidated)
            })
            .await
    }

    /// A demo that cannot spoil a candidate goes on and says so.
    async fn spoil(&self) -> Result<Option<VersionNumber>> {
        self.display.working("submitting a spoiled candidate");
        match self.server.control.submit_spoiled().await {
            Ok(version) => {
                self.display.line(Tone::Faint, &format!("{version} was trained on shuffled targets"));
                Ok(Some(version))
            }
            Err(error) => {
                self.display.line(Tone::Caution, &format!("no spoiled candidate: {error}"));
                Ok(None)
            }
        }
    }

    /// Measures the champion, and every version that was champion since the last time and is still resident, on
    /// the tasks seen so far.
    async fn remeasure(&self, retention: &mut Retention, seen: usize) -> Result<()> {
        self.look().await?;
        let last = champion(&self.server.store).await?;
        let promoted =
            self.watcher.lock().await.promotions.iter().map(|promotion| promotion.to).collect::<Vec<_>>();
        let mut versions: Vec<VersionNumber> =
            promoted.into_iter().filter(|version| !retention.versions.contains(version)).collect();
        versions.push(last);
        versions.dedup();
        for version in versions {
            self.display.working(&format!("measuring {version}"));
            for task in 0..seen {
                if retention.get(task, version).is_some() {
                    continue;
                }
                let most = self.most();
                let score =
                    measure::from_weights(&self.server.generator, &self.stream, task, most, version).await;
                match score {
                    Ok(score) => retention.set(task, version, score.accuracy(most)),
                    // Replaced before it could be measured.
                    Err(error) if error.kind == ErrorKind::NotFound && version != last => break,
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    async fn weights(&self, version: VersionNumber) -> Result<Vec<TaskScore>> {
        let mut scores = Vec::new();
        for task in 0..self.stream.tasks.len() {
            let score =
                measure::from_weights(&self.server.generator, &self.stream, task, usize::MAX, version)
                    .await?;
            scores.push(score);
        }
        Ok(scores)
    }

    async fn recall(&self) -> (Vec<TaskScore>, Vec<String>) {
        let (mut scores, mut failures) = (Vec::new(), Vec::new());
        if self.options.recall == RecallMode::Off {
            return (scores, failures);
        }
        for task in 0..self.stream.tasks.len() {
            let (score, failed) = measure::with_recall(
                &self.client,
                &self.stream,
                task,
                self.options.recall,
                self.options.concurrency,
            )
            .await;
            scores.push(score);
            failures.extend(failed);
        }
        (scores, failures)
    }

    async fn upper_bound(&self) -> Result<(Vec<TaskScore>, Option<f64>)> {
        if !self.options.with_upper_bound {
            return Ok((Vec::new(), None));
        }
        let begun = Instant::now();
        self.display.working("training on everything at once");
        let version = self.server.control.train_upper_bound().await?;
        let scores = self.weights(version).await?;
        Ok((scores, Some(begun.elapsed().as_secs_f64())))
    }

    /// Held-out utterances of a task that each version is measured on.
    fn most(&self) -> usize {
        if self.options.measure_per_task == 0 { usize::MAX } else { self.options.measure_per_task }
    }

    fn elapsed(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }
}

async fn champion(store: &Arc<dyn Store>) -> Result<VersionNumber> {
    let aliases = store.aliases().await?;
    let champion = aliases.iter().find(|(alias, _)| *alias == Alias::champion());
    Ok(champion.map_or(VersionNumber::BASE, |(_, version)| *version))
}

#[cfg(test)]
#[path = "conduct_tests.rs"]
mod tests;
