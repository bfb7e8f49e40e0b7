//! A data directory in which a little has happened, the same at every call.

use std::{collections::BTreeMap, path::PathBuf};

use autoglm_domain::*;
use autoglm_journal::SqliteStore;
use autoglm_registry::ObjectArtifacts;
use autoglm_train::{PlannedExample, Role as Part, Snapshot, Strategy};
use clap::Parser as _;
use uuid::Uuid;

use super::{Cli, run};
use crate::printer::{Failure, tests::Capture};

/// The prepared directory.
pub(super) struct Fixture {
    folder: tempfile::TempDir,
}

/// What a command wrote, and how it ended.
pub(super) struct Ended {
    pub(super) out: String,
    pub(super) err: String,
    pub(super) error: Option<Error>,
}

impl Ended {
    /// All of it, for a snapshot.
    pub(super) fn text(&self) -> String {
        let error = self
            .error
            .as_ref()
            .map(|error| format!("{:?}: {}\nhint: {:?}\n", error.kind, error.message, error.hint));
        let mut text = self.out.clone();
        if !self.err.is_empty() {
            text += &format!("--- stderr\n{}", self.err);
        }
        text + &error.map(|error| format!("--- error\n{error}")).unwrap_or_default()
    }
}

/// The nth id of each kind.
pub(super) fn uuid(n: u64) -> Uuid {
    Uuid::from_u128((0x0193_0000_0000_7000_8000_u128 << 48) | u128::from(n))
}

fn id<K: IdKind>(n: u64) -> Id<K> {
    Id::new(uuid(n))
}

fn at(minutes: i64) -> Timestamp {
    Timestamp(1_795_000_000_000 + minutes * 60_000)
}

impl Fixture {
    /// Prepares it: two corrections, a version that was promoted, one that was rejected, a failed run.
    pub(super) async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(folder.path().join("autoglm.db"), autoglm_journal::Config::default())
            .await
            .unwrap();
        let artifacts = ObjectArtifacts::open(&autoglm_registry::Config::default(), folder.path()).unwrap();
        for events in events(&artifacts).await {
            store.append(events).await.unwrap();
        }
        store.close().await.unwrap();
        Self { folder }
    }

    /// The same with a candidate in its canary, watched for a while already.
    pub(super) async fn with_canary() -> Self {
        let fixture = Self::new().await;
        fixture.append(canary_events(LiveStage::Canary { step: 1, percent: 5.0 })).await;
        fixture
    }

    /// Writes more into it.
    pub(super) async fn append(&self, events: Vec<Event>) {
        let file = self.folder.path().join("autoglm.db");
        let store = SqliteStore::open(file, autoglm_journal::Config::default()).await.unwrap();
        store.append(events).await.unwrap();
        store.close().await.unwrap();
    }

    /// A path in a folder beside the data.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs a command on the directory.
    pub(super) async fn run(&self, arguments: &[&str]) -> Ended {
        let folder = self.folder.path().display().to_string();
        let arguments: Vec<&str> =
            ["autoglm"].into_iter().chain(arguments.iter().copied()).chain(["--data-dir", &folder]).collect();
        let mut ended = command(&arguments).await;
        for text in [&mut ended.out, &mut ended.err] {
            *text = text.replace(&folder, "DIR");
        }
        ended
    }
}

/// Runs any command line.
pub(super) async fn command(arguments: &[&str]) -> Ended {
    let capture = Capture::default();
    let cli = Cli::try_parse_from(arguments).unwrap();
    let outcome = run(cli, &capture.printer(false)).await;
    let error = match outcome {
        Ok(()) => None,
        Err(Failure::Error(error)) => Some(error),
        Err(Failure::ReaderGone) => panic!("nobody reads"),
    };
    Ended { out: capture.out(), err: capture.err(), error }
}

