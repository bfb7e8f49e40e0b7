//! Ten kinds of bad candidates over the real evaluator, diff engine, judge and analysis. Requests and answers are
//! synthetic and made here; none of them was ever said by a model or a person.

use std::{collections::BTreeMap, sync::Arc};

use autoglm_domain::*;
use autoglm_evaluate::{
    Config, DiffConfig, Differ, Evaluator, Labelled, PairJudge, Place, RuleSet, agreement_with, prefer,
    record_of_candidate,
};
use autoglm_rollout::{MetricConfig, RolloutPolicy, StageAnalysis, StageResult};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use uuid::Uuid;

const INTENTS: [(&str, &str); 6] = [
    ("travel", "book flight"),
    ("travel", "car rental"),
    ("travel", "travel alert"),
    ("travel", "plug type"),
    ("banking", "freeze account"),
    ("banking", "pay bill"),
];

/// Counts letters; enough for texts that are the same or not.
struct Letters;

impl Embedder for Letters {
    fn embed(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>> {
        let vector = |text: &&str| {
            let mut counts = vec![0.01_f32; 26];
            for byte in text.bytes().filter(u8::is_ascii_lowercase) {
                counts[usize::from(byte - b'a')] += 1.0;
            }
            counts
        };
        Ok(texts.iter().map(vector).collect())
    }
    fn dimensions(&self) -> usize {
        26
    }
}

/// What a synthetic request asks for.
struct Asked {
    task: &'static str,
    intent: &'static str,
    rng: ChaCha8Rng,
}

impl Asked {
    fn chance(&mut self, probability: f64) -> bool {
        self.rng.random::<f64>() < probability
    }

