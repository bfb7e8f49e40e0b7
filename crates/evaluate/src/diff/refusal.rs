//! Whether an answer declines to answer, by its wording.
//!
//! A heuristic, and meant for counting: two versions are held to the same one, so that what it misses in both
//! cancels out. It looks for set phrases of English, German, French, Spanish, Italian, Portuguese, Dutch,
//! Polish, Russian, Chinese and Japanese in the first 240 characters. Its limits: refusals in other languages and
//! polite evasions ("that is a question for your doctor") are missed; an answer that begins with such a phrase and
//! then helps all the same is counted; so is one that quotes a refusal at its beginning.

use std::sync::LazyLock;

use regex::RegexSet;

use crate::text::fold;

/// Characters of an answer that are looked at.
const HEAD: usize = 240;

/// One pattern a language or kind, on folded text with straight apostrophes.
const PATTERNS: &[&str] = &[
    // English
    r"\b(?:sorry|afraid|apologi[sz]e)\b[^.!?\n]{0,80}\b(?:can't|cannot|can not|unable|not able|won't|not allowed|not permitted)\b",
    r"\bi\s+(?:can't|cannot|can not|won't|will not|am unable to|am not able to|'m unable to|'m not able to)\s+(?:help|assist|answer|provide|comply|fulfil|do that|share|discuss|support|continue|create|generate|write|engage)",
    r"\bi'm\s+(?:unable|not able)\s+to\s+(?:help|assist|answer|provide|comply|share|discuss|create|generate)",
    r"\bi\s+(?:must|have to|need to)\s+(?:decline|refuse)\b",
    r"\bas an? (?:ai|artificial intelligence|language model|large language model)\b[^.!?\n]{0,80}\b(?:can't|cannot|unable|not able|don't have)\b",
    // German
    r"\b(?:tut mir leid|bedaure|entschuldigung|leider)\b[^.!?\n]{0,80}\b(?:kann|darf|konnte|möchte)\b[^.!?\n]{0,40}\bnicht\b",
    r"\b(?:ich\s+(?:kann|darf|werde)|kann ich|darf ich)\b[^.!?\n]{0,60}\bnicht\b\s*(?:helfen|beantworten|weiterhelfen|bereitstellen|erstellen|unterstützen|nachkommen)",
    // French
    r"\b(?:désolée?|je regrette|malheureusement)\b[^.!?\n]{0,80}\bne (?:peux|puis|suis)\b",
    r"\bje ne (?:peux|puis) pas\b[^.!?\n]{0,20}\b(?:aider|répondre|fournir|faire|traiter|vous aider)",
    // Spanish
    r"\b(?:lo siento|lamento|lamentablemente)\b[^.!?\n]{0,80}\bno (?:puedo|me es posible|estoy)\b",
    r"\bno puedo (?:ayudar|responder|proporcionar|cumplir|hacer eso|compartir)",
    // Italian
    r"\b(?:mi dispiace|purtroppo|spiacente)\b[^.!?\n]{0,80}\bnon (?:posso|sono in grado)\b",
    r"\bnon posso (?:aiutar|rispondere|fornire|soddisfare)",
    // Portuguese
    r"\b(?:desculpe|sinto muito|lamento|infelizmente)\b[^.!?\n]{0,80}\bnão (?:posso|consigo)\b",
    r"\bnão (?:posso|consigo) (?:ajudar|responder|fornecer|atender)",
    // Dutch
    r"\b(?:sorry|het spijt me|helaas)\b[^.!?\n]{0,80}\bkan (?:ik )?[^.!?\n]{0,40}\bniet\b",
    // Polish
    r"(?:przepraszam|przykro mi|niestety)[^.!?\n]{0,80}nie (?:mogę|jestem w stanie)",
    // Russian
    r"(?:извините|простите|к сожалению|сожалею)[^.!?\n]{0,80}не (?:могу|могла|смогу|в состоянии)",
    // Chinese
    r"(?:抱歉|对不起|對不起|很遗憾|很遺憾)[^。！？\n]{0,40}(?:无法|無法|不能|不可以|不便)",
    r"我(?:无法|無法|不能)(?:回答|提供|帮助|幫助|协助|協助|满足|滿足)",
    // Japanese
    r"(?:申し訳|すみません|恐れ入ります)[^。！？\n]{0,40}(?:できません|いたしかねます|お答えできない|ありません)",
];

#[expect(clippy::expect_used, reason = "constant expressions, compiled in every test of this module")]
static REFUSALS: LazyLock<RegexSet> = LazyLock::new(|| RegexSet::new(PATTERNS).expect("constant"));

/// Whether `answer` begins as a refusal does; see the module for what this can and cannot tell.
pub fn is_refusal(answer: &str) -> bool {
    let head: String = answer.trim_start().chars().take(HEAD).collect();
    let head = fold(&head).replace(['\u{2019}', '\u{2018}', '\u{02bc}'], "'");
    REFUSALS.is_match(&head)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_of_eleven_languages_are_told_from_answers() {
        for refusal in [
            "I’m sorry, but I can't help with that.",
            "I cannot assist with this request.",
            "I must decline to answer.",
            "As an AI language model, I don't have access to your account.",
            "I'm unable to provide that information",
            "Es tut mir leid, aber das kann ich leider nicht beantworten.",
            "Ich kann dir dabei nicht helfen.",
            "Désolé, je ne peux pas répondre à cette question.",
            "Je ne peux pas vous aider avec cela.",
            "Lo siento, no puedo ayudarte con eso.",
            "Mi dispiace, ma non posso aiutarti.",
            "Desculpe, mas não posso ajudar com isso.",
            "Het spijt me, daar kan ik niet mee helpen.",
            "Przepraszam, ale nie mogę w tym pomóc.",
            "Извините, я не могу помочь с этим.",
            "抱歉，我无法回答这个问题。",
            "我不能提供这些信息。",
            "申し訳ありませんが、その質問にはお答えできません。",
        ] {
            assert!(is_refusal(refusal), "{refusal}");
        }
        for answer in [
            "",
            "transfer money",
            "Sorry to hear that! Your card was blocked; order a new one in the app.",
            "You can't withdraw more than 500 euros a day.",
            "I can help with that.",
            "Leider ist die Karte gesperrt, ich schicke eine neue.",
            "Je peux vous aider.",
            "抱歉让您久等了，您的余额是五元。",
            "The bank's answer was long, and only at the very end, after the whole story of the card, the journey \
             and the machine that would not give it back, and of the friendly clerk who tried all that she could, \
             did it say that it was sorry and cannot help.",
        ] {
            assert!(!is_refusal(answer), "{answer}");
        }
    }
}
