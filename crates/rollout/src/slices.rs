//! The pairs of a rollout by route, cluster and principal group: what a whole can hide.

use std::collections::BTreeMap;

use autoglm_domain::{PairedEvidence, ShadowPair};
use serde::Serialize;

use crate::PairedSequence;

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
    exact: u64,
    normalised: u64,
    distance: f64,
    similarity: (f64, u64),
    refusals: i64,
    format_errors: i64,
}

/// All slices of a rollout.
#[derive(Debug, Clone)]
pub struct Slices {
    alpha: f64,
    slices: BTreeMap<(SliceKind, String), Slice>,
}

impl Slices {
    /// Slices whose sequences hold *together* at error probability `alpha`, each end for itself: the `k`-th slice
    /// that turns up has `alpha / (k (k + 1))`, which adds up to no more than `alpha` however many there are.
    pub fn new(alpha: f64) -> Self {
        Self { alpha, slices: BTreeMap::new() }
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
            gain: PairedSequence::new(2.0 * alpha),
            exact: 0,
            normalised: 0,
            distance: 0.0,
            similarity: (0.0, 0),
            refusals: 0,
            format_errors: 0,
        });
        let gain = pair.gain();
        slice.gain.push((-gain).max(0.0), gain.max(0.0));
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

    /// The slice that is shown to have fallen by more than `tolerance`, the worst one first; never the whole.
    pub(crate) fn fallen(&self, tolerance: f64) -> Option<(&SliceKind, &str, &PairedSequence)> {
        let fallen = self
            .slices
            .iter()
            .filter(|((kind, _), slice)| *kind != SliceKind::All && slice.gain.upper() < -tolerance);
        fallen
            .min_by(|a, b| a.1.gain.upper().total_cmp(&b.1.gain.upper()))
            .map(|((kind, key), slice)| (kind, key.as_str(), &slice.gain))
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
