//! Doubles of the ports. They do what the ports promise, in memory and by simple rules.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use autoglm_domain::*;
use autoglm_gateway::{
    AbOrder, Admin, AliasTable, Announced, Announcement, Announcements, ModelEntry, ModelKind, ModelSource,
    Observer, Promotion, Recall, RecallDecision, RecallMode, Rollback, RolloutOrder, RolloutStart,
    TrainOrder,
};
use futures::StreamExt as _;

pub(crate) const CONTEXT: u32 = 64;

/// Answers `echo` and the last message, a word a token, unless that message asks for trouble.
#[derive(Default)]
pub(crate) struct EchoGenerator {
    /// Everything that was asked.
    pub(crate) requests: Mutex<Vec<GenerationRequest>>,
    /// Streams that were dropped before their end.
    pub(crate) cancelled: Arc<AtomicUsize>,
}

/// Counts a stream that is dropped before its end.
struct Cancellation(Arc<AtomicUsize>, bool);

impl Drop for Cancellation {
    fn drop(&mut self) {
        if !self.1 {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
}

fn last_text(input: &GenerationInput) -> String {
    match input {
        GenerationInput::Chat(messages) | GenerationInput::ChatWithTools { messages, .. } => {
            messages.last().map(|m| m.content.clone()).unwrap_or_default()
        }
        GenerationInput::Text(text) => text.clone(),
    }
}

/// With tools, `use NAME ARGUMENTS` calls one, its arguments in two pieces, and `use both` the first two.
fn called(input: &GenerationInput, text: &str) -> Vec<ToolCallPiece> {
    let GenerationInput::ChatWithTools { toolbox, .. } = input else { return Vec::new() };
    let Some(asked) = text.strip_prefix("use ") else { return Vec::new() };
    let calls: Vec<(&str, &str)> = match asked.split_once(' ') {
        Some(call) => vec![call],
        None => toolbox.tools.iter().take(2).map(|tool| (tool.name.as_str(), "{}")).collect(),
    };
    let pieces = calls.into_iter().enumerate().flat_map(|(index, (name, arguments))| {
        let written = format!("<call>{name}{arguments}</call>");
        let first = ToolCallPiece { index, name: Some(name.to_owned()), written, ..ToolCallPiece::default() };
        let (left, right) = arguments.split_at(arguments.len() / 2);
        let rest =
            |text: &str| ToolCallPiece { index, arguments: text.to_owned(), ..ToolCallPiece::default() };
        [first, rest(left), rest(right)]
    });
    pieces.collect()
}

/// A word a token with ids from 100 on, each likelier than the one before it.
fn prompt(text: &str, top: Option<u32>) -> Result<GenerationEvent> {
    let token = |(index, word): (usize, &str)| PromptToken {
        token: word.to_owned(),
        id: 100 + index as u32,
        score: top.filter(|_| index > 0).map(|top| PromptScore {
            logprob: -1.0 / index as f32,
            rank: 2,
            top: [(9, "other".to_owned(), -0.25)].into_iter().take(top as usize).collect(),
        }),
    };
    Ok(GenerationEvent::Prompt(text.split_inclusive(' ').enumerate().map(token).collect()))
}

fn token(text: &str, logprobs: Option<u32>) -> Result<GenerationEvent> {
    let logprobs = logprobs.map(|top| TokenLogprob {
        token: text.to_owned(),
        id: 7,
        logprob: -0.5,
        top: [(text.to_owned(), -0.5), (" other".to_owned(), -1.5)].into_iter().take(top as usize).collect(),
    });
    Ok(GenerationEvent::Text { text: text.to_owned(), logprobs: logprobs.into_iter().collect() })
}

#[async_trait::async_trait]
impl Generator for EchoGenerator {
    async fn generate(&self, request: GenerationRequest) -> Result<GenerationStream> {
        self.requests.lock().unwrap().push(request.clone());
        let text = last_text(&request.input);
        let prompt_tokens = self.count_tokens(&request.input)?;
        if request.version == VersionNumber(9) {
            return Err(Error::not_found("version v9 is not resident"));
        }
        if prompt_tokens > CONTEXT {
            return Err(Error::invalid("the prompt does not fit"));
        }
        match text.as_str() {
            "queue full" => return Err(Error::unavailable("32 requests wait, which is the limit")),
            "engine busy" => return Err(Error::busy("the engine is behind", 7)),
            "engine gone" => return Err(Error::down("the engine does not answer", 9)),
            "broken engine" => return Err(Error::internal("secret: tensor shapes differ")),
            "refuse the form" => {
                return Err(Error::invalid("`response_format` cannot be compiled: it allows nothing"));
            }
            "refuse" => return Err(Error::invalid("the chat template refuses it").with_hint("say please")),
            _ => {}
        }
        let cancellation = Cancellation(Arc::clone(&self.cancelled), false);
        let limit = request.timeout.unwrap_or_default();
        let sampling = request.sampling;
        let calls = called(&request.input, &text);
        let mut words = vec!["echo".to_owned()];
        words.extend(text.split_whitespace().map(|word| format!(" {word}")));
        let stream = async_stream::stream! {
            let mut cancellation = cancellation;
            if sampling.token_ids || sampling.prompt_logprobs.is_some() {
                yield prompt(&text, sampling.prompt_logprobs);
            }
            let reported = sampling.logprobs.or(sampling.token_ids.then_some(0));
            if text == "dies midway" {
                yield token("half an answer", None);
                yield Err(Error::internal("secret: the engine died"));
                return;
            }
            if text == "overdue" {
                tokio::time::sleep(limit).await;
                yield Err(Error::new(ErrorKind::TimedOut, "no answer began in time"));
                return;
            }
            if text == "hangs" {
                std::future::pending::<()>().await;
            }
            if !calls.is_empty() {
                yield token("I look.", reported);
                for piece in calls {
                    yield Ok(GenerationEvent::ToolCall(piece));
                }
                cancellation.1 = true;
                let usage = Usage { prompt_tokens, completion_tokens: 9 };
                yield Ok(GenerationEvent::Done { finish_reason: FinishReason::Stop, usage });
                return;
            }
            let mut generated = 0;
            let mut finish_reason = FinishReason::Stop;
            for (i, word) in words.iter().cycle().enumerate() {
                if i == words.len() && !text.starts_with("endless") {
                    break;
                }
                if sampling.max_tokens == Some(generated) {
                    finish_reason = FinishReason::Length;
                    break;
                }
                if sampling.stop.iter().any(|stop| word.contains(stop.as_str())) {
                    break;
                }
                if text.starts_with("endless") {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                yield token(word, reported);
                generated += 1;
            }
            cancellation.1 = true;
            let usage = Usage { prompt_tokens, completion_tokens: generated };
            yield Ok(GenerationEvent::Done { finish_reason, usage });
        };
        Ok(stream.boxed())
    }

    fn context_length(&self) -> u32 {
        CONTEXT
    }

    fn count_tokens(&self, input: &GenerationInput) -> Result<u32> {
        let words = |text: &str| text.split_whitespace().count() as u32;
        Ok(match input {
            GenerationInput::Chat(messages) | GenerationInput::ChatWithTools { messages, .. } => {
                messages.iter().map(|m| words(&m.content)).sum()
            }
            GenerationInput::Text(text) => words(text),
        })
    }
}

/// Two numbers a text, of unit length.
pub(crate) struct LengthEmbedder;

impl Embedder for LengthEmbedder {
    fn embed(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>> {
        Ok(texts
            .iter()
            .map(|text| if text.len() % 2 == 0 { vec![0.6, -0.8] } else { vec![1.0, 0.0] })
            .collect())
    }

    fn dimensions(&self) -> usize {
        2
    }
}

/// Interactions and feedback in memory.
#[derive(Default)]
pub(crate) struct MemoryStore {
    pub(crate) interactions: Mutex<BTreeMap<InteractionId, Interaction>>,
    pub(crate) feedback: Mutex<Vec<Feedback>>,
    pub(crate) broken: AtomicBool,
    pub(crate) delay_ms: AtomicU64,
    /// Appends that have begun, before their delay.
    pub(crate) begun: AtomicUsize,
    pub(crate) appends: AtomicUsize,
}

impl MemoryStore {
    pub(crate) fn all(&self) -> Vec<Interaction> {
        self.interactions.lock().unwrap().values().cloned().collect()
    }

    fn check(&self) -> Result<()> {
        if self.broken.load(Ordering::SeqCst) {
            return Err(Error::unavailable("the disk is full"));
        }
        Ok(())
    }
}

#[async_trait::async_trait]
impl Store for MemoryStore {
    async fn append(&self, events: Vec<Event>) -> Result<()> {
        self.begun.fetch_add(1, Ordering::SeqCst);
        let delay_ms = self.delay_ms.load(Ordering::SeqCst);
        if delay_ms > 0 {
            tokio::time::sleep(Duration::from_millis(delay_ms)).await;
        }
        self.check()?;
        self.appends.fetch_add(1, Ordering::SeqCst);
        for event in events {
            match event {
                Event::Interaction(interaction) => {
                    let id = interaction.id;
                    let before = self.interactions.lock().unwrap().insert(id, *interaction);
                    if before.is_some() {
                        return Err(Error::conflict(format!("interaction `{id}` is already there")));
                    }
                }
                Event::Feedback(feedback) => {
                    if !self.interactions.lock().unwrap().contains_key(&feedback.interaction) {
                        return Err(Error::not_found(format!("no interaction `{}`", feedback.interaction)));
                    }
                    self.feedback.lock().unwrap().push(feedback);
                }
                other => return Err(Error::internal(format!("unexpected event {}", other.name()))),
            }
        }
        Ok(())
    }
    async fn interaction(&self, id: InteractionId) -> Result<InteractionRecord> {
        let found = self.interactions.lock().unwrap().get(&id).cloned();
        let interaction = found.ok_or_else(|| Error::not_found(format!("there is no interaction `{id}`")))?;
        let feedback =
            self.feedback.lock().unwrap().iter().filter(|f| f.interaction == id).cloned().collect();
        Ok(InteractionRecord { interaction, feedback, assessment: None })
    }
    async fn assessment_lag(&self) -> Result<u64> {
        self.check()?;
        Ok(self.interactions.lock().unwrap().len() as u64)
    }
    async fn aliases(&self) -> Result<Vec<(Alias, VersionNumber)>> {
        Ok(vec![(Alias::champion(), VersionNumber(3))])
    }
    async fn version(&self, number: VersionNumber) -> Result<ModelVersion> {
        let run = Some(TrainingRunId::next(&SequentialIds::default()));
        Ok(ModelVersion {
            number,
            hash: hash(),
            at: Timestamp(0),
            parent: VersionNumber(2),
            run,
            base: hash(),
            adapter: hash(),
            snapshot: None,
            hyper: None,
            metrics: BTreeMap::new(),
            code_version: "0".into(),
            note: None,
        })
    }
    async fn run(&self, id: TrainingRunId) -> Result<TrainingRun> {
        Ok(TrainingRun {
            id,
            at: Timestamp(0),
            ended_at: Some(Timestamp(5)),
            trigger: Trigger::Manual,
            base: hash(),
            parent: VersionNumber(2),
            snapshot: hash(),
            new_experiences: 5,
            replayed_experiences: 2,
            strategy: "replay".into(),
            hyper: HyperParameters::default(),
            seed: 1,
            metrics: BTreeMap::new(),
            state: RunState::Succeeded { version: VersionNumber(3) },
        })
    }
    async fn runs(&self) -> Result<Vec<TrainingRun>> {
        Ok(vec![self.run(TrainingRunId::next(&SequentialIds::default())).await?])
    }
    async fn rollouts(&self) -> Result<Vec<Rollout>> {
        let verdict = Verdict {
            outcome: Outcome::Reject,
            reason: "worse on 40 of 50 pairs".into(),
            at: Timestamp(9),
            evidence: Evidence::default(),
        };
        Ok(vec![Rollout {
            id: RolloutId::next(&SequentialIds::default()),
            at: Timestamp(8),
            candidate: VersionNumber(4),
            champion: VersionNumber(3),
            state: RolloutState::Decided { verdict },
            evidence: Evidence::default(),
        }])
    }
    async fn shadow_pair(&self, id: ShadowPairId) -> Result<ShadowPair> {
        Err(Error::not_found(format!("no pair `{id}`")))
    }
    async fn shadow_pairs(&self, _: RolloutId, _: PairOrder, _: usize) -> Result<Vec<ShadowPair>> {
        Ok(Vec::new())
    }
    async fn rollout_progress(&self, _: RolloutId, _: usize) -> Result<Vec<RolloutProgress>> {
        Ok(Vec::new())
    }
    async fn ab_tests(&self) -> Result<Vec<AbTest>> {
        Ok(vec![ab_test()])
    }
    async fn experience(&self, id: ExperienceId) -> Result<Experience> {
        Ok(Experience {
            id,
            at: Timestamp(3),
            prompt: vec![ChatMessage::user("capital of france")],
            target: "Paris".into(),
            weight: 2.0,
            provenance: Provenance { verifier: "correction".into(), ..Provenance::default() },
            embedding: vec![1.0, 0.0],
            cluster: ClusterId(0),
            held_out: false,
            task: None,
        })
    }
    async fn events_after(&self, _: i64, _: usize) -> Result<Vec<RecordedEvent>> {
        Ok(Vec::new())
    }
    async fn recent_interactions(&self, _: usize) -> Result<Vec<InteractionRecord>> {
        Ok(Vec::new())
    }
    async fn awaiting_assessment(&self, _: usize) -> Result<Vec<InteractionRecord>> {
        Ok(Vec::new())
    }
    async fn recent_assessments(&self, _: usize) -> Result<Vec<Assessment>> {
        Ok(Vec::new())
    }
    async fn experiences(&self) -> Result<Vec<Experience>> {
        Ok(Vec::new())
    }
    async fn patterns(&self) -> Result<Vec<ErrorPattern>> {
        Ok(Vec::new())
    }
    async fn versions(&self) -> Result<Vec<ModelVersion>> {
        Ok(Vec::new())
    }
    async fn alias_history(&self, _: &Alias) -> Result<Vec<AliasMove>> {
        Ok(Vec::new())
    }
}

pub(crate) fn hash() -> ContentHash {
    ContentHash::of(b"three")
}

/// `base` is 0, `champion` and the model's own name what the test says, `v1` to `v9` themselves.
pub(crate) struct Table(pub(crate) AtomicU64);

impl AliasTable for Table {
    fn resolve(&self, model: &str) -> Result<VersionNumber> {
        let hash = hash().to_string();
        match model {
            "base" => Ok(VersionNumber::BASE),
            "champion" | "starter" | "org/starter" => Ok(VersionNumber(self.0.load(Ordering::SeqCst))),
            prefix if prefix.len() >= 6 && hash.starts_with(prefix) => Ok(VersionNumber(3)),
            number if number.starts_with('v') => number.parse(),
            other => {
                Err(Error::not_found(format!("there is no model `{other}`")).with_hint("see /v1/models"))
            }
        }
    }

    fn list(&self) -> Vec<ModelEntry> {
        let entry = |id: &str, kind, version, hash| ModelEntry {
            id: id.to_owned(),
            kind,
            version: VersionNumber(version),
            created: Timestamp(1_700_000_000_000),
            hash,
        };
        vec![
            entry("base", ModelKind::Base, 0, None),
            entry("champion", ModelKind::Alias, 3, Some(hash())),
            entry("org/starter", ModelKind::Alias, 3, Some(hash())),
            entry("v3", ModelKind::Version, 3, Some(hash())),
        ]
    }
}

/// Says what the test put in.
pub(crate) struct Scripted {
    pub(crate) decision: Mutex<Result<RecallDecision>>,
    pub(crate) modes: Mutex<Vec<Option<RecallMode>>>,
}

impl Recall for Scripted {
    fn consult(&self, messages: &[ChatMessage], mode: Option<RecallMode>) -> Result<RecallDecision> {
        assert!(!messages.is_empty());
        self.modes.lock().unwrap().push(mode);
        self.decision.lock().unwrap().clone()
    }
}

/// Writes down what it is told.
#[derive(Default)]
pub(crate) struct Notes {
    pub(crate) interactions: Mutex<Vec<InteractionId>>,
    pub(crate) feedback: Mutex<Vec<FeedbackId>>,
}

impl Observer for Notes {
    fn interaction(&self, id: InteractionId) {
        self.interactions.lock().unwrap().push(id);
    }
    fn feedback(&self, feedback: &Feedback) {
        self.feedback.lock().unwrap().push(feedback.id);
    }
}

/// Carries out every order.
pub(crate) struct Obedient;

/// A test of two versions that is under way.
fn ab_test() -> AbTest {
    let arm = |version| AbArm { version: VersionNumber(version), share: 0.5 };
    let found = |version, mean| AbArmReport {
        version: VersionNumber(version),
        count: 40,
        mean: Some(mean),
        lower: mean - 10.0,
        upper: mean + 10.0,
        is_in: true,
    };
    AbTest {
        id: AbTestId::next(&SequentialIds::default()),
        at: Timestamp(8),
        by: "anonymous".into(),
        champion: VersionNumber(3),
        arms: vec![arm(3), arm(4)],
        allocation: Allocation::Fixed,
        metric: "accuracy".into(),
        alpha: 0.05,
        indifference: 0.0,
        min_requests: 100,
        max_requests: 10_000,
        state: AbState::Running,
        reason: "v3 answered 40 of 100 requests".into(),
        found: vec![found(3, 70.0), found(4, 85.0)],
    }
}

#[async_trait::async_trait]
impl Admin for Obedient {
    async fn start_ab(&self, order: AbOrder) -> Result<AbTest> {
        if order.arms.len() < 2 {
            return Err(Error::invalid("at least two versions are compared"));
        }
        Ok(ab_test())
    }
    async fn stop_ab(&self, id: AbTestId, by: String, reason: String) -> Result<AbTest> {
        let state = AbState::Stopped { ended: Timestamp(9), stopped_by: by };
        Ok(AbTest { id, state, reason, ..ab_test() })
    }
    async fn slices(&self, rollout: RolloutId) -> Result<Vec<serde_json::Value>> {
        Ok(vec![serde_json::json!({"kind": "all", "key": "all", "pairs": 3, "of": rollout})])
    }
    async fn activity(&self) -> Result<serde_json::Value> {
        Ok(serde_json::json!({"training": null}))
    }
    async fn mirrors(&self) -> Result<Vec<MirrorState>> {
        Ok(vec![MirrorState {
            name: "lake".into(),
            health: MirrorHealth::Failing,
            seq: 7,
            behind: 2,
            since: Timestamp(5),
            failures: 3,
            last_error: Some("the bucket is away".into()),
            failed_at: Some(Timestamp(6)),
        }])
    }
    async fn train(&self, order: TrainOrder) -> Result<TrainingRunId> {
        if order.reason == "again" {
            return Err(Error::conflict("a run is on its way"));
        }
        Ok(TrainingRunId::next(&SequentialIds::default()))
    }
    async fn promote(&self, promotion: Promotion) -> Result<AliasMove> {
        let (from, to) = (VersionNumber(3), promotion.version.parse()?);
        let (alias, by, reason) = (promotion.alias, promotion.by, promotion.reason);
        Ok(AliasMove { alias, from, to, at: Timestamp(1), by, reason, rollout: None })
    }
    async fn start_rollout(&self, order: RolloutStart) -> Result<Rollout> {
        if order.version != "v4" {
            return Err(Error::not_found(format!("no version `{}`", order.version)));
        }
        Ok(Rollout {
            id: RolloutId::next(&SequentialIds::default()),
            at: Timestamp(8),
            candidate: VersionNumber(4),
            champion: VersionNumber(3),
            state: RolloutState::Scanning,
            evidence: Evidence::default(),
        })
    }
    async fn rollout(&self, order: RolloutOrder) -> Result<Rollout> {
        Err(Error::conflict(format!("{} is not on live traffic", order.rollout)))
    }
    async fn rollback(&self, rollback: Rollback) -> Result<AliasMove> {
        let (from, to) = (VersionNumber(3), VersionNumber(2));
        let (alias, by, reason) = (rollback.alias, rollback.by, rollback.reason);
        Ok(AliasMove { alias, from, to, at: Timestamp(1), by, reason, rollout: None })
    }
}

/// Believes whoever signs with `good`, once at `1`, and takes every folder but `/busy`.
pub(crate) struct Herald;

#[async_trait::async_trait]
impl Announcements for Herald {
    fn check(&self, timestamp: &str, signature: &str, body: &[u8]) -> Result<()> {
        match (timestamp, signature) {
            ("2", "good") => Err(Error::conflict("this very request was taken already")),
            ("1", "good") if !body.is_empty() => Ok(()),
            _ => {
                Err(Error::new(ErrorKind::Denied, "the signature does not fit the body").with_hint("sign it"))
            }
        }
    }
    async fn announced(&self, announcement: Announcement) -> Result<Announced> {
        let busy = match announcement.source {
            ModelSource::Folder(folder) => folder.starts_with("/busy"),
            ModelSource::Git { version, .. } => version == Some(VersionNumber(7)),
        };
        if busy {
            return Err(Error::conflict("v7 is being judged"));
        }
        let version = VersionNumber(8);
        Ok(Announced { version, rollout: RolloutId::next(&SequentialIds::default()) })
    }
}
