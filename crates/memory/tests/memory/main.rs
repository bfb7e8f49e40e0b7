//! The memory against a store in memory: what enters, what is recalled, what a restart finds.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail loudly, in its helpers too")]

mod gate;
mod material;
mod recall;
mod transfer;
mod words;

use std::sync::Arc;

use autoglm_domain::{
    AnswerSource, ChatMessage, Endpoint, Feedback, FeedbackId, FinishReason, IdSource as _, Interaction,
    InteractionId, InteractionRecord, ManualClock, Sampling, SequentialIds, Thumb, Timestamp, Usage,
    VersionNumber,
};
use autoglm_doubles::MemoryStore;
use autoglm_memory::{Config, Memory, Remembered};

use words::Words;

/// A memory with its store and an endless supply of ids for records.
pub(crate) struct Bench {
    pub(crate) memory: Memory,
    pub(crate) store: Arc<MemoryStore>,
    ids: Arc<SequentialIds>,
    config: Config,
}

impl Bench {
    pub(crate) async fn new(config: Config) -> Self {
        Self::with(Arc::new(MemoryStore::default()), Arc::new(SequentialIds::default()), config).await
    }

    async fn with(store: Arc<MemoryStore>, ids: Arc<SequentialIds>, config: Config) -> Self {
        let clock = Arc::new(ManualClock::at(Timestamp(1_000)));
        let memory = Memory::open(store.clone(), Arc::new(Words(64)), clock, ids.clone(), config.clone())
            .await
            .unwrap();
        Self { memory, store, ids, config }
    }

    /// Closes the memory and opens another on the same store.
    pub(crate) async fn restart(self) -> Self {
        Self::with(self.store, self.ids, self.config).await
    }

    /// Another memory on the same store, as another process has it.
    pub(crate) async fn beside(&self) -> Self {
        Self::with(Arc::clone(&self.store), Arc::clone(&self.ids), self.config.clone()).await
    }

    /// An answer that nothing was said of.
    pub(crate) fn record(&self, prompt: &str, answer: &str) -> InteractionRecord {
        let interaction = Interaction {
            id: InteractionId::new(self.ids.next_uuid()),
            at: Timestamp(0),
            endpoint: Endpoint::Chat,
            model: "autoglm".into(),
            version: VersionNumber::BASE,
            messages: vec![ChatMessage::user(prompt)],
            instructed: false,
            tools: Vec::new(),
            sampling: Sampling::default(),
            answer: answer.into(),
            turn: None,
            source: AnswerSource::Weights,
            finish_reason: FinishReason::Stop,
            usage: Usage::default(),
            logprobs: Vec::new(),
            latency_ms: 1.0,
            first_token_ms: 1.0,
            principal: "anonymous".into(),
            session: None,
            metadata: Default::default(),
        };
        InteractionRecord { interaction, feedback: Vec::new(), assessment: None }
    }

    pub(crate) fn feedback(&self, record: &InteractionRecord, who: &str) -> Feedback {
        Feedback {
            id: FeedbackId::new(self.ids.next_uuid()),
            interaction: record.interaction.id,
            at: Timestamp(0),
            principal: who.into(),
            thumb: None,
            score: None,
            metric: None,
            correction: None,
            comment: None,
            tags: Vec::new(),
        }
    }

    pub(crate) fn correction(&self, prompt: &str, target: &str, who: &str) -> InteractionRecord {
        let mut record = self.record(prompt, "something wrong");
        let correction = Some(target.to_owned());
        record.feedback.push(Feedback { correction, ..self.feedback(&record, who) });
        record
    }

    pub(crate) fn thumb(&self, prompt: &str, answer: &str, who: &str, thumb: Thumb) -> InteractionRecord {
        let mut record = self.record(prompt, answer);
        record.feedback.push(Feedback { thumb: Some(thumb), ..self.feedback(&record, who) });
        record
    }

    pub(crate) async fn correct(&self, prompt: &str, target: &str, who: &str) -> Remembered {
        self.memory.remember(&self.correction(prompt, target, who)).await.unwrap()
    }

    /// What is believed of exactly this prompt.
    pub(crate) fn answer(&self, prompt: &str) -> Option<String> {
        let best = self.memory.recall_best(&[ChatMessage::user(prompt)], Default::default());
        best.filter(|best| best.similarity >= 1.0).map(|best| best.target)
    }
}
