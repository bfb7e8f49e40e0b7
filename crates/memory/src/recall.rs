//! Recall: what memory says of a prompt.
//!
//! A prompt that is remembered word for word has its winning target. Any other is put to a vote of its
//! nearest neighbours (similarity to a power, times weight) and of the panel, each target's share being
//! `panel_share` of the panel's and the rest of the neighbours'. Where the panel does not know the
//! neighbours' targets, its say shrinks accordingly. The confidence is the winner's share, lowered when even
//! the nearest experience with that target is far away: a closed list of targets is always sure of one.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use autoglm_domain::Experience;

use crate::{
    Config,
    dense::DenseQuery,
    features::{Feature, features, unit},
    pool::{Entry, Pool},
    prompt_key::PromptKey,
};

/// Lexical neighbours that are looked at a neighbour that votes.
const OVERSAMPLING: usize = 4;
/// Neighbours by embedding alone that are looked at.
const DENSE_CANDIDATES: usize = 64;
/// Targets that are tried before recall gives up.
const ELECTED: usize = 8;
/// Similarity from which an experience is near enough for full confidence.
const NEAR: f32 = 0.45;

/// What a recall may look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecallOptions {
    /// Whether held-out experiences count: yes for live traffic, where a correction must work at once; no
    /// when they are what is measured.
    pub held_out: bool,
}

impl Default for RecallOptions {
    fn default() -> Self {
        Self { held_out: true }
    }
}

/// An experience that memory holds to fit a prompt.
#[derive(Debug, Clone, PartialEq)]
pub struct Recalled {
    /// The nearest experience with the recalled target.
    pub experience: Arc<Experience>,
    /// Its answer.
    pub target: String,
    /// How similar its prompt is, 0 to 1; 1 is the same prompt.
    pub similarity: f32,
    /// How likely the target is right, 0 to 1, as far as the vote says.
    pub confidence: f32,
    /// Lead over the runner-up's share of the vote, 0 to 1.
    pub margin: f32,
}

/// What recall makes of a prompt in the configured mode.
#[derive(Debug, Clone, PartialEq)]
pub enum Recall {
    /// Memory has nothing to say; the weights answer alone.
    Nothing,
    /// Examples to put into the prompt, nearest first.
    Examples(Vec<Recalled>),
    /// The answer.
    Answer(Box<Recalled>),
}

impl Recalled {
    pub(crate) fn of(entry: &Entry, similarity: f32, confidence: f32, margin: f32) -> Self {
        let experience = Arc::clone(&entry.experience);
        let target = experience.target.clone();
        Self { experience, target, similarity, confidence, margin }
    }
}

/// A prompt that is being recalled.
pub(crate) struct Query<'a> {
    key: &'a PromptKey,
    /// Of the last user turn.
    features: Vec<(Feature, f32)>,
    /// The embedding, where one was made.
    embedding: Option<DenseQuery>,
    options: RecallOptions,
}

impl<'a> Query<'a> {
    pub(crate) fn new(key: &'a PromptKey, embedding: Option<DenseQuery>, options: RecallOptions) -> Self {
        Self { key, features: features(&key.turn), embedding, options }
    }

    fn admits(&self, entry: &Entry) -> bool {
        entry.wins
            && entry.key.system == self.key.system
            && (self.options.held_out || !entry.experience.held_out)
    }
}

/// The winning target of the same prompt, if it is remembered.
pub(crate) fn same(pool: &Pool, key: &PromptKey, options: RecallOptions) -> Option<Recalled> {
    let entry = pool.of_prompt(key.whole).find(|entry| entry.wins)?;
    if !options.held_out && entry.experience.held_out {
        return None;
    }
    // How sure the winner is of its prompt: its part of the weights there.
    let sum: f32 = pool.of_prompt(key.whole).map(|other| other.experience.weight.max(0.0)).sum();
    let share = if sum > 0.0 { entry.experience.weight / sum } else { 1.0 };
    Some(Recalled::of(entry, 1.0, share, 2.0 * share - 1.0))
}

