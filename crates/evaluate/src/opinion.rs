//! What people and programs said of an answer, weighed into one opinion.
//!
//! Each principal has one voice, whatever the number of its messages: the latest counts. The majority
//! decides whether the answer was right, and which correction stands.

use std::collections::{BTreeMap, btree_map::Entry};

use autoglm_domain::{Feedback, Thumb, Timestamp};
use serde::{Deserialize, Serialize};

use crate::text::{excerpt, normalise};

/// How a metric's value becomes a score.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MetricScale {
    /// The value that is worth 0; it may be the larger one (latency, cost).
    pub worst: f64,
    /// The value that is worth 100.
    pub best: f64,
}

/// What feedback is worth.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FeedbackScale {
    /// Score of a thumb up.
    pub thumb_up: f64,
    /// Score of a thumb down.
    pub thumb_down: f64,
    /// From this score on, feedback endorses the answer.
    pub endorse_from: f64,
    /// Metrics that say something of accuracy, by name; others are ignored.
    pub metrics: BTreeMap<String, MetricScale>,
}

impl Default for FeedbackScale {
    fn default() -> Self {
        let scale = |worst, best| MetricScale { worst, best };
        Self {
            thumb_up: 100.0,
            thumb_down: 20.0,
            endorse_from: 80.0,
            metrics: [
                ("accuracy".to_owned(), scale(0.0, 1.0)),
                ("correct".to_owned(), scale(0.0, 1.0)),
                ("resolved".to_owned(), scale(0.0, 1.0)),
                ("rating".to_owned(), scale(1.0, 5.0)),
            ]
            .into(),
        }
    }
}

impl FeedbackScale {
    /// The score of one piece of feedback, 0 to 100, or `None` where it gives none. A score beats a metric,
    /// a metric beats a thumb: the finer one counts.
    fn score(&self, feedback: &Feedback) -> Option<f64> {
        let metric = feedback.metric.as_ref().and_then(|metric| {
            let scale = self.metrics.get(&metric.name)?;
            Some(100.0 * (metric.value - scale.worst) / (scale.best - scale.worst))
        });
        let thumb = feedback.thumb.map(|thumb| match thumb {
            Thumb::Up => self.thumb_up,
            Thumb::Down => self.thumb_down,
        });
        let finite = |score: &f64| score.is_finite();
        let score = feedback.score.filter(finite).or(metric.filter(finite)).or(thumb)?;
        Some(score.clamp(0.0, 100.0))
    }
}

/// What the majority holds.
#[derive(Debug, Clone, PartialEq)]
pub enum Stance {
    /// The answer is right.
    Endorsed {
        /// Mean score of those who say so.
        score: f64,
    },
    /// Something else would have been right.
    Corrected {
        /// What.
        text: String,
    },
    /// The answer is wrong, and nobody says what would be right.
    Rejected {
        /// Mean score of those who say so.
        score: f64,
    },
}

/// The weighed opinion.
#[derive(Debug, Clone, PartialEq)]
pub struct Opinion {
    /// What the majority holds.
    pub stance: Stance,
    /// How many principals hold it.
    pub agreeing: usize,
    /// How many principals said anything.
    pub voices: usize,
    /// For people; empty when all agree.
    pub findings: Vec<String>,
}

/// What one principal holds.
struct Voice {
    at: Timestamp,
    score: Option<f64>,
    correction: Option<String>,
}

impl Voice {
    fn endorses(&self, scale: &FeedbackScale) -> bool {
        self.correction.is_none() && self.score.is_some_and(|score| score >= scale.endorse_from)
    }
}

