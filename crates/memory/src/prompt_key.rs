//! What makes two prompts the same: the last user turn, the system prompt, and what was said before.

use autoglm_domain::{ChatMessage, ContentHash, Role};

/// The parts of a prompt that recall looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PromptKey {
    /// The last user turn as it was written.
    pub(crate) turn: String,
    /// Hash of the normalised system prompts.
    pub(crate) system: u64,
    /// Hash of every other turn, normalised; the same for all prompts of one turn.
    pub(crate) context: u64,
    /// Hash of system prompt, other turns and normalised last user turn: equal prompts, equal hash.
    pub(crate) whole: u128,
    /// The normalised last user turn alone, as a number below 2^53, uniform over prompts.
    lot: u64,
}

impl PromptKey {
    /// The key of `prompt`; `None` when it has no user turn with text in it.
    pub(crate) fn of(prompt: &[ChatMessage]) -> Option<Self> {
        let last = prompt.iter().rposition(|message| message.role == Role::User)?;
        let turn = prompt.get(last)?.content.trim();
        if turn.is_empty() {
            return None;
        }
        let mut system = String::new();
        let mut context = String::new();
        for (position, message) in prompt.iter().enumerate() {
            let part = match message.role {
                Role::System => &mut system,
                _ if position == last => continue,
                Role::User => push(&mut context, "u"),
                Role::Assistant => push(&mut context, "a"),
                Role::Tool => push(&mut context, "t"),
            };
            part.push_str(&normalise(&message.content));
            part.push('\u{1}');
        }
        // Turns after the last user turn (a tool's result) are not where turns before it would be.
        context.push_str(if last + 1 == prompt.len() { "" } else { "\u{2}" });
        let normal = normalise(turn);
        let whole = hash(&format!("{system}\u{3}{context}\u{3}{normal}"));
        Some(Self {
            turn: turn.to_owned(),
            system: short(hash(&system)),
            context: short(hash(&context)),
            whole,
            lot: short(hash(&format!("held out\u{3}{normal}"))) >> 11,
        })
    }

    /// Whether this prompt falls into the share that is kept for the gate: the same for every spelling.
    pub(crate) fn held_out(&self, share: f64) -> bool {
        (self.lot as f64) < share * (1_u64 << 53) as f64
    }
}

fn push<'a>(text: &'a mut String, role: &str) -> &'a mut String {
    text.push_str(role);
    text
}

fn hash(text: &str) -> u128 {
    let bytes = ContentHash::of(text.as_bytes()).0;
    bytes.iter().take(16).fold(0, |number, byte| number << 8 | u128::from(*byte))
}

fn short(hash: u128) -> u64 {
    (hash >> 64) as u64
}

/// A prompt's text without what does not change its meaning: case, runs of white space, typographic quotes,
/// and punctuation at the end of words. Signs inside words and numbers (`3-4`, `1.5`, `a<b`) stay.
pub(crate) fn normalise(text: &str) -> String {
    let mut normal = String::with_capacity(text.len());
    for word in text.split_whitespace() {
        let word = word
            .to_lowercase()
            .replace(['\u{2019}', '\u{2018}'], "'")
            .replace(['\u{201c}', '\u{201d}'], "\"");
        let bare = word.trim_end_matches(['.', ',', '?', '!', ';', ':', '\u{2026}']);
        // A word of punctuation alone carries nothing, unless there is nothing else.
        if !bare.is_empty() {
            if !normal.is_empty() {
                normal.push(' ');
            }
            normal.push_str(bare);
        }
    }
    if normal.is_empty() { text.trim().to_lowercase() } else { normal }
}

/// A target's text without surrounding and repeated white space. Case stays: a user may correct case alone.
/// Lines stay apart, because in code and lists they mean something.
pub(crate) fn normalise_target(text: &str) -> String {
    let lines = text.trim().lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(prompt: &[ChatMessage]) -> PromptKey {
        PromptKey::of(prompt).unwrap()
    }

    #[test]
    fn spelling_does_not_make_a_prompt_another_one_but_signs_do() {
        let one = key(&[ChatMessage::user("What's my  balance?")]);
        assert_eq!(one.whole, key(&[ChatMessage::user(" what\u{2019}s my balance ")]).whole);
        assert_ne!(
            key(&[ChatMessage::user("what is 3-4")]).whole,
            key(&[ChatMessage::user("what is 3+4")]).whole
        );
        assert_ne!(key(&[ChatMessage::user("?")]).whole, key(&[ChatMessage::user("!")]).whole);
    }

    #[test]
    fn the_system_prompt_and_the_turns_before_are_kept_apart() {
        let plain = key(&[ChatMessage::user("yes")]);
        let system = key(&[ChatMessage::system("be brief"), ChatMessage::user("yes")]);
        let later =
            key(&[ChatMessage::user("pay?"), ChatMessage::assistant("sure?"), ChatMessage::user("yes")]);
        assert_ne!(plain.system, system.system);
        assert_eq!(plain.context, system.context);
        assert_eq!(plain.system, later.system);
        assert_ne!(plain.context, later.context);
        assert_ne!(plain.whole, later.whole);
        assert_eq!(plain.held_out(0.3), later.held_out(0.3));
        assert_eq!(PromptKey::of(&[ChatMessage::assistant("hello")]), None);
        assert_eq!(PromptKey::of(&[ChatMessage::user("  ")]), None);
    }

    #[test]
    fn the_held_out_share_is_kept() {
        let count =
            (0..10_000).filter(|n| key(&[ChatMessage::user(format!("prompt {n}"))]).held_out(0.12)).count();
        assert!((1_100..1_300).contains(&count), "{count}");
        assert!(!key(&[ChatMessage::user("x")]).held_out(0.0));
    }

    #[test]
    fn a_targets_case_and_lines_stay() {
        assert_eq!(normalise_target("  a   b \n  c\n"), "a b\nc");
        assert_ne!(normalise_target("postgresql"), normalise_target("PostgreSQL"));
    }
}
