//! The step that the learning loop takes again and again: what awaits assessment, assessed.

use std::collections::BTreeMap;

use autoglm_domain::{
    Assessment, ErrorKind, ErrorPattern, Event, InteractionRecord, PatternId, Result, Store, dimension,
};

use crate::{Evaluator, Failure, Patterns, dimension::Subject, text::excerpt_bytes};

/// Assessments and what they changed, to be stored in one append.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Assessments, oldest interaction first, then the patterns that changed, each once.
    pub events: Vec<Event>,
    /// The patterns as they are once `events` are stored. Keep these then, and the old ones otherwise.
    pub patterns: Patterns,
}

impl Evaluator {
    /// No patterns yet, or those that the store holds.
    pub fn patterns(&self, stored: Vec<ErrorPattern>) -> Patterns {
        Patterns::rebuild(self.config.patterns.clone(), stored)
    }

    /// Assesses up to `limit` interactions that await it and puts failures with their patterns. Writes nothing:
    /// append [`Batch::events`], then go on with [`Batch::patterns`]. An empty batch means that nothing waits.
    ///
    /// When a port becomes `Unavailable` half way, the batch holds what was done; it is an error only when that
    /// is nothing.
    pub async fn assess_pending(
        &self,
        store: &dyn Store,
        patterns: &Patterns,
        limit: usize,
    ) -> Result<Batch> {
        // What is said from here on is in none of these records: `feedback_seen` makes the store give them again.
        let waiting = store.awaiting_assessment(limit).await?;
        let mut patterns = patterns.clone();
        let mut assessments = Vec::with_capacity(waiting.len());
        let mut changed: BTreeMap<PatternId, ErrorPattern> = BTreeMap::new();
        for record in &waiting {
            let assessed = match self.assess(record).await {
                Ok(assessment) => self.follow(record, assessment, &mut patterns),
                Err(error) => Err(error),
            };
            match assessed {
                Ok((assessment, patterns)) => {
                    changed.extend(patterns.into_iter().map(|pattern| (pattern.id, pattern)));
                    assessments.push(assessment);
                }
                Err(error) if error.kind == ErrorKind::Unavailable && !assessments.is_empty() => {
                    tracing::debug!(%error, done = assessments.len(), "the rest of the batch is put off");
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        let events = assessments.into_iter().map(Event::Assessment);
        let events = events.chain(changed.into_values().map(Event::Pattern)).collect();
        Ok(Batch { events, patterns })
    }

    /// Puts a low score with its pattern, or takes the interaction out of the pattern of an earlier assessment.
    fn follow(
        &self,
        record: &InteractionRecord,
        mut assessment: Assessment,
        patterns: &mut Patterns,
    ) -> Result<(Assessment, Vec<ErrorPattern>)> {
        let earlier = record.assessment.as_ref().and_then(|assessment| assessment.pattern);
        let below = self.config.patterns.below;
        let accuracy = assessment.scores.get(dimension::ACCURACY).copied();
        if assessment.overall >= below && accuracy.is_none_or(|score| score >= below) {
            let changed = patterns.withdraw(record.interaction.id, earlier);
            return Ok((assessment, changed.into_iter().collect()));
        }
        let subject = Subject::new(record, None);
        let prompt = excerpt_bytes(subject.prompt, self.config.accuracy.embed_limit);
        let embedding = match self.embedder.embed(&[prompt]) {
            Ok(mut vectors) => vectors.pop().unwrap_or_default(),
            Err(error) if error.kind == ErrorKind::Unavailable => return Err(error),
            Err(error) => {
                assessment.findings.push(format!("not put with a pattern: {error}"));
                return Ok((
                    assessment,
                    patterns.withdraw(record.interaction.id, earlier).into_iter().collect(),
                ));
            }
        };
        let failure = Failure {
            interaction: record.interaction.id,
            at: record.interaction.at,
            prompt,
            answer: subject.answer,
            reference: assessment.reference.as_ref().map(|reference| reference.text.as_str()),
            embedding: &embedding,
        };
        let (id, changed) = patterns.observe(&failure, earlier, self.ids.as_ref());
        assessment.pattern = Some(id);
        Ok((assessment, changed))
    }
}
