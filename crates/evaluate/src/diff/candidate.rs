//! A candidate's answer as an evaluator has to see it.

use autoglm_domain::{ChatMessage, Feedback, InteractionRecord, ShadowAnswer, Thumb};

use crate::text::normalise;

/// The record of the champion's answer turned into that of the candidate's: another answer, its tokens and its
/// latency, and of the feedback what speaks of it too.
///
/// Where both answers are the same, all feedback counts. Where they differ, a correction counts, because it is the
/// right answer to the request; a thumb up counts as the correction that the champion's answer is. A thumb down, a
/// score and a measurement speak of the champion's answer alone.
pub fn record_of_candidate(record: &InteractionRecord, candidate: &ShadowAnswer) -> InteractionRecord {
    let champion = &record.interaction;
    let same = normalise(&champion.answer, false) == normalise(&candidate.text, false)
        && candidate.tool_calls.is_empty()
        && champion.turn.is_none();
    let feedback = record.feedback.iter().filter_map(|feedback| {
        if same {
            return Some(feedback.clone());
        }
        let endorsed = feedback.thumb == Some(Thumb::Up);
        let correction = feedback.correction.clone().or_else(|| endorsed.then(|| champion.answer.clone()))?;
        let rest = Feedback { thumb: None, score: None, metric: None, comment: None, ..feedback.clone() };
        Some(Feedback { correction: Some(correction), ..rest })
    });
    let mut interaction = champion.clone();
    interaction.version = candidate.version;
    interaction.answer.clone_from(&candidate.text);
    interaction.turn = (!candidate.tool_calls.is_empty()).then(|| ChatMessage {
        tool_calls: candidate.tool_calls.clone(),
        ..ChatMessage::assistant(candidate.text.clone())
    });
    interaction.usage = candidate.usage;
    interaction.latency_ms = candidate.latency_ms;
    interaction.first_token_ms = candidate.first_token_ms.unwrap_or(candidate.latency_ms);
    interaction.finish_reason = candidate.finish_reason.unwrap_or(champion.finish_reason);
    interaction.logprobs.clear();
    InteractionRecord { interaction, feedback: feedback.collect(), assessment: None }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use autoglm_domain::*;

    use super::*;

    fn feedback(thumb: Option<Thumb>, correction: Option<&str>) -> Feedback {
        Feedback {
            id: FeedbackId::new(uuid::Uuid::from_u128(1)),
            interaction: InteractionId::new(uuid::Uuid::from_u128(1)),
            at: Timestamp(1),
            principal: "ada".into(),
            thumb,
            score: Some(10.0),
            metric: None,
            correction: correction.map(Into::into),
            comment: None,
            tags: Vec::new(),
        }
    }

    fn record(feedback: Vec<Feedback>) -> InteractionRecord {
        let interaction = serde_json::from_value(serde_json::json!({
            "id": "chatcmpl-00000000000000000000000000000001", "at": 1, "endpoint": "chat", "model": "champion",
            "version": 1, "messages": [], "sampling": {}, "answer": "Balance", "source": {"kind": "weights"},
            "finish_reason": "stop", "usage": {"prompt_tokens": 1, "completion_tokens": 1}, "latency_ms": 1.0,
            "first_token_ms": 1.0, "principal": "ada"
        }));
        InteractionRecord { interaction: interaction.unwrap(), feedback, assessment: None }
    }

    fn seen_with(feedback: Vec<Feedback>, text: &str) -> InteractionRecord {
        let candidate = ShadowAnswer {
            version: VersionNumber(2),
            text: text.into(),
            tool_calls: Vec::new(),
            finish_reason: None,
            error: None,
            usage: Usage { prompt_tokens: 1, completion_tokens: 9 },
            latency_ms: 7.0,
            first_token_ms: None,
            scores: BTreeMap::new(),
            overall: None,
        };
        record_of_candidate(&record(feedback), &candidate)
    }

    #[test]
    fn what_was_said_of_another_answer_is_not_held_against_this_one() {
        let corrected = feedback(None, Some("transfer"));
        let up = feedback(Some(Thumb::Up), None);
        let down = feedback(Some(Thumb::Down), None);
        let seen = seen_with(vec![corrected, up.clone(), down.clone()], "transfer");
        let corrections: Vec<_> = seen.feedback.iter().map(|it| it.correction.clone().unwrap()).collect();
        assert_eq!(corrections, ["transfer", "Balance"]);
        assert!(seen.feedback.iter().all(|it| it.thumb.is_none() && it.score.is_none()));
        assert_eq!(
            (seen.interaction.version, seen.interaction.answer.as_str()),
            (VersionNumber(2), "transfer")
        );
        assert_eq!((seen.interaction.latency_ms, seen.interaction.usage.completion_tokens), (7.0, 9));
        // The same answer: all of it counts.
        assert_eq!(seen_with(vec![up.clone(), down.clone()], "balance.").feedback, vec![up, down]);
    }
}
