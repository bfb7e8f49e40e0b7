//! Follows the journal: which version answered how often, and what the learning loop did, as it happens.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use autoglm_domain::{
    Alias, Event, ModelVersion, Outcome, Result, RolloutState, RunState, Store, Timestamp, TrainingRun,
    TrainingRunId, Verdict, VersionNumber,
};

/// Events read at a time.
const BATCH: usize = 512;

/// A verdict with the version that it is about.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Judged {
    /// The candidate.
    pub(crate) version: VersionNumber,
    /// What was found.
    pub(crate) verdict: Verdict,
}

/// A move of the champion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Promotion {
    /// The version that answered before.
    pub(crate) from: VersionNumber,
    /// The version that answers now.
    pub(crate) to: VersionNumber,
    /// When.
    pub(crate) at: Timestamp,
    /// Who or what moved it.
    pub(crate) by: String,
}

/// Something that a person watching wants to see at once.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum DemoEvent {
    /// A training run began.
    RunStarted(Box<TrainingRun>),
    /// A training run ended, one way or another.
    RunEnded(Box<TrainingRun>),
    /// A candidate was judged.
    Judged(Box<Judged>),
    /// Another version answers now.
    Promoted(Promotion),
}

/// Reads the journal from where it stopped last time.
pub(crate) struct Watcher {
    store: Arc<dyn Store>,
    seen: i64,
    /// Interactions recorded, by the version that answered.
    pub(crate) answered: BTreeMap<VersionNumber, u64>,
    /// Every version, oldest first.
    pub(crate) versions: Vec<ModelVersion>,
    /// Every run in its latest state, oldest first.
    pub(crate) runs: Vec<TrainingRun>,
    /// When each run was first seen training.
    pub(crate) run_started: HashMap<TrainingRunId, Timestamp>,
    /// Every verdict, oldest first.
    pub(crate) verdicts: Vec<Judged>,
    /// Every move of the champion, oldest first.
    pub(crate) promotions: Vec<Promotion>,
}

impl Watcher {
    /// A watcher from the journal's beginning. In a data folder with a past, [`Watcher::poll`] once and
    /// [`Watcher::forget`].
    pub(crate) fn new(store: Arc<dyn Store>) -> Self {
        Self {
            store,
            seen: 0,
            answered: BTreeMap::new(),
            versions: Vec::new(),
            runs: Vec::new(),
            run_started: HashMap::new(),
            verdicts: Vec::new(),
            promotions: Vec::new(),
        }
    }

    /// Reads everything that is new and gives what is worth showing.
    pub(crate) async fn poll(&mut self) -> Result<Vec<DemoEvent>> {
        let mut shown = Vec::new();
        loop {
            let events = self.store.events_after(self.seen, BATCH).await?;
            let complete = events.len() < BATCH;
            for recorded in events {
                self.seen = recorded.seq;
                shown.extend(self.note(recorded.event));
            }
            if complete {
                return Ok(shown);
            }
        }
    }

    fn note(&mut self, event: Event) -> Option<DemoEvent> {
        match event {
            Event::Interaction(interaction) => {
                *self.answered.entry(interaction.version).or_default() += 1;
                None
            }
            Event::Run(run) => self.note_run(*run),
            Event::Version(version) => {
                self.versions.push(*version);
                None
            }
            Event::Rollout(rollout) => {
                let RolloutState::Decided { verdict } = rollout.state else { return None };
                let judged = Judged { version: rollout.candidate, verdict };
                self.verdicts.push(judged.clone());
                Some(DemoEvent::Judged(Box::new(judged)))
            }
            Event::AliasMoved(moved) if moved.alias == Alias::champion() => {
                let promotion = Promotion { from: moved.from, to: moved.to, at: moved.at, by: moved.by };
                self.promotions.push(promotion.clone());
                Some(DemoEvent::Promoted(promotion))
            }
            _ => None,
        }
    }

    fn note_run(&mut self, run: TrainingRun) -> Option<DemoEvent> {
        let old = self.runs.iter_mut().find(|old| old.id == run.id);
        let was = old.as_ref().map(|old| old.state.clone());
        match old {
            Some(old) => *old = run.clone(),
            None => self.runs.push(run.clone()),
        }
        match (&run.state, was) {
            (RunState::Planned, _) | (RunState::Running, Some(RunState::Running)) => None,
            (RunState::Running, _) => {
                self.run_started.insert(run.id, run.at);
                Some(DemoEvent::RunStarted(Box::new(run)))
            }
            (ended, was) if was.as_ref() != Some(ended) => Some(DemoEvent::RunEnded(Box::new(run))),
            _ => None,
        }
    }

    /// Drops what was read so far, as not of this demo, except for the versions: an old one may answer still.
    pub(crate) fn forget(&mut self) {
        let fresh = Self::new(Arc::clone(&self.store));
        *self = Self { seen: self.seen, versions: std::mem::take(&mut self.versions), ..fresh };
    }

    /// The latest verdict on `version`.
    pub(crate) fn verdict(&self, version: VersionNumber) -> Option<&Verdict> {
        self.verdicts.iter().rev().find(|judged| judged.version == version).map(|judged| &judged.verdict)
    }
}

/// An outcome in one word.
pub(crate) fn outcome_word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Promote => "promote",
        Outcome::Reject => "reject",
        Outcome::Inconclusive => "inconclusive",
    }
}
