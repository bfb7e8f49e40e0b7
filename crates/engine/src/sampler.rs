//! Logits in, one token out: biases, penalties, temperature, top-k, top-p, min-p, a seeded draw, log-probabilities.

use std::{cmp::Ordering, collections::HashMap};

use autoglm_domain::Sampling;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use crate::{EngineError, Result, constraint::Constraint};

/// Most alternatives that are reported a token (OpenAI's limit).
const MAX_LOGPROBS: u32 = 20;
/// Most stop strings of a request, and most bytes of one.
const MAX_STOPS: usize = 16;
const MAX_STOP_BYTES: usize = 1024;
/// Most tokens with a bias, and the largest bias either way (OpenAI's limit).
const MAX_BIASED: usize = 1024;
const MAX_BIAS: f32 = 100.0;

/// `Invalid` when a value of `sampling` is out of its range, naming value and range.
pub fn check_sampling(sampling: &Sampling) -> Result<()> {
    let range = |name: &str, value: f32, low: f32, high: f32| {
        // Not a number fails both comparisons.
        if value >= low && value <= high {
            return Ok(());
        }
        Err(EngineError::Request(format!("`{name}` is {value}; it must be from {low} to {high}")))
    };
    range("temperature", sampling.temperature, 0.0, 100.0)?;
    range("top_p", sampling.top_p, 0.0, 1.0)?;
    range("min_p", sampling.min_p, 0.0, 1.0)?;
    range("repetition_penalty", sampling.repetition_penalty, 0.01, 100.0)?;
    range("frequency_penalty", sampling.frequency_penalty, -2.0, 2.0)?;
    range("presence_penalty", sampling.presence_penalty, -2.0, 2.0)?;
    if sampling.max_tokens == Some(0) {
        return Err(EngineError::Request("`max_tokens` is 0; it must be at least 1".into()));
    }
    if let Some(count) = sampling.logprobs.filter(|count| *count > MAX_LOGPROBS) {
        return Err(EngineError::Request(format!("{count} alternatives a token; at most {MAX_LOGPROBS}")));
    }
    if let Some(count) = sampling.prompt_logprobs.filter(|count| *count > MAX_LOGPROBS) {
        return Err(EngineError::Request(format!(
            "`prompt_logprobs` is {count}; it must be from 0 to {MAX_LOGPROBS}"
        )));
    }
    if sampling.logit_bias.len() > MAX_BIASED {
        return Err(EngineError::Request(format!(
            "`logit_bias` names {} tokens; at most {MAX_BIASED}",
            sampling.logit_bias.len()
        )));
    }
    for (_, bias) in &sampling.logit_bias {
        range("logit_bias", *bias, -MAX_BIAS, MAX_BIAS)?;
    }
    if sampling.stop.len() > MAX_STOPS {
        return Err(EngineError::Request(format!(
            "{} stop strings; at most {MAX_STOPS}",
            sampling.stop.len()
        )));
    }
    if sampling.stop.iter().any(|stop| stop.is_empty() || stop.len() > MAX_STOP_BYTES) {
        return Err(EngineError::Request(format!("a stop string must have 1 to {MAX_STOP_BYTES} bytes")));
    }
    Ok(())
}

/// A drawn token.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampled {
    /// Its id.
    pub id: u32,
    /// Natural logarithm of its probability in the model's own distribution, and the likeliest alternatives,
    /// best first; where they were asked for.
    pub report: Option<(f32, Vec<(u32, f32)>)>,
}

/// Draws the tokens of one sequence.
#[derive(Debug)]
pub struct Sampler {
    sampling: Sampling,
    generator: ChaCha8Rng,
    generated: HashMap<u32, u32>, // token -> times that it was generated
    prompt: Vec<u32>,             // tokens of the prompt, sorted, once each; empty without repetition penalty
    candidates: Vec<(f32, u32)>,  // scratch
    constraint: Option<Constraint>,
}