    /// The intent, or another one.
    fn label(&mut self, right: f64) -> String {
        if self.chance(right) { self.intent.to_owned() } else { "something else".to_owned() }
    }
}

/// A candidate: given a request and what the champion answered, its answer.
type Candidate = fn(&mut Asked, &ShadowAnswer) -> ShadowAnswer;

fn answer(version: u64, text: &str, latency_ms: f64) -> ShadowAnswer {
    ShadowAnswer {
        version: VersionNumber(version),
        text: text.to_owned(),
        tool_calls: Vec::new(),
        finish_reason: Some(FinishReason::Stop),
        error: None,
        usage: Usage { prompt_tokens: 9, completion_tokens: text.split_whitespace().count() as u32 + 1 },
        latency_ms,
        first_token_ms: None,
        scores: BTreeMap::new(),
        overall: None,
    }
}

fn said(text: impl AsRef<str>, like: &ShadowAnswer) -> ShadowAnswer {
    answer(2, text.as_ref(), like.latency_ms)
}

/// How requests are made and judged.
#[derive(Clone, Copy, Default)]
struct World {
    /// References come with the requests, so that accuracy is judged.
    references: bool,
    /// Answers have to be JSON.
    json: bool,
    /// Share of banking.
    banking: f64,
    /// Whether a judge that likes long answers compares.
    biased_judge: bool,
}

/// Prefers the longer answer, whatever it says.
struct LikesLength;

#[async_trait::async_trait]
impl PairJudge for LikesLength {
    async fn compare(&self, _: &[ChatMessage], first: &str, second: &str) -> Result<Place> {
        Ok(match first.len().cmp(&second.len()) {
            std::cmp::Ordering::Greater => Place::First,
            std::cmp::Ordering::Less => Place::Second,
            std::cmp::Ordering::Equal => Place::Tie,
        })
    }
}

fn request(n: u64, world: World, asked: &Asked, champion: &ShadowAnswer) -> InteractionRecord {
    let reference = world.references.then(|| ("reference".to_owned(), asked.intent.to_owned()));
    let format = if world.json { ResponseFormat::JsonObject } else { ResponseFormat::Text };
    let interaction = Interaction {
        id: InteractionId::new(Uuid::from_u128(u128::from(n))),
        at: Timestamp(n as i64),
        endpoint: Endpoint::Chat,
        model: "champion".into(),
        version: champion.version,
        messages: vec![ChatMessage::user(format!("synthetic request {n} of {}", asked.task))],
        instructed: false,
        tools: Vec::new(),
        sampling: Sampling { format, ..Sampling::default() },
        answer: champion.text.clone(),
        turn: None,
        source: AnswerSource::Weights,
        finish_reason: FinishReason::Stop,
        usage: champion.usage,
        logprobs: Vec::new(),
        latency_ms: champion.latency_ms,
        first_token_ms: champion.latency_ms,
        principal: "synthetic".into(),
        session: None,
        metadata: reference.into_iter().collect(),
    };
    InteractionRecord { interaction, feedback: Vec::new(), assessment: None }
}

/// Scores both answers as the learning loop does. One that failed has no score.
async fn score(
    evaluator: &Evaluator,
    record: &InteractionRecord,
    champion: &mut ShadowAnswer,
    ours: &mut ShadowAnswer,
) {
    let seen = record_of_candidate(record, ours);
    for (side, record) in [(champion, record), (ours, &seen)] {
        if side.error.is_none() {
            let assessment = evaluator.assess(record).await.unwrap();
            side.scores = assessment.scores;
            side.overall = Some(assessment.overall);
        }
    }
}

/// The shadow of a candidate under `policy`: what the analysis came to, with a look every 20 pairs.
async fn shadow(candidate: Candidate, world: World, policy: &RolloutPolicy) -> StageResult {
    let ports = (Arc::new(ManualClock::default()), Arc::new(SequentialIds::default()));
    let evaluator = Evaluator::new(Config::default(), Arc::new(Letters), None, ports.0, ports.1).unwrap();
    let differ = Differ::new(DiffConfig::default(), RuleSet::built_in().unwrap(), Some(Arc::new(Letters)));
    let mut analysis = StageAnalysis::new(policy, LiveStage::Shadow).unwrap();
    for n in 1.. {
        let mut rng = ChaCha8Rng::seed_from_u64(n);
        let banking = rng.random::<f64>() < world.banking;
        let at = if banking { rng.random_range(4..6) } else { rng.random_range(0..4) };
        let mut asked = Asked { task: INTENTS[at].0, intent: INTENTS[at].1, rng };
        let latency_ms = 60.0 + 80.0 * asked.rng.random::<f64>();
        let label = asked.label(0.85);
        let text = if world.json { format!("{{\"intent\": \"{label}\"}}") } else { label };
        let mut champion = answer(1, &text, latency_ms);
        let mut ours = candidate(&mut asked, &champion);
        let record = request(n, world, &asked, &champion);
        score(&evaluator, &record, &mut champion, &mut ours).await;
        let preference = match world.biased_judge {
            true => Some(prefer(&LikesLength, &[], &champion.text, &ours.text).await.unwrap()),
            false => None,
        };
        analysis.push_pair(&ShadowPair {
            id: ShadowPairId::new(Uuid::from_u128(u128::from(n))),
            at: Timestamp(n as i64),
            interaction: record.interaction.id,
            rollout: RolloutId::new(Uuid::nil()),
            diff: differ.diff(&record.interaction, &champion, &ours),
            champion,
            candidate: ours,
            preference,
            route: asked.task.to_owned(),
            cluster: None,
            principal_group: "synthetic".into(),
        });
        if n % 20 == 0 {
            let result = analysis.rule(0);
            if result.ruling != StageRuling::Wait {
                return result;
            }
        }
    }
    unreachable!("the shadow ends at `max_pairs`")
}

fn policy() -> RolloutPolicy {
    RolloutPolicy { live: true, ..RolloutPolicy::default() }
}

/// The candidate must be failed for a reason that holds `reason`.
async fn blocked(candidate: Candidate, world: World, reason: &str) {
    let result = shadow(candidate, world, &policy()).await;
    assert_eq!(result.ruling, StageRuling::Fail, "{}", result.reason);
    assert!(result.reason.contains(reason), "{}", result.reason);
}

const JUDGED: World = World { references: true, json: false, banking: 0.3, biased_judge: false };
const OPEN: World = World { references: false, ..JUDGED };

#[tokio::test]
async fn a_better_candidate_passes_and_an_equal_one_does_not() {
    let better = shadow(|asked, like| said(asked.label(0.97), like), JUDGED, &policy()).await;
    assert_eq!(better.ruling, StageRuling::Succeed, "{}", better.reason);
    assert!(better.reason.contains("`accuracy` is shown to improve"), "{}", better.reason);
    let equal = shadow(|_, like| said(&like.text, like), JUDGED, &policy()).await;
    assert_eq!(equal.ruling, StageRuling::Inconclusive, "{}", equal.reason);
    assert!(
        equal.reason.starts_with("the shadow ended after 2000 pairs: `accuracy` is not shown"),
        "{}",
        equal.reason
    );
}

#[tokio::test]
async fn a_regressed_candidate_is_blocked() {
    blocked(|asked, like| said(asked.label(0.6), like), JUDGED, "`accuracy` is shown to be beyond its limit")
        .await;
}

#[tokio::test]
async fn a_candidate_that_forgot_one_domain_is_blocked_although_it_gained_on_the_whole() {
    let forgetting: Candidate =
        |asked, like| said(asked.label(if asked.task == "banking" { 0.1 } else { 1.0 }), like);
    let world = World { banking: 0.15, ..JUDGED };
    blocked(forgetting, world, "the route `banking` is shown to have fallen").await;
}

#[tokio::test]
async fn a_verbose_candidate_is_blocked() {
    let verbose: Candidate =
        |_, like| said(format!("{} {}", like.text, "as I was going to say ".repeat(5)), like);
    blocked(verbose, OPEN, "`tokens` is shown to be beyond its limit").await;
}

#[tokio::test]
async fn a_refusing_candidate_is_blocked() {
    let refusing: Candidate = |asked, like| match asked.chance(0.3) {
        true => said("I can't help with that.", like),
        false => said(&like.text, like),
    };
    blocked(refusing, OPEN, "`refusal_rate` is shown to be beyond its limit").await;
}

#[tokio::test]
async fn an_empty_candidate_is_blocked() {
    let empty: Candidate =
        |asked, like| if asked.chance(0.2) { said(" ", like) } else { said(&like.text, like) };
    blocked(empty, OPEN, "`empty_rate` is shown to be beyond its limit").await;
}

#[tokio::test]
async fn a_candidate_with_nan_in_its_logits_is_blocked() {
    let broken: Candidate = |asked, like| match asked.chance(0.2) {
        true => ShadowAnswer {
            error: Some("the logits are not finite".into()),
            finish_reason: None,
            ..said("", like)
        },
        false => said(&like.text, like),
    };
    blocked(broken, OPEN, "`error_rate` is shown to be beyond its limit").await;
}

#[tokio::test]
async fn a_slow_candidate_is_blocked() {
    let slow: Candidate = |_, like| answer(2, &like.text, like.latency_ms * 3.0);
    blocked(slow, OPEN, "`latency_p95` is shown to be beyond its limit").await;
}

#[tokio::test]
async fn a_candidate_that_breaks_the_form_is_blocked() {
    let breaking: Candidate = |asked, like| match asked.chance(0.3) {
        true => said(format!("intent: {}", asked.intent), like),
        false => said(&like.text, like),
    };
    let world = World { json: true, ..OPEN };
    blocked(breaking, world, "`format_error_rate` is shown to be beyond its limit").await;
}

#[tokio::test]
async fn a_leaking_candidate_is_blocked() {
    let leaking: Candidate = |asked, like| match asked.chance(0.1) {
        true => said(format!("{} nobody@example.org", like.text), like),
        false => said(&like.text, like),
    };
    blocked(leaking, OPEN, "`leak_rate` is shown to be beyond its limit").await;
}

/// A candidate that pads its answers to please a judge that likes length. It wins every comparison, and is blocked
/// twice: by the guard on tokens where the judge is believed, and by the judge's disagreement with people's labels.
#[tokio::test]
async fn a_candidate_that_games_a_judge_is_blocked() {
    let padded: Candidate = |_, like| said(format!("{} {}", like.text, "and so on ".repeat(3)), like);
    let mut gamed = policy();
    gamed.metrics.remove("accuracy");
    gamed.metrics.insert("judge".into(), MetricConfig::improve(0.0));
    let believed = World { biased_judge: true, ..OPEN };
    let result = shadow(padded, believed, &gamed).await;
    assert_eq!(result.ruling, StageRuling::Fail, "{}", result.reason);
    assert!(result.reason.contains("`tokens` is shown to be beyond its limit"), "{}", result.reason);
    let judge = result.metrics.iter().find(|it| it.metric == "judge").unwrap();
    assert_eq!(judge.candidate, Some(1.0), "the judge prefers every padded answer");

    // Synthetic labels in place of people's: they prefer the short one of two right answers half of the time.
    let label = |n: usize| Labelled {
        prompt: "synthetic".into(),
        first: "pay bill".into(),
        second: "pay bill and so on".into(),
        preferred: if n.is_multiple_of(2) { Place::First } else { Place::Second },
    };
    let labels: Vec<Labelled> = (0..40).map(label).collect();
    let agreement = agreement_with(&LikesLength, &labels).await.unwrap();
    assert!(!agreement.is_trusted(0.4) && agreement.kappa.abs() < 1e-9, "{agreement:?}");
    // Without its verdicts nothing shows a gain, also where nothing guards the length.
    gamed.metrics.remove("tokens");
    let result = shadow(padded, OPEN, &gamed).await;
    assert_eq!(result.ruling, StageRuling::Inconclusive, "{}", result.reason);
    assert!(result.reason.contains("no answer says anything of it"), "{}", result.reason);
}
