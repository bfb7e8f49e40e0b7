//! A trial of a policy: many simulated rollouts over recorded pairs, with the truth known.
//!
//! In come recorded pairs of answers ([`PairSet`]: two versions' answers to the same requests, scored) and a policy;
//! out goes how often candidates of each true difference were promoted, rejected or left open. Each simulated rollout
//! takes one recorded set and draws requests from it with replacement, after the shares of requests that the
//! candidate wins and loses are set to differ by exactly the wanted difference; their sum, the churn, stays as
//! recorded, and is raised only where a difference needs more. Every rollout goes through the real
//! [`StageAnalysis`] of every stage. Latencies are drawn alike for both versions (log-normal, median 80 ms); users
//! give a thumb down to one wrong answer in ten.

use autoglm_domain::{AnswerTraits, LiveStage, ShadowAnswer, ShadowPair, StageRuling, dimension};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use crate::{Arm, Observation, RolloutError, RolloutPolicy, Said, StageAnalysis};

/// Observations between two looks.
const LOOK_EVERY: u64 = 20;

/// Requests of a canary step or the watch at which the simulation gives up.
const MOST_REQUESTS: u64 = 20_000;

/// Requests that a watch sees.
const WATCH_REQUESTS: u64 = 500;

/// Share of wrong answers that get a thumb down.
const THUMBS_DOWN: f64 = 0.1;

/// A score from which an answer is right.
const RIGHT: f64 = 50.0;

/// Recorded pairs of two versions.
#[derive(Debug, Clone)]
pub struct PairSet {
    /// Which versions.
    pub name: String,
    /// Their answers, with the score `accuracy` on both sides.
    pub pairs: Vec<ShadowPair>,
}

/// What a trial is made of.
#[derive(Debug, Clone)]
pub struct TrialConfig {
    /// Simulated rollouts: the first half no better (0 to -10 points), the others better (1 to 10).
    pub rollouts: usize,
    /// Same seed, same trial.
    pub seed: u64,
    /// The policy under trial.
    pub policy: RolloutPolicy,
}

/// How simulated rollouts of one true difference ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct TrialRow {
    /// The candidate's true accuracy minus the champion's, in points.
    pub difference: i32,
    /// Rollouts.
    pub rollouts: u32,
    /// Promoted, and kept through the watch.
    pub promoted: u32,
    /// Failed by a guard, or shown to be worse.
    pub rejected: u32,
    /// Ended undecided.
    pub inconclusive: u32,
    /// Of those not promoted, how many passed the shadow.
    pub stopped_later: u32,
    /// Mean number of pairs in the shadow.
    pub mean_pairs: f64,
}

/// What a trial came to.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TrialReport {
    /// Rollouts.
    pub rollouts: usize,
    /// Seed.
    pub seed: u64,
    /// Least, mean and largest churn of the recorded sets: share of requests that only one of the two gets right.
    pub churn: (f64, f64, f64),
    /// By true difference, ascending.
    pub rows: Vec<TrialRow>,
    /// Promotions of candidates that are no better, as a share of all rollouts.
    pub wrong_promotions: f64,
    /// Promotions of candidates that are worse by two points or more.
    pub promoted_two_worse: u32,
    /// Share of candidates that are better by three points that were promoted.
    pub promoted_three_better: f64,
    /// The same of candidates that are better by three or more.
    pub promoted_three_or_more: f64,
}

/// Runs a trial; `progress` is told after each rollout how many are done. `Invalid` when the policy is, or when a
/// set has no pairs.
pub fn run_trial(
    config: &TrialConfig,
    sets: &[PairSet],
    mut progress: impl FnMut(usize),
) -> Result<TrialReport, RolloutError> {
    config.policy.check()?;
    let sources: Vec<Source> = sets.iter().filter_map(Source::new).collect();
    if sources.is_empty() || sources.len() < sets.len() {
        let value = format!("{} usable of {}", sources.len(), sets.len());
        return Err(RolloutError::Policy {
            name: "trial.pairs",
            value,
            limit: "every set needs scored pairs",
        });
    }
    let mut rows: Vec<TrialRow> =
        (-10..=10).map(|difference| TrialRow { difference, ..TrialRow::default() }).collect();
    for turn in 0..config.rollouts {
        let difference = difference_of(turn, config.rollouts);
        let seed = config.seed.wrapping_mul(1_000_003).wrapping_add(turn as u64);
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let source = &sources[rng.random_range(0..sources.len())];
        let traffic = Traffic { source, shares: source.shares(f64::from(difference) / 100.0) };
        let end = simulate(&config.policy, &traffic, &mut rng)?;
        if let Some(row) = rows.iter_mut().find(|row| row.difference == difference) {
            row.add(&end);
        }
        progress(turn + 1);
    }
    Ok(summary(config, &sources, rows))
}

