//! Error patterns: failures that belong together, under a name, with examples and a trend.
//!
//! In: [`Failure`]s, one at a time. Out: the [`ErrorPattern`]s that changed. A failure with a short reference
//! and a short answer belongs to the pattern of that confusion (``` `transfer` answered as `balance` ```); any
//! other belongs to the pattern whose prompts are nearest, or begins a new one.

use std::collections::{BTreeMap, VecDeque};

use autoglm_domain::{ErrorPattern, Id, IdSource, InteractionId, PatternId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{pattern_name, similarity::cosine, text};

/// Settings of the error patterns.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PatternsConfig {
    /// An overall or accuracy score below this is a failure.
    pub below: f64,
    /// Cosine of the prompts from which a failure joins a pattern.
    pub join_similarity: f64,
    /// Cosine of the prompts from which the smallest pattern is merged into its nearest, when there are too
    /// many; below it, the smallest is dropped.
    pub merge_similarity: f64,
    /// Most patterns that are followed.
    pub most: usize,
    /// Most examples of a pattern.
    pub examples: usize,
    /// Reference and answer of at most this many words name their confusion.
    pub label_words: usize,
    /// Most failures of a pattern whose time is remembered for its trend.
    pub times: usize,
}

impl Default for PatternsConfig {
    fn default() -> Self {
        Self {
            below: 75.0,
            join_similarity: 0.8,
            merge_similarity: 0.6,
            most: 256,
            examples: 8,
            label_words: 4,
            times: 512,
        }
    }
}

/// One failed answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Failure<'a> {
    /// The interaction that failed.
    pub interaction: InteractionId,
    /// When it came in.
    pub at: Timestamp,
    /// What was asked.
    pub prompt: &'a str,
    /// The wrong answer.
    pub answer: &'a str,
    /// What would have been right, where that is known.
    pub reference: Option<&'a str>,
    /// Embedding of the prompt.
    pub embedding: &'a [f32],
}

/// How a pattern grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Growth {
    /// Failures within the window before now.
    pub recent: u64,
    /// Failures within the window before that.
    pub before: u64,
}

impl Growth {
    /// `recent / before`, counting one more on both sides so that a first failure is no infinite growth.
    pub fn ratio(self) -> f64 {
        (self.recent + 1) as f64 / (self.before + 1) as f64
    }
}

/// A pattern with what is needed to go on with it.
#[derive(Debug, Clone)]
struct Followed {
    pattern: ErrorPattern,
    /// Normal forms of reference and answer, where the pattern is a confusion of labels.
    confusion: Option<(String, String)>,
    /// How often a word occurs in the prompts.
    words: BTreeMap<String, u32>,
    /// Times of the latest failures, oldest first.
    times: VecDeque<Timestamp>,
}

/// The patterns that are followed. Cheap to clone: work on a copy, and keep it once its events are stored.
#[derive(Debug, Clone, Default)]
pub struct Patterns {
    config: PatternsConfig,
    followed: Vec<Followed>,
}

/// Most words that are counted a pattern.
const MOST_WORDS: usize = 256;

impl Patterns {
    /// No patterns yet.
    pub fn new(config: PatternsConfig) -> Self {
        Self { config, followed: Vec::new() }
    }

    /// Goes on from what [`autoglm_domain::Store::patterns`] gave: the largest `most` of them. Times between the
    /// first and the latest failure are not stored; they are taken to be evenly spread.
    pub fn rebuild(config: PatternsConfig, stored: Vec<ErrorPattern>) -> Self {
        let mut stored: Vec<ErrorPattern> = stored.into_iter().filter(|pattern| pattern.count > 0).collect();
        stored.sort_by_key(|pattern| (std::cmp::Reverse((pattern.count, pattern.last_at)), pattern.id));
        stored.truncate(config.most);
        let followed = stored
            .into_iter()
            .map(|pattern| Followed {
                confusion: pattern_name::parse_confusion(&pattern.name),
                words: pattern_name::parse_words(&pattern.name, pattern.count),
                times: spread(&pattern, config.times),
                pattern,
            })
            .collect();
        Self { config, followed }
    }