impl Sampler {
    /// A sampler for a sequence that begins with `prompt`. `seed` is drawn from where the request names none.
    pub fn new(sampling: &Sampling, seed: u64, prompt: &[u32]) -> Result<Self> {
        check_sampling(sampling)?;
        let mut seen = Vec::new();
        if sampling.repetition_penalty != 1.0 {
            seen.extend_from_slice(prompt);
            seen.sort_unstable();
            seen.dedup();
        }
        Ok(Self {
            generator: ChaCha8Rng::seed_from_u64(sampling.seed.unwrap_or(seed)),
            sampling: sampling.clone(),
            generated: HashMap::new(),
            prompt: seen,
            candidates: Vec::new(),
            constraint: None,
        })
    }

    /// Draws only what `constraint` allows.
    pub(crate) fn constrain(&mut self, constraint: Option<Constraint>) {
        self.constraint = constraint;
    }

    /// Draws from `logits` `[vocab]`, which are changed in place. Greedy draws take the lowest id among equals.
    ///
    /// `NotANumber` when a logit is NaN or +∞ or all are -∞.
    pub fn sample(&mut self, logits: &mut [f32]) -> Result<Sampled> {
        check_logits(logits)?;
        let reported = self.sampling.logprobs.or(self.sampling.token_ids.then_some(0));
        let own = reported.map(|count| (Distribution::new(logits, count as usize), logits.to_vec()));
        self.bias(logits);
        self.penalise(logits);
        if let Some(constraint) = &mut self.constraint {
            constraint.mask(logits)?;
        }
        let id = if self.sampling.temperature == 0.0 { greedy(logits) } else { self.draw(logits) };
        if let Some(constraint) = &mut self.constraint {
            constraint.accept(id)?;
        }
        *self.generated.entry(id).or_default() += 1;
        let report = own.map(|(distribution, logits)| {
            let logit = logits.get(id as usize).copied().unwrap_or(f32::NEG_INFINITY);
            (distribution.logprob(logit), distribution.top)
        });
        Ok(Sampled { id, report })
    }

    /// Biases by token; ids beyond the vocabulary are passed over.
    fn bias(&self, logits: &mut [f32]) {
        for (id, bias) in &self.sampling.logit_bias {
            if let Some(logit) = logits.get_mut(*id as usize) {
                *logit += bias;
            }
        }
    }

    /// Repetition penalty on everything seen, frequency and presence penalties on what was generated.
    fn penalise(&self, logits: &mut [f32]) {
        let Sampling { repetition_penalty, frequency_penalty, presence_penalty, .. } = self.sampling;
        if repetition_penalty != 1.0 {
            let only_generated = self.generated.keys().filter(|id| self.prompt.binary_search(id).is_err());
            for id in self.prompt.iter().chain(only_generated) {
                if let Some(logit) = logits.get_mut(*id as usize) {
                    *logit =
                        if *logit > 0.0 { *logit / repetition_penalty } else { *logit * repetition_penalty };
                }
            }
        }
        if frequency_penalty != 0.0 || presence_penalty != 0.0 {
            for (id, count) in &self.generated {
                if let Some(logit) = logits.get_mut(*id as usize) {
                    *logit -= *count as f32 * frequency_penalty + presence_penalty;
                }
            }
        }
    }

    /// Temperature, then top-k, top-p and min-p in the order of transformers, then the draw.
    fn draw(&mut self, logits: &[f32]) -> u32 {
        let Sampling { temperature, top_k, top_p, min_p, .. } = self.sampling;
        let best = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let weight = |logit: f32| f64::from(((logit - best) / temperature).exp());
        let candidates = &mut self.candidates;
        candidates.clear();
        candidates.extend(logits.iter().zip(0..).map(|(logit, id)| (*logit, id)));
        let top_k = top_k as usize;
        if top_k > 0 && top_k < candidates.len() {
            candidates.select_nth_unstable_by(top_k - 1, likelier);
            candidates.truncate(top_k);
        }
        if top_p < 1.0 {
            keep_nucleus(candidates, top_p, weight);
        }
        if min_p > 0.0 {
            let least = f64::from(min_p);
            candidates.retain(|(logit, _)| weight(*logit) >= least);
        }
        let total: f64 = candidates.iter().map(|(logit, _)| weight(*logit)).sum();
        let mut left = self.generator.random::<f64>() * total;
        let mut drawn = greedy(logits);
        for (logit, id) in candidates.iter() {
            let share = weight(*logit);
            if share > 0.0 {
                drawn = *id;
                left -= share;
                if left < 0.0 {
                    break;
                }
            }
        }
        drawn
    }
}

