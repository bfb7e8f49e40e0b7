//! Records made from small numbers, the same ones at every call.

use std::collections::BTreeMap;

use autoglm_domain::*;
use serde_json::json;
use uuid::Uuid;

pub(crate) fn id<K: IdKind>(n: u64) -> Id<K> {
    Id::new(Uuid::from_u128((0x7000_8000_u128 << 64) | u128::from(n)))
}

/// Every third interaction has one.
fn tools(n: u64) -> Vec<Tool> {
    let tool = Tool {
        name: "f".into(),
        description: Some("does it".into()),
        parameters: Some(json!({"type": "object", "properties": {"x": {"maximum": 1.5}}})),
        strict: true,
    };
    Some(tool).into_iter().filter(|_| n.is_multiple_of(3)).collect()
}

pub(crate) fn interaction(n: u64) -> Interaction {
    Interaction {
        id: id(n),
        at: at(n),
        endpoint: Endpoint::Chat,
        model: "champion".into(),
        version: VersionNumber(n % 3),
        messages: vec![ChatMessage::user(format!("frage {n} \u{1f427}"))],
        instructed: n.is_multiple_of(3),
        tools: tools(n),
        sampling: Sampling {
            temperature: 0.7,
            stop: vec!["\n".into()],
            logit_bias: (0..n as u32 % 3).map(|token| (token, -1.5)).collect(),
            format: ResponseFormat::JsonSchema(json!({"maximum": n, "$ref": "#/a"})),
            ..Sampling::default()
        },
        answer: format!("answer \"{n}\""),
        turn: n.is_multiple_of(3).then(|| ChatMessage {
            tool_calls: vec![ToolCall {
                id: "call_1".into(),
                name: "f".into(),
                arguments: "{\"x\": 1}".into(),
            }],
            ..ChatMessage::assistant("let me see")
        }),
        source: AnswerSource::Examples { count: 2 },
        finish_reason: FinishReason::Stop,
        usage: Usage { prompt_tokens: 5, completion_tokens: 3 },
        logprobs: vec![TokenLogprob {
            token: "a".into(),
            id: 7,
            logprob: -0.1,
            top: vec![("b".into(), -2.3)],
        }],
        latency_ms: 12.3 + n as f64 / 7.0,
        first_token_ms: 1.0 / 3.0,
        principal: "anonymous".into(),
        session: (n.is_multiple_of(2)).then(|| "s".to_owned()),
        metadata: BTreeMap::from([("task".to_owned(), "travel".to_owned())]),
    }
}

pub(crate) fn feedback(n: u64, of: u64) -> Feedback {
    Feedback {
        id: id(n),
        interaction: id(of),
        at: at(n),
        principal: "ada".into(),
        thumb: Some(Thumb::Down),
        score: Some(20.0),
        metric: Some(Metric { name: "resolved".into(), value: 0.0 }),
        correction: Some(format!("correction {n}")),
        comment: None,
        tags: vec!["tag".into()],
    }
}

/// One that saw no feedback.
pub(crate) fn assessment(n: u64, of: u64, judged: bool) -> Assessment {
    Assessment {
        id: id(n),
        interaction: id(of),
        at: at(n),
        version: VersionNumber(1),
        scores: BTreeMap::from([
            (dimension::LOGIC.to_owned(), 90.0),
            (if judged { dimension::ACCURACY } else { dimension::SAFETY }.to_owned(), 40.0),
        ]),
        overall: 40.0 + n as f64 / 3.0,
        label: Label::ReviseLogic,
        similarity: Some(0.1),
        reference: judged.then(|| Reference { text: "right".into(), source: ReferenceSource::Correction }),
        feedback_seen: 0,
        evaluator: "normalised_match".into(),
        evaluator_version: "1".into(),
        findings: vec!["differs".into()],
        pattern: Some(id(1)),
    }
}

pub(crate) fn pattern(n: u64, count: u64) -> ErrorPattern {
    ErrorPattern {
        id: id(n),
        name: format!("pattern {n}"),
        count,
        first_at: at(n),
        last_at: at(n + count),
        examples: vec![id(n)],
        centroid: vec![0.1, -0.2, n as f32],
    }
}

pub(crate) fn experience(n: u64) -> Experience {
    Experience {
        id: id(n),
        at: at(n),
        prompt: vec![ChatMessage::user(format!("prompt {n}"))],
        target: format!("target {n}"),
        weight: 0.3,
        provenance: provenance(n),
        embedding: vec![0.6, -0.8, 1.0 / (n + 3) as f32],
        cluster: ClusterId(2),
        held_out: n.is_multiple_of(5),
        task: None,
    }
}

