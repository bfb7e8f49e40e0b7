//! The panel: what all remembered examples together say which target a prompt calls for.
//!
//! Two cheap learners share one table of lexical features by targets. *Naive Bayes* counts: exact, without
//! order, at once. A *linear* softmax classifier practises: one step on every new example and a few on old
//! ones, so that targets that came first are not forgotten. Each is wrong where the other often is right
//! (`docs/experiments/0001-recall.md`). Targets are admitted up to a limit; where every target is unique
//! (free text) the panel is small and the neighbours decide.

use std::collections::HashMap;

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use crate::features::{Feature, FeatureMap};

/// Targets are given room in steps of this many.
const ROOM: usize = 32;
/// Old examples that are practised again with each new one.
const REHEARSALS: usize = 4;
/// Examples kept for practice; beyond it a random one gives way.
const MAX_EXAMPLES: usize = 20_000;
const LEARNING_RATE: f32 = 2.0;
/// Label smoothing: some of the labels are wrong.
const SMOOTHING: f32 = 0.1;
/// Share of naive Bayes beside the linear classifier's 1.
const COUNTING_SHARE: f32 = 0.6;
/// How sharply standardised scores become shares of the vote.
const SHARPNESS: f32 = 1.5;

/// One example in the table's own terms.
#[derive(Debug)]
struct Example {
    /// Row and weight of each feature.
    features: Vec<(u32, f32)>,
    column: u32,
    weight: f32,
}

/// The learners. See the module.
#[derive(Debug)]
pub(crate) struct Panel {
    max_targets: usize,
    max_cells: usize,
    rows: FeatureMap,
    columns: HashMap<u32, u32>,
    targets: Vec<u32>,
    /// Columns that a row has room for.
    room: usize,
    /// `[rows, room]`: weighted feature counts.
    counts: Vec<f32>,
    /// `[rows, room]`: the linear classifier.
    linear: Vec<f32>,
    row_totals: Vec<f32>,
    column_totals: Vec<f32>,
    /// Members a column has; an empty one is out of the vote.
    members: Vec<u32>,
    examples: Vec<Example>,
    rng: ChaCha8Rng,
}

impl Panel {
    /// An empty panel of at most `max_targets` targets and `max_cells` numbers a table.
    pub(crate) fn new(max_targets: usize, max_cells: usize, seed: u64) -> Self {
        Self {
            max_targets,
            max_cells,
            rows: FeatureMap::default(),
            columns: HashMap::new(),
            targets: Vec::new(),
            room: 0,
            counts: Vec::new(),
            linear: Vec::new(),
            row_totals: Vec::new(),
            column_totals: Vec::new(),
            members: Vec::new(),
            examples: Vec::new(),
            rng: ChaCha8Rng::seed_from_u64(seed),
        }
    }

    /// Learns that `features` (of unit length) call for `target`, which `members` experiences have so far.
    /// A new target is admitted at once while there is plenty of room, later only from its second member on.
    /// Without `practise` the example is counted only, which is quick.
    pub(crate) fn learn(
        &mut self,
        features: &[(Feature, f32)],
        target: u32,
        members: u32,
        weight: f32,
        practise: bool,
    ) {
        let Some(column) = self.column(target, members) else { return };
        let features = self.place(features);
        self.count(&features, column, weight);
        if let Some(members) = self.members.get_mut(column as usize) {
            *members += 1;
        }
        if !practise {
            return;
        }
        let example = Example { features, column, weight };
        self.step(&example);
        self.rehearse(REHEARSALS);
        if self.examples.len() < MAX_EXAMPLES {
            self.examples.push(example);
        } else {
            let place = self.rng.random_range(0..self.examples.len());
            if let Some(old) = self.examples.get_mut(place) {
                *old = example;
            }
        }
    }

    /// Takes back what [`Panel::learn`] counted. The linear classifier unlearns by practising the rest.
    pub(crate) fn forget(&mut self, features: &[(Feature, f32)], target: u32, weight: f32) {
        let Some(column) = self.columns.get(&target).copied() else { return };
        let features: Vec<_> =
            features.iter().filter_map(|(name, w)| Some((*self.rows.get(name)?, *w))).collect();
        self.count(&features, column, -weight);
        if let Some(members) = self.members.get_mut(column as usize) {
            *members = members.saturating_sub(1);
        }
        let same = |example: &Example| example.column == column && example.features == features;
        if let Some(place) = self.examples.iter().position(same) {
            self.examples.swap_remove(place);
        }
        self.rehearse(REHEARSALS);
    }