/// Likelier first, lower ids first among equals: a total order, so that draws repeat.
fn likelier(a: &(f32, u32), b: &(f32, u32)) -> Ordering {
    b.0.total_cmp(&a.0).then(a.1.cmp(&b.1))
}

/// Keeps the fewest candidates whose weights add up to `top_p` of all; at least one. Sorts only as far as
/// needed, as a whole vocabulary takes milliseconds.
fn keep_nucleus(candidates: &mut Vec<(f32, u32)>, top_p: f32, weight: impl Fn(f32) -> f64) {
    let total: f64 = candidates.iter().map(|(logit, _)| weight(*logit)).sum();
    let (mut sorted, mut sum) = (0, 0.0);
    while let Some(rest) = candidates.get_mut(sorted..).filter(|rest| !rest.is_empty()) {
        let block = rest.len().min(256.max(sorted * 3));
        if block < rest.len() {
            rest.select_nth_unstable_by(block - 1, likelier);
        }
        let (block, _) = rest.split_at_mut(block);
        block.sort_unstable_by(likelier);
        for (logit, _) in block.iter() {
            sum += weight(*logit);
            sorted += 1;
            if sum >= total * f64::from(top_p) {
                candidates.truncate(sorted);
                return;
            }
        }
    }
}

/// The likeliest token, the lowest id among equals.
fn greedy(logits: &[f32]) -> u32 {
    let mut best = (f32::NEG_INFINITY, 0);
    for (logit, id) in logits.iter().zip(0_u32..) {
        if *logit > best.0 {
            best = (*logit, id);
        }
    }
    best.1
}

fn check_logits(logits: &[f32]) -> Result<()> {
    // Summed without branches first: the sum is finite in all but the broken and the masked cases.
    if logits.iter().map(|logit| logit * 0.0).sum::<f32>() == 0.0 && !logits.is_empty() {
        return Ok(());
    }
    let broken = |logit: &f32| logit.is_nan() || *logit == f32::INFINITY;
    if let Some(token) = logits.iter().position(broken) {
        return Err(EngineError::NotANumber { count: logits.iter().filter(|l| broken(l)).count(), token });
    }
    if logits.iter().all(|logit| *logit == f32::NEG_INFINITY) {
        return Err(EngineError::NotANumber { count: logits.len(), token: 0 });
    }
    Ok(())
}

/// The model's own distribution over the vocabulary.
pub(crate) struct Distribution {
    log_total: f64,
    pub(crate) top: Vec<(u32, f32)>,
}

impl Distribution {
    /// The normaliser of `logits` and their `count` likeliest tokens.
    pub(crate) fn new(logits: &[f32], count: usize) -> Self {
        let best = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
        let sum: f64 = logits.iter().map(|logit| (f64::from(*logit) - best).exp()).sum();
        let mut distribution = Self { log_total: best + sum.ln(), top: Vec::new() };
        let mut top: Vec<(f32, u32)> = Vec::with_capacity(count + 1);
        for candidate in logits.iter().copied().zip(0_u32..) {
            if top.len() < count || top.last().is_some_and(|last| likelier(&candidate, last).is_lt()) {
                let place = top.partition_point(|other| likelier(other, &candidate).is_lt());
                top.insert(place, candidate);
                top.truncate(count);
            }
        }
        distribution.top = top.into_iter().map(|(logit, id)| (id, distribution.logprob(logit))).collect();
        distribution
    }

    /// Natural logarithm of the probability of a token with this logit. -∞ becomes the lowest number, which
    /// JSON can hold.
    pub(crate) fn logprob(&self, logit: f32) -> f32 {
        ((f64::from(logit) - self.log_total) as f32).max(f32::MIN)
    }
}

#[cfg(test)]
mod tests;
