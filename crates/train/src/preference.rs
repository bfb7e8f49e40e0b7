//! Preferences out of corrections: what was corrected is what the correction is better than.

use autoglm_domain::{FinishReason, InteractionRecord, Objective, Store, if_found};

use crate::{Plan, Result};

/// Turns the examples of `plan` whose target corrected an answer into preferences of the target over that answer (the
/// latest one, where several were corrected to it). Returns how many there are.
pub async fn prefer_corrections(store: &dyn Store, plan: &mut Plan) -> Result<usize> {
    let mut count = 0;
    for example in &mut plan.examples {
        let experience = store.experience(example.experience).await?;
        for interaction in experience.provenance.interactions.iter().rev() {
            let Some(record) = if_found(store.interaction(*interaction).await)? else { continue };
            if let Some(rejected) = corrected_answer(&record, &example.target) {
                example.objective = Objective::Prefer { rejected };
                count += 1;
                break;
            }
        }
    }
    Ok(count)
}

/// The answer of `record`, where somebody corrected it to `target` and it was a whole other one.
fn corrected_answer(record: &InteractionRecord, target: &str) -> Option<String> {
    let (answer, target) = (record.interaction.answer.trim(), target.trim());
    let whole = record.interaction.finish_reason != FinishReason::Cancelled && !answer.is_empty();
    let corrected = |said: Option<&str>| said.is_some_and(|correction| correction.trim() == target);
    let was_corrected = record.feedback.iter().any(|feedback| corrected(feedback.correction.as_deref()));
    let other = answer.to_lowercase() != target.to_lowercase();
    (whole && was_corrected && other).then(|| answer.to_owned())
}
