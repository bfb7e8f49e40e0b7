//! What a candidate that answers unheard gets: the prompt that the champion got, once the champion's answer is
//! recorded.

use autoglm_domain::{
    AnswerSource, ChatMessage, ContentHash, FinishReason, GenerationInput, Interaction, Role, Sampling,
};

use crate::{Shadow, ShadowRequest};

/// A request that a candidate is to answer too.
#[derive(Debug)]
pub(crate) struct Shadowed {
    shadow: Shadow,
    /// What the model got for the first choice.
    seen: Option<(GenerationInput, Sampling)>,
}

impl Shadowed {
    pub(crate) fn new(shadow: Shadow) -> Self {
        Self { shadow, seen: None }
    }

    /// Remembers what the model got for the first choice; the prompt is not scored again.
    pub(crate) fn see(&mut self, input: GenerationInput, sampling: &Sampling, seed: Option<u64>) {
        let sampling =
            Sampling { seed, prompt_logprobs: None, token_ids: false, logprobs: None, ..sampling.clone() };
        self.seen = Some((input, sampling));
    }

    /// The request for the candidate. None for an answer that memory gave or that was cut off: there is nothing to
    /// compare with.
    pub(crate) fn take(&mut self, interaction: &Interaction) -> Option<ShadowRequest> {
        let (input, sampling) = self.seen.take()?;
        let whole = interaction.finish_reason != FinishReason::Cancelled;
        let generated = !matches!(interaction.source, AnswerSource::Memory { .. });
        let (shadow, interaction) = (self.shadow, interaction.clone());
        (whole && generated).then_some(ShadowRequest { shadow, input, sampling, interaction })
    }
}

/// A number for the conversation that a request belongs to, spread evenly: of the session where the client names it,
/// else of its first turn, which every later request repeats.
pub(crate) fn conversation(principal: &str, session: Option<&str>, prompts: &[Vec<ChatMessage>]) -> u64 {
    let first = || {
        let turns = prompts.first()?;
        let user = turns.iter().find(|message| message.role == Role::User);
        Some(user.or(turns.first())?.content.as_str())
    };
    let name = session.or_else(first).unwrap_or_default();
    let kind = if session.is_some() { "session" } else { "first" };
    // No part runs into the next: a principal holds no such character.
    let hash = ContentHash::of(format!("{principal}\u{0}{kind}\u{0}{name}").as_bytes()).0;
    let [a, b, c, d, e, f, g, h, ..] = hash;
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_conversation_keeps_its_number_and_others_have_others() {
        let first = vec![ChatMessage::user("where is my card?")];
        let mut later = first.clone();
        later.extend([ChatMessage::assistant("on its way"), ChatMessage::user("thanks")]);
        let number = |principal, session, turns: &Vec<ChatMessage>| {
            conversation(principal, session, std::slice::from_ref(turns))
        };
        assert_eq!(number("ada", None, &first), number("ada", None, &later));
        assert_eq!(number("ada", Some("s1"), &first), number("ada", Some("s1"), &vec![]));
        let all = [
            number("ada", None, &first),
            number("bob", None, &first),
            number("ada", None, &vec![ChatMessage::user("hello")]),
            number("ada", Some("s1"), &first),
            number("ada", Some("s2"), &first),
            number("ada", Some("where is my card?"), &first),
        ];
        let mut distinct = all.to_vec();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(distinct.len(), all.len());
    }

    #[test]
    fn numbers_are_spread_evenly() {
        let below =
            (0..10_000).filter(|i| conversation("ada", Some(&format!("s{i}")), &[]) < u64::MAX / 10).count();
        // 1,000 expected, standard deviation 30.
        assert!((880..1120).contains(&below), "{below}");
    }
}
