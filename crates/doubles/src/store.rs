//! The store in the most naive way: a list of events, folded anew for every question.

use std::{
    cmp::{Ordering, Reverse},
    collections::{BTreeMap, HashSet},
    mem,
};

use autoglm_domain::{
    AbTest, Alias, AliasMove, Assessment, Cursor, Cursors, Error, ErrorPattern, Event, Experience,
    ExperienceId, Id, IdKind, Interaction, InteractionId, InteractionRecord, ModelVersion, PairOrder,
    RecordedEvent, Result, Rollout, RolloutId, RolloutProgress, ShadowPair, ShadowPairId, Store, TrainingRun,
    TrainingRunId, VersionNumber,
};
use parking_lot::Mutex;

/// A store in memory that keeps the port's contract, and fails or is overtaken when a test wants it.
#[derive(Debug, Default)]
pub struct MemoryStore {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    events: Vec<Event>,
    /// What `events` bring, so that large stores fill fast.
    names: HashSet<Name>,
    intruders: Vec<Event>,
    full: bool,
    appends: usize,
    cursors: BTreeMap<String, Cursor>,
}

/// What something is and its id.
type Name = (&'static str, String);

impl MemoryStore {
    /// Everything that was appended, in order.
    pub fn events(&self) -> Vec<Event> {
        self.all(|event| Some(event.clone()))
    }

    /// How many appends succeeded; [`MemoryStore::intrude`]'s are not counted.
    pub fn appends(&self) -> usize {
        self.kept.lock().appends
    }

    /// While `full`, every append fails as on a full disk.
    pub fn set_full(&self, full: bool) {
        self.kept.lock().full = full;
    }

    /// Another process appends `events` just before the next append.
    pub fn intrude(&self, events: Vec<Event>) {
        self.kept.lock().intruders = events;
    }

    /// What `pick` makes of the events that it wants.
    fn all<T>(&self, pick: impl Fn(&Event) -> Option<T>) -> Vec<T> {
        self.kept.lock().events.iter().filter_map(pick).collect()
    }

    fn interactions(&self) -> Vec<InteractionRecord> {
        let interactions = self.all(|event| match event {
            Event::Interaction(it) => Some((**it).clone()),
            _ => None,
        });
        let record = |interaction: Interaction| InteractionRecord {
            feedback: self.all(|event| match event {
                Event::Feedback(it) if it.interaction == interaction.id => Some(it.clone()),
                _ => None,
            }),
            assessment: self
                .all(|event| match event {
                    Event::Assessment(it) if it.interaction == interaction.id => Some(it.clone()),
                    _ => None,
                })
                .pop(),
            interaction,
        };
        interactions.into_iter().map(record).collect()
    }

    /// Every pair as it was last recorded.
    fn pairs(&self) -> Vec<ShadowPair> {
        self.replaced(|event| match event {
            Event::ShadowPair(it) => Some((it.id, (**it).clone())),
            _ => None,
        })
    }

    /// The latest of the records that share a key, in the order of their first.
    fn replaced<K: Ord, T: Clone>(&self, pick: impl Fn(&Event) -> Option<(K, T)>) -> Vec<T> {
        let mut places = BTreeMap::new();
        let mut latest = Vec::new();
        for (key, record) in self.all(pick) {
            let next = latest.len();
            match *places.entry(key).or_insert(next) {
                place if place == next => latest.push(record),
                place => latest[place] = record,
            }
        }
        latest
    }
}

impl Kept {
    /// All of `events` or none.
    fn append(&mut self, events: Vec<Event>) -> Result<()> {
        let before = self.events.len();
        for event in events {
            if let Err(error) = self.check(&event) {
                for undone in self.events.split_off(before) {
                    brings(&undone).map(|name| self.names.remove(&name));
                }
                return Err(error);
            }
            self.names.extend(brings(&event));
            self.events.push(event);
        }
        Ok(())
    }

    fn check(&self, event: &Event) -> Result<()> {
        if !is_finite(event) {
            return Err(Error::invalid(format!("a number in {} is not finite", event.name())));
        }
        if let Event::AliasMoved(AliasMove { alias, from, .. }) = event {
            let at = self.events.iter().rev().find_map(|event| match event {
                Event::AliasMoved(it) if it.alias == *alias => Some(it.to),
                _ => None,
            });
            let at = at.unwrap_or(VersionNumber::BASE);
            if at != *from {
                return Err(Error::conflict(format!("alias `{alias}` points at {at}, not at {from}")));
            }
        }
        if let Event::Rollout(next) = event {
            let latest = self.events.iter().rev().find_map(|event| match event {
                Event::Rollout(it) if it.id == next.id => Some(it.is_unfinished()),
                _ => None,
            });
            if latest == Some(false) {
                return Err(Error::conflict(format!("rollout `{}` has ended already", next.id)));
            }
        }
        if let Event::AbTest(next) = event {
            let latest = self.events.iter().rev().find_map(|event| match event {
                Event::AbTest(it) if it.id == next.id => Some(it.is_running()),
                _ => None,
            });
            if latest == Some(false) {
                return Err(Error::conflict(format!("test of versions `{}` has ended already", next.id)));
            }
        }
        if let Some((noun, id)) = needs(event).filter(|name| !self.names.contains(name)) {
            return Err(Error::not_found(format!("no {noun} `{id}`")));
        }
        if let Some((noun, id)) = brings(event).filter(|name| self.names.contains(name)) {
            return Err(Error::conflict(format!("{noun} `{id}` is already there")));
        }
        Ok(())
    }
}

/// What JSON cannot say reads back as something else, or not at all.
fn is_finite(event: &Event) -> bool {
    let text = serde_json::to_string(event);
    text.and_then(|text| serde_json::from_str::<Event>(&text)).is_ok_and(|read| read == *event)
}

/// What comes with `event` and can come only once.
fn brings(event: &Event) -> Option<Name> {
    match event {
        Event::Interaction(it) => Some(name(it.id)),
        Event::Feedback(it) => Some(name(it.id)),
        Event::Assessment(it) => Some(name(it.id)),
        Event::Experience(it) => Some(name(it.id)),
        Event::Version(it) => Some(version(it.number)),
        Event::ExperienceAmended(_) | Event::AliasMoved(_) => None,
        Event::Pattern(_) | Event::Run(_) | Event::Rollout(_) => None,
        Event::ShadowPair(_) | Event::RolloutProgress(_) | Event::AbTest(_) => None,
    }
}

/// What must be there before `event`, which speaks of it.
fn needs(event: &Event) -> Option<Name> {
    match event {
        Event::Feedback(it) => Some(name(it.interaction)),
        Event::Assessment(it) => Some(name(it.interaction)),
        Event::ExperienceAmended(it) => Some(name(it.experience)),
        Event::AliasMoved(it) => (it.to != VersionNumber::BASE).then(|| version(it.to)),
        Event::Interaction(_) | Event::Experience(_) | Event::Version(_) => None,
        Event::Pattern(_) | Event::Run(_) | Event::Rollout(_) => None,
        Event::ShadowPair(_) | Event::RolloutProgress(_) | Event::AbTest(_) => None,
    }
}

fn name<K: IdKind>(id: Id<K>) -> Name {
    (K::NOUN, id.to_string())
}

fn version(number: VersionNumber) -> Name {
    ("version", number.to_string())
}

fn found<T>(record: Option<T>, (noun, id): Name) -> Result<T> {
    record.ok_or_else(|| Error::not_found(format!("no {noun} `{id}`")))
}

#[async_trait::async_trait]
impl Cursors for MemoryStore {
    async fn last_seq(&self) -> Result<i64> {
        Ok(i64::try_from(self.kept.lock().events.len()).unwrap_or(i64::MAX))
    }

    async fn cursors(&self) -> Result<Vec<(String, Cursor)>> {
        Ok(self.kept.lock().cursors.iter().map(|(mirror, cursor)| (mirror.clone(), *cursor)).collect())
    }

    async fn set_cursor(&self, mirror: &str, cursor: Cursor) -> Result<()> {
        let last = self.last_seq().await?;
        let mut kept = self.kept.lock();
        if kept.full {
            return Err(Error::unavailable("the disk is full"));
        }
        if cursor.seq < 0 || cursor.begun < cursor.seq || cursor.begun > last {
            return Err(Error::invalid(format!("no batch of {mirror} begins and ends there")));
        }
        if kept.cursors.get(mirror).is_some_and(|known| known.seq > cursor.seq) {
            return Err(Error::conflict(format!("the cursor of {mirror} is further")));
        }
        kept.cursors.insert(mirror.to_owned(), cursor);
        Ok(())
    }
}

#[async_trait::async_trait]
impl Store for MemoryStore {
    async fn append(&self, events: Vec<Event>) -> Result<()> {
        // A real store keeps its callers waiting, and what they read before may be out of date by now.
        tokio::task::yield_now().await;
        let mut kept = self.kept.lock();
        let intruders = mem::take(&mut kept.intruders);
        kept.append(intruders)?;
        if kept.full {
            return Err(Error::unavailable("the disk is full"));
        }
        kept.append(events)?;
        kept.appends += 1;
        Ok(())
    }

    async fn events_after(&self, seq: i64, limit: usize) -> Result<Vec<RecordedEvent>> {
        let all = (1..).zip(self.events()).map(|(seq, event)| RecordedEvent { seq, event });
        Ok(all.filter(|event| event.seq > seq).take(limit).collect())
    }

    async fn interaction(&self, id: InteractionId) -> Result<InteractionRecord> {
        found(self.interactions().into_iter().find(|it| it.interaction.id == id), name(id))
    }

    async fn recent_interactions(&self, limit: usize) -> Result<Vec<InteractionRecord>> {
        Ok(self.interactions().into_iter().rev().take(limit).collect())
    }

    async fn awaiting_assessment(&self, limit: usize) -> Result<Vec<InteractionRecord>> {
        let all = self.interactions().into_iter();
        let awaits = |it: &InteractionRecord| match &it.assessment {
            Some(latest) => it.feedback.len() as u64 > u64::from(latest.feedback_seen),
            None => true,
        };
        let mut awaiting: Vec<_> = all.filter(awaits).collect();
        awaiting.sort_by_key(|it| it.feedback.is_empty());
        awaiting.truncate(limit);
        Ok(awaiting)
    }

    async fn assessment_lag(&self) -> Result<u64> {
        Ok(self.awaiting_assessment(usize::MAX).await?.len() as u64)
    }

    async fn recent_assessments(&self, limit: usize) -> Result<Vec<Assessment>> {
        let latest: Vec<_> = self.interactions().into_iter().filter_map(|it| it.assessment).collect();
        let mut judged = self.all(|event| match event {
            Event::Assessment(it) if it.is_judged() && latest.contains(it) => Some(it.clone()),
            _ => None,
        });
        judged.reverse();
        judged.truncate(limit);
        Ok(judged)
    }

    async fn experiences(&self) -> Result<Vec<Experience>> {
        let mut experiences = self.all(|event| match event {
            Event::Experience(it) => Some((**it).clone()),
            _ => None,
        });
        for amendment in self.all(|event| match event {
            Event::ExperienceAmended(it) => Some(it.clone()),
            _ => None,
        }) {
            for experience in experiences.iter_mut().filter(|it| it.id == amendment.experience) {
                experience.weight = amendment.weight;
                experience.provenance = amendment.provenance.clone();
            }
        }
        Ok(experiences)
    }

    async fn experience(&self, id: ExperienceId) -> Result<Experience> {
        found(self.experiences().await?.into_iter().find(|it| it.id == id), name(id))
    }

    async fn patterns(&self) -> Result<Vec<ErrorPattern>> {
        let mut patterns = self.replaced(|event| match event {
            Event::Pattern(it) => Some((it.id, it.clone())),
            _ => None,
        });
        patterns.sort_by_key(|it| Reverse(it.count));
        Ok(patterns)
    }

    async fn versions(&self) -> Result<Vec<ModelVersion>> {
        Ok(self.all(|event| match event {
            Event::Version(it) => Some((**it).clone()),
            _ => None,
        }))
    }

    async fn version(&self, number: VersionNumber) -> Result<ModelVersion> {
        found(self.versions().await?.into_iter().find(|it| it.number == number), version(number))
    }

    async fn runs(&self) -> Result<Vec<TrainingRun>> {
        Ok(self.replaced(|event| match event {
            Event::Run(it) => Some((it.id, (**it).clone())),
            _ => None,
        }))
    }

    async fn run(&self, id: TrainingRunId) -> Result<TrainingRun> {
        found(self.runs().await?.into_iter().find(|it| it.id == id), name(id))
    }

    async fn rollouts(&self) -> Result<Vec<Rollout>> {
        Ok(self.replaced(|event| match event {
            Event::Rollout(it) => Some((it.id, (**it).clone())),
            _ => None,
        }))
    }

    async fn shadow_pair(&self, id: ShadowPairId) -> Result<ShadowPair> {
        found(self.pairs().into_iter().find(|it| it.id == id), name(id))
    }

    async fn shadow_pairs(
        &self,
        rollout: RolloutId,
        order: PairOrder,
        limit: usize,
    ) -> Result<Vec<ShadowPair>> {
        let mut pairs = self.pairs();
        pairs.retain(|it| it.rollout == rollout);
        // Not `total_cmp`: a database takes 0 and -0 for the same.
        let by = |a: f64, b: f64| a.partial_cmp(&b).unwrap_or(Ordering::Equal);
        match order {
            PairOrder::Oldest => {}
            PairOrder::Worst => pairs.sort_by(|a, b| by(a.gain(), b.gain())),
            PairOrder::MostDifferent => pairs.sort_by(|a, b| by(b.diff.distance, a.diff.distance)),
        }
        pairs.truncate(limit);
        Ok(pairs)
    }

    async fn rollout_progress(&self, rollout: RolloutId, limit: usize) -> Result<Vec<RolloutProgress>> {
        let mut looks = self.all(|event| match event {
            Event::RolloutProgress(it) if it.rollout == rollout => Some((**it).clone()),
            _ => None,
        });
        looks.reverse();
        looks.truncate(limit);
        Ok(looks)
    }

    async fn ab_tests(&self) -> Result<Vec<AbTest>> {
        Ok(self.replaced(|event| match event {
            Event::AbTest(it) => Some((it.id, (**it).clone())),
            _ => None,
        }))
    }

    async fn aliases(&self) -> Result<Vec<(Alias, VersionNumber)>> {
        let moves = self.all(|event| match event {
            Event::AliasMoved(it) => Some((it.alias.clone(), it.to)),
            _ => None,
        });
        Ok(moves.into_iter().collect::<BTreeMap<_, _>>().into_iter().collect())
    }

    async fn alias_history(&self, alias: &Alias) -> Result<Vec<AliasMove>> {
        Ok(self.all(|event| match event {
            Event::AliasMoved(it) if it.alias == *alias => Some(it.clone()),
            _ => None,
        }))
    }
}

#[cfg(test)]
mod tests {
    use autoglm_domain::ErrorKind;

    use super::*;

    fn registered(number: u64) -> Event {
        Event::Version(Box::new(crate::version(number)))
    }

    #[tokio::test]
    async fn a_full_store_takes_nothing_until_there_is_room() {
        let store = MemoryStore::default();
        store.set_full(true);
        let error = store.append(vec![registered(1)]).await.unwrap_err();
        assert_eq!((error.kind, error.message.as_str()), (ErrorKind::Unavailable, "the disk is full"));
        assert_eq!((store.events(), store.appends()), (vec![], 0));
        store.set_full(false);
        store.append(vec![registered(1)]).await.unwrap();
        assert_eq!((store.events(), store.appends()), (vec![registered(1)], 1));
    }

    #[tokio::test]
    async fn an_intruder_comes_first_and_once() {
        let store = MemoryStore::default();
        store.intrude(vec![registered(1)]);
        let error = store.append(vec![registered(2), registered(1)]).await.unwrap_err();
        assert_eq!(
            (error.kind, error.message.as_str()),
            (ErrorKind::Conflict, "version `v1` is already there")
        );
        store.append(vec![registered(2)]).await.unwrap();
        assert_eq!((store.events(), store.appends()), (vec![registered(1), registered(2)], 1));
    }
}
