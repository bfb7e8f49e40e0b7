//! The port in the most naive way: a list of events, folded anew for every question.

use std::{cmp::Reverse, collections::BTreeMap, sync::Mutex};

use autoglm_domain::*;

#[derive(Debug, Default)]
pub(crate) struct MemoryStore {
    events: Mutex<Vec<Event>>,
}

impl MemoryStore {
    /// What `pick` makes of the events that it wants.
    fn all<T>(&self, pick: impl Fn(&Event) -> Option<T>) -> Vec<T> {
        self.events.lock().unwrap().iter().filter_map(pick).collect()
    }

    fn positions(&self, pick: impl Fn(&Event) -> bool) -> Vec<usize> {
        let events = self.events.lock().unwrap();
        events.iter().enumerate().filter(|(_, event)| pick(event)).map(|(at, _)| at).collect()
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

    fn check(&self, event: &Event) -> Result<()> {
        let there = |same: &dyn Fn(&Event) -> bool| !self.positions(same).is_empty();
        let conflict = |found: bool| if found { Err(Error::conflict("there")) } else { Ok(()) };
        let needed = |found: bool| if found { Ok(()) } else { Err(Error::not_found("not there")) };
        let interaction = |id| there(&|e| matches!(e, Event::Interaction(it) if it.id == id));
        match event {
            Event::Interaction(new) => conflict(interaction(new.id)),
            Event::Feedback(new) => {
                needed(interaction(new.interaction))?;
                conflict(there(&|e| matches!(e, Event::Feedback(it) if it.id == new.id)))
            }
            Event::Assessment(new) => {
                needed(interaction(new.interaction))?;
                conflict(there(&|e| matches!(e, Event::Assessment(it) if it.id == new.id)))
            }
            Event::Experience(new) => {
                conflict(there(&|e| matches!(e, Event::Experience(it) if it.id == new.id)))
            }
            Event::ExperienceAmended(new) => {
                needed(there(&|e| matches!(e, Event::Experience(it) if it.id == new.experience)))
            }
            Event::Version(new) => {
                conflict(there(&|e| matches!(e, Event::Version(it) if it.number == new.number)))
            }
            Event::AliasMoved(new) => {
                let moves = self.all(|e| match e {
                    Event::AliasMoved(it) if it.alias == new.alias => Some(it.to),
                    _ => None,
                });
                conflict(moves.last().copied().unwrap_or_default() != new.from)?;
                needed(new.to.0 == 0 || there(&|e| matches!(e, Event::Version(it) if it.number == new.to)))
            }
            Event::Pattern(_) | Event::Run(_) | Event::Rollout(_) => Ok(()),
        }
    }
}

fn found<T>(record: Option<T>) -> Result<T> {
    record.ok_or_else(|| Error::not_found("not there"))
}

#[async_trait::async_trait]
impl Store for MemoryStore {
    async fn append(&self, events: Vec<Event>) -> Result<()> {
        let before = self.events.lock().unwrap().len();
        for event in events {
            // What JSON cannot say shows as null in it.
            if serde_json::from_str(&serde_json::to_string(&event).unwrap()).ok() != Some(event.clone()) {
                self.events.lock().unwrap().truncate(before);
                return Err(Error::invalid("not finite"));
            }
            if let Err(error) = self.check(&event) {
                self.events.lock().unwrap().truncate(before);
                return Err(error);
            }
            self.events.lock().unwrap().push(event);
        }
        Ok(())
    }

    async fn events_after(&self, seq: i64, limit: usize) -> Result<Vec<RecordedEvent>> {
        let all = (1..).zip(self.all(|event| Some(event.clone())));
        let recorded = all.map(|(seq, event)| RecordedEvent { seq, event });
        Ok(recorded.filter(|event| event.seq > seq).take(limit).collect())
    }

    async fn interaction(&self, id: InteractionId) -> Result<InteractionRecord> {
        found(self.interactions().into_iter().find(|it| it.interaction.id == id))
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
        Ok(all.filter(awaits).take(limit).collect())
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
        found(self.experiences().await?.into_iter().find(|it| it.id == id))
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
        found(self.versions().await?.into_iter().find(|it| it.number == number))
    }

    async fn runs(&self) -> Result<Vec<TrainingRun>> {
        Ok(self.replaced(|event| match event {
            Event::Run(it) => Some((it.id, (**it).clone())),
            _ => None,
        }))
    }

    async fn run(&self, id: TrainingRunId) -> Result<TrainingRun> {
        found(self.runs().await?.into_iter().find(|it| it.id == id))
    }

    async fn rollouts(&self) -> Result<Vec<Rollout>> {
        Ok(self.replaced(|event| match event {
            Event::Rollout(it) => Some((it.id, (**it).clone())),
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
