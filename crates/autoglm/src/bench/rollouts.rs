//! `autoglm bench rollouts`: how often a rollout policy is wrong, over simulated rollouts of recorded pairs.
//!
//! In: the policy of the settings, the recorded answers of `data/pairs` and a seed. Out: by true difference, how many
//! candidates were promoted, rejected and left open. No server and no model is needed; the diff engine and the
//! analysis are the real ones.

use std::collections::BTreeMap;

use autoglm_domain::{
    AnswerSource, Endpoint, Error, FinishReason, Interaction, InteractionId, Result, RolloutId, Sampling,
    ShadowAnswer, ShadowPair, ShadowPairId, Timestamp, Usage, VersionNumber, dimension,
};
use autoglm_evaluate::{Differ, RuleSet};
use autoglm_rollout::{PairSet, RolloutPolicy, TrialConfig, TrialReport, run_trial};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::printer::{Outcome, Printer, Table};

/// Answers of classifiers to CLINC150 (CC BY 3.0, see `data/pairs/README.md`), zstd.
static ANSWERS: &[u8] = include_bytes!("../../../../data/pairs/answers.json.zst");

/// The first version that pairs are made of; those before learned from too little to be anyone's champion.
const FIRST_VERSION: usize = 6;

/// Promotions of candidates that are no better may be at most this share of all rollouts.
const MOST_WRONG: f64 = 0.02;

/// Candidates that are better by three points must be promoted in at least this share.
const LEAST_PROMOTED: f64 = 0.9;

#[derive(Deserialize)]
struct Recorded {
    labels: Vec<String>,
    tasks: Vec<String>,
    task: Vec<usize>,
    reference: Vec<usize>,
    versions: Vec<Vec<usize>>,
}

/// A trial with the targets that it is held to.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    #[serde(flatten)]
    trial: TrialReport,
    /// Whether wrong promotions, harm and power are all as promised.
    targets_reached: bool,
}

/// Simulates; `note` is told how far it is.
pub(crate) fn run(policy: &RolloutPolicy, rollouts: usize, seed: u64, note: impl Fn(&str)) -> Result<Report> {
    let sets = recorded_sets()?;
    // The stages are what is on trial, whether or not they are switched on here.
    let policy = RolloutPolicy { live: true, ..policy.clone() };
    let mut tenth = 0;
    let trial = run_trial(&TrialConfig { rollouts, seed, policy }, &sets, |done| {
        if done * 10 / rollouts > tenth {
            tenth = done * 10 / rollouts;
            note(&format!("{done} of {rollouts} rollouts"));
        }
    })?;
    let targets_reached = trial.wrong_promotions <= MOST_WRONG
        && trial.promoted_two_worse == 0
        && trial.promoted_three_better >= LEAST_PROMOTED;
    Ok(Report { trial, targets_reached })
}

/// Pairs of versions whose accuracies are close, as a champion's and a candidate's are.
fn recorded_sets() -> Result<Vec<PairSet>> {
    let damaged = |what: String| Error::internal(format!("the recorded answers are damaged: {what}"));
    let bytes = zstd::decode_all(ANSWERS).map_err(|error| damaged(error.to_string()))?;
    let recorded: Recorded = serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
    let rules = RuleSet::built_in().map_err(|error| Error::internal(error.to_string()))?;
    let differ = Differ::new(autoglm_evaluate::DiffConfig::default(), rules, None);
    let mut sets = Vec::new();
    for champion in FIRST_VERSION..recorded.versions.len() {
        for candidate in champion + 1..(champion + 3).min(recorded.versions.len()) {
            let pairs = (0..recorded.reference.len())
                .map(|at| {
                    pair(&recorded, &differ, at, champion, candidate)
                        .ok_or_else(|| damaged(format!("row {at}")))
                })
                .collect::<Result<Vec<_>>>()?;
            sets.push(PairSet { name: format!("v{champion} and v{candidate}"), pairs });
        }
    }
    Ok(sets)
}

