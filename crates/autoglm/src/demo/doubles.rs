//! Doubles for the demo's tests: a small HTTP server that learns by heart, with its store, engine and loop.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use autoglm_domain::*;
use axum::{
    Json, Router,
    extract::State,
    http::StatusCode,
    response::{IntoResponse as _, Response},
    routing::post,
};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::server::{DemoControl, DemoServer};

/// Everything that the doubles share.
#[derive(Default)]
pub(crate) struct ByHeart {
    state: Mutex<Learned>,
    fail_every: u64,
    deaf: bool,
}

#[derive(Default)]
struct Learned {
    memory: HashMap<String, String>,
    weights: Vec<HashMap<String, String>>,
    champion: u64,
    asked: HashMap<String, String>,
    bodies: Vec<Value>,
    feedback: Vec<Value>,
    events: Vec<Event>,
    clock: i64,
}

impl ByHeart {
    /// Every n-th completion fails.
    pub(crate) fn failing_every(n: u64) -> Self {
        Self { fail_every: n, ..Self::default() }
    }

    /// Corrections are forgotten at once.
    pub(crate) fn deaf() -> Self {
        Self { deaf: true, ..Self::default() }
    }

    /// Starts serving on a free port.
    pub(crate) async fn start(self) -> (Arc<Self>, DemoServer) {
        self.state.lock().weights.push(HashMap::new());
        let shared = Arc::new(self);
        let router = Router::new()
            .route("/v1/chat/completions", post(complete))
            .route("/v1/feedback", post(feedback))
            .with_state(Arc::clone(&shared));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base_url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        let server = DemoServer {
            base_url,
            store: Arc::clone(&shared) as Arc<dyn Store>,
            generator: Arc::clone(&shared) as Arc<dyn Generator>,
            control: Arc::clone(&shared) as Arc<dyn DemoControl>,
        };
        (shared, server)
    }

    /// Bodies of all completions, in order.
    pub(crate) fn bodies(&self) -> Vec<Value> {
        self.state.lock().bodies.clone()
    }

    /// Bodies of all feedback, in order.
    pub(crate) fn feedback(&self) -> Vec<Value> {
        self.state.lock().feedback.clone()
    }

    fn judge(&self, outcome: Outcome, weights: HashMap<String, String>) -> VersionNumber {
        let mut state = self.state.lock();
        state.clock += 10;
        let at = Timestamp(SystemClock.now().0);
        let version = VersionNumber(state.weights.len() as u64);
        let champion = VersionNumber(state.champion);
        state.weights.push(weights);
        let id = |n: u64| uuid::Uuid::from_u128(u128::from(n));
        let run = TrainingRun {
            id: TrainingRunId::new(id(version.0)),
            at,
            ended_at: None,
            trigger: Trigger::NewExperiences { count: 3 },
            base: ContentHash::of(b"base"),
            parent: champion,
            snapshot: ContentHash::of(b"snapshot"),
            new_experiences: 3,
            replayed_experiences: 1,
            strategy: "replay".into(),
            hyper: HyperParameters::default(),
            seed: 1,
            metrics: [("tokens", 100.0), ("seconds", 2.0), ("tokens_per_s", 50.0)]
                .map(|(name, value)| (name.to_owned(), value))
                .into(),
            state: RunState::Running,
        };
        state.events.push(Event::Run(Box::new(run.clone())));
        let done = TrainingRun { ended_at: Some(at), state: RunState::Succeeded { version }, ..run };
        state.events.push(Event::Run(Box::new(done)));
        state.events.push(Event::Version(Box::new(ModelVersion {
            number: version,
            hash: ContentHash::of(version.to_string().as_bytes()),
            at,
            parent: champion,
            run: None,
            base: ContentHash::of(b"base"),
            adapter: ContentHash::of(b"adapter"),
            snapshot: None,
            hyper: None,
            metrics: Default::default(),
            code_version: "test".into(),
            note: None,
        })));
        let reason = format!("{outcome:?} in a test");
        let verdict = Verdict { outcome, reason: reason.clone(), at, evidence: Evidence::default() };
        state.events.push(Event::Rollout(Box::new(Rollout {
            id: RolloutId::new(id(version.0)),
            at,
            candidate: version,
            champion,
            state: RolloutState::Decided { verdict },
            evidence: Evidence::default(),
        })));
        if outcome == Outcome::Promote {
            state.champion = version.0;
            state.events.push(Event::AliasMoved(AliasMove {
                alias: Alias::champion(),
                from: champion,
                to: version,
                at,
                by: "gate".into(),
                reason,
                rollout: None,
            }));
        }
        version
    }
}

async fn complete(State(server): State<Arc<ByHeart>>, Json(body): Json<Value>) -> Response {
    let mut state = server.state.lock();
    state.bodies.push(body.clone());
    let number = state.bodies.len() as u64;
    if server.fail_every > 0 && number.is_multiple_of(server.fail_every) {
        let error = json!({"error": {"message": "no room", "type": "server_error"}});
        return (StatusCode::SERVICE_UNAVAILABLE, Json(error)).into_response();
    }
    let prompt = body["messages"][0]["content"].as_str().unwrap().to_owned();
    let recalled = state.memory.get(&prompt).filter(|_| body["autoglm"]["recall"] != "off").cloned();
    let source = if recalled.is_some() { "memory" } else { "weights" };
    let known = state.weights[state.champion as usize].get(&prompt).cloned();
    let text = recalled.or(known).unwrap_or_else(|| "no idea".into());
    let id = InteractionId::new(uuid::Uuid::from_u128(u128::from(number)));
    state.asked.insert(id.to_string(), prompt.clone());
    let version = VersionNumber(state.champion);
    state.events.push(Event::Interaction(Box::new(Interaction {
        id,
        at: Timestamp(0),
        endpoint: Endpoint::Chat,
        model: "champion".into(),
        version,
        messages: vec![ChatMessage::user(prompt)],
        instructed: false,
        tools: Vec::new(),
        sampling: Sampling::default(),
        answer: text.clone(),
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
    })));
    let answer = json!({
        "id": id,
        "choices": [{
            "message": {"role": "assistant", "content": text},
            "autoglm": {"id": id, "source": {"kind": source}},
        }],
    });
    ([("x-autoglm-model-version", version.to_string())], Json(answer)).into_response()
}

