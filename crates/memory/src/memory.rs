//! The memory itself: the pool behind a lock, the store behind it, and the verbs.

use std::{collections::BTreeMap, sync::Arc};

use autoglm_domain::{
    ChatMessage, Clock, ClusterId, Embedder, Event, Experience, ExperienceAmendment, ExperienceId, IdSource,
    InteractionRecord, Store,
};
use parking_lot::RwLock;

use crate::{
    Config, MemoryError, Recall, RecallMode, RecallOptions, Recalled, Remembered, Stats,
    ledger::{Group, Ledger},
    pool::Pool,
    prompt_key::PromptKey,
    recall::{self, Query},
};

/// Texts that are embedded in one call.
const EMBEDDED_AT_ONCE: usize = 64;
/// Beginning of a prompt that is embedded, bytes; the rest rarely changes what is asked for.
const EMBEDDED_BYTES: usize = 2_000;

/// The experience pool. Reading is synchronous and concurrent; writers take turns.
pub struct Memory {
    store: Arc<dyn Store>,
    embedder: Arc<dyn Embedder>,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn IdSource>,
    config: Config,
    pub(crate) pool: RwLock<Pool>,
    /// Held from working out a change to writing it, so that changes do not cross.
    writer: tokio::sync::Mutex<()>,
}

impl std::fmt::Debug for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Memory").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

impl Memory {
    /// Reads every experience from `store` and builds the indexes. Embeddings of another model (told by their
    /// length, or by the first one's embedding made again) are made anew in memory.
    pub async fn open(
        store: Arc<dyn Store>,
        embedder: Arc<dyn Embedder>,
        clock: Arc<dyn Clock>,
        ids: Arc<dyn IdSource>,
        config: Config,
    ) -> Result<Self, MemoryError> {
        config.validate()?;
        let mut experiences = store.experiences().await?;
        refresh_embeddings(&mut experiences, embedder.as_ref())?;
        let count = experiences.len();
        let pool = Pool::new(experiences, embedder.dimensions(), &config);
        if pool.unreadable > 0 {
            tracing::warn!(count = pool.unreadable, "experiences without a user turn are left out");
        }
        tracing::info!(count, "memory is open");
        let writer = tokio::sync::Mutex::new(());
        Ok(Self { store, embedder, clock, ids, config, pool: RwLock::new(pool), writer })
    }

    /// The settings.
    pub fn config(&self) -> &Config {
        &self.config
    }

    pub(crate) fn ids(&self) -> &dyn IdSource {
        self.ids.as_ref()
    }

    /// [`Memory::remember_all`] of one record.
    pub async fn remember(&self, record: &InteractionRecord) -> Result<Remembered, MemoryError> {
        let all = self.remember_all(std::slice::from_ref(record)).await?;
        let missing = || autoglm_domain::Error::internal("a record was taken in without an outcome");
        Ok(all.into_iter().next().ok_or_else(missing)?)
    }

    /// Takes in what was verified in `records`: embeds in one call, writes in one append, and answers once
    /// that is durable and recall knows of it. Taking in the same feedback again changes nothing. On an error
    /// nothing has changed.
    pub async fn remember_all(&self, records: &[InteractionRecord]) -> Result<Vec<Remembered>, MemoryError> {
        let _turn = self.writer.lock().await;
        let (outcomes, groups) = {
            let pool = self.pool.read();
            let mut ledger = Ledger::new(&pool, &self.config, self.clock.as_ref(), self.ids.as_ref());
            let outcomes = records.iter().map(|record| ledger.enter(record)).collect();
            (outcomes, ledger.groups.into_values().collect())
        };
        self.write(groups).await?;
        Ok(outcomes)
    }

    /// Gives new members embedding and cluster, appends, and takes the changes into the pool.
    async fn write(&self, mut groups: Vec<Group>) -> Result<(), MemoryError> {
        let turns: Vec<String> = groups
            .iter_mut()
            .flat_map(|group| {
                let turn = group.key.turn.clone();
                group.new_members().map(move |_| turn.clone()).collect::<Vec<_>>()
            })
            .collect();
        let mut embeddings = embed(self.embedder.as_ref(), &turns)?.into_iter();
        let mut clusters = (!turns.is_empty()).then(|| self.pool.read().clusters.clone());
        for member in groups.iter_mut().flat_map(Group::new_members) {
            member.embedding = embeddings.next().unwrap_or_default();
            if let Some(clusters) = &mut clusters {
                member.cluster = clusters.assign(member.task.as_deref(), &member.embedding);
            }
        }
        let events: Vec<_> = groups.iter().flat_map(|group| group.events(self.clock.as_ref())).collect();
        if events.is_empty() {
            return Ok(());
        }
        self.store.append(events).await?;
        let mut pool = self.pool.write();
        for mut group in groups {
            for member in group.amended().cloned().collect::<Vec<_>>() {
                pool.amend(member);
            }
            let key = group.key.clone();
            for member in group.new_members() {
                pool.insert(member.clone(), &key);
            }
            pool.settle(key.whole);
            pool.teach_prompt(&key);
        }
        Ok(())
    }

