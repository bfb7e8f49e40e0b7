//! Examples as tokens: encoded once, made noisy each time they are seen, laid end to end in shards.

use std::borrow::Cow;

use autoglm_domain::{HyperParameters, Objective, TrainExample, TrainJob};
use rand::{RngExt as _, SeedableRng as _, seq::IndexedRandom as _};
use rand_chacha::ChaCha8Rng;

use crate::{
    EngineError, Model, Result, TextCodec,
    gradients::{PackedBatch, Pair},
};

/// With more noise nothing is left of a prompt.
const MOST_NOISE: f32 = 0.9;

/// An example that is seen less often than this is seen this often.
const RAREST: f32 = 1e-3;

/// An example as tokens: loss is on those from `supervised` on.
#[derive(Debug, Clone)]
pub(super) struct Encoded {
    pub(super) tokens: Vec<u32>,
    pub(super) supervised: usize,
    pub(super) weight: f32,
    pub(super) frequency: f32,
    /// Share of the loss that is the divergence from the teacher.
    pub(super) teacher_share: f32,
    /// The answer that the target is preferred to.
    pub(super) rejected: Option<Rejected>,
}

/// The prompt with the answer that the target is preferred to.
#[derive(Debug, Clone)]
pub(super) struct Rejected {
    pub(super) tokens: Vec<u32>,
    /// `log π(target) - log π(rejected)` of the reference model.
    pub(super) reference: f64,
}

/// How preferences are weighed against the reference and against cross-entropy.
#[derive(Debug, Clone, Copy)]
pub(super) struct Preference {
    pub(super) beta: f32,
    pub(super) sft: f32,
}

impl Preference {
    pub(super) fn of(hyper: &HyperParameters) -> Result<Self> {
        let (beta, sft) = (hyper.preference_beta, hyper.preference_sft);
        if !(beta > 0.0 && beta.is_finite()) {
            return Err(EngineError::Request(format!("`preference_beta` is {beta}, which is not above 0")));
        }
        if !(sft >= 0.0 && sft.is_finite()) {
            return Err(EngineError::Request(format!("`preference_sft` is {sft}, which is not 0 or more")));
        }
        Ok(Self { beta, sft })
    }
}

/// The tokens of all examples of `job` that have a weight; references of preferences are still 0.
pub(super) fn encode(job: &TrainJob, model: &Model, codec: &TextCodec) -> Result<Vec<Encoded>> {
    let mut examples = Vec::with_capacity(job.examples.len());
    for (at, example) in job.examples.iter().enumerate() {
        if example.weight > 0.0 {
            examples.push(encode_one(at, example, model.config().max_position_embeddings, codec)?);
        }
    }
    if examples.is_empty() {
        return Err(EngineError::Request("there are no examples to train on".into()));
    }
    Ok(examples)
}

fn encode_one(at: usize, example: &TrainExample, limit: usize, codec: &TextCodec) -> Result<Encoded> {
    let sequence = |example: &TrainExample| -> Result<(Vec<u32>, usize)> {
        let encoded = codec.encode_example(example)?;
        let mut tokens = encoded.prompt;
        let supervised = tokens.len();
        tokens.extend(encoded.target);
        let length = tokens.len();
        if length > limit || supervised == 0 {
            return Err(EngineError::Request(format!(
                "example {at} has {length} tokens, the context {limit}"
            )));
        }
        Ok((tokens, supervised))
    };
    let (tokens, supervised) = sequence(example)?;
    let (mut teacher_share, mut rejected) = (0.0, None);
    match &example.objective {
        Objective::CrossEntropy => {}
        Objective::Distill { share } if (0.0..=1.0).contains(share) => teacher_share = *share,
        Objective::Distill { share } => {
            return Err(EngineError::Request(format!(
                "example {at} is distilled with a share of {share}, which is not between 0 and 1"
            )));
        }
        Objective::Prefer { rejected: answer } => {
            let other = TrainExample { target: answer.clone(), ..example.clone() };
            rejected = Some(Rejected { tokens: sequence(&other)?.0, reference: 0.0 });
        }
    }
    let frequency = if example.frequency.is_finite() { example.frequency.max(RAREST) } else { 1.0 };
    Ok(Encoded { tokens, supervised, weight: example.weight, frequency, teacher_share, rejected })
}