pub(crate) fn amendment(of: u64, weight: f32) -> ExperienceAmendment {
    ExperienceAmendment { experience: id(of), at: at(of + 1), weight, provenance: provenance(of + 100) }
}

fn provenance(n: u64) -> Provenance {
    Provenance {
        interactions: vec![id(n)],
        feedback: vec![id(n)],
        principals: vec!["ada".into()],
        verifier: "correction".into(),
        ..Provenance::default()
    }
}

pub(crate) fn run(n: u64, state: RunState) -> TrainingRun {
    TrainingRun {
        id: id(n),
        at: at(n),
        ended_at: None,
        trigger: Trigger::ScoreBelow { mean: 61.7 },
        base: ContentHash::of(b"base"),
        parent: VersionNumber::BASE,
        snapshot: ContentHash::of(b"snapshot"),
        new_experiences: 3,
        replayed_experiences: 1,
        strategy: "replay".into(),
        hyper: HyperParameters::default(),
        seed: u64::MAX - n,
        metrics: BTreeMap::from([("loss".to_owned(), 0.1)]),
        state,
    }
}

pub(crate) fn version(number: u64) -> ModelVersion {
    ModelVersion {
        number: VersionNumber(number),
        hash: ContentHash::of(&number.to_le_bytes()),
        at: at(number),
        parent: VersionNumber(number.saturating_sub(1)),
        run: Some(id(number)),
        base: ContentHash::of(b"base"),
        adapter: ContentHash::of(b"adapter"),
        snapshot: None,
        hyper: Some(HyperParameters::default()),
        metrics: BTreeMap::new(),
        code_version: "0.1.0".into(),
        note: None,
    }
}

pub(crate) fn rollout(n: u64, state: RolloutState) -> Rollout {
    Rollout {
        id: id(n),
        at: at(n),
        candidate: VersionNumber(n),
        champion: VersionNumber::BASE,
        state,
        evidence: Evidence::default(),
    }
}

pub(crate) fn verdict(outcome: Outcome) -> RolloutState {
    let paired = PairedEvidence {
        pairs: 40,
        champion_mean: 0.1,
        candidate_mean: 0.7,
        difference: 0.6,
        lower: 0.2,
        upper: 0.9,
        alpha: 0.05,
    };
    let evidence = Evidence { new_skill: Some(paired), ..Evidence::default() };
    RolloutState::Decided { verdict: Verdict { outcome, reason: "40 pairs".into(), at: at(9), evidence } }
}

/// A pair of rollout `of`; the candidate's score says how it fares, `distance` how much it differs.
pub(crate) fn shadow_pair(n: u64, of: u64, overall: f64, distance: f64) -> ShadowPair {
    let answer = |version, overall| ShadowAnswer {
        version: VersionNumber(version),
        text: format!("answer of v{version}"),
        tool_calls: vec![ToolCall { id: "call_1".into(), name: "f".into(), arguments: "{\"x\": 1}".into() }],
        finish_reason: Some(FinishReason::Stop),
        error: None,
        usage: Usage { prompt_tokens: 5, completion_tokens: 3 },
        latency_ms: 12.3 + n as f64 / 7.0,
        first_token_ms: Some(1.0 / 3.0),
        scores: BTreeMap::from([(dimension::ACCURACY.to_owned(), overall)]),
        overall: Some(overall),
    };
    ShadowPair {
        id: id(n),
        at: at(n),
        interaction: id(n),
        rollout: id(of),
        champion: answer(1, 60.0),
        candidate: answer(2, overall),
        diff: PairDiff {
            length_ratio: 1.5,
            structure: Some(StructureDiff {
                paths: 2,
                differing: 1,
                differences: vec![PathDifference {
                    path: "/a".into(),
                    champion: Some("1".into()),
                    candidate: None,
                }],
            }),
            tools: Some(ToolDiff { same: 1, ..ToolDiff::default() }),
            similarity: Some(0.1),
            candidate: AnswerTraits { leaks: vec!["email".into()], ..AnswerTraits::default() },
            distance,
            ..PairDiff::default()
        },
        preference: Some(Preference::Tie),
        route: "travel".into(),
        cluster: Some(ClusterId(2)),
        principal_group: "staff".into(),
    }
}