async fn events(artifacts: &ObjectArtifacts) -> Vec<Vec<Event>> {
    let first = snapshot(artifacts, &[(1, Part::New)]).await;
    let second = snapshot(artifacts, &[(1, Part::Replay), (2, Part::New)]).await;
    let v1 = version(1, 0, Some(1), adapter(artifacts, 0.5).await, Some(first));
    let v2 = version(2, 1, Some(2), adapter(artifacts, f32::NAN).await, Some(second));
    vec![
        vec![
            Event::Interaction(Box::new(interaction(1, 0, "what is my balance", "transfer"))),
            Event::Interaction(Box::new(interaction(2, 0, "move money to savings", "transfer"))),
        ],
        vec![
            Event::Feedback(Feedback { correction: Some("balance".into()), ..feedback(1, 1, "ada") }),
            Event::Feedback(Feedback { thumb: Some(Thumb::Up), score: Some(95.0), ..feedback(2, 2, "bob") }),
            Event::Pattern(pattern()),
        ],
        vec![
            Event::Experience(Box::new(experience(1, "correction"))),
            Event::Experience(Box::new(experience(2, "endorsement"))),
            Event::Experience(Box::new(Experience { held_out: true, ..experience(3, "reference") })),
        ],
        vec![
            Event::Run(Box::new(run_of(1, 0, first, RunState::Succeeded { version: VersionNumber(1) }))),
            Event::Version(Box::new(v1)),
        ],
        vec![Event::Rollout(Box::new(rollout(1, 1, 0, Outcome::Promote))), Event::AliasMoved(promotion())],
        vec![
            Event::Interaction(Box::new(interaction(3, 1, "tell me my balance\u{1b}[31m", "balance"))),
            Event::Run(Box::new(run_of(2, 1, second, RunState::Succeeded { version: VersionNumber(2) }))),
            Event::Version(Box::new(v2)),
            Event::Rollout(Box::new(rollout(2, 2, 1, Outcome::Reject))),
            Event::Run(Box::new(run_of(
                3,
                1,
                second,
                RunState::Failed { reason: "the disk is full".into() },
            ))),
        ],
    ]
}

fn prompt(n: u64) -> (&'static str, &'static str) {
    match n {
        1 => ("what is my balance", "balance"),
        2 => ("move money to savings", "transfer"),
        _ => ("how much is on\nmy account", "balance"),
    }
}

async fn snapshot(artifacts: &ObjectArtifacts, parts: &[(u64, Part)]) -> ContentHash {
    let example = |(n, role): &(u64, Part)| {
        let (asked, target) = prompt(*n);
        PlannedExample {
            experience: id(*n),
            role: *role,
            weight: 1.0,
            frequency: 1.0,
            objective: Default::default(),
            prompt: vec![ChatMessage::user(asked)],
            target: target.into(),
        }
    };
    let examples = parts.iter().map(example).collect();
    Snapshot::from_examples(Strategy::Replay, examples).store(artifacts).await.unwrap()
}

/// A LoRA adapter of rank 1 on one projection, every number `value`.
async fn adapter(artifacts: &ObjectArtifacts, value: f32) -> ContentHash {
    let bytes: Vec<u8> = [value; 4].iter().flat_map(|value| value.to_le_bytes()).collect();
    let view = |shape: [usize; 2]| {
        safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.to_vec(), &bytes).unwrap()
    };
    let name = "base_model.model.model.layers.0.self_attn.q_proj";
    let tensors =
        [(format!("{name}.lora_A.weight"), view([1, 4])), (format!("{name}.lora_B.weight"), view([4, 1]))];
    let config = serde_json::json!({
        "peft_type": "LORA", "r": 1, "lora_alpha": 2.0, "target_modules": ["q_proj"], "bias": "none",
    });
    let weights = safetensors::serialize(tensors, None).unwrap();
    artifacts.put(Adapter { config: config.to_string().into_bytes(), weights }.pack()).await.unwrap()
}

fn interaction(n: u64, version: u64, asked: &str, answer: &str) -> Interaction {
    Interaction {
        id: id(n),
        at: at(n as i64),
        endpoint: Endpoint::Chat,
        model: "champion".into(),
        version: VersionNumber(version),
        messages: vec![ChatMessage::user(asked)],
        instructed: false,
        tools: Vec::new(),
        sampling: Sampling::default(),
        answer: answer.into(),
        turn: None,
        source: AnswerSource::Weights,
        finish_reason: FinishReason::Stop,
        usage: Usage { prompt_tokens: 5, completion_tokens: 1 },
        logprobs: Vec::new(),
        latency_ms: 12.0,
        first_token_ms: 9.0,
        principal: "anonymous".into(),
        session: None,
        metadata: BTreeMap::from([("task".to_owned(), "banking".to_owned())]),
    }
}

fn feedback(n: u64, of: u64, by: &str) -> Feedback {
    Feedback {
        id: id(n),
        interaction: id(of),
        at: at(10 + n as i64),
        principal: by.into(),
        thumb: None,
        score: None,
        metric: None,
        correction: None,
        comment: None,
        tags: Vec::new(),
    }
}