async fn feedback(State(server): State<Arc<ByHeart>>, Json(body): Json<Value>) -> Json<Value> {
    let mut state = server.state.lock();
    state.feedback.push(body.clone());
    let prompt = state.asked[body["id"].as_str().unwrap()].clone();
    if let (Some(correction), false) = (body["correction"].as_str(), server.deaf) {
        state.memory.insert(prompt, correction.to_owned());
    }
    Json(json!({"id": "fb_1"}))
}

#[async_trait::async_trait]
impl DemoControl for ByHeart {
    async fn wait_consolidated(&self, _timeout: Duration) -> bool {
        true
    }

    async fn consolidate(&self) {
        let memory = self.state.lock().memory.clone();
        self.judge(Outcome::Promote, memory);
    }

    async fn merge(&self) -> Result<VersionNumber> {
        Err(Error::conflict("a server that learns by heart has nothing to merge"))
    }

    async fn submit_spoiled(&self) -> Result<VersionNumber> {
        Ok(self.judge(Outcome::Reject, HashMap::new()))
    }

    async fn train_upper_bound(&self) -> Result<VersionNumber> {
        let memory = self.state.lock().memory.clone();
        Ok(self.judge(Outcome::Inconclusive, memory))
    }
}

#[async_trait::async_trait]
impl Generator for ByHeart {
    async fn generate(&self, request: GenerationRequest) -> Result<GenerationStream> {
        let GenerationInput::Chat(messages) = request.input else {
            return Err(Error::invalid("only chats in this test"));
        };
        let weights = &self.state.lock().weights;
        let known =
            weights.get(request.version.0 as usize).ok_or_else(|| Error::not_found("no such version"))?;
        let text = known.get(&messages[0].content).cloned().unwrap_or_else(|| "no idea".into());
        let events = vec![
            Ok(GenerationEvent::Text { text, logprobs: Vec::new() }),
            Ok(GenerationEvent::Done { finish_reason: FinishReason::Stop, usage: Usage::default() }),
        ];
        Ok(Box::pin(futures::stream::iter(events)))
    }

    fn context_length(&self) -> u32 {
        128
    }

    fn count_tokens(&self, _input: &GenerationInput) -> Result<u32> {
        Ok(1)
    }
}

fn unused<T>() -> Result<T> {
    Err(Error::internal("the demo does not read this"))
}

#[async_trait::async_trait]
impl Store for ByHeart {
    async fn append(&self, _events: Vec<Event>) -> Result<()> {
        unused()
    }
    async fn events_after(&self, seq: i64, limit: usize) -> Result<Vec<RecordedEvent>> {
        let state = self.state.lock();
        let later = state.events.iter().enumerate().skip(seq as usize).take(limit);
        Ok(later.map(|(at, event)| RecordedEvent { seq: at as i64 + 1, event: event.clone() }).collect())
    }
    async fn aliases(&self) -> Result<Vec<(Alias, VersionNumber)>> {
        Ok(vec![(Alias::champion(), VersionNumber(self.state.lock().champion))])
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
    async fn versions(&self) -> Result<Vec<ModelVersion>> {
        unused()
    }
    async fn version(&self, _: VersionNumber) -> Result<ModelVersion> {
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
    async fn shadow_pair(&self, _: ShadowPairId) -> Result<ShadowPair> {
        unused()
    }
    async fn shadow_pairs(&self, _: RolloutId, _: PairOrder, _: usize) -> Result<Vec<ShadowPair>> {
        unused()
    }
    async fn rollout_progress(&self, _: RolloutId, _: usize) -> Result<Vec<RolloutProgress>> {
        unused()
    }
    async fn ab_tests(&self) -> Result<Vec<AbTest>> {
        unused()
    }
    async fn alias_history(&self, _: &Alias) -> Result<Vec<AliasMove>> {
        unused()
    }
}

/// A stream of `tasks` tasks of `traffic` utterances, all with one of three references, each also held out in
/// other words.
pub(crate) fn stream(tasks: usize, traffic: usize) -> super::stream::Stream {
    let mut text = String::new();
    let mut seen = HashSet::new();
    for task in 0..tasks {
        for n in 0..traffic {
            let reference = format!("intent {task}{}", n % 3);
            let line = json!({"prompt": format!("t{task} n{n}"), "reference": reference, "task": format!("t{task}")});
            text.push_str(&format!("{line}\n"));
            if seen.insert(reference.clone()) {
                let line = json!({"prompt": format!("held t{task} n{n}"), "reference": reference,
                    "task": format!("t{task}"), "held_out": true});
                text.push_str(&format!("{line}\n"));
            }
        }
    }
    super::stream::parse("made up", text.as_bytes(), false, None).unwrap()
}
