//! Correct it once: how many other utterances of the same meaning are answered right at once after a correction?
//!
//! For each of a number of held-out utterances, one utterance of the traffic with the same reference is asked and
//! corrected. It is asked again until its answer is right, then the held-out one is asked, once. Run it against a
//! fresh server.

use std::time::{Duration, Instant};

use autoglm_domain::{Error, Result};
use rand::{RngExt as _, SeedableRng as _, seq::SliceRandom as _};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use super::{
    answer::is_right,
    client::{Asking, Client},
    options::RecallMode,
    stream::{Stream, Utterance},
    tally::quantile,
    users::Opinion,
};

/// A corrected question is asked again for this long after the correction; the held-out one follows anyway.
const PATIENCE: Duration = Duration::from_secs(1);
/// Pause between asking again.
const PAUSE: Duration = Duration::from_millis(2);

/// What was found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct ParaphraseReport {
    /// Corrections made.
    pub(crate) corrections: usize,
    /// Share of the corrected questions that were answered right when asked again at once.
    pub(crate) same_right_at_once: f64,
    /// Share of them that were answered right within a second of the correction.
    pub(crate) same_right: f64,
    /// Share of the held-out utterances that were answered right after one correction each, within a second of it.
    pub(crate) paraphrase_right: f64,
    /// The same before the correction.
    pub(crate) paraphrase_right_before: f64,
    /// Median seconds from sending a correction to having the right answer to the corrected question.
    pub(crate) seconds_p50: f64,
    /// Ninety-ninth percentile of them. A question that was not right within the second counts as that second.
    pub(crate) seconds_p99: f64,
    /// The slowest of them.
    pub(crate) seconds_max: f64,
}

/// Makes up to `corrections` corrections at the server behind `client`, one after another. `Invalid` when no
/// held-out utterance has its reference in the traffic, `Unavailable` when a request fails.
pub(crate) async fn measure(
    client: &Client,
    stream: &Stream,
    corrections: usize,
    seed: u64,
    recall: RecallMode,
) -> Result<ParaphraseReport> {
    let pairs = pairs(stream, corrections, seed);
    if pairs.is_empty() {
        return Err(Error::invalid(format!(
            "{}: no held-out line has its reference in the traffic",
            stream.name
        )));
    }
    let asking = Asking { recall: Some(recall), ..Asking::default() };
    let failed = |failure: String| Error::unavailable(format!("request failed: {failure}"));
    let (mut at_once, mut same, mut right, mut before) = (0_usize, 0_usize, 0_usize, 0_usize);
    let mut seconds = Vec::with_capacity(pairs.len());
    for (corrected, held_out) in &pairs {
        let answer = client.ask(held_out, asking).await.map_err(failed)?;
        before += usize::from(is_right(&answer.text, &held_out.reference));
        let answer = client.ask(corrected, asking).await.map_err(failed)?;
        let sent = Instant::now();
        let correction = Opinion::Correction(corrected.reference.clone());
        client.tell(&answer.id, &correction).await.map_err(failed)?;
        let mut tries = 0_u32;
        loop {
            let answer = client.ask(corrected, asking).await.map_err(failed)?;
            if is_right(&answer.text, &corrected.reference) {
                at_once += usize::from(tries == 0);
                same += usize::from(sent.elapsed() <= PATIENCE);
                break;
            }
            if sent.elapsed() > PATIENCE {
                break;
            }
            tries += 1;
            tokio::time::sleep(PAUSE).await;
        }
        seconds.push(sent.elapsed().as_secs_f64());
        let answer = client.ask(held_out, asking).await.map_err(failed)?;
        right += usize::from(is_right(&answer.text, &held_out.reference));
    }
    let share = |count: usize| count as f64 / pairs.len() as f64;
    let of_seconds = |share| quantile(seconds.iter().copied(), share).unwrap_or_default();
    Ok(ParaphraseReport {
        corrections: pairs.len(),
        same_right_at_once: share(at_once),
        same_right: share(same),
        paraphrase_right: share(right),
        paraphrase_right_before: share(before),
        seconds_p50: of_seconds(0.5),
        seconds_p99: of_seconds(0.99),
        seconds_max: of_seconds(1.0),
    })
}

/// An utterance of the traffic and a held-out one with the same reference, the references taking turns.
fn pairs(stream: &Stream, most: usize, seed: u64) -> Vec<(&Utterance, &Utterance)> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let deepest = stream.tasks.iter().map(|task| task.held_out.len()).max().unwrap_or_default();
    let mut pairs = Vec::new();
    for turn in 0..deepest {
        for task in &stream.tasks {
            let Some(held_out) = task.held_out.get(turn) else { continue };
            let same: Vec<_> = task.traffic.iter().filter(|u| u.reference == held_out.reference).collect();
            if same.is_empty() {
                continue;
            }
            pairs.extend(same.get(rng.random_range(0..same.len())).map(|corrected| (*corrected, held_out)));
        }
        if pairs.len() >= most {
            break;
        }
    }
    pairs.truncate(most);
    pairs.shuffle(&mut rng);
    pairs
}