    /// Takes in what another process on the same store remembered: events that make or amend experiences, in the
    /// order of the journal; others are passed over. Nothing is written. What is known already changes nothing, and of
    /// several amendments the last one counts.
    pub async fn take_up(&self, events: Vec<Event>) -> Result<(), MemoryError> {
        let _turn = self.writer.lock().await;
        let (mut new, mut amended) = (Vec::new(), BTreeMap::new());
        for event in events {
            match event {
                Event::Experience(experience) if self.pool.read().find(experience.id).is_none() => {
                    new.push(*experience);
                }
                Event::ExperienceAmended(amendment) => {
                    amended.insert(amendment.experience, amendment);
                }
                _ => {}
            }
        }
        refresh_embeddings(&mut new, self.embedder.as_ref())?;
        let mut pool = self.pool.write();
        let mut touched = BTreeMap::new();
        for experience in new {
            match PromptKey::of(&experience.prompt) {
                Some(key) => {
                    pool.insert(experience, &key);
                    touched.insert(key.whole, key);
                }
                None => pool.unreadable += 1,
            }
        }
        for (id, ExperienceAmendment { weight, provenance, .. }) in amended {
            let Some(before) = pool.find(id).map(|entry| Arc::clone(&entry.experience)) else { continue };
            let Some(key) = PromptKey::of(&before.prompt) else { continue };
            pool.amend(Experience { weight, provenance, ..before.as_ref().clone() });
            touched.insert(key.whole, key);
        }
        for key in touched.values() {
            pool.settle(key.whole);
            pool.teach_prompt(key);
        }
        Ok(())
    }

    /// Takes in experiences from elsewhere, with their prompts' keys.
    pub(crate) async fn adopt_all(
        &self,
        experiences: Vec<(Experience, PromptKey)>,
    ) -> Result<Vec<Remembered>, MemoryError> {
        let _turn = self.writer.lock().await;
        let (outcomes, groups) = {
            let pool = self.pool.read();
            let mut ledger = Ledger::new(&pool, &self.config, self.clock.as_ref(), self.ids.as_ref());
            let adopt = |(experience, key)| ledger.adopt(experience, &key);
            let outcomes = experiences.into_iter().map(adopt).collect();
            (outcomes, ledger.groups.into_values().collect())
        };
        self.write(groups).await?;
        Ok(outcomes)
    }

    /// What memory makes of `prompt` in the configured mode. Embeds the prompt unless it is remembered word
    /// for word or `embedding_share` is 0.
    pub fn recall(&self, prompt: &[ChatMessage]) -> Recall {
        match self.config.recall {
            RecallMode::Off => Recall::Nothing,
            RecallMode::Examples => {
                match self.recall_examples(prompt, self.config.examples, RecallOptions::default()) {
                    examples if examples.is_empty() => Recall::Nothing,
                    examples => Recall::Examples(examples),
                }
            }
            RecallMode::Answer => self
                .recall_answer(prompt, RecallOptions::default())
                .map_or(Recall::Nothing, |answer| Recall::Answer(Box::new(answer))),
        }
    }

    /// The answer, where memory is sure enough of one: the same prompt's winning target, or a vote that
    /// passes `answer_similarity`, `answer_confidence` and `answer_margin`.
    pub fn recall_answer(&self, prompt: &[ChatMessage], options: RecallOptions) -> Option<Recalled> {
        let config = &self.config;
        self.recall_best(prompt, options).filter(|best| {
            best.similarity >= 1.0
                || best.similarity >= config.answer_similarity
                    && best.confidence >= config.answer_confidence
                    && best.margin >= config.answer_margin
        })
    }

    /// The likeliest answer, however unsure; `None` when nothing in memory resembles the prompt.
    pub fn recall_best(&self, prompt: &[ChatMessage], options: RecallOptions) -> Option<Recalled> {
        let key = PromptKey::of(prompt)?;
        if let Some(same) = recall::same(&self.pool.read(), &key, options) {
            return Some(same);
        }
        let embedding = self.embed_query(&key);
        let pool = self.pool.read();
        let embedding = embedding.and_then(|vector| pool.dense.query(&vector));
        recall::vote(&pool, &Query::new(&key, embedding, options), &self.config)
    }

    /// Up to `most` verified experiences like `prompt`, nearest first, none below `example_similarity`.
    pub fn recall_examples(
        &self,
        prompt: &[ChatMessage],
        most: usize,
        options: RecallOptions,
    ) -> Vec<Recalled> {
        let Some(key) = PromptKey::of(prompt).filter(|_| most > 0) else { return Vec::new() };
        let embedding = self.embed_query(&key);
        let pool = self.pool.read();
        let embedding = embedding.and_then(|vector| pool.dense.query(&vector));
        let query = Query::new(&key, embedding, options);
        recall::nearest(&pool, &query, most, &self.config)
            .into_iter()
            .filter(|(_, similarity)| *similarity >= self.config.example_similarity)
            .map(|(entry, similarity)| Recalled::of(entry, similarity, similarity, 0.0))
            .collect()
    }

