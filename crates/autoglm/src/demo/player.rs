//! Plays traffic at the server: each utterance is asked, judged by the simulated user, and perhaps commented.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use futures::StreamExt as _;
use parking_lot::Mutex;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::{
    answer::is_right,
    budget::PhasePlan,
    client::{Asking, Client},
    options::{DemoOptions, RecallMode},
    stream::{Stream, Utterance},
    tally::Tally,
    users::{Opinion, Users},
};

/// One in this many true corrections is followed by asking the same again.
const PROBE_EVERY: u64 = 25;
/// How long a repeat waits for the corrected answer.
const PROBE_LIMIT: Duration = Duration::from_secs(1);
/// Between two repeats of one question.
const PROBE_PAUSE: Duration = Duration::from_millis(20);
/// Requests a second while the server consolidates.
pub(crate) const TRICKLE_PACE: f64 = 5.0;

/// Plays a stream at a server.
#[derive(Debug)]
pub(crate) struct Player {
    client: Client,
    stream: Arc<Stream>,
    users: Users,
    concurrency: usize,
    names_task: bool,
    probes: bool,
    seed: u64,
    tally: Mutex<Tally>,
}

impl Player {
    /// A player of `stream` at the server behind `client`.
    pub(crate) fn new(client: Client, stream: Arc<Stream>, options: &DemoOptions) -> Self {
        Self {
            client,
            stream,
            users: Users::new(options),
            concurrency: options.concurrency,
            names_task: !options.no_task,
            probes: options.recall != RecallMode::Off,
            seed: options.seed,
            tally: Mutex::new(Tally::default()),
        }
    }

    /// Looks at the tally. Keep it short: requests in flight wait for it.
    pub(crate) fn tally<T>(&self, look: impl FnOnce(&Tally) -> T) -> T {
        look(&self.tally.lock())
    }

    /// Counts a request that failed elsewhere.
    pub(crate) fn failed(&self, failure: String) {
        self.tally.lock().failed(failure);
    }

    /// Sends all traffic of task number `task` at the plan's pace, `concurrency` requests at most at once. Calls
    /// `progress` after each answer. What was not begun by the deadline is left unsent.
    pub(crate) async fn play(&self, task: usize, plan: &PhasePlan, progress: &(dyn Fn(&Tally) + Sync)) {
        let Some(traffic) = self.stream.tasks.get(task).map(|task| &task.traffic) else { return };
        let before = self.stream.tasks.iter().take(task).map(|task| task.traffic.len() as u64).sum::<u64>();
        let begin = Instant::now();
        let gap = Duration::from_secs_f64(1.0 / plan.pace);
        let requests = traffic.iter().enumerate().map(|(position, utterance)| async move {
            let due = begin + gap.mul_f64(position as f64);
            tokio::time::sleep_until(due.into()).await;
            if Instant::now() > plan.traffic_deadline {
                self.tally.lock().unsent += 1;
                return;
            }
            self.play_one(before + position as u64, task, utterance).await;
            progress(&self.tally.lock());
        });
        futures::stream::iter(requests).buffer_unordered(self.concurrency).collect::<()>().await;
    }

    async fn play_one(&self, index: u64, at: usize, utterance: &Utterance) {
        let Some(task) = self.stream.tasks.get(at) else { return };
        let asking = Asking { task: self.names_task.then_some(task.name.as_str()), ..Asking::default() };
        self.tally.lock().requests += 1;
        let answer = match self.client.ask(utterance, asking).await {
            Ok(answer) => answer,
            Err(failure) => return self.tally.lock().failed(failure),
        };
        let right = is_right(&answer.text, &utterance.reference);
        self.tally.lock().answered(index, at, &answer, right);
        let Some(reaction) = self.users.react(index, task, utterance, right) else { return };
        let sent = Instant::now();
        let told = self.client.tell(&answer.id, &reaction.opinion).await;
        {
            let mut tally = self.tally.lock();
            tally.feedback += 1;
            tally.wrong_feedback += u64::from(reaction.wrong);
            if let Err(failure) = told {
                return tally.failed(failure);
            }
        }
        let corrected = !right && !reaction.wrong && matches!(reaction.opinion, Opinion::Correction(_));
        if self.probes && corrected && index.is_multiple_of(PROBE_EVERY) {
            self.probe(utterance, asking, sent).await;
        }
    }

    /// Asks a corrected question again until its answer is right or [`PROBE_LIMIT`] has passed since `sent`.
    async fn probe(&self, utterance: &Utterance, asking: Asking<'_>, sent: Instant) {
        loop {
            self.tally.lock().requests += 1;
            match self.client.ask(utterance, asking).await {
                Err(failure) => return self.tally.lock().failed(failure),
                Ok(answer) if is_right(&answer.text, &utterance.reference) => {
                    return self.tally.lock().corrections.push(Some(sent.elapsed().as_secs_f64()));
                }
                Ok(_) if sent.elapsed() > PROBE_LIMIT => return self.tally.lock().corrections.push(None),
                Ok(_) => tokio::time::sleep(PROBE_PAUSE).await,
            }
        }
    }

    /// Repeats utterances of the first `seen` tasks, [`TRICKLE_PACE`] a second and without feedback, until `stop`
    /// is set, so that the server is never idle while it trains.
    pub(crate) async fn trickle(&self, seen: usize, stop: &AtomicBool) {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(u64::MAX - seen as u64);
        let begin = Instant::now();
        let pool: Vec<(&str, &Utterance)> = self
            .stream
            .tasks
            .iter()
            .take(seen)
            .flat_map(|task| task.traffic.iter().map(|utterance| (task.name.as_str(), utterance)))
            .collect();
        let mut due = begin;
        while !pool.is_empty() && !stop.load(Ordering::Acquire) {
            tokio::time::sleep_until(due.into()).await;
            // A slow answer delays the next request; it does not make a burst of them.
            due = Instant::now() + Duration::from_secs_f64(1.0 / TRICKLE_PACE);
            let Some((task, utterance)) = pool.get(rng.random_range(0..pool.len())) else { return };
            let asking = Asking { task: self.names_task.then_some(task), ..Asking::default() };
            self.tally.lock().requests += 1;
            if let Err(failure) = self.client.ask(utterance, asking).await {
                self.tally.lock().failed(failure);
            }
        }
    }

    /// Runs `work` with the trickle beside it.
    pub(crate) async fn meanwhile<T>(&self, seen: usize, work: impl Future<Output = T>) -> T {
        let stop = AtomicBool::new(false);
        let work = async {
            let done = work.await;
            stop.store(true, Ordering::Release);
            done
        };
        // Joined, not raced: a request that was begun is ended.
        futures::join!(work, self.trickle(seen, &stop)).0
    }
}

#[cfg(test)]
#[path = "player_tests.rs"]
mod tests;
