//! Answers that users got wait here until they count, each once: when accuracy was judged, or when nothing more is
//! waited for.

use std::collections::{BTreeMap, BTreeSet};

use autoglm_domain::{InteractionId, InteractionRecord, Result, Timestamp};

use super::{MOST_OPEN, SETTLED_AT_ONCE, is_over, is_settled, too_many};
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
        let too_many = too_many(self.answers.len());
        let due: Vec<(InteractionId, bool)> = self
            .answers
            .iter()
            .enumerate()
            .filter(|(place, (id, since))| {
                *place < too_many || self.said.contains(id) || is_over(parts, **since)
            })
            .map(|(place, (id, _))| (*id, place < too_many))
            .collect();
        for some in due.chunks(SETTLED_AT_ONCE) {
            let mut records = records_of(parts, some.iter().map(|(id, _)| *id)).await?;
            for (id, makes_room) in some {
                // What is not there, or none of ours, waits for nothing.
                let ours = records.remove(id).filter(|record| is_ours(record));
                if ours.as_ref().is_some_and(|record| !is_settled(parts, record, *makes_room)) {
                    continue;
                }
                self.answers.remove(id);
                self.said.remove(id);
                if let Some(record) = ours {
                    count(&record);
                }
            }
        }
        Ok(())
    }
}

/// What the store has of `ids`.
pub(super) async fn records_of(
    parts: &Parts,
    ids: impl Iterator<Item = InteractionId>,
) -> Result<BTreeMap<InteractionId, InteractionRecord>> {
    let records = parts.store.interactions_of(&ids.collect::<Vec<_>>()).await?;
    Ok(records.into_iter().map(|record| (record.interaction.id, record)).collect())
}
