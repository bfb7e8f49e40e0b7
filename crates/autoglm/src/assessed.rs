//! What becomes of answers that were assessed: the memory has what was verified, the journal their assessments.

use autoglm_domain::{Event, Result};

use crate::node::Parts;

/// Assessments that are recorded together, so that an answer which is to be recorded meanwhile waits for few of them.
const RECORDED_TOGETHER: usize = 16;

/// Records assessments a few at a time, and at once where patterns go with them, which count each answer once.
pub(crate) async fn record(parts: &Parts, events: Vec<Event>) -> Result<()> {
    if !events.iter().all(|event| matches!(event, Event::Assessment(_))) {
        return parts.leaders_store.append(events).await;
    }
    let mut rest = events.into_iter();
    loop {
        let some: Vec<_> = rest.by_ref().take(RECORDED_TOGETHER).collect();
        if some.is_empty() {
            return Ok(());
        }
        parts.leaders_store.append(some).await?;
    }
}

/// What of the assessed answers was verified enters the memory.
pub(crate) async fn remember(parts: &Parts, events: &[Event]) -> Result<()> {
    let mut records = Vec::new();
    for event in events {
        let Event::Assessment(assessment) = event else { continue };
        if assessment.feedback_seen == 0 && assessment.reference.is_none() {
            continue;
        }
        let mut record = parts.store.interaction(assessment.interaction).await?;
        record.assessment = Some(assessment.clone());
        records.push(record);
    }
    parts.memory.remember_all(&records).await?;
    Ok(())
}