fn pattern() -> ErrorPattern {
    ErrorPattern {
        id: id(1),
        name: "balance answered as transfer".into(),
        count: 12,
        first_at: at(1),
        last_at: at(9),
        examples: vec![id(1)],
        centroid: vec![1.0, 0.0],
    }
}

fn experience(n: u64, verifier: &str) -> Experience {
    let (asked, target) = prompt(n);
    let (interactions, feedback) = if n < 3 { (vec![id(n)], vec![id(n)]) } else { (vec![id(1)], Vec::new()) };
    Experience {
        id: id(n),
        at: at(20 + n as i64),
        prompt: vec![ChatMessage::user(asked)],
        target: target.into(),
        weight: 1.0,
        provenance: Provenance { interactions, feedback, verifier: verifier.into(), ..Provenance::default() },
        embedding: vec![1.0, 0.0],
        cluster: ClusterId(0),
        held_out: false,
        task: (n != 2).then(|| "banking".to_owned()),
    }
}

fn run_of(n: u64, parent: u64, snapshot: ContentHash, state: RunState) -> TrainingRun {
    TrainingRun {
        id: id(n),
        at: at(30 + n as i64),
        ended_at: Some(at(31 + n as i64)),
        trigger: if n == 1 { Trigger::NewExperiences { count: 200 } } else { Trigger::Manual },
        base: ContentHash::of(b"base"),
        parent: VersionNumber(parent),
        snapshot,
        new_experiences: 1,
        replayed_experiences: u64::from(n > 1),
        strategy: "replay".into(),
        hyper: HyperParameters { rank: 8 * n as u32, ..HyperParameters::default() },
        seed: 7,
        metrics: BTreeMap::from([("loss_last".to_owned(), 0.5 / n as f64), ("seconds".to_owned(), 30.0)]),
        state,
    }
}

fn version(
    n: u64,
    parent: u64,
    run: Option<u64>,
    adapter: ContentHash,
    snapshot: Option<ContentHash>,
) -> ModelVersion {
    ModelVersion {
        number: VersionNumber(n),
        hash: ContentHash::of(&n.to_le_bytes()),
        at: at(40 + n as i64),
        parent: VersionNumber(parent),
        run: run.map(id),
        base: ContentHash::of(b"base"),
        adapter,
        snapshot,
        hyper: Some(HyperParameters { rank: 8 * n as u32, ..HyperParameters::default() }),
        metrics: BTreeMap::from([("loss_last".to_owned(), 0.5 / n as f64)]),
        code_version: "0.1.0".into(),
        note: None,
    }
}

fn paired(champion_mean: f64, candidate_mean: f64) -> PairedEvidence {
    let difference = candidate_mean - champion_mean;
    let (lower, upper) = (difference - 0.05, difference + 0.05);
    PairedEvidence { pairs: 100, champion_mean, candidate_mean, difference, lower, upper, alpha: 0.05 }
}

fn rollout(n: u64, candidate: u64, champion: u64, outcome: Outcome) -> Rollout {
    let fell = outcome == Outcome::Reject;
    let after = if fell { 0.4 } else { 0.9 };
    let clusters = vec![ClusterEvidence {
        cluster: ClusterId(0),
        name: "banking".into(),
        tolerance: 0.1,
        paired: paired(0.8, after),
        fell,
    }];
    let evidence = Evidence {
        new_skill: Some(paired(0.2, after)),
        retention: Some(paired(0.8, after)),
        clusters,
        scan: if fell { vec!["q_proj.lora_A holds NaN".into()] } else { Vec::new() },
        ..Evidence::default()
    };
    let reason = if fell { "banking fell from 80.0% to 40.0%" } else { "new skill rose from 20.0% to 90.0%" };
    Rollout {
        id: id(n),
        at: at(50 + n as i64),
        candidate: VersionNumber(candidate),
        champion: VersionNumber(champion),
        state: RolloutState::Decided {
            verdict: Verdict { outcome, reason: reason.into(), at: at(51 + n as i64), evidence },
        },
        evidence: Evidence::default(),
    }
}

fn promotion() -> AliasMove {
    AliasMove {
        alias: Alias::champion(),
        from: VersionNumber(0),
        to: VersionNumber(1),
        at: at(52),
        by: "gate".into(),
        reason: "new skill rose from 20.0% to 90.0%".into(),
        rollout: Some(id(1)),
    }
}

