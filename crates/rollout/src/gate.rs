//! The offline gate: both versions answer the suites, the judge rules.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use autoglm_domain::{
    Clock, Error, ErrorKind, Evidence, Experience, FinishReason, GateAnswers, GenerationInput,
    GenerationRequest, Generator, Outcome, Priority, Sampling, Verdict, VersionNumber,
};
use futures::{StreamExt as _, stream::FuturesOrdered};
use tracing::Instrument as _;

use crate::{AnswerCache, GateConfig, Judge, Part, Question, RolloutError, Scorer, Suites, changed};

/// Tokens an answer may have when its target cannot be counted.
const UNCOUNTED_TARGET_TOKENS: u32 = 256;

/// Everything a gate needs besides the candidate.
#[derive(Clone, Copy)]
pub struct Gate<'a> {
    /// What answers, whichever version.
    pub generator: &'a dyn Generator,
    /// What judges an answer.
    pub scorer: &'a dyn Scorer,
    /// Answers of earlier gates.
    pub cache: &'a AnswerCache,
    /// When a verdict is given.
    pub clock: &'a dyn Clock,
    /// Settings.
    pub config: &'a GateConfig,
}

/// Why a version did not answer.
#[derive(Debug, Clone)]
enum Failure {
    /// Not in time, or with an error of its own: a wrong answer.
    Own(String),
    /// The engine had no room, again and again.
    Unavailable(Error),
}

/// What came of asking one version.
struct Asked {
    answer: Result<Arc<str>, Failure>,
    /// Whether the engine itself answered just now.
    live: bool,
}

/// What came of one question.
struct Pair<'a> {
    question: Question<'a>,
    champion: f64,
    candidate: f64,
    /// The champion's answer and the candidate's, where both answered.
    answers: Option<(Arc<str>, Arc<str>)>,
    failed: Option<String>,
    champion_failed: bool,
}

