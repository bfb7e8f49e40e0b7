//! What the player has seen so far: one record a request, counts, and the rolling accuracy.

use std::{collections::VecDeque, time::Duration};

use autoglm_domain::VersionNumber;

use super::client::{Answer, Source};

/// Requests that the rolling accuracy looks back on.
pub(crate) const WINDOW: usize = 200;
/// How many failures are kept in words.
const KEPT_FAILURES: usize = 20;

/// One utterance of the traffic, answered.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct RequestRecord {
    /// Running number of the utterance, from 0; records are in order of the answers' arrival.
    pub(crate) index: u64,
    /// Index of its task.
    pub(crate) task: usize,
    /// Whether the answer was right.
    pub(crate) right: bool,
    /// The version that answered.
    pub(crate) version: Option<VersionNumber>,
    /// What the answer was made from.
    pub(crate) source: Source,
    /// Time to the whole answer.
    pub(crate) latency: Duration,
    /// Accuracy over the last [`WINDOW`] answers, this one included.
    pub(crate) rolling: f64,
    /// The same over the last [`WINDOW`] answers that the weights gave; `None` before the first.
    pub(crate) rolling_weights: Option<f64>,
}

/// Running sums of the traffic.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Answered utterances of the traffic.
    pub(crate) records: Vec<RequestRecord>,
    /// Completions asked for: traffic, trickle and repeats after a correction.
    pub(crate) requests: u64,
    /// Feedback sent.
    pub(crate) feedback: u64,
    /// Feedback that was wrong on purpose.
    pub(crate) wrong_feedback: u64,
    /// Completions and feedback that failed.
    pub(crate) failed: u64,
    /// The first of them in words.
    pub(crate) failures: Vec<String>,
    /// Utterances left unsent because their task's time was over.
    pub(crate) unsent: u64,
    /// Seconds from sending a correction to a right answer; `None` where none came in time.
    pub(crate) corrections: Vec<Option<f64>>,
    rolling: Rolling,
    rolling_weights: Rolling,
}

#[derive(Debug, Default)]
struct Rolling {
    window: VecDeque<bool>,
    right: usize,
}

impl Rolling {
    fn push(&mut self, right: bool) {
        if self.window.len() == WINDOW && self.window.pop_front() == Some(true) {
            self.right -= 1;
        }
        self.window.push_back(right);
        self.right += usize::from(right);
    }

    fn mean(&self) -> Option<f64> {
        (!self.window.is_empty()).then(|| self.right as f64 / self.window.len() as f64)
    }
}

impl Tally {
    /// Notes an answered utterance of the traffic.
    pub(crate) fn answered(&mut self, index: u64, task: usize, answer: &Answer, right: bool) {
        self.rolling.push(right);
        if answer.source == Source::Weights {
            self.rolling_weights.push(right);
        }
        self.records.push(RequestRecord {
            index,
            task,
            right,
            version: answer.version,
            source: answer.source,
            latency: answer.latency,
            rolling: self.rolling.mean().unwrap_or_default(),
            rolling_weights: self.rolling_weights.mean(),
        });
    }

    /// Notes a failed completion or feedback.
    pub(crate) fn failed(&mut self, failure: String) {
        self.failed += 1;
        if self.failures.len() < KEPT_FAILURES {
            self.failures.push(failure);
        }
    }

    /// Accuracy over the last [`WINDOW`] answers; `None` before the first.
    pub(crate) fn rolling(&self) -> Option<f64> {
        self.rolling.mean()
    }

    /// Accuracy and number of the answers to the traffic of `task`.
    pub(crate) fn of_task(&self, task: usize) -> (Option<f64>, usize) {
        let of_task = self.records.iter().filter(|record| record.task == task);
        let (mut right, mut total) = (0, 0);
        for record in of_task {
            total += 1;
            right += usize::from(record.right);
        }
        ((total > 0).then(|| right as f64 / total as f64), total)
    }
}

/// Nearest-rank quantile (0 to 1) of `values`; `None` when there are none.
pub(crate) fn quantile(values: impl IntoIterator<Item = f64>, share: f64) -> Option<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let rank = (share * values.len() as f64).ceil() as usize;
    values.get(rank.saturating_sub(1)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(source: Source) -> Answer {
        Answer {
            id: "chatcmpl-1".into(),
            text: "x".into(),
            version: None,
            source,
            latency: Duration::from_millis(3),
        }
    }

    #[test]
    fn the_rolling_accuracy_looks_back_two_hundred_answers() {
        let mut tally = Tally::default();
        assert_eq!(tally.rolling(), None);
        (0..200).for_each(|index| tally.answered(index, 0, &answer(Source::Weights), false));
        (200..300).for_each(|index| tally.answered(index, 1, &answer(Source::Memory), true));
        assert_eq!(tally.rolling(), Some(0.5));
        (300..400).for_each(|index| tally.answered(index, 1, &answer(Source::Memory), true));
        assert_eq!(tally.rolling(), Some(1.0));
        assert_eq!(tally.records[399].rolling_weights, Some(0.0));
        assert_eq!((tally.of_task(0), tally.of_task(1)), ((Some(0.0), 200), (Some(1.0), 200)));
        assert_eq!(tally.of_task(2), (None, 0));
    }

    #[test]
    fn quantiles_are_values_that_were_seen() {
        assert_eq!(quantile([3.0, 1.0, 2.0], 0.5), Some(2.0));
        assert_eq!(quantile([1.0, 2.0], 0.5), Some(1.0));
        assert_eq!(quantile([1.0, 2.0], 0.99), Some(2.0));
        assert_eq!(quantile([], 0.5), None);
    }
}
