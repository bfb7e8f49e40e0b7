//! Records, a store and a generator for the tests.

pub(crate) mod lexical;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use autoglm_domain::*;
use autoglm_doubles::MemoryStore;
use autoglm_evaluate::{Config, EvaluateError, Evaluator};
use futures::executor::block_on;
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
            instructed: false,
            tools: Vec::new(),
            sampling: Sampling::default(),
            answer: answer.into(),
            turn: None,
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

/// A store that these records are in, with all that was said and found of them.
#[expect(clippy::unwrap_used, reason = "called from tests alone")]
pub(crate) fn store(records: &[&InteractionRecord]) -> MemoryStore {
    let store = MemoryStore::default();
    let events = records.iter().flat_map(|record| {
        let interaction = Event::Interaction(Box::new(record.interaction.clone()));
        let feedback = record.feedback.iter().cloned().map(Event::Feedback);
        let assessment = record.assessment.iter().cloned().map(Event::Assessment);
        std::iter::once(interaction).chain(feedback).chain(assessment)
    });
    block_on(store.append(events.collect())).unwrap();
    store
}
