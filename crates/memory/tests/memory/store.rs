//! A store in memory that keeps experiences and amendments and nothing else, and an embedder of words.

use autoglm_domain::{
    Alias, AliasMove, Assessment, Embedder, ErrorPattern, Event, Experience, ExperienceId, InteractionId,
    InteractionRecord, ModelVersion, RecordedEvent, Result, Rollout, Store, TrainingRun, TrainingRunId,
    VersionNumber,
};
use parking_lot::Mutex;

/// Experiences by append; everything else is empty.
#[derive(Debug, Default)]
pub(crate) struct Experiences {
    pub(crate) kept: Mutex<Vec<Experience>>,
    /// How many times something was appended.
    pub(crate) appends: Mutex<usize>,
    /// Whether the next append fails.
    pub(crate) full: Mutex<bool>,
}

impl Experiences {
    #[allow(dead_code, reason = "the experiment uses it")]
    pub(crate) fn of(kept: Vec<Experience>) -> Self {
        Self { kept: Mutex::new(kept), ..Self::default() }
    }
}

fn none<T>() -> Result<T> {
    Err(autoglm_domain::Error::not_found("this store keeps experiences alone"))
}

#[async_trait::async_trait]
impl Store for Experiences {
    async fn append(&self, events: Vec<Event>) -> Result<()> {
        if *self.full.lock() {
            return Err(autoglm_domain::Error::unavailable("the disk is full"));
        }
        *self.appends.lock() += 1;
        let mut kept = self.kept.lock();
        for event in events {
            match event {
                Event::Experience(experience) => kept.push(*experience),
                Event::ExperienceAmended(amendment) => {
                    if let Some(old) = kept.iter_mut().find(|old| old.id == amendment.experience) {
                        old.weight = amendment.weight;
                        old.provenance = amendment.provenance;
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }
    async fn experiences(&self) -> Result<Vec<Experience>> {
        Ok(self.kept.lock().clone())
    }
    async fn experience(&self, id: ExperienceId) -> Result<Experience> {
        self.kept.lock().iter().find(|kept| kept.id == id).cloned().map_or_else(none, Ok)
    }
    async fn events_after(&self, _: i64, _: usize) -> Result<Vec<RecordedEvent>> {
        none()
    }
    async fn interaction(&self, _: InteractionId) -> Result<InteractionRecord> {
        none()
    }
    async fn recent_interactions(&self, _: usize) -> Result<Vec<InteractionRecord>> {
        none()
    }
    async fn awaiting_assessment(&self, _: usize) -> Result<Vec<InteractionRecord>> {
        none()
    }
    async fn assessment_lag(&self) -> Result<u64> {
        none()
    }
    async fn recent_assessments(&self, _: usize) -> Result<Vec<Assessment>> {
        none()
    }
    async fn patterns(&self) -> Result<Vec<ErrorPattern>> {
        none()
    }
    async fn versions(&self) -> Result<Vec<ModelVersion>> {
        none()
    }
    async fn version(&self, _: VersionNumber) -> Result<ModelVersion> {
        none()
    }
    async fn runs(&self) -> Result<Vec<TrainingRun>> {
        none()
    }
    async fn run(&self, _: TrainingRunId) -> Result<TrainingRun> {
        none()
    }
    async fn rollouts(&self) -> Result<Vec<Rollout>> {
        none()
    }
    async fn aliases(&self) -> Result<Vec<(Alias, VersionNumber)>> {
        none()
    }
    async fn alias_history(&self, _: &Alias) -> Result<Vec<AliasMove>> {
        none()
    }
}

/// Folds words into `0` numbers: the stand-in for a model's embedding.
#[derive(Debug)]
pub(crate) struct Words(pub(crate) usize);

impl Embedder for Words {
    fn embed(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>> {
        Ok(texts.iter().map(|text| fold(text, self.0)).collect())
    }
    fn dimensions(&self) -> usize {
        self.0
    }
}

fn fold(text: &str, width: usize) -> Vec<f32> {
    let mut vector = vec![0.0_f32; width];
    for word in text.to_lowercase().split_whitespace() {
        let hash = word.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        if let Some(slot) = vector.get_mut((hash >> 8) as usize % width.max(1)) {
            *slot += if hash & 1 == 0 { 1.0 } else { -1.0 };
        }
    }
    let length = vector.iter().map(|value| value * value).sum::<f32>().sqrt().max(1e-9);
    vector.iter().map(|value| value / length).collect()
}