pub(crate) fn progress(n: u64, of: u64) -> RolloutProgress {
    RolloutProgress {
        rollout: id(of),
        at: at(n),
        stage: LiveStage::Canary { step: 1, percent: 5.0 },
        ruling: StageRuling::Wait,
        reason: format!("{n} requests"),
        observations: n,
        metrics: vec![MetricEvidence {
            metric: "accuracy".into(),
            champion_count: 9,
            candidate_count: n,
            champion: Some(0.9),
            candidate: None,
            estimate: Some(-0.1),
            lower: None,
            upper: Some(0.3),
            limit: -0.05,
            status: MetricStatus::Beyond,
        }],
        judge: None,
    }
}

pub(crate) fn ab_test(n: u64, state: AbState) -> AbTest {
    let arm = |version| AbArm { version: VersionNumber(version), share: 0.5 };
    let found = |version| AbArmReport {
        version: VersionNumber(version),
        count: n,
        mean: Some(0.1),
        lower: 0.0,
        upper: 1.0 / 3.0,
        is_in: true,
    };
    AbTest {
        id: id(n),
        at: at(n),
        by: "ada".into(),
        champion: VersionNumber(1),
        arms: vec![arm(1), arm(2)],
        allocation: Allocation::Bandit,
        metric: "accuracy".into(),
        alpha: 0.05,
        indifference: 0.0,
        min_requests: 10,
        max_requests: 1000,
        state,
        reason: format!("{n} requests"),
        found: vec![found(1), found(2)],
    }
}

pub(crate) fn best(version: u64) -> AbState {
    AbState::Decided { best: Some(VersionNumber(version)), ended: at(9) }
}

pub(crate) fn canary(step: u32) -> RolloutState {
    let stage = LiveStage::Canary { step, percent: 5.0 };
    RolloutState::Live(Live { stage, since: at(3), spent_ms: 7 })
}

pub(crate) fn alias_move(alias: &str, from: u64, to: u64) -> AliasMove {
    AliasMove {
        alias: Alias(alias.into()),
        from: VersionNumber(from),
        to: VersionNumber(to),
        at: at(to),
        by: "gate".into(),
        reason: "better".into(),
        rollout: None,
    }
}

fn at(n: u64) -> Timestamp {
    Timestamp(1_795_000_000_000 + n as i64)
}

/// Shorthands for events, so that a test reads as what happened.
pub(crate) mod event {
    use super::*;

    pub(crate) fn interaction(n: u64) -> Event {
        Event::Interaction(Box::new(super::interaction(n)))
    }
    pub(crate) fn feedback(n: u64, of: u64) -> Event {
        Event::Feedback(super::feedback(n, of))
    }
    pub(crate) fn assessment(n: u64, of: u64, judged: bool) -> Event {
        Event::Assessment(super::assessment(n, of, judged))
    }
    pub(crate) fn assessment_of(n: u64, of: u64, feedback_seen: u32) -> Event {
        Event::Assessment(Assessment { feedback_seen, ..super::assessment(n, of, true) })
    }
    pub(crate) fn pattern(n: u64, count: u64) -> Event {
        Event::Pattern(super::pattern(n, count))
    }
    pub(crate) fn experience(n: u64) -> Event {
        Event::Experience(Box::new(super::experience(n)))
    }
    pub(crate) fn amendment(of: u64, weight: f32) -> Event {
        Event::ExperienceAmended(super::amendment(of, weight))
    }
    pub(crate) fn run(n: u64, state: RunState) -> Event {
        Event::Run(Box::new(super::run(n, state)))
    }
    pub(crate) fn version(number: u64) -> Event {
        Event::Version(Box::new(super::version(number)))
    }
    pub(crate) fn rollout(n: u64, state: RolloutState) -> Event {
        Event::Rollout(Box::new(super::rollout(n, state)))
    }
    pub(crate) fn shadow_pair(n: u64, of: u64, overall: f64, distance: f64) -> Event {
        Event::ShadowPair(Box::new(super::shadow_pair(n, of, overall, distance)))
    }
    pub(crate) fn ab_test(n: u64, state: AbState) -> Event {
        Event::AbTest(Box::new(super::ab_test(n, state)))
    }
    pub(crate) fn progress(n: u64, of: u64) -> Event {
        Event::RolloutProgress(Box::new(super::progress(n, of)))
    }
    pub(crate) fn alias_move(alias: &str, from: u64, to: u64) -> Event {
        Event::AliasMoved(super::alias_move(alias, from, to))
    }
}