    /// The settings.
    pub fn config(&self) -> &PatternsConfig {
        &self.config
    }

    /// The patterns, largest first.
    pub fn all(&self) -> Vec<&ErrorPattern> {
        let mut all: Vec<&ErrorPattern> = self.followed.iter().map(|followed| &followed.pattern).collect();
        all.sort_by_key(|pattern| (std::cmp::Reverse((pattern.count, pattern.last_at)), pattern.id));
        all
    }

    /// One pattern.
    pub fn get(&self, id: PatternId) -> Option<&ErrorPattern> {
        self.position(id).and_then(|at| self.followed.get(at)).map(|followed| &followed.pattern)
    }

    /// How `id` grew in the `window_ms` before `now`, against the window before. `None` for an unknown pattern.
    /// Counts stop at [`PatternsConfig::times`].
    pub fn growth(&self, id: PatternId, now: Timestamp, window_ms: i64) -> Option<Growth> {
        let followed = self.position(id).and_then(|at| self.followed.get(at))?;
        let window_ms = window_ms.max(0);
        let mut growth = Growth { recent: 0, before: 0 };
        for time in &followed.times {
            let age = now.0.saturating_sub(time.0);
            if age < window_ms {
                growth.recent += 1;
            } else if age < window_ms.saturating_mul(2) {
                growth.before += 1;
            }
        }
        Some(growth)
    }

    /// Puts a failure with its pattern, and takes it out of `earlier`, where an earlier assessment of the same
    /// interaction had put it. Gives the pattern and everything that changed, each once, last state.
    pub fn observe(
        &mut self,
        failure: &Failure<'_>,
        earlier: Option<PatternId>,
        ids: &dyn IdSource,
    ) -> (PatternId, Vec<ErrorPattern>) {
        let confusion = self.confusion(failure);
        let found = self.find(confusion.as_ref(), failure.embedding, earlier);
        let mut changed = Vec::new();
        if let (Some(at), Some(earlier)) = (found, earlier)
            && let Some(followed) = self.followed.get(at)
            && followed.pattern.id == earlier
        {
            return (earlier, changed);
        }
        changed.extend(self.withdraw(failure.interaction, earlier));
        // Withdrawing may have moved or removed patterns.
        let found = self.find(confusion.as_ref(), failure.embedding, None);
        let id = match found.and_then(|at| self.followed.get_mut(at)) {
            Some(followed) => {
                followed.add(failure, &self.config);
                followed.pattern.id
            }
            None => {
                let id = Id::next(ids);
                self.followed.push(Followed::begin(id, failure, confusion, &self.config));
                id
            }
        };
        changed.extend(self.make_room(id));
        self.rename(id);
        changed.extend(self.get(id).cloned());
        let mut latest: Vec<ErrorPattern> = Vec::new();
        for pattern in changed {
            latest.retain(|other| other.id != pattern.id);
            latest.push(pattern);
        }
        (id, latest)
    }

    /// Takes an interaction out of `earlier`, because it turned out to be no failure or another one. Gives the
    /// pattern as it is now; its count is 0 when nothing is left of it. Which member it was is not kept, so the
    /// latest time goes with it and the centroid stays.
    pub fn withdraw(
        &mut self,
        interaction: InteractionId,
        earlier: Option<PatternId>,
    ) -> Option<ErrorPattern> {
        let at = self.position(earlier?)?;
        let followed = self.followed.get_mut(at)?;
        followed.pattern.count = followed.pattern.count.saturating_sub(1);
        followed.pattern.examples.retain(|example| *example != interaction);
        followed.times.pop_back();
        let pattern = followed.pattern.clone();
        if pattern.count == 0 {
            self.followed.remove(at);
        }
        Some(pattern)
    }

    fn position(&self, id: PatternId) -> Option<usize> {
        self.followed.iter().position(|followed| followed.pattern.id == id)
    }

