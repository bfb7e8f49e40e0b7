//! The inverted index: which texts share features with a query, weighted by how rare the features are.
//!
//! Document frequencies grow with every text, so a query always sees the current rarities; only the texts'
//! lengths lag, and they are computed anew whenever the number of texts has doubled.
//!
//! A young memory cannot know which words are common, and would find any question that begins with "how do
//! I" similar to any other. So frequencies start from a small background of everyday phrases, whose part
//! shrinks as the memory grows.

use std::cell::RefCell;

use crate::features::{Feature, FeatureMap, features};

/// Postings that one query may touch; the rarest features come first, so the commonest are left out.
const MAX_POSTINGS: usize = 250_000;
/// Everyday phrases, one a line.
const BACKGROUND: &str = include_str!("background.txt");
/// Power of the inverse document frequency in both vectors.
const IDF_POWER: f32 = 0.7;

thread_local! {
    /// Sums by text, all zero between queries, so that a query allocates nothing.
    static SUMS: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// The index. Texts are numbered 0, 1, 2, … in the order in which they are added.
#[derive(Debug)]
pub(crate) struct Lexical {
    /// How many phrases of the background have a feature.
    background: FeatureMap,
    /// How many phrases there are.
    phrases: usize,
    /// Feature to row of `postings`.
    rows: FeatureMap,
    /// For each feature the texts that have it, with its weight there.
    postings: Vec<Vec<(u32, f32)>>,
    /// Length of each text's weighted vector.
    lengths: Vec<f32>,
    /// Number of texts when the lengths were last computed.
    measured_at: usize,
}

impl Default for Lexical {
    fn default() -> Self {
        let mut background = FeatureMap::default();
        for (feature, _) in BACKGROUND.lines().flat_map(features) {
            *background.entry(feature).or_default() += 1;
        }
        Self {
            background,
            phrases: BACKGROUND.lines().count(),
            rows: FeatureMap::default(),
            postings: Vec::new(),
            lengths: Vec::new(),
            measured_at: 0,
        }
    }
}

impl Lexical {
    /// How rare a feature is that `frequency` texts have.
    fn rarity(&self, feature: Feature, frequency: usize) -> f32 {
        let common = self.background.get(&feature).copied().unwrap_or(0) as usize;
        rarity(self.lengths.len() + self.phrases, frequency + common)
    }

    /// Adds the next text.
    pub(crate) fn add(&mut self, features: &[(Feature, f32)]) {
        self.place(features);
        if self.lengths.len() >= 2 * self.measured_at.max(8) {
            self.measure();
            return;
        }
        let squares = features.iter().map(|(feature, weight)| {
            let frequency = self.rows.get(feature).and_then(|row| self.postings.get(*row as usize));
            (weight * self.rarity(*feature, frequency.map_or(0, Vec::len))).powi(2)
        });
        let length = squares.sum::<f32>().sqrt();
        if let Some(last) = self.lengths.last_mut() {
            *last = length;
        }
    }

    /// Adds many texts. Call [`Lexical::measure`] after the last of them.
    pub(crate) fn place_all<'a>(&mut self, texts: impl Iterator<Item = &'a [(Feature, f32)]>) {
        texts.for_each(|features| self.place(features));
    }

    fn place(&mut self, features: &[(Feature, f32)]) {
        let text = self.lengths.len() as u32;
        for (feature, weight) in features {
            let next = self.postings.len() as u32;
            let row = *self.rows.entry(*feature).or_insert(next);
            if row == next {
                self.postings.push(Vec::new());
            }
            if let Some(list) = self.postings.get_mut(row as usize) {
                list.push((text, *weight));
            }
        }
        self.lengths.push(0.0);
    }

    /// Computes every text's length from the current rarities.
    pub(crate) fn measure(&mut self) {
        let count = self.lengths.len();
        let mut squares = vec![0.0_f32; count];
        for (feature, row) in &self.rows {
            let Some(list) = self.postings.get(*row as usize) else { continue };
            let rarity = self.rarity(*feature, list.len());
            for (text, weight) in list {
                if let Some(sum) = squares.get_mut(*text as usize) {
                    *sum += (weight * rarity).powi(2);
                }
            }
        }
        self.lengths = squares.into_iter().map(f32::sqrt).collect();
        self.measured_at = count;
    }

    /// The `most` texts with the highest cosine to the query that pass `keep`, best first. Features that no
    /// text has count towards the query's length: a query of unknown words is similar to nothing.
    pub(crate) fn nearest(
        &self,
        query: &[(Feature, f32)],
        most: usize,
        keep: impl Fn(u32) -> bool,
    ) -> Vec<(u32, f32)> {
        let count = self.lengths.len();
        let mut length = 0.0_f32;
        let mut lists = Vec::with_capacity(query.len());
        for (feature, weight) in query {
            let list = self.rows.get(feature).and_then(|row| self.postings.get(*row as usize));
            let rarity = self.rarity(*feature, list.map_or(0, Vec::len));
            length += (weight * rarity).powi(2);
            if let Some(list) = list {
                lists.push((list, weight * rarity * rarity));
            }
        }
        let length = length.sqrt();
        lists.sort_by_key(|(list, _)| list.len());
        SUMS.with_borrow_mut(|sums| {
            if sums.len() < count {
                sums.resize(count, 0.0);
            }
            let mut touched = Vec::new();
            let mut budget = MAX_POSTINGS;
            for (list, factor) in lists {
                let Some(left) = budget.checked_sub(list.len()) else { break };
                budget = left;
                for (text, weight) in list {
                    if let Some(sum) = sums.get_mut(*text as usize) {
                        if *sum == 0.0 {
                            touched.push(*text);
                        }
                        *sum += factor * weight;
                    }
                }
            }
            self.best(sums, &touched, length, most, keep)
        })
    }

    /// Takes the sums of the `touched` texts out of `sums` (leaving zeros) and gives the best of them.
    fn best(
        &self,
        sums: &mut [f32],
        touched: &[u32],
        query_length: f32,
        most: usize,
        keep: impl Fn(u32) -> bool,
    ) -> Vec<(u32, f32)> {
        let mut found = Vec::with_capacity(touched.len());
        for text in touched {
            let Some(sum) = sums.get_mut(*text as usize) else { continue };
            let length = self.lengths.get(*text as usize).copied().unwrap_or(0.0) * query_length;
            if length > 0.0 {
                found.push((*text, (*sum / length).min(1.0)));
            }
            *sum = 0.0;
        }
        // Filters are dearer than comparisons, so the best are filtered in growing batches.
        let order = |a: &(u32, f32), b: &(u32, f32)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
        let mut batch = most.saturating_mul(2).max(16);
        loop {
            if batch < found.len() {
                found.select_nth_unstable_by(batch, order);
            }
            let end = batch.min(found.len());
            let mut kept: Vec<_> = found
                .get(..end)
                .unwrap_or_default()
                .iter()
                .copied()
                .filter(|(text, _)| keep(*text))
                .collect();
            if kept.len() >= most || end == found.len() {
                kept.sort_unstable_by(order);
                kept.truncate(most);
                return kept;
            }
            batch *= 4;
        }
    }
}

