//! One event of every kind, as it might have happened; the same ones at every call.

use std::collections::BTreeMap;

use autoglm_domain::*;

fn id<K: IdKind>(n: u128) -> Id<K> {
    Id::new(uuid::Uuid::from_u128((0x0193_7a5c_0000_7000_8000_u128 << 48) | n))
}

fn at(second: i64) -> Timestamp {
    Timestamp(1_795_953_600_000 + second * 1000)
}

/// An interaction of its own for each `n`: version, latency, session and day follow from it.
pub fn interaction(n: u64) -> Interaction {
    Interaction {
        id: id(n.into()),
        at: at(i64::try_from(n).unwrap_or_default() * 60),
        endpoint: Endpoint::Chat,
        model: "champion".into(),
        version: VersionNumber(12 + n % 2),
        messages: vec![ChatMessage::user(format!("my card got eaten by machine {n}"))],
        instructed: false,
        tools: Vec::new(),
        sampling: Sampling { max_tokens: Some(16), ..Sampling::default() },
        answer: "report lost card".into(),
        turn: None,
        source: AnswerSource::Weights,
        finish_reason: FinishReason::Stop,
        usage: Usage { prompt_tokens: 14, completion_tokens: 4 },
        logprobs: Vec::new(),
        latency_ms: 41.5 + (n % 7) as f64,
        first_token_ms: 12.25,
        principal: "ada".into(),
        session: n.is_multiple_of(2).then(|| format!("chat-{}", n / 4)),
        metadata: BTreeMap::from([("task".to_owned(), "banking".to_owned())]),
    }
}

/// A thumb up or a correction on the interaction `of`.
pub fn feedback(n: u64, of: u64) -> Feedback {
    Feedback {
        id: id(n.into()),
        interaction: id(of.into()),
        at: at(30),
        principal: "ada".into(),
        thumb: Some(if n.is_multiple_of(2) { Thumb::Up } else { Thumb::Down }),
        score: None,
        metric: None,
        correction: (!n.is_multiple_of(2)).then(|| "report lost card".to_owned()),
        comment: None,
        tags: vec!["branch".into()],
    }
}

/// An assessment of the interaction `of` with an accuracy.
pub fn assessment(n: u64, of: u64, accuracy: f64) -> Assessment {
    Assessment {
        id: id(n.into()),
        interaction: id(of.into()),
        at: at(31),
        version: VersionNumber(12 + of % 2),
        scores: BTreeMap::from([
            (dimension::ACCURACY.to_owned(), accuracy),
            (dimension::SAFETY.to_owned(), 100.0),
        ]),
        overall: (accuracy + 100.0) / 2.0,
        label: if accuracy > 50.0 { Label::HighAccuracy } else { Label::ReviseLogic },
        similarity: Some(accuracy / 100.0),
        reference: Some(Reference { text: "report lost card".into(), source: ReferenceSource::Correction }),
        feedback_seen: 1,
        evaluator: "normalised_match".into(),
        evaluator_version: "1".into(),
        findings: Vec::new(),
        pattern: None,
    }
}

/// One event of every kind, in an order in which a store takes them.
pub fn events() -> Vec<Event> {
    let provenance = Provenance {
        interactions: vec![id(1)],
        feedback: vec![id(2)],
        principals: vec!["ada".into()],
        verifier: "correction".into(),
        ..Provenance::default()
    };
    let hash = ContentHash::of(b"adapter");
    let rollout = |state| {
        let (candidate, champion) = (VersionNumber(13), VersionNumber(12));
        let evidence = Evidence::default();
        Event::Rollout(Box::new(Rollout { id: id(9), at: at(90), candidate, champion, state, evidence }))
    };
    let version = |number: u64, at| {
        Event::Version(Box::new(ModelVersion {
            number: VersionNumber(number),
            hash: ContentHash::of(&number.to_le_bytes()),
            at,
            parent: VersionNumber(number - 1),
            run: Some(id(8)),
            base: ContentHash::of(b"base"),
            adapter: hash,
            snapshot: Some(ContentHash::of(b"snapshot")),
            hyper: None,
            metrics: BTreeMap::from([("loss_last".to_owned(), 0.25)]),
            code_version: "0.1.0".into(),
            note: None,
        }))
    };
    vec![
        Event::Interaction(Box::new(interaction(1))),
        Event::Feedback(feedback(3, 1)),
        Event::Assessment(assessment(4, 1, 20.0)),
        Event::Pattern(ErrorPattern {
            id: id(5),
            name: "asks for a card".into(),
            count: 3,
            first_at: at(10),
            last_at: at(40),
            examples: vec![id(1)],
            centroid: vec![0.5, -0.5],
        }),
        Event::Experience(Box::new(Experience {
            id: id(6),
            at: at(41),
            prompt: vec![ChatMessage::user("my card got eaten by machine 1")],
            target: "report lost card".into(),
            weight: 1.0,
            provenance: provenance.clone(),
            embedding: vec![0.6, -0.8],
            cluster: ClusterId(2),
            held_out: false,
            task: Some("banking".into()),
        })),
        Event::ExperienceAmended(ExperienceAmendment {
            experience: id(6),
            at: at(50),
            weight: 0.75,
            provenance,
        }),
        Event::Run(Box::new(TrainingRun {
            id: id(8),
            at: at(60),
            ended_at: Some(at(85)),
            trigger: Trigger::NewExperiences { count: 40 },
            base: ContentHash::of(b"base"),
            parent: VersionNumber(12),
            snapshot: ContentHash::of(b"snapshot"),
            new_experiences: 40,
            replayed_experiences: 120,
            strategy: "replay".into(),
            hyper: HyperParameters::default(),
            seed: 7,
            metrics: BTreeMap::from([("loss_last".to_owned(), 0.25)]),
            state: RunState::Succeeded { version: VersionNumber(13) },
        })),
        version(13, at(86)),
        rollout(RolloutState::Live(Live::begin(LiveStage::Canary { step: 1, percent: 5.0 }, at(95)))),
        Event::ShadowPair(Box::new(shadow_pair())),
        Event::RolloutProgress(Box::new(progress())),
        rollout(RolloutState::Decided { verdict: verdict() }),
        Event::AbTest(Box::new(ab_test())),
        Event::AliasMoved(AliasMove {
            alias: Alias::champion(),
            from: VersionNumber(0),
            to: VersionNumber(13),
            at: at(99),
            by: "gate".into(),
            reason: "better by 12 points".into(),
            rollout: Some(id(9)),
        }),
    ]
}