/// Two versions' answers to one utterance, compared and scored.
fn pair(
    recorded: &Recorded,
    differ: &Differ,
    at: usize,
    champion: usize,
    candidate: usize,
) -> Option<ShadowPair> {
    let label = |index: usize| recorded.labels.get(index);
    let right = *recorded.reference.get(at)?;
    let task = recorded.tasks.get(*recorded.task.get(at)?)?;
    let answer = |version: usize| -> Option<ShadowAnswer> {
        let given = *recorded.versions.get(version)?.get(at)?;
        let text = label(given)?.clone();
        let score = if given == right { 100.0 } else { 0.0 };
        Some(ShadowAnswer {
            version: VersionNumber(version as u64),
            usage: Usage { prompt_tokens: 12, completion_tokens: text.split(' ').count() as u32 + 1 },
            text,
            tool_calls: Vec::new(),
            finish_reason: Some(FinishReason::Stop),
            error: None,
            latency_ms: 0.0,
            first_token_ms: None,
            scores: BTreeMap::from([(dimension::ACCURACY.to_owned(), score)]),
            overall: Some(score),
        })
    };
    let (theirs, ours) = (answer(champion)?, answer(candidate)?);
    let id = Uuid::from_u128(at as u128);
    let request = Interaction {
        id: InteractionId::new(id),
        at: Timestamp(0),
        endpoint: Endpoint::Chat,
        model: "champion".into(),
        version: theirs.version,
        messages: Vec::new(),
        instructed: false,
        tools: Vec::new(),
        sampling: Sampling::default(),
        answer: theirs.text.clone(),
        turn: None,
        source: AnswerSource::Weights,
        finish_reason: FinishReason::Stop,
        usage: theirs.usage,
        logprobs: Vec::new(),
        latency_ms: 0.0,
        first_token_ms: 0.0,
        principal: "anonymous".into(),
        session: None,
        metadata: BTreeMap::new(),
    };
    Some(ShadowPair {
        id: ShadowPairId::new(id),
        at: Timestamp(0),
        interaction: request.id,
        rollout: RolloutId::new(Uuid::nil()),
        diff: differ.diff(&request, &theirs, &ours),
        champion: theirs,
        candidate: ours,
        preference: None,
        route: task.clone(),
        cluster: None,
        principal_group: "all".into(),
    })
}

/// As a table, with the targets under it.
pub(crate) fn print(report: &Report, printer: &Printer) -> Outcome {
    let columns = [
        ">TRUE DIFFERENCE",
        ">ROLLOUTS",
        ">PROMOTED",
        ">REJECTED",
        ">UNDECIDED",
        ">OF THESE LATER",
        ">PAIRS",
    ];
    let mut table = Table::new(&columns);
    let trial = &report.trial;
    for row in &trial.rows {
        table.row([
            format!("{:+}", row.difference),
            row.rollouts.to_string(),
            row.promoted.to_string(),
            row.rejected.to_string(),
            row.inconclusive.to_string(),
            row.stopped_later.to_string(),
            format!("{:.0}", row.mean_pairs),
        ]);
    }
    printer.table(&table)?;
    let (least, mean, most) = trial.churn;
    printer.data(&format!(
        "\nchurn as recorded        {:.1}% to {:.1}%, mean {:.1}%\n\
         wrong promotions         {:.2}% of all rollouts (at most {:.0}%)\n\
         worse by 2 or more       {} promoted (none)\n\
         better by 3              {:.1}% promoted (at least {:.0}%)\n\
         better by 3 or more      {:.1}% promoted",
        least * 100.0,
        most * 100.0,
        mean * 100.0,
        trial.wrong_promotions * 100.0,
        MOST_WRONG * 100.0,
        trial.promoted_two_worse,
        trial.promoted_three_better * 100.0,
        LEAST_PROMOTED * 100.0,
        trial.promoted_three_or_more * 100.0,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_recorded_sets_are_whole_and_move_both_ways() {
        let sets = recorded_sets().unwrap();
        assert_eq!(sets.len(), 13);
        for set in &sets {
            assert_eq!(set.pairs.len(), 3_000);
            let gains = |sign: f64| set.pairs.iter().filter(|pair| pair.gain() == sign).count();
            assert!(gains(1.0) > 30 && gains(-1.0) > 30, "{}", set.name);
        }
    }

    /// A small trial, so that the wiring is under test; the figures are those of `autoglm bench rollouts`.
    #[test]
    fn a_small_trial_keeps_its_promises() {
        let report = run(&RolloutPolicy::default(), 24, 7, |_| {}).unwrap();
        assert_eq!(report.trial.promoted_two_worse, 0);
        let best = report.trial.rows.last().unwrap();
        assert_eq!((best.difference, best.promoted), (10, best.rollouts), "{best:?}");
    }
}