impl Gate<'_> {
    /// Examines `candidate` against `champion`. Findings of the scan reject at once. Questions and their
    /// order follow from `seed`; a decided suite is not asked further, requests still in flight are dropped.
    ///
    /// An error or a time-out of one version is a wrong answer of that version. No verdict but an error:
    /// `Invalid` for senseless settings or a candidate that is the champion, `NotFound` when a version is not
    /// resident, `Unavailable` when the engine has no room for either, retries included (or has none for the
    /// one that was asked, the other's answer being cached).
    pub async fn run(
        &self,
        candidate: VersionNumber,
        champion: VersionNumber,
        suites: &Suites,
        scan: &[String],
        seed: u64,
    ) -> Result<Verdict, RolloutError> {
        let span = tracing::info_span!("gate", %candidate, %champion);
        self.run_inner(candidate, champion, suites, scan, seed).instrument(span).await
    }

    async fn run_inner(
        &self,
        candidate: VersionNumber,
        champion: VersionNumber,
        suites: &Suites,
        scan: &[String],
        seed: u64,
    ) -> Result<Verdict, RolloutError> {
        self.config.check()?;
        if candidate == champion {
            return Err(RolloutError::SameVersion(candidate));
        }
        if !scan.is_empty() {
            return Ok(self.refuse_scanned(scan));
        }
        let questions = suites.questions(self.config, seed);
        let planned_new = questions.iter().filter(|question| question.part == Part::NewSkill).count();
        let mut judge =
            Judge::new(self.config.clone(), planned_new as u64, suites.cluster_plans(self.config));
        if let Some(ruling) = judge.before_asking() {
            return Ok(self.verdict(ruling.outcome, ruling.reason, judge.evidence()));
        }

        let mut failures: BTreeMap<String, u64> = BTreeMap::new();
        let mut champion_failures = 0;
        let mut answers = GateAnswers::default();
        let mut waiting = questions.iter();
        let mut in_flight = FuturesOrdered::new();
        while judge.early().is_none() {
            while in_flight.len() < self.config.concurrency {
                let Some(question) = waiting.find(|question| judge.wants(question.part)) else { break };
                in_flight.push_back(self.ask_both(candidate, champion, *question));
            }
            let Some(pair) = in_flight.next().await else { break };
            let pair = pair.map_err(|error| with_pairs(error, judge.pairs()))?;
            judge.push(pair.question.part, pair.champion, pair.candidate);
            if let Some((champion, candidate)) = &pair.answers {
                let (champion, candidate) = ((&**champion, pair.champion), (&**candidate, pair.candidate));
                changed::push(&mut answers, pair.question.experience.id, champion, candidate);
            }
            champion_failures += u64::from(pair.champion_failed);
            if let Some(failure) = pair.failed {
                *failures.entry(failure).or_default() += 1;
            }
        }
        drop(in_flight);
        let ruling = judge.rule();
        let reason = with_failures(ruling.reason, &failures, champion_failures);
        tracing::info!(outcome = ?ruling.outcome, pairs = judge.pairs(), "{reason}");
        Ok(self.verdict(ruling.outcome, reason, Evidence { answers: Box::new(answers), ..judge.evidence() }))
    }

    fn refuse_scanned(&self, scan: &[String]) -> Verdict {
        let more = if scan.len() > 1 { format!(" and {} more", scan.len() - 1) } else { String::new() };
        let first = scan.first().map_or("", String::as_str);
        let evidence = Evidence { scan: scan.to_vec(), ..Evidence::default() };
        self.verdict(Outcome::Reject, format!("the scan found: {first}{more}"), evidence)
    }

    fn verdict(&self, outcome: Outcome, reason: String, evidence: Evidence) -> Verdict {
        Verdict { outcome, reason, at: self.clock.now(), evidence }
    }

    async fn ask_both<'a>(
        &self,
        candidate: VersionNumber,
        champion: VersionNumber,
        question: Question<'a>,
    ) -> Result<Pair<'a>, RolloutError> {
        let experience = question.experience;
        let (ours, theirs) =
            futures::try_join!(self.ask(candidate, experience), self.ask(champion, experience))?;
        for (asked, other) in [(&ours, &theirs), (&theirs, &ours)] {
            if let (Err(Failure::Unavailable(cause)), false) = (&asked.answer, other.live) {
                return Err(RolloutError::EngineUnavailable { pairs: 0, cause: cause.clone() });
            }
        }
        let score = |asked: &Asked| match &asked.answer {
            Ok(answer) => self.scorer.score(experience, answer),
            Err(_) => 0.0,
        };
        let failed = match &ours.answer {
            Ok(_) => None,
            Err(Failure::Own(message)) => Some(message.clone()),
            Err(Failure::Unavailable(error)) => Some(error.to_string()),
        };
        let answers = match (&theirs.answer, &ours.answer) {
            (Ok(champion), Ok(candidate)) => Some((Arc::clone(champion), Arc::clone(candidate))),
            _ => None,
        };
        Ok(Pair {
            question,
            answers,
            champion: score(&theirs),
            candidate: score(&ours),
            failed,
            champion_failed: theirs.answer.is_err(),
        })
    }

    /// Asks one version, from the cache where it answered before.
    async fn ask(&self, version: VersionNumber, experience: &Experience) -> Result<Asked, RolloutError> {
        if let Some(answer) = self.cache.get(version, experience.id) {
            return Ok(Asked { answer: Ok(answer), live: false });
        }
        let request = self.request(version, experience);
        let mut pause = Duration::from_millis(self.config.retry_pause_ms);
        for attempt in 0.. {
            let error = match self.generate(request.clone()).await {
                Ok(answer) => {
                    self.cache.insert(version, experience.id, Arc::clone(&answer));
                    return Ok(Asked { answer: Ok(answer), live: true });
                }
                Err(error) => error,
            };
            match error.kind {
                ErrorKind::NotFound => return Err(RolloutError::NotResident { version, cause: error }),
                ErrorKind::Unavailable if attempt < self.config.retries => {
                    tokio::time::sleep(pause).await;
                    pause = pause.saturating_mul(2);
                }
                ErrorKind::Unavailable => {
                    return Ok(Asked { answer: Err(Failure::Unavailable(error)), live: false });
                }
                _ => {
                    return Ok(Asked { answer: Err(Failure::Own(error.to_string())), live: true });
                }
            }
        }
        Err(RolloutError::Store(Error::internal("a request was repeated without end")))
    }

    /// One greedy generation, within the time limit.
    async fn generate(&self, request: GenerationRequest) -> Result<Arc<str>, Error> {
        let limit = Duration::from_millis(self.config.request_timeout_ms);
        match tokio::time::timeout(limit, self.generator.generate_all(request)).await {
            Ok(Ok(generation)) if generation.finish_reason == FinishReason::Cancelled => {
                Err(Error::unavailable("the engine cancelled the request"))
            }
            Ok(Ok(generation)) => Ok(generation.text.into()),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(Error::internal(format!("no answer within {} ms", limit.as_millis()))),
        }
    }

    /// Greedy, with room for the target and some slack, so that a version that does not stop is cut off
    /// soon, but never where the cut could make its answer right.
    fn request(&self, version: VersionNumber, experience: &Experience) -> GenerationRequest {
        let input = GenerationInput::Chat(experience.prompt.clone());
        let target = GenerationInput::Text(experience.target.clone());
        let target = self.generator.count_tokens(&target).unwrap_or(UNCOUNTED_TARGET_TOKENS);
        let share = (f64::from(target) * self.config.slack_share).ceil() as u32;
        let wanted = target.saturating_add(share.max(self.config.slack_tokens)).max(1);
        let context = self.generator.context_length();
        let room = context.saturating_sub(self.generator.count_tokens(&input).unwrap_or(0)).max(1);
        let sampling = Sampling { max_tokens: Some(wanted.min(room)), ..Sampling::default() };
        GenerationRequest::new(input, sampling, version).with_priority(Priority::Background)
    }
}

fn with_pairs(error: RolloutError, pairs: u64) -> RolloutError {
    match error {
        RolloutError::EngineUnavailable { cause, .. } => RolloutError::EngineUnavailable { pairs, cause },
        other => other,
    }
}

/// Adds how often either version failed to answer.
fn with_failures(reason: String, failures: &BTreeMap<String, u64>, champion_failures: u64) -> String {
    let mut reason = reason;
    let total: u64 = failures.values().sum();
    if let Some((commonest, _)) = failures.iter().max_by_key(|(_, count)| **count) {
        reason.push_str(&format!("; the candidate failed to answer {total} times ({commonest})"));
    }
    if champion_failures > 0 {
        reason.push_str(&format!("; the champion failed to answer {champion_failures} times"));
    }
    reason
}
