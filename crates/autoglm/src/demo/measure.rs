//! What a version knows: accuracy on held-out utterances, from the weights alone or with recall.
//!
//! Measuring sends no feedback, so that nothing here can become learning material, and does not name the task,
//! so that a held-out utterance gives away no more than its text.

use std::{sync::Arc, time::Duration};

use autoglm_domain::{
    ChatMessage, ErrorKind, GenerationInput, GenerationRequest, Generator, Priority, Result, Sampling,
    VersionNumber,
};
use futures::{StreamExt as _, TryStreamExt as _};

use super::{
    answer::is_right,
    client::{Asking, Client},
    options::RecallMode,
    stream::{Stream, Utterance},
};

/// Generations at once.
const CONCURRENCY: usize = 32;
const MAX_TOKENS: u32 = 24;
/// A full queue is tried again this often, with [`QUEUE_PAUSE`] between.
const QUEUE_TRIES: u32 = 500;
const QUEUE_PAUSE: Duration = Duration::from_millis(20);

/// Which held-out utterances of one task were answered right, in the stream's order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct TaskScore {
    /// One an utterance.
    pub(crate) right: Vec<bool>,
}

impl TaskScore {
    /// Share of right answers among the first `most`; `None` where the task has no held-out utterance.
    pub(crate) fn accuracy(&self, most: usize) -> Option<f64> {
        let looked_at = self.right.len().min(most);
        let right = self.right.iter().take(most).filter(|right| **right).count();
        (looked_at > 0).then(|| right as f64 / looked_at as f64)
    }
}

/// Mean over the tasks that have a score.
pub(crate) fn mean(scores: impl IntoIterator<Item = Option<f64>>) -> Option<f64> {
    let known: Vec<f64> = scores.into_iter().flatten().collect();
    (!known.is_empty()).then(|| known.iter().sum::<f64>() / known.len() as f64)
}

/// The weights alone: greedy answers of `version` to the first `most` held-out utterances of the task numbered
/// `task`. `NotFound` when the version is not resident; a prompt that does not fit the context counts as wrong.
pub(crate) async fn from_weights(
    generator: &Arc<dyn Generator>,
    stream: &Stream,
    task: usize,
    most: usize,
    version: VersionNumber,
) -> Result<TaskScore> {
    let Some(task) = stream.tasks.get(task) else { return Ok(TaskScore::default()) };
    let answers = task.held_out.iter().take(most).map(|utterance| answer(generator, utterance, version));
    let right = futures::stream::iter(answers).buffered(CONCURRENCY).try_collect().await?;
    Ok(TaskScore { right })
}

async fn answer(generator: &Arc<dyn Generator>, asked: &Utterance, version: VersionNumber) -> Result<bool> {
    let request = GenerationRequest::new(
        GenerationInput::Chat(vec![ChatMessage::user(&asked.prompt)]),
        Sampling { max_tokens: Some(MAX_TOKENS), ..Sampling::default() },
        version,
    )
    .with_priority(Priority::Background);
    let mut tries = 0;
    loop {
        match generator.generate_all(request.clone()).await {
            Ok(generation) => return Ok(is_right(&generation.text, &asked.reference)),
            Err(error) if error.kind == ErrorKind::Invalid => return Ok(false),
            Err(error) if error.kind == ErrorKind::Unavailable && tries < QUEUE_TRIES => {
                tries += 1;
                tokio::time::sleep(QUEUE_PAUSE).await;
            }
            Err(error) => return Err(error),
        }
    }
}

/// With recall: the server's answers over HTTP to all held-out utterances of the task numbered `task`, and the
/// failed requests in words, which count as wrong.
pub(crate) async fn with_recall(
    client: &Client,
    stream: &Stream,
    task: usize,
    recall: RecallMode,
    concurrency: usize,
) -> (TaskScore, Vec<String>) {
    let Some(task) = stream.tasks.get(task) else { return (TaskScore::default(), Vec::new()) };
    let asking = Asking { recall: Some(recall), ..Asking::default() };
    let answers = task.held_out.iter().map(async |asked: &Utterance| {
        client.ask(asked, asking).await.map(|answer| is_right(&answer.text, &asked.reference))
    });
    let answers: Vec<_> = futures::stream::iter(answers).buffered(concurrency).collect().await;
    let mut score = TaskScore::default();
    let mut failures = Vec::new();
    for answer in answers {
        score.right.push(answer.as_ref().is_ok_and(|right| *right));
        failures.extend(answer.err());
    }
    (score, failures)
}

/// Accuracy from the weights, task by task and version by version, on the same utterances each time.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Retention {
    /// The versions that were measured, in the order in which they came to answer.
    pub(crate) versions: Vec<VersionNumber>,
    /// One row a task, one column a version; `None` where the task had not been seen yet.
    pub(crate) accuracy: Vec<Vec<Option<f64>>>,
}

impl Retention {
    /// An empty matrix for `tasks` tasks.
    pub(crate) fn new(tasks: usize) -> Self {
        Self { versions: Vec::new(), accuracy: vec![Vec::new(); tasks] }
    }

    /// What is known of `version` on the task numbered `task`.
    pub(crate) fn get(&self, task: usize, version: VersionNumber) -> Option<f64> {
        let column = self.versions.iter().position(|known| *known == version)?;
        self.accuracy.get(task)?.get(column).copied().flatten()
    }

    /// Notes a measurement, adding the version's column when it is new.
    pub(crate) fn set(&mut self, task: usize, version: VersionNumber, accuracy: Option<f64>) {
        let column = match self.versions.iter().position(|known| *known == version) {
            Some(column) => column,
            None => {
                self.versions.push(version);
                self.accuracy.iter_mut().for_each(|row| row.push(None));
                self.versions.len() - 1
            }
        };
        if let Some(cell) = self.accuracy.get_mut(task).and_then(|row| row.get_mut(column)) {
            *cell = accuracy;
        }
    }

    /// The best that any version reached on the task numbered `task`.
    pub(crate) fn best(&self, task: usize) -> Option<f64> {
        self.accuracy.get(task)?.iter().flatten().copied().max_by(f64::total_cmp)
    }

    /// Best minus what `last` reaches; never negative.
    pub(crate) fn forgetting(&self, task: usize, last: VersionNumber) -> Option<f64> {
        Some((self.best(task)? - self.get(task, last)?).max(0.0))
    }
}

#[cfg(test)]
#[path = "measure_tests.rs"]
mod tests;