/// The `most` nearest entries, best first.
pub(crate) fn nearest<'a>(
    pool: &'a Pool,
    query: &Query<'_>,
    most: usize,
    config: &Config,
) -> Vec<(&'a Entry, f32)> {
    let keep = |number| pool.entry(number).is_some_and(|entry| query.admits(entry));
    let mut similarities: BTreeMap<u32, f32> =
        pool.lexical.nearest(&query.features, most * OVERSAMPLING, keep).into_iter().collect();
    if let Some(embedding) = &query.embedding {
        for number in pool.dense.candidates(embedding, DENSE_CANDIDATES) {
            if keep(number) {
                similarities.entry(number).or_insert(0.0);
            }
        }
        for (number, similarity) in &mut similarities {
            let cosine = pool.dense.cosine(embedding, *number).max(0.0);
            *similarity += config.embedding_share * (cosine - *similarity);
        }
    }
    let mut found: Vec<_> = similarities
        .into_iter()
        .filter_map(|(number, similarity)| {
            let entry = pool.entry(number)?;
            let same_context = entry.key.context == query.key.context;
            Some((entry, if same_context { similarity } else { similarity * config.context_factor }))
        })
        .filter(|(_, similarity)| *similarity > 0.0)
        .collect();
    found.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.experience.id.cmp(&b.0.experience.id)));
    found.truncate(most);
    found
}

/// The target that neighbours and panel vote for, however unsure; `None` where there is no neighbour.
pub(crate) fn vote(pool: &Pool, query: &Query<'_>, config: &Config) -> Option<Recalled> {
    let neighbours = nearest(pool, query, config.neighbours, config);
    let mut shares: HashMap<u32, f32> = HashMap::new();
    let mut total = 0.0;
    for (entry, similarity) in &neighbours {
        let voice = similarity.powf(config.vote_power) * entry.experience.weight.clamp(0.1, 4.0);
        *shares.entry(entry.target).or_default() += voice;
        total += voice;
    }
    if total <= 0.0 {
        return None;
    }
    shares.values_mut().for_each(|share| *share /= total);
    consult_panel(pool, query, config, &mut shares);
    let mut ranked: Vec<(u32, f32)> = shares.into_iter().collect();
    ranked.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    // The panel may elect a target that none of the neighbours has: then its nearest bearer is looked for, and
    // when none may be seen (another system prompt, held out) the next target is elected.
    for (place, (target, share)) in ranked.iter().enumerate().take(ELECTED) {
        let bearer = neighbours.iter().find(|(entry, _)| entry.target == *target).copied();
        if let Some((entry, similarity)) = bearer.or_else(|| bearer_of(pool, query, *target)) {
            let margin = share - ranked.get(place + 1).map_or(0.0, |(_, share)| *share);
            let confidence = share * (similarity / NEAR).clamp(0.0, 1.0);
            return Some(Recalled::of(entry, similarity, confidence, margin));
        }
    }
    None
}

fn consult_panel(pool: &Pool, query: &Query<'_>, config: &Config, shares: &mut HashMap<u32, f32>) {
    if config.panel_share <= 0.0 {
        return;
    }
    let mut named = query.features.clone();
    unit(&mut named);
    let panel = pool.panel.vote(&named);
    let known: HashMap<u32, f32> = panel.into_iter().collect();
    let trusted: f32 = shares.iter().map(|(target, share)| pool.panel.standing(*target) * share).sum();
    let say = config.panel_share * trusted;
    shares.values_mut().for_each(|share| *share *= 1.0 - say);
    for (target, share) in known {
        *shares.entry(target).or_default() += say * share;
    }
}

/// The nearest experience that has `target`, with its similarity.
fn bearer_of<'a>(pool: &'a Pool, query: &Query<'_>, target: u32) -> Option<(&'a Entry, f32)> {
    let keep = |number| pool.entry(number).is_some_and(|entry| entry.target == target && query.admits(entry));
    let (number, similarity) = pool.lexical.nearest(&query.features, 1, keep).first().copied()?;
    pool.entry(number).map(|entry| (entry, similarity))
}