    /// How far the panel's word on `target` can be trusted, 0 to 1: one example says less than its neighbours'
    /// similarity does, ten say nearly everything.
    pub(crate) fn standing(&self, target: u32) -> f32 {
        let column = self.columns.get(&target);
        let members = column.and_then(|column| self.members.get(*column as usize)).copied().unwrap_or(0);
        let square = (members as f32).powi(2);
        square / (square + 5.0)
    }

    /// Each target's share of the panel's vote, best first; they sum to 1. Empty when there is no panel.
    pub(crate) fn vote(&self, features: &[(Feature, f32)]) -> Vec<(u32, f32)> {
        let width = self.targets.len();
        let known: Vec<(u32, f32)> =
            features.iter().filter_map(|(name, weight)| Some((*self.rows.get(name)?, *weight))).collect();
        if width == 0 || known.is_empty() {
            return Vec::new();
        }
        let mut linear = vec![0.0; width];
        let mut counted = vec![0.0; width];
        for (row, weight) in known {
            add_scaled(&mut linear, self.row(&self.linear, row), weight);
            let prior = 0.006 * self.row_totals.get(row as usize).copied().unwrap_or(0.0) + 0.01;
            let totals = self.column_totals.iter();
            for ((score, count), total) in counted.iter_mut().zip(self.row(&self.counts, row)).zip(totals) {
                *score += weight * ((count.max(0.0) + prior) / (total.max(0.0) + 1.0)).ln();
            }
        }
        let present: Vec<bool> = self.members.iter().map(|members| *members > 0).collect();
        standardise(&mut linear, &present);
        standardise(&mut counted, &present);
        let scores = linear.iter().zip(&counted).map(|(a, b)| SHARPNESS * (a + COUNTING_SHARE * b));
        let mut scores: Vec<f32> = scores
            .zip(&present)
            .map(|(score, there)| if *there { score } else { f32::NEG_INFINITY })
            .collect();
        softmax(&mut scores);
        let mut shares: Vec<_> = self.targets.iter().copied().zip(scores).collect();
        shares.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        shares
    }

    fn row<'a>(&self, table: &'a [f32], row: u32) -> &'a [f32] {
        let start = row as usize * self.room;
        table.get(start..start + self.targets.len()).unwrap_or_default()
    }

    fn column(&mut self, target: u32, members: u32) -> Option<u32> {
        if let Some(column) = self.columns.get(&target) {
            return Some(*column);
        }
        let next = self.targets.len();
        let limit = if members > 1 { self.max_targets } else { self.max_targets / 2 };
        if next >= limit {
            return None;
        }
        if next == self.room {
            let wider = self.room + ROOM;
            if self.rows.len() * wider > self.max_cells {
                return None;
            }
            widen(&mut self.counts, self.room, wider);
            widen(&mut self.linear, self.room, wider);
            self.room = wider;
        }
        self.columns.insert(target, next as u32);
        self.targets.push(target);
        self.column_totals.push(0.0);
        self.members.push(0);
        Some(next as u32)
    }

    /// Rows of the features, made where they are new and there is room.
    fn place(&mut self, features: &[(Feature, f32)]) -> Vec<(u32, f32)> {
        let mut placed = Vec::with_capacity(features.len());
        for (name, weight) in features {
            if let Some(row) = self.rows.get(name) {
                placed.push((*row, *weight));
            } else if (self.rows.len() + 1) * self.room <= self.max_cells {
                let row = self.rows.len();
                self.rows.insert(*name, row as u32);
                self.row_totals.push(0.0);
                self.counts.resize((row + 1) * self.room, 0.0);
                self.linear.resize((row + 1) * self.room, 0.0);
                placed.push((row as u32, *weight));
            }
        }
        placed
    }

    fn count(&mut self, features: &[(u32, f32)], column: u32, weight: f32) {
        for (row, value) in features {
            let cell = *row as usize * self.room + column as usize;
            let places = [
                self.counts.get_mut(cell),
                self.row_totals.get_mut(*row as usize),
                self.column_totals.get_mut(column as usize),
            ];
            places.into_iter().flatten().for_each(|place| *place += weight * value);
        }
    }

    fn rehearse(&mut self, times: usize) {
        for _ in 0..times.min(self.examples.len()) {
            let place = self.rng.random_range(0..self.examples.len());
            let examples = std::mem::take(&mut self.examples);
            if let Some(example) = examples.get(place) {
                self.step(example);
            }
            self.examples = examples;
        }
    }

    /// One step of stochastic gradient descent on the cross-entropy of the softmax.
    fn step(&mut self, example: &Example) {
        let width = self.targets.len();
        let mut gradient = vec![0.0; width];
        for (row, weight) in &example.features {
            add_scaled(&mut gradient, self.row(&self.linear, *row), *weight);
        }
        softmax(&mut gradient);
        let elsewhere = SMOOTHING / width as f32;
        gradient.iter_mut().for_each(|share| *share -= elsewhere);
        if let Some(share) = gradient.get_mut(example.column as usize) {
            *share -= 1.0 - SMOOTHING;
        }
        let rate = LEARNING_RATE * example.weight.min(2.0);
        for (row, weight) in &example.features {
            let start = *row as usize * self.room;
            if let Some(cells) = self.linear.get_mut(start..start + width) {
                add_scaled(cells, &gradient, -rate * weight);
            }
        }
    }
}