    fn embed_query(&self, key: &PromptKey) -> Option<Vec<f32>> {
        if self.config.embedding_share <= 0.0 || self.embedder.dimensions() == 0 {
            return None;
        }
        match self.embedder.embed(&[beginning(&key.turn)]) {
            Ok(vectors) => vectors.into_iter().next(),
            Err(error) => {
                // Words alone still recall well; an answer is worth more than the last percent.
                tracing::warn!(%error, "a prompt could not be embedded; recall goes by words alone");
                None
            }
        }
    }

    /// One experience as memory holds it.
    pub fn experience(&self, id: ExperienceId) -> Option<Arc<Experience>> {
        self.pool.read().find(id).map(|entry| Arc::clone(&entry.experience))
    }

    /// The experiences that are believed: of every prompt the winning target, oldest first.
    pub fn effective(&self) -> Vec<Arc<Experience>> {
        let pool = self.pool.read();
        pool.entries.iter().filter(|entry| entry.wins).map(|entry| Arc::clone(&entry.experience)).collect()
    }

    /// The cluster of experiences that a request of `task` belongs to, where there is one: the task's own, else the nearest
    /// by the embedding of the prompt. `None` as well where the prompt cannot be embedded.
    pub fn cluster_of(&self, task: Option<&str>, prompt: &[ChatMessage]) -> Option<ClusterId> {
        {
            let pool = self.pool.read();
            if pool.entries.is_empty() {
                return None;
            }
            if let Some(own) = task.and_then(|task| pool.clusters.of_task(task)) {
                return Some(own);
            }
        }
        let key = PromptKey::of(prompt)?;
        let embedding = embed(self.embedder.as_ref(), &[key.turn]).ok()?.pop()?;
        self.pool.read().clusters.near(&embedding)
    }

    /// A name of each cluster for people: the task that most of its members came with, else `c` and a number.
    pub fn cluster_names(&self) -> BTreeMap<ClusterId, String> {
        self.pool.read().cluster_names()
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.pool.read().entries.is_empty()
    }

    /// Counts for `/metrics` and people.
    pub fn stats(&self) -> Stats {
        Stats::of(&self.pool.read())
    }
}

fn beginning(text: &str) -> &str {
    text.get(..text.floor_char_boundary(EMBEDDED_BYTES)).unwrap_or(text)
}

/// One embedding a text; empty ones when the embedder has no dimensions.
fn embed(embedder: &dyn Embedder, texts: &[String]) -> Result<Vec<Vec<f32>>, MemoryError> {
    if texts.is_empty() || embedder.dimensions() == 0 {
        return Ok(vec![Vec::new(); texts.len()]);
    }
    let beginnings: Vec<&str> = texts.iter().map(|text| beginning(text)).collect();
    let vectors = embedder.embed(&beginnings)?;
    let width = embedder.dimensions();
    let sound = |vector: &Vec<f32>| vector.len() == width && vector.iter().all(|value| value.is_finite());
    if vectors.len() != texts.len() || !vectors.iter().all(sound) {
        return Err(MemoryError::Embedding {
            found: format!("{} vectors, of which not all are sound", vectors.len()),
            expected: format!("{} finite vectors of {width} numbers", texts.len()),
        });
    }
    Ok(vectors)
}

/// Makes embeddings again that another model made.
fn refresh_embeddings(experiences: &mut [Experience], embedder: &dyn Embedder) -> Result<(), MemoryError> {
    let width = embedder.dimensions();
    let turn = |experience: &Experience| PromptKey::of(&experience.prompt).map(|key| key.turn);
    let probe = experiences.iter().find(|experience| experience.embedding.len() == width && width > 0);
    let another_model = match probe.and_then(|probe| Some((turn(probe)?, &probe.embedding))) {
        Some((text, stored)) => {
            let again = embed(embedder, &[text])?;
            again.first().is_none_or(|again| crate::dense::dot(again, stored) < 0.98)
        }
        None => false,
    };
    let stale: Vec<usize> = experiences
        .iter()
        .enumerate()
        .filter(|(_, experience)| another_model || experience.embedding.len() != width)
        .map(|(place, _)| place)
        .collect();
    if !stale.is_empty() {
        tracing::info!(count = stale.len(), "embeddings are made again: another model made the stored ones");
    }
    for places in stale.chunks(EMBEDDED_AT_ONCE) {
        let readable: Vec<(usize, String)> =
            places.iter().filter_map(|place| Some((*place, turn(experiences.get(*place)?)?))).collect();
        let (numbers, texts): (Vec<usize>, Vec<String>) = readable.into_iter().unzip();
        for (place, vector) in numbers.into_iter().zip(embed(embedder, &texts)?) {
            if let Some(experience) = experiences.get_mut(place) {
                experience.embedding = vector;
            }
        }
    }
    Ok(())
}
