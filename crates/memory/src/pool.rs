//! The pool: every experience in memory, with the indexes over it. Pure: no store, no clock.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use autoglm_domain::{ClusterId, Experience, ExperienceId, FeedbackId};

use crate::{
    Config,
    clusters::Clusters,
    dense::Dense,
    features::{Feature, features, unit},
    lexical::Lexical,
    panel::Panel,
    prompt_key::{PromptKey, normalise_target},
    weigh,
};

/// Experiences whose features are taken at a time when a pool is built.
const CHUNK: usize = 4096;
/// Experiences that the panel practises when a pool is built, evenly spread; the others are counted only.
const PRACTISED: usize = 10_000;

/// An experience with what the pool knows of it.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) experience: Arc<Experience>,
    pub(crate) key: Keys,
    /// Number of its normalised target.
    pub(crate) target: u32,
    /// Whether it is its prompt's winning target.
    pub(crate) wins: bool,
    /// Its weight in the panel, where it is there.
    taught: Option<f32>,
}

/// The hashes of a [`PromptKey`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Keys {
    pub(crate) system: u64,
    pub(crate) context: u64,
    pub(crate) whole: u128,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Pool {
    config: Config,
    pub(crate) entries: Vec<Entry>,
    by_id: HashMap<ExperienceId, u32>,
    by_prompt: HashMap<u128, Vec<u32>>,
    by_feedback: HashMap<FeedbackId, u32>,
    targets: HashMap<String, u32>,
    /// Winning experiences a target has.
    members: Vec<u32>,
    pub(crate) lexical: Lexical,
    pub(crate) dense: Dense,
    pub(crate) panel: Panel,
    pub(crate) clusters: Clusters,
    /// Experiences left out because their prompt cannot be read.
    pub(crate) unreadable: usize,
}

impl Pool {
    /// A pool of `experiences` whose embeddings have `width` numbers.
    pub(crate) fn new(experiences: Vec<Experience>, width: usize, config: &Config) -> Self {
        let mut pool = Self {
            config: config.clone(),
            entries: Vec::with_capacity(experiences.len()),
            by_id: HashMap::new(),
            by_prompt: HashMap::new(),
            by_feedback: HashMap::new(),
            targets: HashMap::new(),
            members: Vec::new(),
            lexical: Lexical::default(),
            dense: Dense::new(width),
            panel: Panel::new(config.panel_targets, config.panel_cells, config.seed),
            clusters: Clusters::new(config),
            unreadable: 0,
        };
        pool.fill(experiences);
        pool
    }

    fn fill(&mut self, experiences: Vec<Experience>) {
        let mut keyed = Vec::with_capacity(experiences.len());
        let read = in_parallel(&experiences, |experience| PromptKey::of(&experience.prompt));
        for (experience, key) in experiences.into_iter().zip(read) {
            match key {
                Some(key) => keyed.push((experience, key)),
                None => self.unreadable += 1,
            }
        }
        let turns: Vec<String> = keyed.iter().map(|(_, key)| key.turn.clone()).collect();
        for (experience, key) in keyed {
            self.place(experience, &key);
        }
        let prompts: Vec<u128> = self.by_prompt.keys().copied().collect();
        for prompt in prompts {
            self.settle(prompt);
        }
        let stride = self.entries.len().div_ceil(PRACTISED).max(1);
        for (chunk, turns) in turns.chunks(CHUNK).enumerate() {
            let mut all = in_parallel(turns, |turn| features(turn));
            self.lexical.place_all(all.iter().map(Vec::as_slice));
            for (place, features) in all.iter_mut().enumerate() {
                let number = chunk * CHUNK + place;
                unit(features);
                self.teach(number, features, number.is_multiple_of(stride));
            }
        }
        self.lexical.measure();
    }

    /// Adds a new experience. Call [`Pool::settle`] for its prompt afterwards.
    pub(crate) fn insert(&mut self, experience: Experience, key: &PromptKey) {
        self.place(experience, key);
        self.lexical.add(&features(&key.turn));
    }

    fn place(&mut self, mut experience: Experience, key: &PromptKey) {
        weigh::complete(&mut experience, &self.config);
        let number = self.entries.len() as u32;
        let next = self.members.len() as u32;
        let target = *self.targets.entry(normalise_target(&experience.target)).or_insert(next);
        if target == next {
            self.members.push(0);
        }
        self.by_id.insert(experience.id, number);
        self.by_prompt.entry(key.whole).or_default().push(number);
        self.by_feedback.extend(experience.provenance.feedback.iter().map(|feedback| (*feedback, number)));
        self.dense.add(&experience.embedding);
        self.clusters.restore(&experience);
        self.entries.push(Entry {
            experience: Arc::new(experience),
            key: Keys { system: key.system, context: key.context, whole: key.whole },
            target,
            wins: false,
            taught: None,
        });
    }