/// The true difference of rollout `turn`: the first half goes through 0 to -10, the second through 1 to 10.
fn difference_of(turn: usize, rollouts: usize) -> i32 {
    let half = rollouts / 2;
    let step = |n: usize, of: usize| i32::try_from(n % of).unwrap_or(0);
    if turn < half { -step(turn, 11) } else { 1 + step(turn - half, 10) }
}

fn summary(config: &TrialConfig, sources: &[Source], mut rows: Vec<TrialRow>) -> TrialReport {
    for row in &mut rows {
        row.mean_pairs /= f64::from(row.rollouts.max(1));
    }
    rows.retain(|row| row.rollouts > 0);
    let sum = |of: &dyn Fn(&TrialRow) -> bool, what: &dyn Fn(&TrialRow) -> u32| -> u32 {
        rows.iter().filter(|row| of(row)).map(what).sum()
    };
    let share = |of: &dyn Fn(&TrialRow) -> bool| {
        f64::from(sum(of, &|row| row.promoted)) / f64::from(sum(of, &|row| row.rollouts).max(1))
    };
    let churns = || sources.iter().map(Source::churn);
    TrialReport {
        rollouts: config.rollouts,
        seed: config.seed,
        churn: (
            churns().fold(1.0, f64::min),
            churns().sum::<f64>() / sources.len() as f64,
            churns().fold(0.0, f64::max),
        ),
        wrong_promotions: f64::from(sum(&|row| row.difference <= 0, &|row| row.promoted))
            / config.rollouts.max(1) as f64,
        promoted_two_worse: sum(&|row| row.difference <= -2, &|row| row.promoted),
        promoted_three_better: share(&|row| row.difference == 3),
        promoted_three_or_more: share(&|row| row.difference >= 3),
        rows,
    }
}

/// A recorded set, its pairs by outcome.
struct Source<'a> {
    /// Won, lost, both right, both wrong.
    by_outcome: [Vec<&'a ShadowPair>; 4],
}

impl<'a> Source<'a> {
    /// `None` for a set without pairs of every outcome.
    fn new(set: &'a PairSet) -> Option<Self> {
        let mut by_outcome: [Vec<&ShadowPair>; 4] = Default::default();
        for pair in &set.pairs {
            let outcome = match (is_right(&pair.champion), is_right(&pair.candidate)) {
                (false, true) => 0,
                (true, false) => 1,
                (true, true) => 2,
                (false, false) => 3,
            };
            by_outcome[outcome].push(pair);
        }
        by_outcome.iter().all(|pairs| !pairs.is_empty()).then_some(Self { by_outcome })
    }

    fn recorded(&self) -> [f64; 4] {
        let all: usize = self.by_outcome.iter().map(Vec::len).sum();
        [0, 1, 2, 3].map(|at| self.by_outcome[at].len() as f64 / all as f64)
    }

    fn churn(&self) -> f64 {
        let [won, lost, ..] = self.recorded();
        won + lost
    }

    /// Shares of the outcomes with `won - lost` set to `difference`. Where the churn is smaller than that, it is
    /// raised to the difference and a tenth more, for nobody only wins.
    fn shares(&self, difference: f64) -> [f64; 4] {
        let [_, _, right, wrong] = self.recorded();
        let churn = self.churn().max(difference.abs() * 1.1);
        let rest = (1.0 - churn) / (right + wrong);
        [(churn + difference) / 2.0, (churn - difference) / 2.0, right * rest, wrong * rest]
    }
}

fn is_right(answer: &ShadowAnswer) -> bool {
    answer.scores.get(dimension::ACCURACY).is_some_and(|score| *score >= RIGHT)
}

/// What requests of a simulated rollout are drawn from.
struct Traffic<'a> {
    source: &'a Source<'a>,
    shares: [f64; 4],
}

impl Traffic<'_> {
    fn draw(&self, rng: &mut ChaCha8Rng) -> ShadowPair {
        let mut place = rng.random::<f64>();
        let mut outcome = 0;
        while outcome < 3 && place >= self.shares[outcome] {
            place -= self.shares[outcome];
            outcome += 1;
        }
        let pairs = &self.source.by_outcome[outcome];
        let mut pair = pairs[rng.random_range(0..pairs.len())].clone();
        pair.champion.latency_ms = latency(rng);
        pair.candidate.latency_ms = latency(rng);
        pair
    }

    /// One side's answer to a request of a canary, as its user took it.
    fn answer(&self, arm: Arm, rng: &mut ChaCha8Rng) -> Observation {
        let pair = self.draw(rng);
        let (answer, traits): (&ShadowAnswer, &AnswerTraits) = match arm {
            Arm::Champion => (&pair.champion, &pair.diff.champion),
            Arm::Candidate => (&pair.candidate, &pair.diff.candidate),
        };
        let thumb_down = !is_right(answer) && rng.random::<f64>() < THUMBS_DOWN;
        let said = Some(Said { thumb_down, ..Said::default() });
        Observation { said, ..Observation::of_answer(answer, traits) }
    }
}

