//! Records, a store and a generator for the tests.

pub(crate) mod lexical;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use autoglm_domain::*;
use autoglm_evaluate::{Config, EvaluateError, Evaluator};
use lexical::LexicalEmbedder;

/// An interaction as the gateway records it; nothing was said of it yet. `n` makes its id.
pub(crate) fn record(n: u128, prompt: &str, answer: &str) -> InteractionRecord {
    InteractionRecord {
        interaction: Interaction {
            id: InteractionId::new(uuid::Uuid::from_u128(n)),
            at: Timestamp(1_000 + n as i64),
            endpoint: Endpoint::Chat,
            model: "autoglm".into(),
            version: VersionNumber(3),
            messages: vec![ChatMessage::user(prompt)],
            sampling: Sampling::default(),
            answer: answer.into(),
            source: AnswerSource::Weights,
            finish_reason: FinishReason::Stop,
            usage: Usage::default(),
            logprobs: Vec::new(),
            latency_ms: 5.0,
            first_token_ms: 2.0,
            principal: "ann".into(),
            session: None,
            metadata: BTreeMap::new(),
        },
        feedback: Vec::new(),
        assessment: None,
    }
}

/// The same with metadata.
pub(crate) fn with(mut record: InteractionRecord, pairs: &[(&str, &str)]) -> InteractionRecord {
    let pairs = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    record.interaction.metadata.extend(pairs);
    record
}

/// Feedback of `principal` on `record`: `+`, `-`, or a correction.
pub(crate) fn say(record: &mut InteractionRecord, at: i64, principal: &str, what: &str) {
    let thumb = match what {
        "+" => Some(Thumb::Up),
        "-" => Some(Thumb::Down),
        _ => None,
    };
    record.feedback.push(Feedback {
        id: FeedbackId::new(uuid::Uuid::from_u128(at as u128)),
        interaction: record.interaction.id,
        at: Timestamp(at),
        principal: principal.into(),
        thumb,
        score: None,
        metric: None,
        correction: thumb.is_none().then(|| what.to_owned()),
        comment: None,
        tags: Vec::new(),
    });
}

/// An evaluator with the lexical embedder, a clock at 5 s and ids from 1.
pub(crate) fn evaluator(
    config: Config,
    generator: Option<Arc<dyn Generator>>,
) -> std::result::Result<Evaluator, EvaluateError> {
    let clock = Arc::new(ManualClock::at(Timestamp(5_000)));
    Evaluator::new(config, Arc::new(LexicalEmbedder), generator, clock, Arc::new(SequentialIds::default()))
}

/// Answers with the given texts, one after another, and keeps the requests.
#[derive(Default)]
pub(crate) struct Scripted {
    pub(crate) answers: Mutex<Vec<&'static str>>,
    pub(crate) requests: Mutex<Vec<GenerationRequest>>,
}

#[async_trait]
impl Generator for Scripted {
    async fn generate(&self, request: GenerationRequest) -> autoglm_domain::Result<GenerationStream> {
        let poisoned = |_| Error::internal("a test thread panicked");
        self.requests.lock().map_err(|_| Error::internal("a test thread panicked"))?.push(request);
        let text =
            self.answers.lock().map_err(poisoned)?.pop().ok_or_else(|| Error::unavailable("queue full"))?;
        let done = GenerationEvent::Done { finish_reason: FinishReason::Stop, usage: Usage::default() };
        let text = GenerationEvent::Text { text: text.into(), logprobs: Vec::new() };
        Ok(Box::pin(futures::stream::iter([Ok(text), Ok(done)])))
    }

    fn context_length(&self) -> u32 {
        2048
    }

    fn count_tokens(&self, _: &GenerationInput) -> autoglm_domain::Result<u32> {
        Ok(1)
    }
}

/// A store that only knows what awaits assessment.
pub(crate) struct Waiting(pub(crate) Vec<InteractionRecord>);

fn absent<T>() -> autoglm_domain::Result<T> {
    Err(Error::internal("not in this test"))
}

#[async_trait]
impl Store for Waiting {
    async fn awaiting_assessment(&self, limit: usize) -> autoglm_domain::Result<Vec<InteractionRecord>> {
        Ok(self.0.iter().take(limit).cloned().collect())
    }
    async fn assessment_lag(&self) -> autoglm_domain::Result<u64> {
        Ok(self.0.len() as u64)
    }
    async fn append(&self, _: Vec<Event>) -> autoglm_domain::Result<()> {
        absent()
    }
    async fn events_after(&self, _: i64, _: usize) -> autoglm_domain::Result<Vec<RecordedEvent>> {
        absent()
    }
    async fn interaction(&self, _: InteractionId) -> autoglm_domain::Result<InteractionRecord> {
        absent()
    }
    async fn recent_interactions(&self, _: usize) -> autoglm_domain::Result<Vec<InteractionRecord>> {
        absent()
    }
    async fn recent_assessments(&self, _: usize) -> autoglm_domain::Result<Vec<Assessment>> {
        absent()
    }
    async fn experiences(&self) -> autoglm_domain::Result<Vec<Experience>> {
        absent()
    }
    async fn experience(&self, _: ExperienceId) -> autoglm_domain::Result<Experience> {
        absent()
    }
    async fn patterns(&self) -> autoglm_domain::Result<Vec<ErrorPattern>> {
        absent()
    }
    async fn versions(&self) -> autoglm_domain::Result<Vec<ModelVersion>> {
        absent()
    }
    async fn version(&self, _: VersionNumber) -> autoglm_domain::Result<ModelVersion> {
        absent()
    }
    async fn runs(&self) -> autoglm_domain::Result<Vec<TrainingRun>> {
        absent()
    }
    async fn run(&self, _: TrainingRunId) -> autoglm_domain::Result<TrainingRun> {
        absent()
    }
    async fn rollouts(&self) -> autoglm_domain::Result<Vec<Rollout>> {
        absent()
    }
    async fn aliases(&self) -> autoglm_domain::Result<Vec<(Alias, VersionNumber)>> {
        absent()
    }
    async fn alias_history(&self, _: &Alias) -> autoglm_domain::Result<Vec<AliasMove>> {
        absent()
    }
}