    /// Replaces weight and provenance of an experience. Call [`Pool::settle`] afterwards.
    pub(crate) fn amend(&mut self, experience: Experience) {
        let Some(number) = self.by_id.get(&experience.id).copied() else { return };
        self.by_feedback.extend(experience.provenance.feedback.iter().map(|feedback| (*feedback, number)));
        if let Some(entry) = self.entries.get_mut(number as usize) {
            entry.experience = Arc::new(experience);
        }
    }

    /// Finds the winner of a prompt anew.
    pub(crate) fn settle(&mut self, prompt: u128) {
        let numbers = self.by_prompt.get(&prompt).cloned().unwrap_or_default();
        let group = numbers.iter().filter_map(|number| self.entries.get(*number as usize));
        let winner = weigh::winner(group.map(|entry| entry.experience.as_ref()), &self.config);
        for (place, number) in numbers.into_iter().enumerate() {
            let Some(entry) = self.entries.get_mut(number as usize) else { continue };
            let wins = Some(place) == winner;
            if let Some(members) = self.members.get_mut(entry.target as usize) {
                *members = *members + u32::from(wins) - u32::from(entry.wins);
            }
            entry.wins = wins;
        }
    }

    /// Brings the panel up to date with the experiences of a prompt.
    pub(crate) fn teach_prompt(&mut self, key: &PromptKey) {
        let mut features = features(&key.turn);
        unit(&mut features);
        for number in self.by_prompt.get(&key.whole).cloned().unwrap_or_default() {
            self.teach(number as usize, &features, true);
        }
    }

    fn teach(&mut self, number: usize, features: &[(Feature, f32)], practise: bool) {
        let Some(entry) = self.entries.get_mut(number) else { return };
        // Held-out experiences stay out, or measuring with them would be measuring with the answers.
        let learns = entry.wins && !entry.experience.held_out;
        match (learns, entry.taught) {
            (true, None) => {
                let weight = entry.experience.weight.max(0.1);
                let members = self.members.get(entry.target as usize).copied().unwrap_or(0);
                self.panel.learn(features, entry.target, members, weight, practise);
                entry.taught = Some(weight);
            }
            (false, Some(weight)) => {
                self.panel.forget(features, entry.target, weight);
                entry.taught = None;
            }
            _ => {}
        }
    }

    /// The entry with this number.
    pub(crate) fn entry(&self, number: u32) -> Option<&Entry> {
        self.entries.get(number as usize)
    }

    /// The entry of this experience.
    pub(crate) fn find(&self, id: ExperienceId) -> Option<&Entry> {
        self.by_id.get(&id).and_then(|number| self.entry(*number))
    }

    /// The experience that this feedback went into.
    pub(crate) fn of_feedback(&self, feedback: FeedbackId) -> Option<&Arc<Experience>> {
        self.by_feedback.get(&feedback).and_then(|number| self.entry(*number)).map(|entry| &entry.experience)
    }

    /// All experiences of a prompt, oldest first.
    pub(crate) fn of_prompt(&self, prompt: u128) -> impl Iterator<Item = &Entry> {
        let numbers = self.by_prompt.get(&prompt).map(Vec::as_slice).unwrap_or_default();
        numbers.iter().filter_map(|number| self.entry(*number))
    }

    /// Prompts with more than one target that something speaks for.
    pub(crate) fn contradictions(&self) -> usize {
        self.by_prompt.values().filter(|numbers| numbers.len() > 1).count()
    }

    /// How many different targets there are.
    pub(crate) fn target_count(&self) -> usize {
        self.targets.len()
    }

    /// A name of each cluster for people: the task that most of its members came with, else its number.
    pub(crate) fn cluster_names(&self) -> BTreeMap<ClusterId, String> {
        let mut tasks: BTreeMap<ClusterId, BTreeMap<&str, usize>> = BTreeMap::new();
        for entry in &self.entries {
            let names = tasks.entry(entry.experience.cluster).or_default();
            if let Some(task) = &entry.experience.task {
                *names.entry(task).or_default() += 1;
            }
        }
        let name = |(cluster, names): (ClusterId, BTreeMap<&str, usize>)| {
            let common = names.into_iter().max_by(|a, b| a.1.cmp(&b.1).then(b.0.cmp(a.0)));
            (cluster, common.map_or_else(|| cluster.to_string(), |(task, _)| task.to_owned()))
        };
        tasks.into_iter().map(name).collect()
    }
}

/// `work` on every item, in order, on all cores.
pub(crate) fn in_parallel<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if cores == 1 || items.len() < 256 {
        return items.iter().map(work).collect();
    }
    let share = items.len().div_ceil(cores);
    std::thread::scope(|scope| {
        let threads: Vec<_> = items
            .chunks(share)
            .map(|chunk| scope.spawn(|| chunk.iter().map(&work).collect::<Vec<R>>()))
            .collect();
        let mut results = Vec::with_capacity(items.len());
        for thread in threads {
            match thread.join() {
                Ok(part) => results.extend(part),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        results
    })
}