/// Weighs `feedback` on `answer`; `None` when none of it says whether the answer was right.
///
/// A correction that says the same as the answer endorses it. A correction outweighs a thumb up in the same
/// message. A thumb down after a correction leaves the correction standing; a thumb up withdraws it. Between
/// equal camps, the one with the latest message wins.
pub fn weigh(answer: &str, feedback: &[Feedback], scale: &FeedbackScale) -> Option<Opinion> {
    let voices = voices(answer, feedback, scale);
    if voices.is_empty() {
        return None;
    }
    let (right, wrong): (Vec<&Voice>, Vec<&Voice>) = voices.iter().partition(|voice| voice.endorses(scale));
    let latest = |camp: &[&Voice]| camp.iter().map(|voice| voice.at).max();
    let mut findings = Vec::new();
    if !right.is_empty() && !wrong.is_empty() {
        findings.push(format!("{} of {} people hold the answer to be right", right.len(), voices.len()));
    }
    if (right.len(), latest(&right)) > (wrong.len(), latest(&wrong)) {
        let score = mean_score(&right);
        let (agreeing, stance) = (right.len(), Stance::Endorsed { score });
        return Some(Opinion { stance, agreeing, voices: voices.len(), findings });
    }

    let mut corrections: BTreeMap<String, Vec<&Voice>> = BTreeMap::new();
    for voice in &wrong {
        if let Some(text) = &voice.correction {
            corrections.entry(normalise(text, true)).or_default().push(voice);
        }
    }
    if corrections.len() > 1 {
        findings.push(format!("{} different corrections were given", corrections.len()));
    }
    let chosen = corrections.into_values().max_by_key(|camp| (camp.len(), latest(camp)));
    let newest = chosen.and_then(|camp| {
        let text = camp.iter().max_by_key(|voice| voice.at)?.correction.clone()?;
        Some((camp.len(), text))
    });
    let (agreeing, stance) = match newest {
        Some((agreeing, text)) => {
            findings.push(format!("corrected to `{}`", excerpt(&text, 80)));
            (agreeing, Stance::Corrected { text })
        }
        None => (wrong.len(), Stance::Rejected { score: mean_score(&wrong) }),
    };
    Some(Opinion { stance, agreeing, voices: voices.len(), findings })
}

fn voices(answer: &str, feedback: &[Feedback], scale: &FeedbackScale) -> Vec<Voice> {
    let mut ordered: Vec<&Feedback> = feedback.iter().collect();
    ordered.sort_by_key(|feedback| (feedback.at, feedback.id));
    let mut voices: BTreeMap<&str, Voice> = BTreeMap::new();
    for item in ordered {
        let correction = item.correction.as_deref().filter(|text| !text.trim().is_empty());
        let same = |text: &str| text.trim() == answer.trim() || same_words(text, answer);
        let (score, correction) = match correction {
            Some(text) if same(text) => (Some(scale.thumb_up), None),
            Some(text) => (None, Some(text.to_owned())),
            None => match scale.score(item) {
                Some(score) => (Some(score), None),
                None => continue,
            },
        };
        match voices.entry(&item.principal) {
            Entry::Vacant(slot) => {
                slot.insert(Voice { at: item.at, score, correction });
            }
            Entry::Occupied(mut slot) => {
                let voice = slot.get_mut();
                let withdraws = score.is_some_and(|score| score >= scale.endorse_from);
                voice.at = item.at;
                voice.score = score;
                if withdraws || correction.is_some() {
                    voice.correction = correction;
                }
            }
        }
    }
    voices.into_values().collect()
}

fn same_words(left: &str, right: &str) -> bool {
    let left = normalise(left, true);
    !left.is_empty() && left == normalise(right, true)
}

fn mean_score(camp: &[&Voice]) -> f64 {
    let scores: Vec<f64> = camp.iter().filter_map(|voice| voice.score).collect();
    if scores.is_empty() { 0.0 } else { scores.iter().sum::<f64>() / scores.len() as f64 }
}

#[cfg(test)]
mod tests {
    use autoglm_domain::{FeedbackId, IdSource as _, InteractionId, Metric, SequentialIds};

    use super::*;

    fn said(items: &[(&str, &str)]) -> Vec<Feedback> {
        let ids = SequentialIds::default();
        let interaction = InteractionId::new(ids.next_uuid());
        let make = |(at, (principal, what)): (usize, &(&str, &str))| Feedback {
            id: FeedbackId::next(&ids),
            interaction,
            at: Timestamp(at as i64),
            principal: (*principal).into(),
            thumb: match *what {
                "+" => Some(Thumb::Up),
                "-" => Some(Thumb::Down),
                _ => None,
            },
            score: what.strip_prefix('#').map(|score| score.parse().unwrap()),
            metric: what
                .split_once('=')
                .map(|(name, value)| Metric { name: name.into(), value: value.parse().unwrap() }),
            correction: what.strip_prefix('>').map(Into::into),
            comment: what.strip_prefix('"').map(Into::into),
            tags: Vec::new(),
        };
        items.iter().enumerate().map(make).collect()
    }