    fn confusion(&self, failure: &Failure<'_>) -> Option<(String, String)> {
        let short = |text: &str| {
            let normal = text::normalise(text, true);
            (!normal.is_empty() && normal.split(' ').count() <= self.config.label_words && normal.len() <= 80)
                .then_some(normal)
        };
        Some((short(failure.reference?)?, short(failure.answer)?))
    }

    /// The pattern that a failure belongs to. `prefer` wins among equals, so that a re-assessment stays put.
    fn find(
        &self,
        confusion: Option<&(String, String)>,
        embedding: &[f32],
        prefer: Option<PatternId>,
    ) -> Option<usize> {
        if confusion.is_some() {
            return self.followed.iter().position(|followed| followed.confusion.as_ref() == confusion);
        }
        let near = |followed: &Followed| cosine(&followed.pattern.centroid, embedding);
        self.followed
            .iter()
            .enumerate()
            .filter(|(_, followed)| followed.confusion.is_none())
            .map(|(at, followed)| (at, near(followed), Some(followed.pattern.id) == prefer))
            .filter(|(_, similarity, _)| *similarity >= self.config.join_similarity)
            .max_by(|left, right| (left.2).cmp(&right.2).then(left.1.total_cmp(&right.1)))
            .map(|(at, _, _)| at)
    }

    /// Where there are too many patterns, merges the smallest (oldest among equals) into its nearest of the same
    /// sort, or drops it when none is near. `newest` is safe. Gives what changed; a merged pattern has count 0.
    fn make_room(&mut self, newest: PatternId) -> Vec<ErrorPattern> {
        let mut changed = Vec::new();
        while self.followed.len() > self.config.most.max(1) {
            let smallest = self
                .followed
                .iter()
                .enumerate()
                .filter(|(_, followed)| followed.pattern.id != newest)
                .min_by_key(|(_, followed)| (followed.pattern.count, followed.pattern.last_at));
            let Some((at, _)) = smallest else { break };
            let mut gone = self.followed.remove(at);
            let nearest = self
                .followed
                .iter_mut()
                .filter(|other| other.confusion.is_none() && gone.confusion.is_none())
                .map(|other| (cosine(&other.pattern.centroid, &gone.pattern.centroid), other))
                .max_by(|left, right| left.0.total_cmp(&right.0));
            if let Some((similarity, other)) = nearest
                && similarity >= self.config.merge_similarity
            {
                other.absorb(&gone, &self.config);
                changed.push(other.pattern.clone());
                gone.pattern.count = 0;
                gone.pattern.examples.clear();
                changed.push(gone.pattern);
            }
        }
        changed
    }

    /// Names a pattern of no confusion by its most characteristic words. Large patterns keep their name until
    /// they doubled.
    fn rename(&mut self, id: PatternId) {
        let Some(at) = self.position(id) else { return };
        let Some(followed) = self.followed.get(at) else { return };
        let count = followed.pattern.count;
        if followed.confusion.is_some() || count > 8 && !count.is_power_of_two() {
            return;
        }
        let others: Vec<&BTreeMap<String, u32>> = self
            .followed
            .iter()
            .filter(|other| other.pattern.id != id && other.confusion.is_none())
            .map(|other| &other.words)
            .collect();
        let name = pattern_name::from_words(&followed.words, &others);
        if let Some(followed) = self.followed.get_mut(at) {
            followed.pattern.name = name;
        }
    }
}

impl Followed {
    fn begin(
        id: PatternId,
        failure: &Failure<'_>,
        confusion: Option<(String, String)>,
        config: &PatternsConfig,
    ) -> Self {
        let name = confusion.as_ref().map(pattern_name::of_confusion).unwrap_or_default();
        let pattern = ErrorPattern {
            id,
            name,
            count: 0,
            first_at: failure.at,
            last_at: failure.at,
            examples: Vec::new(),
            centroid: vec![0.0; failure.embedding.len()],
        };
        let mut followed = Self { pattern, confusion, words: BTreeMap::new(), times: VecDeque::new() };
        followed.add(failure, config);
        followed
    }