/// What a token of `tokens` predicts from position `supervised` on, each with `weight`.
fn targets(tokens: &[u32], supervised: usize, weight: f32) -> impl Iterator<Item = (usize, u32, f32)> {
    (supervised..tokens.len()).map(move |next| (next - 1, tokens[next], weight))
}

impl Encoded {
    /// Tokens that go through the model for it.
    pub(super) fn length(&self) -> usize {
        self.tokens.len() + self.rejected.as_ref().map_or(0, |rejected| rejected.tokens.len())
    }

    /// Appends it to a batch. A pair weighs as much as the tokens of its target do without one.
    pub(super) fn pack(&self, batch: &mut PackedBatch, preference: Preference) {
        let inputs = |tokens: &'_ [u32]| tokens.len().saturating_sub(1);
        let ours = &self.tokens[..inputs(&self.tokens)];
        let Some(rejected) = &self.rejected else {
            let targets = targets(&self.tokens, self.supervised, self.weight);
            return batch.push_distilled(ours, targets, self.teacher_share);
        };
        let answer = self.tokens.len() - self.supervised;
        let pair = Pair {
            chosen: 0..0,
            rejected: 0..0,
            reference: rejected.reference,
            beta: preference.beta,
            weight: f64::from(self.weight) * answer as f64,
        };
        let chosen = targets(&self.tokens, self.supervised, self.weight * preference.sft);
        let theirs = &rejected.tokens[..inputs(&rejected.tokens)];
        let other = targets(&rejected.tokens, self.supervised, 0.0);
        batch.push_pair((ours, chosen), (theirs, other), pair);
    }
}

/// Replaces tokens of prompts by random ones.
pub(super) struct Noise {
    share: f32,
    /// All tokens that are not special.
    words: Vec<u32>,
    pub(super) random: ChaCha8Rng,
}

impl Noise {
    /// What the noise of a run replaces tokens by.
    pub(super) fn of(job: &TrainJob, model: &Model, codec: &TextCodec) -> Result<Self> {
        let share = job.hyper.prompt_noise;
        if !(0.0..=MOST_NOISE).contains(&share) {
            return Err(EngineError::Request(format!(
                "`prompt_noise` is {share}, which is not between 0 and {MOST_NOISE}"
            )));
        }
        let tokenizer = codec.tokenizer();
        let vocabulary = u32::try_from(model.config().vocab_size).unwrap_or(u32::MAX);
        let words = match share {
            0.0 => Vec::new(),
            _ => (0..vocabulary).filter(|id| !tokenizer.is_special(*id)).collect(),
        };
        Ok(Self { share, words, random: ChaCha8Rng::seed_from_u64(job.seed ^ 0x5717_c400) })
    }

    /// The example as it is seen this time. Special tokens, which say who speaks, and the target stay; so does a
    /// pair, because its reference was measured on the prompt as it is.
    pub(super) fn over<'a>(&mut self, example: &'a Encoded) -> Cow<'a, Encoded> {
        if self.share == 0.0 || example.rejected.is_some() {
            return Cow::Borrowed(example);
        }
        let mut seen = example.clone();
        for token in seen.tokens.iter_mut().take(example.supervised) {
            let is_word = self.words.binary_search(token).is_ok();
            if is_word && self.random.random::<f32>() < self.share {
                *token = self.words.choose(&mut self.random).copied().unwrap_or(*token);
            }
        }
        Cow::Owned(seen)
    }
}