/// A third rollout, of the second version, at `stage`: it passed the gate and the shadow.
pub(super) fn canary_events(stage: LiveStage) -> Vec<Event> {
    let shadow = look(63, LiveStage::Shadow, StageRuling::Succeed, 200);
    let evidence = Evidence {
        new_skill: Some(paired(0.2, 0.9)),
        gate: "new skill rose from 20.0% to 90.0%".into(),
        live: vec![shadow.clone()],
        ..Evidence::default()
    };
    let canary = Rollout {
        id: id(3),
        at: at(60),
        candidate: VersionNumber(2),
        champion: VersionNumber(1),
        state: RolloutState::Live(Live::begin(stage, at(64))),
        evidence,
    };
    vec![
        Event::RolloutProgress(Box::new(look(61, LiveStage::Shadow, StageRuling::Wait, 12))),
        Event::RolloutProgress(Box::new(shadow)),
        Event::ShadowPair(Box::new(pair(1, "balance", "balance, I think", 90.0))),
        Event::ShadowPair(Box::new(pair(2, "transfer", "weather", 0.0))),
        Event::RolloutProgress(Box::new(look(65, stage, StageRuling::Wait, 31))),
        Event::Rollout(Box::new(canary)),
    ]
}

/// A test of both versions, in which the second is out.
pub(super) fn ab_test() -> AbTest {
    let arm = |version| AbArm { version: VersionNumber(version), share: 0.5 };
    let found = |version, mean: f64, is_in| AbArmReport {
        version: VersionNumber(version),
        count: 120,
        mean: Some(mean),
        lower: mean - 7.5,
        upper: mean + 6.25,
        is_in,
    };
    AbTest {
        id: id(1),
        at: at(70),
        by: "ada".into(),
        champion: VersionNumber(1),
        arms: vec![arm(1), arm(2)],
        allocation: Allocation::Bandit,
        metric: "accuracy".into(),
        alpha: 0.05,
        indifference: 0.0,
        min_requests: 100,
        max_requests: 1000,
        state: AbState::Decided { best: Some(VersionNumber(1)), ended: at(71) },
        reason: "v1 is shown to be best by `accuracy`".into(),
        found: vec![found(1, 90.0, true), found(2, 50.0, false)],
    }
}

fn look(minute: i64, stage: LiveStage, ruling: StageRuling, observations: u64) -> RolloutProgress {
    let metric = |metric: &str, estimate, ends: Option<(f64, f64)>, limit, status| MetricEvidence {
        metric: metric.into(),
        champion_count: observations,
        candidate_count: observations,
        champion: Some(80.0),
        candidate: Some(84.5),
        estimate: Some(estimate),
        lower: ends.map(|ends| ends.0),
        upper: ends.map(|ends| ends.1),
        limit,
        status,
    };
    RolloutProgress {
        rollout: id(3),
        at: at(minute),
        stage,
        ruling,
        reason: format!("{observations} of 200 pairs are there"),
        observations,
        metrics: vec![
            metric("accuracy", 4.5, Some((0.25, 8.75)), 0.0, MetricStatus::Shown),
            metric("latency_p95", 1.04, None, 1.5, MetricStatus::Within),
        ],
        judge: (stage == LiveStage::Shadow).then_some(JudgeStanding {
            pairs: 120,
            share: 0.9,
            kappa: 0.8,
            lower: 0.7,
            upper: 0.9,
            trusted: true,
        }),
    }
}

fn pair(n: u64, champion: &str, candidate: &str, overall: f64) -> ShadowPair {
    let answer = |version: u64, text: &str, overall| ShadowAnswer {
        version: VersionNumber(version),
        text: text.into(),
        tool_calls: Vec::new(),
        finish_reason: Some(FinishReason::Stop),
        error: None,
        usage: Usage { prompt_tokens: 5, completion_tokens: 1 },
        latency_ms: 12.0,
        first_token_ms: Some(9.0),
        scores: BTreeMap::from([("accuracy".to_owned(), overall)]),
        overall: Some(overall),
    };
    ShadowPair {
        id: id(n),
        at: at(60 + n as i64),
        interaction: id(n),
        rollout: id(3),
        champion: answer(1, champion, 100.0),
        candidate: answer(2, candidate, overall),
        diff: PairDiff { distance: 1.0 - overall / 100.0, ..PairDiff::default() },
        preference: None,
        route: "banking".into(),
        cluster: None,
        principal_group: "anonymous".into(),
    }
}