    fn add(&mut self, failure: &Failure<'_>, config: &PatternsConfig) {
        let pattern = &mut self.pattern;
        pattern.count += 1;
        pattern.first_at = pattern.first_at.min(failure.at);
        pattern.last_at = pattern.last_at.max(failure.at);
        pattern.examples.retain(|example| *example != failure.interaction);
        pattern.examples.insert(0, failure.interaction);
        pattern.examples.truncate(config.examples);
        // A vector of another length or with holes comes from another embedder; it is left out.
        if pattern.centroid.len() == failure.embedding.len()
            && failure.embedding.iter().all(|x| x.is_finite())
        {
            for (mean, x) in pattern.centroid.iter_mut().zip(failure.embedding) {
                *mean += (x - *mean) / pattern.count as f32;
            }
        }
        for word in pattern_name::distinct_words(failure.prompt) {
            if self.words.len() < MOST_WORDS || self.words.contains_key(&word) {
                *self.words.entry(word).or_default() += 1;
            }
        }
        // Failures come in almost in order; the few that do not find their place from the end.
        let place = self.times.iter().rposition(|time| *time <= failure.at).map_or(0, |at| at + 1);
        self.times.insert(place, failure.at);
        while self.times.len() > config.times {
            self.times.pop_front();
        }
    }

    fn absorb(&mut self, other: &Self, config: &PatternsConfig) {
        let (own, added) = (self.pattern.count.max(1) as f32, other.pattern.count as f32);
        if self.pattern.centroid.len() == other.pattern.centroid.len() {
            for (mean, x) in self.pattern.centroid.iter_mut().zip(&other.pattern.centroid) {
                *mean = (*mean * own + x * added) / (own + added);
            }
        }
        self.pattern.count += other.pattern.count;
        self.pattern.first_at = self.pattern.first_at.min(other.pattern.first_at);
        self.pattern.last_at = self.pattern.last_at.max(other.pattern.last_at);
        self.pattern.examples.extend(&other.pattern.examples);
        self.pattern.examples.sort_by_key(|example| std::cmp::Reverse(*example));
        self.pattern.examples.truncate(config.examples);
        for (word, count) in &other.words {
            if self.words.len() < MOST_WORDS || self.words.contains_key(word) {
                *self.words.entry(word.clone()).or_default() += count;
            }
        }
        let mut times: Vec<Timestamp> = self.times.iter().chain(&other.times).copied().collect();
        times.sort_unstable();
        self.times = times.into_iter().rev().take(config.times).rev().collect();
    }
}

/// As many times as a pattern has failures, at most `most`, evenly between its first and its latest.
fn spread(pattern: &ErrorPattern, most: usize) -> VecDeque<Timestamp> {
    let count = usize::try_from(pattern.count).unwrap_or(usize::MAX).min(most);
    let length = pattern.last_at.since_ms(pattern.first_at).max(0) as f64;
    let gaps = pattern.count.saturating_sub(1).max(1) as f64;
    (0..count).rev().map(|back| Timestamp(pattern.last_at.0 - (length * back as f64 / gaps) as i64)).collect()
}

#[cfg(test)]
mod tests {
    use autoglm_domain::SequentialIds;

    use super::*;

