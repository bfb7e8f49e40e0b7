//! What memory has to say to a request.

use std::sync::Arc;

use autoglm_domain::{ChatMessage, Result};
use autoglm_gateway::{Example, RecallDecision, RecallMode};
use autoglm_memory::{Memory, Recall, RecallOptions, Recalled};

/// The memory as the gateway asks it.
pub(crate) struct FromMemory(pub(crate) Arc<Memory>);

impl autoglm_gateway::Recall for FromMemory {
    fn consult(&self, messages: &[ChatMessage], mode: Option<RecallMode>) -> Result<RecallDecision> {
        // A correction must hold at once, whichever side of the hold-out it fell on.
        let options = RecallOptions { held_out: true };
        Ok(match mode {
            None => match self.0.recall(messages) {
                Recall::Nothing => RecallDecision::None,
                Recall::Examples(found) => examples(found),
                Recall::Answer(found) => answer(*found),
            },
            Some(RecallMode::Off) => RecallDecision::None,
            Some(RecallMode::Examples) => {
                examples(self.0.recall_examples(messages, self.0.config().examples, options))
            }
            Some(RecallMode::Answer) => match self.0.recall_answer(messages, options) {
                Some(found) => answer(found),
                None => RecallDecision::None,
            },
        })
    }

    fn is_silent(&self, mode: Option<RecallMode>) -> bool {
        let is_off = mode.is_none() && self.0.config().recall == autoglm_memory::RecallMode::Off;
        is_off || self.0.is_empty()
    }
}

fn answer(found: Recalled) -> RecallDecision {
    RecallDecision::Answer { experience: found.experience.id, text: found.target }
}

fn examples(found: Vec<Recalled>) -> RecallDecision {
    if found.is_empty() {
        return RecallDecision::None;
    }
    // The nearest comes first; the model looks best at what stands next to the question.
    let examples = found
        .into_iter()
        .rev()
        .map(|recalled| Example { prompt: recalled.experience.prompt.clone(), target: recalled.target })
        .collect();
    RecallDecision::Examples(examples)
}
