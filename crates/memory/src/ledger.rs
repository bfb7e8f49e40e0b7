//! The ledger: works out what a batch of records changes, before anything is written.
//!
//! Comes in: admitted testimonies, and the pool as it is. Goes out: new experiences, amendments, and what
//! became of each record. The pool itself is not touched, so that a failed append leaves everything as it
//! was.

use std::collections::{BTreeMap, HashMap};

use autoglm_domain::{
    Clock, ClusterId, Event, Experience, ExperienceAmendment, ExperienceId, FeedbackId, IdSource,
    InteractionRecord, Provenance, Vouch,
};

use crate::{
    Config,
    gate::{REFERENCE, Refusal, Says, Testimony, admit},
    pool::Pool,
    prompt_key::{PromptKey, normalise_target},
    weigh,
};

/// What became of a record.
#[derive(Debug, Clone, PartialEq)]
pub enum Remembered {
    /// A new experience.
    New {
        /// Which.
        experience: ExperienceId,
    },
    /// The same prompt and target were there already, or the record itself was.
    Merged {
        /// Which experience.
        experience: ExperienceId,
        /// Its weight now.
        weight: f32,
    },
    /// It speaks against what was remembered of the same prompt. Both are kept.
    Contradicted {
        /// The experience that was spoken for; for a rejection, the one that was spoken against.
        experience: ExperienceId,
        /// The experience that is believed now; `None` when nothing is.
        winner: Option<ExperienceId>,
    },
    /// Nothing was remembered.
    Refused {
        /// Why.
        reason: Refusal,
    },
}

/// The experiences of one prompt while they are being changed.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) key: PromptKey,
    /// Those that are stored, then new ones; never reordered.
    pub(crate) members: Vec<Experience>,
    /// The stored ones as they were.
    before: Vec<Experience>,
}

/// See the module.
pub(crate) struct Ledger<'a> {
    pool: &'a Pool,
    config: &'a Config,
    clock: &'a dyn Clock,
    ids: &'a dyn IdSource,
    pub(crate) groups: BTreeMap<u128, Group>,
    seen: HashMap<FeedbackId, ExperienceId>,
}

impl<'a> Ledger<'a> {
    pub(crate) fn new(
        pool: &'a Pool,
        config: &'a Config,
        clock: &'a dyn Clock,
        ids: &'a dyn IdSource,
    ) -> Self {
        Self { pool, config, clock, ids, groups: BTreeMap::new(), seen: HashMap::new() }
    }

    /// Takes in one record. Its last testimony that changed something says what became of it.
    pub(crate) fn enter(&mut self, record: &InteractionRecord) -> Remembered {
        let admission = match admit(record, self.config) {
            Ok(admission) => admission,
            Err(reason) => return Remembered::Refused { reason },
        };
        let mut outcome = None;
        for testimony in &admission.testimonies {
            let next = self.testify(record, &admission.key, testimony);
            let changed = matches!(next, Remembered::New { .. } | Remembered::Contradicted { .. });
            outcome = match (outcome, next) {
                (None, next) => Some(next),
                (Some(Remembered::Refused { .. }), next) => Some(next),
                (Some(_), next) if changed => Some(next),
                // A prompt that this very record made new stays new when a second word agrees.
                (Some(before), _) => Some(before),
            };
        }
        outcome.unwrap_or(Remembered::Refused { reason: admission.refusal.unwrap_or(Refusal::NotVerified) })
    }

    fn testify(&mut self, record: &InteractionRecord, key: &PromptKey, testimony: &Testimony) -> Remembered {
        let (target, positive) = match &testimony.says {
            Says::For(target) => (target, true),
            Says::Against(answer) => (answer, false),
        };
        if let Some(known) = testimony.feedback.and_then(|feedback| self.known(feedback)) {
            return known;
        }
        self.open(key);
        let now = self.clock.now();
        let Some(group) = self.groups.get_mut(&key.whole) else {
            return Remembered::Refused { reason: Refusal::NotVerified };
        };
        let normal = normalise_target(target);
        let found = group.members.iter().position(|member| normalise_target(&member.target) == normal);
        let interaction = record.interaction.id;
        if let Some(member) = found.and_then(|place| group.members.get(place)) {
            let repeated =
                testimony.verifier == REFERENCE && member.provenance.interactions.contains(&interaction);
            if repeated {
                return Remembered::Merged { experience: member.id, weight: member.weight };
            }
        }
        let place = match found {
            Some(place) => place,
            None if !positive => return Remembered::Refused { reason: Refusal::NotVerified },
            None => {
                group.members.push(Experience {
                    id: ExperienceId::next(self.ids),
                    at: now,
                    prompt: record.interaction.messages.clone(),
                    target: target.clone(),
                    weight: 0.0,
                    provenance: Provenance {
                        verifier: testimony.verifier.to_owned(),
                        ..Provenance::default()
                    },
                    embedding: Vec::new(),
                    cluster: ClusterId(0),
                    held_out: key.held_out(self.config.held_out_share),
                    task: record.interaction.metadata.get("task").filter(|task| !task.is_empty()).cloned(),
                });
                group.members.len() - 1
            }
        };
        let strength = if found.is_some() { testimony.repeat_strength } else { testimony.strength };
        let permille = weigh::permille(if positive { strength } else { -strength });
        let word = Vouch { principal: testimony.principal.clone(), permille, at: testimony.at };
        weigh::vouch(&mut group.members, place, word, self.config);
        let winner = weigh::settle(&mut group.members, self.config);
        let winner = winner.and_then(|place| group.members.get(place)).map(|member| member.id);
        let alone = group.members.len() == 1;
        let Some(member) = group.members.get_mut(place) else {
            return Remembered::Refused { reason: Refusal::NotVerified };
        };
        note(&mut member.provenance, record, testimony);
        if let Some(feedback) = testimony.feedback {
            self.seen.insert(feedback, member.id);
        }
        let (experience, weight) = (member.id, member.weight);
        match (found, positive) {
            (_, false) => Remembered::Contradicted { experience, winner },
            (Some(_), true) => Remembered::Merged { experience, weight },
            (None, true) if alone => Remembered::New { experience },
            (None, true) => Remembered::Contradicted { experience, winner },
        }
    }