/// Shares a batch out so that every shard has about as many tokens: longest first, to the lightest.
pub(super) fn split(batch: &[Cow<'_, Encoded>], shards: usize, preference: Preference) -> Vec<PackedBatch> {
    let mut parts = vec![PackedBatch::default(); shards.min(batch.len()).max(1)];
    let mut by_length: Vec<&Encoded> = batch.iter().map(AsRef::as_ref).collect();
    by_length.sort_by_key(|example| std::cmp::Reverse(example.length()));
    for example in by_length {
        if let Some(lightest) = parts.iter_mut().min_by_key(|part| part.tokens.len()) {
            example.pack(lightest, preference);
        }
    }
    parts
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::trainer) fn examples(lengths: &[usize]) -> Vec<Encoded> {
        lengths.iter().map(|&n| example(vec![1; n], 1)).collect()
    }

    fn example(tokens: Vec<u32>, supervised: usize) -> Encoded {
        Encoded { tokens, supervised, weight: 1.0, frequency: 1.0, teacher_share: 0.0, rejected: None }
    }

    const PREFERENCE: Preference = Preference { beta: 0.1, sft: 0.5 };

    #[test]
    fn noise_replaces_its_share_of_the_prompts_words_and_nothing_else() {
        let words: Vec<u32> = (10..1000).collect();
        let mut noise = Noise { share: 0.25, words, random: ChaCha8Rng::seed_from_u64(4) };
        // A special token, 400 words, a special token; the target.
        let mut example = example([1].into_iter().chain(500..900).chain([2, 700, 701]).collect(), 402);
        let (first, second) = (noise.over(&example).into_owned(), noise.over(&example).into_owned());
        let changed = |seen: &Encoded| -> Vec<usize> {
            (0..example.tokens.len()).filter(|&at| seen.tokens[at] != example.tokens[at]).collect()
        };
        for at in changed(&first) {
            assert!((1..401).contains(&at) && (10..1000).contains(&first.tokens[at]), "{at}");
        }
        assert!((80..=120).contains(&changed(&first).len()), "{}", changed(&first).len());
        assert_ne!(changed(&first), changed(&second));
        example.rejected = Some(Rejected { tokens: vec![1], reference: 0.0 });
        assert!(matches!(noise.over(&example), Cow::Borrowed(_)));
        (noise.share, example.rejected) = (0.0, None);
        assert!(matches!(noise.over(&example), Cow::Borrowed(_)));
    }

    #[test]
    fn shards_are_balanced_and_hold_everything() {
        let examples = examples(&[9, 5, 5, 4, 3, 2]);
        let parts = split(&examples.iter().map(Cow::Borrowed).collect::<Vec<_>>(), 2, PREFERENCE);
        let tokens: Vec<usize> = parts.iter().map(|part| part.tokens.len()).collect();
        assert_eq!(tokens.iter().sum::<usize>(), 28 - 6);
        assert!(tokens[0].abs_diff(tokens[1]) <= 2, "{tokens:?}");
        assert_eq!(parts.iter().map(|part| part.sequences.len()).sum::<usize>(), 6);
    }

    /// Both answers lie in one shard, and only what comes after the prompt is supervised.
    #[test]
    fn a_pair_weighs_as_much_as_the_tokens_of_its_target() {
        let mut pair = example(vec![7, 8, 9, 4, 2], 2);
        (pair.weight, pair.rejected) = (2.0, Some(Rejected { tokens: vec![7, 8, 5, 2], reference: 1.25 }));
        let other = example(vec![7, 3, 2], 1);
        assert_eq!((pair.length(), other.length()), (9, 3));
        let parts = split(&[Cow::Owned(other), Cow::Owned(pair)], 2, PREFERENCE);
        assert_eq!((parts[0].tokens.as_slice(), parts[0].weight), (&[7, 8, 9, 4, 7, 8, 5][..], 6.0));
        assert_eq!((parts[1].tokens.as_slice(), parts[1].weight), (&[7, 3][..], 2.0));
        let found: Vec<_> = parts[0].targets.iter().map(|t| (t.row, t.token, t.weight)).collect();
        assert_eq!(found, [(1, 9, 1.0), (2, 4, 1.0), (3, 2, 1.0), (5, 5, 0.0), (6, 2, 0.0)]);
        let found = &parts[0].pairs[0];
        assert_eq!((found.chosen.clone(), found.rejected.clone()), (0..3, 3..5));
        assert_eq!((found.reference, found.beta, found.weight), (1.25, 0.1, 6.0));
    }
}
