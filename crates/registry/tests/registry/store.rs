//! Test double of the store: versions and aliases in memory, with the port's conflicts. `intruder` holds
//! events that another process appends just before the next append.

use std::sync::Mutex;

use autoglm_domain::*;

#[derive(Default)]
pub(crate) struct MemoryStore {
    pub(crate) events: Mutex<Vec<Event>>,
    pub(crate) intruder: Mutex<Vec<Event>>,
}

impl MemoryStore {
    fn versions_now(&self) -> Vec<ModelVersion> {
        let events = self.events.lock().unwrap();
        events
            .iter()
            .filter_map(|e| if let Event::Version(v) = e { Some((**v).clone()) } else { None })
            .collect()
    }

    fn moves_now(&self) -> Vec<AliasMove> {
        let events = self.events.lock().unwrap();
        events
            .iter()
            .filter_map(|e| if let Event::AliasMoved(m) = e { Some(m.clone()) } else { None })
            .collect()
    }

    pub(crate) fn append_now(&self, events: Vec<Event>) -> Result<()> {
        for event in &events {
            match event {
                Event::Version(new) if self.versions_now().iter().any(|v| v.number == new.number) => {
                    return Err(Error::conflict(format!("{} is there already", new.number)));
                }
                Event::AliasMoved(step) => {
                    let at = self.moves_now().iter().rfind(|m| m.alias == step.alias).map(|m| m.to);
                    if at.unwrap_or(VersionNumber::BASE) != step.from {
                        return Err(Error::conflict(format!("{} moved", step.alias)));
                    }
                }
                _ => {}
            }
        }
        self.events.lock().unwrap().extend(events);
        Ok(())
    }
}

fn unused<T>() -> Result<T> {
    Err(Error::internal("the registry does not need this"))
}

#[async_trait::async_trait]
impl Store for MemoryStore {
    async fn append(&self, events: Vec<Event>) -> Result<()> {
        let intruder = std::mem::take(&mut *self.intruder.lock().unwrap());
        self.append_now(intruder)?;
        tokio::task::yield_now().await;
        self.append_now(events)
    }
    async fn versions(&self) -> Result<Vec<ModelVersion>> {
        tokio::task::yield_now().await;
        Ok(self.versions_now())
    }
    async fn version(&self, number: VersionNumber) -> Result<ModelVersion> {
        let found = self.versions_now().into_iter().find(|v| v.number == number);
        found.ok_or_else(|| Error::not_found(format!("no version {number}")))
    }
    async fn aliases(&self) -> Result<Vec<(Alias, VersionNumber)>> {
        let table: std::collections::BTreeMap<_, _> =
            self.moves_now().into_iter().map(|m| (m.alias, m.to)).collect();
        Ok(table.into_iter().collect())
    }
    async fn alias_history(&self, alias: &Alias) -> Result<Vec<AliasMove>> {
        Ok(self.moves_now().into_iter().filter(|m| m.alias == *alias).collect())
    }
    async fn events_after(&self, _: i64, _: usize) -> Result<Vec<RecordedEvent>> {
        unused()
    }
    async fn interaction(&self, _: InteractionId) -> Result<InteractionRecord> {
        unused()
    }
    async fn recent_interactions(&self, _: usize) -> Result<Vec<InteractionRecord>> {
        unused()
    }
    async fn awaiting_assessment(&self, _: usize) -> Result<Vec<InteractionRecord>> {
        unused()
    }
    async fn assessment_lag(&self) -> Result<u64> {
        unused()
    }
    async fn recent_assessments(&self, _: usize) -> Result<Vec<Assessment>> {
        unused()
    }
    async fn experiences(&self) -> Result<Vec<Experience>> {
        unused()
    }
    async fn experience(&self, _: ExperienceId) -> Result<Experience> {
        unused()
    }
    async fn patterns(&self) -> Result<Vec<ErrorPattern>> {
        unused()
    }
    async fn runs(&self) -> Result<Vec<TrainingRun>> {
        unused()
    }
    async fn run(&self, _: TrainingRunId) -> Result<TrainingRun> {
        unused()
    }
    async fn rollouts(&self) -> Result<Vec<Rollout>> {
        unused()
    }
}