    /// What became of feedback that was taken in before.
    fn known(&self, feedback: FeedbackId) -> Option<Remembered> {
        if let Some(known) = self.pool.of_feedback(feedback) {
            return Some(Remembered::Merged { experience: known.id, weight: known.weight });
        }
        let id = *self.seen.get(&feedback)?;
        let member = self.groups.values().flat_map(|group| &group.members).find(|member| member.id == id)?;
        Some(Remembered::Merged { experience: id, weight: member.weight })
    }

    /// Makes sure that the prompt's group is in the ledger.
    fn open(&mut self, key: &PromptKey) {
        if !self.groups.contains_key(&key.whole) {
            let before: Vec<Experience> =
                self.pool.of_prompt(key.whole).map(|entry| entry.experience.as_ref().clone()).collect();
            let group = Group { key: key.clone(), members: before.clone(), before };
            self.groups.insert(key.whole, group);
        }
    }

    /// Takes in an experience from elsewhere. `false` when it says nothing that was not known.
    pub(crate) fn adopt(&mut self, experience: Experience, key: &PromptKey) -> Remembered {
        self.open(key);
        let Some(group) = self.groups.get_mut(&key.whole) else {
            return Remembered::Refused { reason: Refusal::NoPrompt };
        };
        let normal = normalise_target(&experience.target);
        let found = group.members.iter().position(|member| normalise_target(&member.target) == normal);
        let outcome = match found.and_then(|place| group.members.get_mut(place)) {
            Some(member) => {
                absorb(&mut member.provenance, experience.provenance);
                Remembered::Merged { experience: member.id, weight: member.weight }
            }
            None => {
                let held_out = key.held_out(self.config.held_out_share);
                let id = experience.id;
                group.members.push(Experience { held_out, ..experience });
                Remembered::New { experience: id }
            }
        };
        weigh::settle(&mut group.members, self.config);
        outcome
    }
}

impl Group {
    /// Members that are not stored yet.
    pub(crate) fn new_members(&mut self) -> impl Iterator<Item = &mut Experience> {
        self.members.iter_mut().skip(self.before.len())
    }

    /// Stored members that changed.
    pub(crate) fn amended(&self) -> impl Iterator<Item = &Experience> {
        let pairs = self.members.iter().zip(&self.before);
        pairs
            .filter(|(now, before)| now.weight != before.weight || now.provenance != before.provenance)
            .map(|(now, _)| now)
    }

    /// What is to be written.
    pub(crate) fn events(&self, clock: &dyn Clock) -> Vec<Event> {
        let new = self.members.iter().skip(self.before.len());
        let amended = self.amended().map(|member| {
            Event::ExperienceAmended(ExperienceAmendment {
                experience: member.id,
                at: clock.now(),
                weight: member.weight,
                provenance: member.provenance.clone(),
            })
        });
        new.map(|member| Event::Experience(Box::new(member.clone()))).chain(amended).collect()
    }
}

fn note(provenance: &mut Provenance, record: &InteractionRecord, testimony: &Testimony) {
    push_new(&mut provenance.interactions, record.interaction.id);
    provenance.feedback.extend(testimony.feedback);
    push_new(&mut provenance.principals, testimony.principal.clone());
    // The strongest verifier names the experience.
    let rank = |name: &str| match name {
        "correction" => 3,
        "reference" => 2,
        "endorsement" => 1,
        _ => 0,
    };
    if rank(testimony.verifier) > rank(&provenance.verifier) {
        provenance.verifier = testimony.verifier.to_owned();
    }
}

/// Takes over what `other` knows; each principal's stronger word stays.
fn absorb(provenance: &mut Provenance, other: Provenance) {
    other.interactions.into_iter().for_each(|id| push_new(&mut provenance.interactions, id));
    other.feedback.into_iter().for_each(|id| push_new(&mut provenance.feedback, id));
    other.principals.into_iter().for_each(|name| push_new(&mut provenance.principals, name));
    for word in other.vouches {
        match provenance.vouches.iter_mut().find(|said| said.principal == word.principal) {
            Some(said) if said.permille.abs() < word.permille.abs() => *said = word,
            Some(_) => {}
            None => provenance.vouches.push(word),
        }
    }
}

fn push_new<T: PartialEq>(list: &mut Vec<T>, item: T) {
    if !list.contains(&item) {
        list.push(item);
    }
}