fn shadow_pair() -> ShadowPair {
    let answer = |version, text: &str, latency_ms, accuracy| ShadowAnswer {
        version: VersionNumber(version),
        text: text.into(),
        tool_calls: Vec::new(),
        finish_reason: Some(FinishReason::Stop),
        error: None,
        usage: Usage { prompt_tokens: 14, completion_tokens: 4 },
        latency_ms,
        first_token_ms: Some(12.25),
        scores: BTreeMap::from([(dimension::ACCURACY.to_owned(), accuracy)]),
        overall: Some(accuracy),
    };
    ShadowPair {
        id: id(10),
        at: at(91),
        interaction: id(1),
        rollout: id(9),
        champion: answer(12, "card arrival", 41.5, 0.0),
        candidate: answer(13, "report lost card", 43.0, 100.0),
        diff: PairDiff { distance: 0.75, ..PairDiff::default() },
        preference: Some(Preference::Candidate),
        route: "banking".into(),
        cluster: Some(ClusterId(2)),
        principal_group: "staff".into(),
    }
}

fn ab_test() -> AbTest {
    let arm = |version| AbArm { version: VersionNumber(version), share: 0.5 };
    let found = |version, mean| AbArmReport {
        version: VersionNumber(version),
        count: 200,
        mean: Some(mean),
        lower: mean - 0.125,
        upper: mean + 0.125,
        is_in: true,
    };
    AbTest {
        id: id(11),
        at: at(97),
        by: "ada".into(),
        champion: VersionNumber(12),
        arms: vec![arm(12), arm(13)],
        allocation: Allocation::Fixed,
        metric: "accuracy".into(),
        alpha: 0.05,
        indifference: 0.0,
        min_requests: 100,
        max_requests: 1000,
        state: AbState::Decided { best: Some(VersionNumber(13)), ended: at(99) },
        reason: "v13 is shown to be best by `accuracy`".into(),
        found: vec![found(12, 0.25), found(13, 0.75)],
    }
}

fn progress() -> RolloutProgress {
    RolloutProgress {
        rollout: id(9),
        at: at(96),
        stage: LiveStage::Canary { step: 1, percent: 5.0 },
        ruling: StageRuling::Wait,
        reason: "40 of 100 requests".into(),
        observations: 40,
        metrics: vec![MetricEvidence {
            metric: "accuracy".into(),
            champion_count: 800,
            candidate_count: 40,
            champion: Some(0.75),
            candidate: Some(0.875),
            estimate: Some(0.125),
            lower: Some(-0.25),
            upper: Some(0.5),
            limit: -0.05,
            status: MetricStatus::Within,
        }],
        judge: None,
    }
}

fn verdict() -> Verdict {
    let paired = PairedEvidence {
        pairs: 400,
        champion_mean: 0.5,
        candidate_mean: 0.625,
        difference: 0.125,
        lower: 0.0625,
        upper: 0.1875,
        alpha: 0.05,
    };
    let changed = GateAnswer {
        experience: id(6),
        champion: "card arrival".into(),
        candidate: "report lost card".into(),
        champion_score: 0.0,
        candidate_score: 1.0,
    };
    let answers = Box::new(GateAnswers { compared: 400, changed: 50, examples: vec![changed] });
    let evidence = Evidence { new_skill: Some(paired), answers, ..Evidence::default() };
    Verdict { outcome: Outcome::Promote, reason: "better by 12 points".into(), at: at(98), evidence }
}
