//! The pairs of a rollout by route, cluster and principal group: what a whole can hide.

use std::collections::BTreeMap;

use autoglm_domain::{PairedEvidence, ShadowPair};
use serde::Serialize;

use crate::{Alarm, PairedSequence};

/// Most slices of one kind; what comes in later shares one called `other`.
const MOST: usize = 200;

/// What pairs are put together by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SliceKind {
    /// All pairs.
    All,
    /// The kind of request.
    Route,
    /// The cluster of the prompt.
    Cluster,
    /// The group of the principal.
    PrincipalGroup,
}

impl std::fmt::Display for SliceKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::All => "whole",
            Self::Route => "route",
            Self::Cluster => "cluster",
            Self::PrincipalGroup => "principal group",
        })
    }
}

/// The pairs of one slice.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SliceSummary {
    /// What it is a slice by.
    pub kind: SliceKind,
    /// Which one.
    pub key: String,
    /// Pairs in it.
    pub pairs: u64,
    /// Share of pairs with the same text.
    pub exact: f64,
    /// Share of pairs with the same text in normal form.
    pub normalised: f64,
    /// Mean distance of the answers.
    pub distance: f64,
    /// Mean cosine of the answers, where they were embedded.
    pub similarity: Option<f64>,
    /// Share of candidate's answers that refuse, minus the champion's.
    pub refusals: f64,
    /// The same of answers that break the form asked for.
    pub format_errors: f64,
    /// Mean of what the candidate gains (`ShadowPair::gain`), with its confidence sequence.
    pub gain: PairedEvidence,
}

#[derive(Debug, Clone)]
struct Slice {
    gain: PairedSequence,
    /// Rings when the slice has fallen since some time.
    alarm: Alarm,
    exact: u64,
    normalised: u64,
    distance: f64,
    similarity: (f64, u64),
    refusals: i64,
    format_errors: i64,
}

/// A slice that has fallen.
#[derive(Debug)]
pub(crate) struct Fallen<'a> {
    pub(crate) kind: SliceKind,
    pub(crate) key: &'a str,
    pub(crate) gain: &'a PairedSequence,
    /// Since the change, where it fell after a good time: pairs, and their mean gain.
    pub(crate) lately: Option<(u64, f64)>,
    pub(crate) tolerance: f64,
}

/// All slices of a rollout.
#[derive(Debug, Clone)]
pub struct Slices {
    alpha: f64,
    tolerance: f64,
    slices: BTreeMap<(SliceKind, String), Slice>,
}

impl Slices {
    /// Slices of which one is said to have fallen by more than `tolerance`, though none has, with probability at most
    /// `alpha`: the `k`-th slice that turns up has `alpha / (k (k + 1))`, which adds up to no more than `alpha` however
    /// many there are. Half of it is its interval's, half its alarm's.
    pub fn new(alpha: f64, tolerance: f64) -> Self {
        Self { alpha, tolerance, slices: BTreeMap::new() }
    }

    /// Takes in a pair.
    pub fn push(&mut self, pair: &ShadowPair) {
        self.add(SliceKind::All, "all", pair);
        self.add(SliceKind::Route, &pair.route, pair);
        self.add(SliceKind::PrincipalGroup, &pair.principal_group, pair);
        if let Some(cluster) = pair.cluster {
            self.add(SliceKind::Cluster, &cluster.to_string(), pair);
        }
    }

    fn add(&mut self, kind: SliceKind, key: &str, pair: &ShadowPair) {
        let mut at = (kind, key.to_owned());
        if !self.slices.contains_key(&at) && self.slices.keys().filter(|(it, _)| *it == kind).count() >= MOST
        {
            at.1 = "other".to_owned();
        }
        let turn = self.slices.len() as f64 + 1.0;
        let alpha = self.alpha / (turn * (turn + 1.0));
        let slice = self.slices.entry(at).or_insert_with(|| Slice {
            gain: PairedSequence::new(alpha),
            alarm: Alarm::new(alpha / 2.0),
            exact: 0,
            normalised: 0,
            distance: 0.0,
            similarity: (0.0, 0),
            refusals: 0,
            format_errors: 0,
        });
        let gain = pair.gain();
        slice.gain.push((-gain).max(0.0), gain.max(0.0));
        slice.alarm.push((1.0 - gain) / 2.0, (1.0 + self.tolerance) / 2.0);
        let diff = &pair.diff;
        slice.exact += u64::from(diff.exact);
        slice.normalised += u64::from(diff.normalised);
        slice.distance += diff.distance;
        if let Some(similarity) = diff.similarity {
            slice.similarity = (slice.similarity.0 + similarity, slice.similarity.1 + 1);
        }
        slice.refusals += i64::from(diff.candidate.refusal) - i64::from(diff.champion.refusal);
        let broken = |kept: Option<bool>| i64::from(kept == Some(false));
        slice.format_errors += broken(diff.candidate.format_kept) - broken(diff.champion.format_kept);
    }

    /// The slice that is shown to have fallen by more than the tolerance, the worst one first; never the whole.
    pub(crate) fn fallen(&self) -> Option<Fallen<'_>> {
        let has_fallen = |slice: &Slice| slice.gain.upper() < -self.tolerance || slice.alarm.rings();
        let fallen = self
            .slices
            .iter()
            .filter(|((kind, _), slice)| *kind != SliceKind::All && has_fallen(slice))
            .min_by(|a, b| a.1.gain.upper().total_cmp(&b.1.gain.upper()));
        fallen.map(|((kind, key), slice)| Fallen {
            kind: *kind,
            key,
            gain: &slice.gain,
            lately: slice.alarm.since().map(|since| (since.count, 1.0 - 2.0 * since.mean())),
            tolerance: self.tolerance,
        })
    }

    /// Every slice, the whole first, then by kind and key.
    pub fn summaries(&self) -> Vec<SliceSummary> {
        let summary = |((kind, key), slice): (&(SliceKind, String), &Slice)| {
            let pairs = slice.gain.pairs();
            let mean = |sum: f64| sum / pairs.max(1) as f64;
            SliceSummary {
                kind: *kind,
                key: key.clone(),
                pairs,
                exact: mean(slice.exact as f64),
                normalised: mean(slice.normalised as f64),
                distance: mean(slice.distance),
                similarity: (slice.similarity.1 > 0).then(|| slice.similarity.0 / slice.similarity.1 as f64),
                refusals: mean(slice.refusals as f64),
                format_errors: mean(slice.format_errors as f64),
                gain: slice.gain.evidence(),
            }
        };
        self.slices.iter().map(summary).collect()
    }
}
