//! Answers that were given before, so that a champion is not asked the same again at every gate.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};

use autoglm_domain::{ExperienceId, VersionNumber};

type Key = (VersionNumber, ExperienceId);

#[derive(Debug, Default)]
struct Answers {
    texts: HashMap<Key, Arc<str>>,
    order: VecDeque<Key>,
}

/// Greedy answers by version and experience. Versions and experiences never change, so neither do the
/// answers; failures are not kept, they may pass. Bounded: at the limit the oldest answer goes.
#[derive(Debug)]
pub struct AnswerCache {
    answers: Mutex<Answers>,
    limit: usize,
}

impl Default for AnswerCache {
    /// Room for 50,000 answers: a few megabytes of short ones.
    fn default() -> Self {
        Self::with_limit(50_000)
    }
}

impl AnswerCache {
    /// A cache of at most `limit` answers; 0 keeps nothing.
    pub fn with_limit(limit: usize) -> Self {
        Self { answers: Mutex::default(), limit }
    }

    /// The answer of `version` to `experience`, where it is known.
    pub fn get(&self, version: VersionNumber, experience: ExperienceId) -> Option<Arc<str>> {
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.texts.get(&(version, experience)).cloned()
    }

    /// Keeps an answer.
    pub fn insert(&self, version: VersionNumber, experience: ExperienceId, answer: Arc<str>) {
        if self.limit == 0 {
            return;
        }
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        if answers.texts.insert((version, experience), answer).is_none() {
            answers.order.push_back((version, experience));
        }
        while answers.order.len() > self.limit {
            if let Some(oldest) = answers.order.pop_front() {
                answers.texts.remove(&oldest);
            }
        }
    }

    /// Forgets everything that was said to `experience`: for when a person's data is deleted.
    pub fn forget(&self, experience: ExperienceId) {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.texts.retain(|(_, id), _| *id != experience);
        answers.order.retain(|(_, id)| *id != experience);
    }

    /// How many answers it holds.
    pub fn len(&self) -> usize {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).texts.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use autoglm_domain::{ExperienceId, Id, SequentialIds};

    use super::*;

    #[test]
    fn the_oldest_goes_at_the_limit_and_a_forgotten_one_at_once() {
        let ids = SequentialIds::default();
        let [first, second, third]: [ExperienceId; 3] = std::array::from_fn(|_| Id::next(&ids));
        let cache = AnswerCache::with_limit(2);
        for id in [first, second, second, third] {
            cache.insert(VersionNumber(1), id, "x".into());
        }
        assert_eq!(cache.get(VersionNumber(1), first), None);
        assert_eq!(cache.get(VersionNumber(1), third).as_deref(), Some("x"));
        assert_eq!(cache.get(VersionNumber(2), third), None);
        cache.forget(third);
        assert_eq!((cache.len(), cache.get(VersionNumber(1), third)), (1, None));
    }
}