    fn failure<'a>(
        n: u64,
        prompt: &'a str,
        pair: Option<(&'a str, &'a str)>,
        embedding: &'a [f32],
    ) -> Failure<'a> {
        let ids = SequentialIds::default();
        let id = (0..=n).map(|_| ids.next_uuid()).last().unwrap();
        Failure {
            interaction: InteractionId::new(id),
            at: Timestamp(i64::try_from(n).unwrap() * 1000),
            prompt,
            answer: pair.map_or("something long and wrong that is no label", |(_, answer)| answer),
            reference: pair.map(|(reference, _)| reference),
            embedding,
        }
    }

    #[test]
    fn near_prompts_share_a_pattern_named_by_their_words() {
        let ids = SequentialIds::default();
        let mut patterns = Patterns::new(PatternsConfig::default());
        let (card, _) = patterns.observe(&failure(1, "I lost my card", None, &[1.0, 0.0]), None, &ids);
        let (again, _) = patterns.observe(&failure(2, "card lost again", None, &[0.9, 0.1]), None, &ids);
        let (rate, changed) =
            patterns.observe(&failure(3, "exchange rate today", None, &[0.0, 1.0]), None, &ids);
        assert_eq!(card, again);
        assert_ne!(card, rate);
        assert_eq!(patterns.get(card).unwrap().name, "about card, lost");
        assert_eq!(patterns.get(card).unwrap().centroid, [0.95, 0.05]);
        assert_eq!(changed.len(), 1);
        let (moved, changed) =
            patterns.observe(&failure(3, "card", Some(("a", "b")), &[0.0, 1.0]), Some(rate), &ids);
        assert_eq!(patterns.get(moved).unwrap().name, "`a` answered as `b`");
        assert_eq!(changed.iter().map(|p| (p.id, p.count)).collect::<Vec<_>>(), [(rate, 0), (moved, 1)]);
        assert!(patterns.get(rate).is_none());
    }

    #[test]
    fn growth_compares_two_windows() {
        let ids = SequentialIds::default();
        let mut patterns = Patterns::new(PatternsConfig::default());
        let mut id = None;
        for n in [1, 11, 12, 13] {
            id = Some(patterns.observe(&failure(n, "x", Some(("a", "b")), &[1.0]), None, &ids).0);
        }
        let growth = patterns.growth(id.unwrap(), Timestamp(14_000), 10_000).unwrap();
        assert_eq!(growth, Growth { recent: 3, before: 1 });
        assert_eq!(growth.ratio(), 2.0);
        assert_eq!(patterns.growth(PatternId::next(&ids), Timestamp(0), 1), None);
    }

    #[test]
    fn patterns_are_rebuilt_from_what_was_stored() {
        let ids = SequentialIds::default();
        let mut patterns = Patterns::new(PatternsConfig::default());
        for n in 0..5 {
            patterns.observe(&failure(n, "x", Some(("Transfer", "balance!")), &[1.0]), None, &ids);
            patterns.observe(&failure(n, "card lost", None, &[1.0]), None, &ids);
        }
        let stored: Vec<ErrorPattern> = patterns.all().into_iter().cloned().collect();
        let mut rebuilt = Patterns::rebuild(PatternsConfig::default(), stored);
        let (pair, changed) =
            rebuilt.observe(&failure(9, "y", Some(("transfer", "Balance")), &[0.0]), None, &ids);
        assert_eq!((changed[0].count, changed[0].name.as_str()), (6, "`transfer` answered as `balance`"));
        let growth = rebuilt.growth(pair, Timestamp(9_000), 7_000).unwrap();
        assert_eq!(growth, Growth { recent: 3, before: 3 });
        let (_, changed) = rebuilt.observe(&failure(10, "card lost", None, &[1.0]), None, &ids);
        assert_eq!((changed[0].count, changed[0].name.as_str()), (6, "about card, lost"));
    }

    #[test]
    fn the_smallest_pattern_is_merged_or_dropped_when_there_are_too_many() {
        let ids = SequentialIds::default();
        let mut patterns = Patterns::new(PatternsConfig { most: 2, ..PatternsConfig::default() });
        let (large, _) = patterns.observe(&failure(1, "a", None, &[1.0, 0.0]), None, &ids);
        patterns.observe(&failure(2, "a", None, &[1.0, 0.0]), None, &ids);
        let (small, _) = patterns.observe(&failure(3, "b", None, &[0.7, 0.7]), None, &ids);
        let (newest, changed) = patterns.observe(&failure(4, "c", None, &[-1.0, 0.0]), None, &ids);
        let shown: Vec<_> = changed.iter().map(|p| (p.id, p.count)).collect();
        assert_eq!(shown, [(large, 3), (small, 0), (newest, 1)]);
        // Nothing is near the newest but one, so it is dropped.
        let (other, changed) = patterns.observe(&failure(5, "d", None, &[0.0, -1.0]), None, &ids);
        assert_eq!(changed.iter().map(|p| (p.id, p.count)).collect::<Vec<_>>(), [(other, 1)]);
        assert!(patterns.get(newest).is_none() && patterns.get(large).is_some());
    }
}