fn add_scaled(to: &mut [f32], from: &[f32], factor: f32) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to += factor * from);
}

/// Gives every row of `table` room for `wider` numbers.
fn widen(table: &mut Vec<f32>, room: usize, wider: usize) {
    if room == 0 || table.is_empty() {
        return;
    }
    let mut wide = Vec::with_capacity(table.len() / room * wider);
    for row in table.chunks_exact(room) {
        wide.extend_from_slice(row);
        wide.resize(wide.len() + wider - room, 0.0);
    }
    *table = wide;
}

/// Mean 0 and variance 1 over the present columns, so that two learners' scores can be added.
fn standardise(scores: &mut [f32], present: &[bool]) {
    let there = || scores.iter().zip(present).filter(|(_, there)| **there).map(|(score, _)| *score);
    let count = there().count().max(1) as f32;
    let mean = there().sum::<f32>() / count;
    let deviation = (there().map(|score| (score - mean).powi(2)).sum::<f32>() / count).sqrt().max(1e-6);
    scores.iter_mut().for_each(|score| *score = (*score - mean) / deviation);
}

fn softmax(scores: &mut [f32]) {
    let largest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    if !largest.is_finite() {
        scores.fill(0.0);
        return;
    }
    scores.iter_mut().for_each(|score| *score = (*score - largest).exp());
    let sum: f32 = scores.iter().sum();
    scores.iter_mut().for_each(|score| *score /= sum);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::{features, unit};

    fn unit_features(text: &str) -> Vec<(Feature, f32)> {
        let mut found = features(text);
        unit(&mut found);
        found
    }

    fn taught(lines: &[(&str, u32)]) -> Panel {
        let mut panel = Panel::new(64, 1_000_000, 7);
        for _ in 0..3 {
            lines.iter().for_each(|(text, target)| panel.learn(&unit_features(text), *target, 2, 1.0, true));
        }
        panel
    }

    const LINES: [(&str, u32); 6] = [
        ("how much money is in my account", 10),
        ("show my account balance", 10),
        ("will it rain tomorrow", 20),
        ("what is the weather in paris", 20),
        ("wake me up at seven", 30),
        ("set an alarm for six", 30),
    ];

    #[test]
    fn it_generalises_and_its_shares_sum_to_one() {
        let panel = taught(&LINES);
        for (query, expected) in
            [("account money please", 10), ("weather tomorrow", 20), ("alarm at seven", 30)]
        {
            let vote = panel.vote(&unit_features(query));
            assert_eq!(vote[0].0, expected, "{query}");
            assert!((vote.iter().map(|(_, share)| share).sum::<f32>() - 1.0).abs() < 1e-4);
        }
        assert!(panel.vote(&unit_features("xyzzy")).is_empty());
    }

    #[test]
    fn the_same_order_gives_the_same_panel() {
        let query = unit_features("money for the alarm");
        assert_eq!(taught(&LINES).vote(&query), taught(&LINES).vote(&query));
    }

    #[test]
    fn what_is_forgotten_has_no_vote() {
        let mut panel = Panel::new(64, 1_000_000, 7);
        LINES.iter().for_each(|(text, target)| panel.learn(&unit_features(text), *target, 1, 1.0, true));
        panel.forget(&unit_features(LINES[4].0), 30, 1.0);
        panel.forget(&unit_features(LINES[5].0), 30, 1.0);
        let vote = panel.vote(&unit_features("alarm at seven"));
        assert_eq!(vote.iter().find(|(target, _)| *target == 30).unwrap().1, 0.0);
    }

    #[test]
    fn it_stays_within_its_limits() {
        let mut panel = Panel::new(40, 32 * 100, 7);
        for n in 0..500_u32 {
            panel.learn(&unit_features(&format!("word{n} other{n}")), n, 2, 1.0, true);
        }
        assert!(panel.targets.len() <= 40 && panel.counts.len() <= 3_200);
        let mut panel = Panel::new(40, 1_000_000, 7);
        (0..500).for_each(|n| panel.learn(&unit_features("word"), n, 1, 1.0, true));
        assert_eq!(panel.targets.len(), 20);
    }
}