/// Log-normal with median 80 ms and σ = 0.5, by Box and Muller (1958).
fn latency(rng: &mut ChaCha8Rng) -> f64 {
    let (u, v) = (1.0 - rng.random::<f64>(), rng.random::<f64>());
    80.0 * (0.5 * (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()).exp()
}

/// How one simulated rollout ended.
struct End {
    ruling: StageRuling,
    passed_shadow: bool,
    pairs: u64,
}

impl TrialRow {
    fn add(&mut self, end: &End) {
        self.rollouts += 1;
        self.mean_pairs += end.pairs as f64;
        match end.ruling {
            StageRuling::Succeed => self.promoted += 1,
            StageRuling::Fail => self.rejected += 1,
            StageRuling::Inconclusive | StageRuling::Wait => self.inconclusive += 1,
        }
        self.stopped_later += u32::from(end.passed_shadow && end.ruling != StageRuling::Succeed);
    }
}

fn simulate(
    policy: &RolloutPolicy,
    traffic: &Traffic<'_>,
    rng: &mut ChaCha8Rng,
) -> Result<End, RolloutError> {
    let mut pairs = 0;
    if policy.has_shadow() {
        let mut shadow = StageAnalysis::new(policy, LiveStage::Shadow)?;
        let ruling = loop {
            shadow.push_pair(&traffic.draw(rng));
            pairs += 1;
            if pairs % LOOK_EVERY == 0 || pairs >= policy.shadow.max_pairs {
                match shadow.rule(0).ruling {
                    StageRuling::Wait => {}
                    ruling => break ruling,
                }
            }
        };
        if ruling != StageRuling::Succeed {
            return Ok(End { ruling, passed_shadow: false, pairs });
        }
    }
    // What the champion answered so far, for the stages in which it answers nobody.
    let mut before: Vec<Observation> = Vec::new();
    for (step, percent) in policy.canary.steps.iter().enumerate() {
        let stage = LiveStage::Canary { step: u32::try_from(step).unwrap_or(u32::MAX), percent: *percent };
        let ruling = stage_of_arms(policy, stage, percent / 100.0, traffic, &mut before, rng)?;
        if ruling != StageRuling::Succeed {
            return Ok(End { ruling, passed_shadow: true, pairs });
        }
    }
    let mut ruling = StageRuling::Succeed;
    if policy.watch.window_s > 0 {
        ruling = stage_of_arms(policy, LiveStage::Watch, 1.0, traffic, &mut before, rng)?;
    }
    Ok(End { ruling, passed_shadow: true, pairs })
}

/// A canary step, or the watch: `share` of the requests go to the candidate.
fn stage_of_arms(
    policy: &RolloutPolicy,
    stage: LiveStage,
    share: f64,
    traffic: &Traffic<'_>,
    before: &mut Vec<Observation>,
    rng: &mut ChaCha8Rng,
) -> Result<StageRuling, RolloutError> {
    let mut analysis = StageAnalysis::new(policy, stage)?;
    if share >= 1.0 {
        before.iter().for_each(|observation| analysis.push(Arm::Champion, observation));
    }
    let (most, time_ms) = match stage {
        LiveStage::Watch => (WATCH_REQUESTS, policy.watch.window_s * 1000),
        _ => (MOST_REQUESTS, policy.canary.min_s * 1000),
    };
    for request in 1..=most {
        let arm = if rng.random::<f64>() < share { Arm::Candidate } else { Arm::Champion };
        let observation = traffic.answer(arm, rng);
        analysis.push(arm, &observation);
        if arm == Arm::Champion && before.len() < WATCH_REQUESTS as usize {
            before.push(observation);
        }
        if request % LOOK_EVERY == 0 {
            // The watch's window passes with its last request.
            let spent = if stage == LiveStage::Watch { time_ms * request / most } else { time_ms };
            match analysis.rule(spent).ruling {
                StageRuling::Wait => {}
                ruling => return Ok(ruling),
            }
        }
    }
    Ok(StageRuling::Inconclusive)
}
