//! Versions as they did: how well, since when, and whether one can go back to them.

use std::collections::BTreeMap;

use autoglm_domain::{
    Alias, Evidence, PairedEvidence, Result as PortResult, Rollout, RolloutProgress, RolloutState, Timestamp,
    VersionNumber,
};
use serde::Serialize;

use crate::{Registry, Result, VersionView};

/// The metric of live traffic that an accuracy is read from.
const ACCURACY: &str = "accuracy";
/// Standard deviations of a 95% interval.
const Z: f64 = 1.959_963_985;

/// Where an accuracy was measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MeasuredOn {
    /// Held-out experiences, at the offline gate.
    HeldOut,
    /// Requests of users, in a rollout on live traffic.
    Traffic,
}

/// How well a version did when it was examined last.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Accuracy {
    /// Mean score, 0 to 1.
    pub mean: f64,
    /// Lower end of its 95% interval (Wilson 1927), as if each answer were right or wrong.
    pub lower: f64,
    /// Upper end.
    pub upper: f64,
    /// Answers that it is the mean of.
    pub answers: u64,
    /// What they were answers to.
    pub measured_on: MeasuredOn,
}

/// Whether the champion can go back to a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Return {
    /// Whether it can.
    pub possible: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A version with its history.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct VersionHistory {
    /// The version with its aliases.
    #[serde(flatten)]
    pub view: VersionView,
    /// How well it did; `None` where it was never examined.
    pub accuracy: Option<Accuracy>,
    /// When it became champion first.
    pub live_at: Option<Timestamp>,
    /// Whether the champion can go back to it, or to it at all.
    pub rollback: Return,
}

impl Accuracy {
    fn of(mean: f64, answers: u64, measured_on: MeasuredOn) -> Option<Self> {
        if answers == 0 || !mean.is_finite() {
            return None;
        }
        let (n, mean) = (answers as f64, mean.clamp(0.0, 1.0));
        let scale = 1.0 + Z * Z / n;
        let centre = (mean + Z * Z / (2.0 * n)) / scale;
        let half = Z / scale * (mean * (1.0 - mean) / n + Z * Z / (4.0 * n * n)).sqrt();
        let (lower, upper) = ((centre - half).max(0.0), (centre + half).min(1.0));
        Some(Self { mean, lower, upper, answers, measured_on })
    }
}

impl Registry {
    /// Every version with its history, oldest first.
    pub async fn history(&self) -> Result<Vec<VersionHistory>> {
        let versions = self.list().await?;
        let rollouts = self.store.rollouts().await?;
        let moves = self.store.alias_history(&Alias::champion()).await?;
        let mut live_at = BTreeMap::new();
        for step in &moves {
            live_at.entry(step.to).or_insert(step.at);
        }
        let champion = moves.last().map_or(VersionNumber::BASE, |step| step.to);
        // Where the base model answers, the latest version says what that is.
        let base = versions.iter().rev().find(|it| it.version.number == champion).or(versions.last());
        let base = base.map(|it| it.version.base);
        let mut all = Vec::with_capacity(versions.len());
        for view in versions {
            let number = view.version.number;
            let reason = if number == champion {
                Some("it is the champion".to_owned())
            } else if Some(view.version.base) != base {
                Some(format!("it belongs to another base model, {}", view.version.base.short()))
            } else if !self.artifacts.contains(view.version.adapter).await? {
                Some("its adapter is gone".to_owned())
            } else {
                None
            };
            let accuracy = self.accuracy(number, &rollouts).await?;
            let rollback = Return { possible: reason.is_none(), reason };
            all.push(VersionHistory { live_at: live_at.get(&number).copied(), view, accuracy, rollback });
        }
        Ok(all)
    }

    /// What the latest rollout says that examined `version`.
    async fn accuracy(&self, version: VersionNumber, rollouts: &[Rollout]) -> PortResult<Option<Accuracy>> {
        let examined = rollouts.iter().rev().filter(|it| it.candidate == version || it.champion == version);
        for rollout in examined {
            let is_candidate = rollout.candidate == version;
            if let RolloutState::Decided { verdict } = &rollout.state
                && let Some(accuracy) = of_evidence(&verdict.evidence, is_candidate)
            {
                return Ok(Some(accuracy));
            }
            let looks = self.store.rollout_progress(rollout.id, 1).await?;
            if let Some(accuracy) = looks.first().and_then(|look| of_look(look, is_candidate)) {
                return Ok(Some(accuracy));
            }
        }
        Ok(None)
    }
}

/// Held-out experiences of what was new and of what was learned before, together.
fn of_evidence(evidence: &Evidence, is_candidate: bool) -> Option<Accuracy> {
    let parts: Vec<&PairedEvidence> = evidence.new_skill.iter().chain(&evidence.retention).collect();
    let answers: u64 = parts.iter().map(|part| part.pairs).sum();
    let mean = |part: &PairedEvidence| if is_candidate { part.candidate_mean } else { part.champion_mean };
    let total: f64 = parts.iter().map(|part| mean(part) * part.pairs as f64).sum();
    Accuracy::of(total / answers as f64, answers, MeasuredOn::HeldOut)
}

/// Scores of live traffic are from 0 to 100.
fn of_look(look: &RolloutProgress, is_candidate: bool) -> Option<Accuracy> {
    let metric = look.metrics.iter().find(|metric| metric.metric == ACCURACY)?;
    let (score, answers) = match is_candidate {
        true => (metric.candidate?, metric.candidate_count),
        false => (metric.champion?, metric.champion_count),
    };
    Accuracy::of(score / 100.0, answers, MeasuredOn::Traffic)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_is_wilson_s() {
        // R: prop.test(8, 10, correct = FALSE)$conf.int
        let accuracy = Accuracy::of(0.8, 10, MeasuredOn::HeldOut).unwrap();
        assert!((accuracy.lower - 0.490_162).abs() < 1e-5, "{accuracy:?}");
        assert!((accuracy.upper - 0.943_318).abs() < 1e-5, "{accuracy:?}");
        let sure = Accuracy::of(1.0, 4, MeasuredOn::Traffic).unwrap();
        assert!(sure.upper == 1.0 && sure.lower > 0.5 && sure.lower < 0.6, "{sure:?}");
        assert_eq!(Accuracy::of(f64::NAN, 0, MeasuredOn::HeldOut), None);
    }

    #[test]
    fn both_suites_count_by_their_size() {
        let part = |pairs, candidate_mean| PairedEvidence {
            pairs,
            champion_mean: 0.5,
            candidate_mean,
            difference: candidate_mean - 0.5,
            lower: 0.0,
            upper: 1.0,
            alpha: 0.05,
        };
        let evidence = Evidence {
            new_skill: Some(part(10, 1.0)),
            retention: Some(part(30, 0.8)),
            ..Evidence::default()
        };
        let candidate = of_evidence(&evidence, true).unwrap();
        assert!((candidate.mean - 0.85).abs() < 1e-12 && candidate.answers == 40, "{candidate:?}");
        assert!((of_evidence(&evidence, false).unwrap().mean - 0.5).abs() < 1e-12);
        assert_eq!(of_evidence(&Evidence::default(), true), None);
    }
}
