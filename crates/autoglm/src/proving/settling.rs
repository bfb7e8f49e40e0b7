//! Answers that users got wait here until they count, each once: when accuracy was judged, or when nothing more is
//! waited for.

use std::collections::{BTreeMap, BTreeSet};

use autoglm_domain::{ErrorKind, InteractionId, InteractionRecord, Result, Timestamp};

use super::{MOST_OPEN, is_over, is_settled};
use crate::node::Parts;

/// What waits.
#[derive(Debug, Default)]
pub(super) struct Settling {
    /// Since when they wait.
    answers: BTreeMap<InteractionId, Timestamp>,
    /// Of which users said something that may not be assessed yet, or that are.
    pub(super) said: BTreeSet<InteractionId>,
}

impl Settling {
    /// Users said something of these.
    pub(super) fn hear(&mut self, said: BTreeSet<InteractionId>) {
        self.said.extend(said);
        while self.said.len() > MOST_OPEN {
            self.said.pop_first(); // The oldest: ids are in the order of time.
        }
    }

    /// These came in.
    pub(super) fn take_in(&mut self, answers: Vec<InteractionId>, now: Timestamp) {
        self.answers.extend(answers.into_iter().map(|id| (id, now)));
    }

    /// Gives `count` every answer that is settled now and for which `is_ours` holds; others are dropped.
    pub(super) async fn settle(
        &mut self,
        parts: &Parts,
        is_ours: impl Fn(&InteractionRecord) -> bool + Send,
        mut count: impl FnMut(&InteractionRecord) + Send,
    ) -> Result<()> {
        let open = self.answers.len();
        let due: Vec<InteractionId> = self
            .answers
            .iter()
            .filter(|(id, since)| self.said.contains(id) || is_over(parts, **since, open))
            .map(|(id, _)| *id)
            .collect();
        for id in due {
            let record = match parts.store.interaction(id).await {
                Err(error) if error.kind == ErrorKind::NotFound => None,
                record => Some(record?),
            };
            let ours = record.filter(|record| is_ours(record));
            if ours.as_ref().is_some_and(|record| !is_settled(parts, record, open)) {
                continue;
            }
            self.answers.remove(&id);
            self.said.remove(&id);
            if let Some(record) = ours {
                count(&record);
            }
        }
        Ok(())
    }
}