/// Robertson's inverse document frequency (as in BM25), to the power that was measured best.
fn rarity(texts: usize, frequency: usize) -> f32 {
    let (texts, frequency) = (texts as f32, frequency as f32);
    (1.0 + (texts - frequency + 0.5).max(0.0) / (frequency + 0.5)).ln().max(1e-6).powf(IDF_POWER)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::features::features;

    #[test]
    fn the_rare_word_decides() {
        let mut index = Lexical::default();
        for text in ["what is my balance", "what is the weather", "what is the time", "what is my name"] {
            index.add(&features(text));
        }
        let nearest = index.nearest(&features("tell me the weather please"), 2, |_| true);
        assert_eq!(nearest[0].0, 1);
        assert!(nearest[0].1 > 1.5 * nearest[1].1, "{nearest:?}");
        assert!(index.nearest(&features("zzzz qqqq"), 2, |_| true).is_empty());
        assert_eq!(index.nearest(&features("what is my balance"), 1, |text| text != 0)[0].0, 3);
    }

    proptest! {
        /// A text is most similar to itself, and adding one by one or all at once makes little difference.
        #[test]
        fn a_text_finds_itself(texts in proptest::collection::hash_set("[a-d]{2,4}( [a-d]{2,4}){1,4}", 2..40)) {
            let all: Vec<_> = texts.iter().map(|text| features(text)).collect();
            let mut one_by_one = Lexical::default();
            all.iter().for_each(|features| one_by_one.add(features));
            let mut at_once = Lexical::default();
            at_once.place_all(all.iter().map(Vec::as_slice));
            at_once.measure();
            for (position, query) in all.iter().enumerate() {
                let found = at_once.nearest(query, 3, |_| true);
                prop_assert!(found[0].1 > 0.999);
                prop_assert!(found.iter().any(|(text, _)| *text as usize == position) || found[0].1 > 0.999);
                prop_assert!(one_by_one.nearest(query, 1, |_| true)[0].1 > 0.5);
            }
        }
    }
}