    fn stance(items: &[(&str, &str)]) -> Option<Stance> {
        weigh("balance", &said(items), &FeedbackScale::default()).map(|opinion| opinion.stance)
    }

    fn corrected(text: &str) -> Option<Stance> {
        Some(Stance::Corrected { text: text.into() })
    }

    #[test]
    fn one_voice_is_heard() {
        assert_eq!(stance(&[]), None);
        assert_eq!(stance(&[("a", "\"hm")]), None);
        assert_eq!(stance(&[("a", "+")]), Some(Stance::Endorsed { score: 100.0 }));
        assert_eq!(stance(&[("a", "-")]), Some(Stance::Rejected { score: 20.0 }));
        assert_eq!(stance(&[("a", "#79")]), Some(Stance::Rejected { score: 79.0 }));
        assert_eq!(stance(&[("a", "#900")]), Some(Stance::Endorsed { score: 100.0 }));
        assert_eq!(stance(&[("a", "#NaN")]), None);
        assert_eq!(stance(&[("a", ">transfer")]), corrected("transfer"));
        assert_eq!(stance(&[("a", ">  ")]), None);
        assert_eq!(stance(&[("a", "> The Balance.")]), Some(Stance::Endorsed { score: 100.0 }));
        assert_eq!(stance(&[("a", "rating=4")]), Some(Stance::Rejected { score: 75.0 }));
        assert_eq!(stance(&[("a", "rating=9")]), Some(Stance::Endorsed { score: 100.0 }));
        assert_eq!(stance(&[("a", "resolved=NaN")]), None);
        assert_eq!(stance(&[("a", "unknown=1")]), None);
    }

    #[test]
    fn the_latest_of_each_principal_counts() {
        assert_eq!(stance(&[("a", "+"), ("a", ">transfer")]), corrected("transfer"));
        assert_eq!(stance(&[("a", ">transfer"), ("a", "-")]), corrected("transfer"));
        assert_eq!(stance(&[("a", ">transfer"), ("a", "+")]), Some(Stance::Endorsed { score: 100.0 }));
        assert_eq!(stance(&[("a", ">transfer"), ("a", "\"why?")]), corrected("transfer"));
        // One loud principal has one voice.
        let loud = [("a", ">spam"), ("a", ">spam"), ("a", ">spam"), ("b", "+"), ("c", "+")];
        assert_eq!(stance(&loud), Some(Stance::Endorsed { score: 100.0 }));
    }

    #[test]
    fn the_majority_decides_and_the_latest_breaks_a_tie() {
        assert_eq!(stance(&[("a", ">x"), ("b", ">Y!"), ("c", ">y")]), corrected("y"));
        assert_eq!(stance(&[("a", ">x"), ("b", ">y")]), corrected("y"));
        assert_eq!(stance(&[("a", "+"), ("b", ">y")]), corrected("y"));
        assert_eq!(stance(&[("b", ">y"), ("a", "+")]), Some(Stance::Endorsed { score: 100.0 }));
        let opinion = weigh(
            "balance",
            &said(&[("a", "+"), ("b", ">x"), ("c", ">y"), ("d", ">y")]),
            &FeedbackScale::default(),
        )
        .unwrap();
        assert_eq!((opinion.agreeing, opinion.voices), (2, 4));
        assert_eq!(
            opinion.findings,
            [
                "1 of 4 people hold the answer to be right",
                "2 different corrections were given",
                "corrected to `y`"
            ]
        );
    }

    #[test]
    fn the_order_of_arrival_does_not_matter() {
        let mut items = said(&[("a", ">x"), ("b", ">y"), ("a", "+"), ("c", "-")]);
        let forward = weigh("balance", &items, &FeedbackScale::default());
        items.reverse();
        assert_eq!(weigh("balance", &items, &FeedbackScale::default()), forward);
    }
}
