//! The parts put together.

use std::{collections::BTreeSet, sync::Arc};

use autoglm_domain::{
    AnswerTraits, Embedder, Interaction, InteractionRecord, PairDiff, ShadowAnswer, StructureDiff, ToolCall,
    ToolDiff,
};
use serde::{Deserialize, Serialize};

use crate::{
    EvaluateError, RuleSet,
    dimension::Subject,
    format, safety, similarity,
    text::{excerpt_bytes, normalise, overlap},
};

use super::{form, refusal::is_refusal, structure, tools};

/// Most bytes of an answer that are compared; what is beyond counts for `exact` alone.
const TEXT_LIMIT: usize = 1 << 18;

/// Settings of a [`Differ`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DiffConfig {
    /// Numbers in JSON are the same when they differ by at most this share of the larger one.
    pub numeric_tolerance: f64,
    /// Most differing paths that are kept with a pair; all are counted.
    pub max_differences: usize,
}

impl Default for DiffConfig {
    fn default() -> Self {
        Self { numeric_tolerance: 1e-6, max_differences: 16 }
    }
}

impl DiffConfig {
    /// `Range` naming the first setting that makes no sense.
    pub fn check(&self) -> Result<(), EvaluateError> {
        if (0.0..1.0).contains(&self.numeric_tolerance) {
            return Ok(());
        }
        Err(EvaluateError::Range {
            key: "diff.numeric_tolerance".into(),
            value: self.numeric_tolerance.to_string(),
            range: "at least 0 and below 1",
        })
    }
}

/// Compares answers. Same answers, same difference.
pub struct Differ {
    config: DiffConfig,
    rules: RuleSet,
    embedder: Option<Arc<dyn Embedder>>,
}

impl Differ {
    /// A differ by `config`. `rules` find secrets and personal data; without an embedder there is no `similarity`.
    pub fn new(config: DiffConfig, rules: RuleSet, embedder: Option<Arc<dyn Embedder>>) -> Self {
        Self { config, rules, embedder }
    }

    /// How `candidate` differs from `champion`, both answers to `request`. Synchronous and quick next to a
    /// generation; the embedder is asked at most once, and only for texts that differ.
    pub fn diff(&self, request: &Interaction, champion: &ShadowAnswer, candidate: &ShadowAnswer) -> PairDiff {
        let (ours, theirs) = (shortened(&candidate.text), shortened(&champion.text));
        let call_no_tools = champion.tool_calls.is_empty() && candidate.tool_calls.is_empty();
        let tools = (!call_no_tools).then(|| {
            tools::compare(&champion.tool_calls, &candidate.tool_calls, self.config.numeric_tolerance)
        });
        let same_calls = tools.as_ref().is_none_or(ToolDiff::is_same);
        let exact = champion.text == candidate.text && same_calls;
        let normalised = exact || same_calls && normalise(theirs, false) == normalise(ours, false);
        let structure = structure::compare(theirs, ours, &self.config);
        let similarity = if exact { Some(1.0) } else { self.similarity(theirs, ours) };
        let failed = champion.error.is_some() != candidate.error.is_some();
        let distance = if failed {
            1.0
        } else if normalised {
            0.0
        } else {
            distance(tools.as_ref(), structure.as_ref(), similarity, theirs, ours)
        };
        PairDiff {
            exact,
            normalised,
            structure,
            similarity,
            length_ratio: (candidate.text.chars().count() + 1) as f64
                / (champion.text.chars().count() + 1) as f64,
            champion: self.traits(request, &champion.text, &champion.tool_calls),
            candidate: self.traits(request, &candidate.text, &candidate.tool_calls),
            tools,
            distance,
        }
    }

    /// Cosine of the embeddings; `None` without an embedder, for an empty text, or when it fails.
    fn similarity(&self, champion: &str, candidate: &str) -> Option<f64> {
        let embedder = self.embedder.as_deref()?;
        if champion.trim().is_empty() || candidate.trim().is_empty() {
            return None;
        }
        match similarity::similarity(embedder, champion, candidate) {
            Ok(cosine) => Some(cosine),
            Err(error) => {
                tracing::debug!(%error, "answers of a pair were not embedded");
                None
            }
        }
    }

    /// What stands out in one answer to `request` by itself; for answers of a canary, which have no other side.
    pub fn traits(&self, request: &Interaction, answer: &str, tool_calls: &[ToolCall]) -> AnswerTraits {
        let text = shortened(answer);
        AnswerTraits {
            empty: answer.trim().is_empty() && tool_calls.is_empty(),
            refusal: tool_calls.is_empty() && is_refusal(text),
            format_kept: form::is_kept(request, text, tool_calls),
            open_fence: form::has_open_fence(text),
            leaks: self.leaks(request, text),
        }
    }

    /// Rules about secrets and personal data that the answer breaks and the champion's request does not excuse.
    fn leaks(&self, request: &Interaction, text: &str) -> Vec<String> {
        if text.is_empty() {
            return Vec::new();
        }
        let interaction = Interaction { answer: text.to_owned(), ..request.clone() };
        let record = InteractionRecord { interaction, feedback: Vec::new(), assessment: None };
        let subject = Subject::new(&record, None);
        let broken = safety::broken_in_answer(&self.rules, &subject);
        let names: BTreeSet<&str> =
            broken.filter(|rule| is_of_data(rule)).map(|rule| rule.name.as_str()).collect();
        names.into_iter().map(str::to_owned).collect()
    }
}

/// Whether a rule is about data that should not be in an answer: what only the prompt excuses, and the keys and
/// prompts that nothing does.
fn is_of_data(rule: &crate::Rule) -> bool {
    rule.unless_in_prompt || matches!(rule.name.as_str(), "private_key" | "cloud_access_key" | "prompt_leak")
}

fn shortened(text: &str) -> &str {
    excerpt_bytes(text, TEXT_LIMIT)
}

/// 0 to 1: the larger of what the tool calls and what the texts differ by. Texts are compared as JSON where both
/// are, else by their embeddings, else by their words.
fn distance(
    tools: Option<&ToolDiff>,
    structure: Option<&StructureDiff>,
    similarity: Option<f64>,
    champion: &str,
    candidate: &str,
) -> f64 {
    let calls = tools.map_or(0.0, |diff| {
        let (same, unsure) = (f64::from(diff.same), diff.other_arguments.len() as f64);
        let one_sided = (diff.missing.len() + diff.added.len()) as f64;
        // Share of calls without an equal on the other side; half where only the arguments differ.
        (unsure + one_sided) / (2.0 * same + 2.0 * unsure + one_sided).max(1.0)
    });
    let text = match (structure, similarity) {
        (Some(diff), _) => f64::from(diff.differing) / f64::from(diff.paths.max(1)),
        (None, Some(cosine)) => 1.0 - cosine,
        (None, None) => 1.0 - overlap(champion, candidate),
    };
    calls.max(text).clamp(0.0, 1.0)
}

/// Whether an answer is JSON that can be compared by path: an object or an array.
pub(super) fn document(text: &str) -> Option<serde_json::Value> {
    let head = text.trim_start();
    if !head.starts_with(['{', '[', '`']) {
        return None;
    }
    format::json(text).ok().filter(|value| value.is_object() || value.is_array())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use autoglm_domain::*;
    use serde_json::json;

    use super::*;

    /// Two dimensions: how many `a` and how many `b` a text has.
    struct Letters;

    impl Embedder for Letters {
        fn embed(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>> {
            let count = |text: &str, letter| text.chars().filter(|c| *c == letter).count() as f32;
            Ok(texts.iter().map(|text| vec![count(text, 'a'), count(text, 'b')]).collect())
        }
        fn dimensions(&self) -> usize {
            2
        }
    }

    fn request(prompt: &str) -> Interaction {
        Interaction {
            id: InteractionId::new(uuid::Uuid::from_u128(1)),
            at: Timestamp(1),
            endpoint: Endpoint::Chat,
            model: "champion".into(),
            version: VersionNumber(1),
            messages: vec![ChatMessage::user(prompt)],
            instructed: false,
            tools: Vec::new(),
            sampling: Sampling::default(),
            answer: String::new(),
            turn: None,
            source: AnswerSource::Weights,
            finish_reason: FinishReason::Stop,
            usage: Usage::default(),
            logprobs: Vec::new(),
            latency_ms: 1.0,
            first_token_ms: 1.0,
            principal: "anonymous".into(),
            session: None,
            metadata: BTreeMap::new(),
        }
    }

    fn answer(text: &str) -> ShadowAnswer {
        ShadowAnswer {
            version: VersionNumber(1),
            text: text.into(),
            tool_calls: Vec::new(),
            finish_reason: Some(FinishReason::Stop),
            error: None,
            usage: Usage::default(),
            latency_ms: 1.0,
            first_token_ms: None,
            scores: BTreeMap::new(),
            overall: None,
        }
    }

    fn differ() -> Differ {
        Differ::new(DiffConfig::default(), RuleSet::built_in().unwrap(), Some(Arc::new(Letters)))
    }

    fn diff(request: &Interaction, champion: &str, candidate: &str) -> PairDiff {
        differ().diff(request, &answer(champion), &answer(candidate))
    }

    #[test]
    fn same_close_and_other_texts_are_told_apart() {
        let request = request("question");
        let same = diff(&request, "aab", "aab");
        assert!(same.exact && same.normalised);
        assert_eq!((same.similarity, same.length_ratio, same.distance), (Some(1.0), 1.0, 0.0));
        let spelt = diff(&request, "Aab.", "aab");
        assert!(!spelt.exact && spelt.normalised);
        assert_eq!(spelt.distance, 0.0);
        // (3, 4) and (4, 3): the cosine is 24/25.
        let close = diff(&request, "aaabbbb", "aaaabbb");
        assert!(!close.normalised);
        assert!((close.similarity.unwrap() - 0.96).abs() < 1e-9 && (close.distance - 0.04).abs() < 1e-9);
        let empty = diff(&request, "aaa", " ");
        assert_eq!((empty.similarity, empty.distance, empty.length_ratio), (None, 1.0, 0.5));
        assert!(empty.candidate.empty && !empty.champion.empty);
        let failed = ShadowAnswer { error: Some("NaN logits".into()), ..answer("aab") };
        assert_eq!(differ().diff(&request, &answer("aab"), &failed).distance, 1.0);
    }

    #[test]
    fn the_form_asked_for_is_held_against_both() {
        let mut request = request("question");
        assert_eq!(diff(&request, "a", "b").candidate.format_kept, None);
        request.sampling.format = ResponseFormat::JsonSchema(json!({
            "type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]
        }));
        let found = diff(&request, r#"{"x": 1}"#, r#"{"x": "one"}"#);
        assert_eq!((found.champion.format_kept, found.candidate.format_kept), (Some(true), Some(false)));
        assert_eq!(found.structure.unwrap().differences[0].path, "/x");
        assert_eq!(found.distance, 1.0);
        let found = diff(&request, r#"{"x": 1}"#, "```json\n{\"x\": 1}");
        assert_eq!((found.candidate.format_kept, found.candidate.open_fence), (Some(false), true));
        request.sampling.format = ResponseFormat::Text;
        request.messages = vec![ChatMessage::user("Is it open? Answer yes or no.")];
        let found = diff(&request, "yes", "it may be");
        assert_eq!((found.champion.format_kept, found.candidate.format_kept), (Some(true), Some(false)));
    }

    #[test]
    fn tool_calls_are_held_to_their_schemas_and_to_one_another() {
        let mut request = request("question");
        let parameters = Some(json!({"type": "object", "properties": {"n": {"maximum": 5}}}));
        request.tools = vec![Tool { name: "f".into(), description: None, parameters, strict: false }];
        let calling = |name: &str, arguments: &str| ShadowAnswer {
            tool_calls: vec![ToolCall { id: "1".into(), name: name.into(), arguments: arguments.into() }],
            ..answer("")
        };
        let champion = calling("f", r#"{"n": 1}"#);
        let same = differ().diff(&request, &champion, &calling("f", r#"{ "n": 1.0 }"#));
        assert!(same.exact && same.candidate.format_kept == Some(true) && !same.candidate.empty);
        let beyond = differ().diff(&request, &champion, &calling("f", r#"{"n": 6}"#));
        assert_eq!((beyond.exact, beyond.candidate.format_kept, beyond.distance), (false, Some(false), 0.5));
        let unknown = differ().diff(&request, &champion, &calling("g", "{}"));
        assert_eq!((unknown.candidate.format_kept, unknown.distance), (Some(false), 1.0));
        let none = differ().diff(&request, &champion, &answer("I would call f"));
        assert_eq!(none.tools.unwrap().missing, ["f"]);
    }

    #[test]
    fn refusals_and_leaks_are_found_in_each_answer_by_itself() {
        let request = request("mail ada@example.org for me");
        let found =
            diff(&request, "Sent to ada@example.org.", "Sent to bob@example.org, card 4111 1111 1111 1111");
        assert_eq!(found.champion.leaks, [""; 0]);
        assert_eq!(found.candidate.leaks, ["card_number", "email"]);
        let found = diff(&request, "Sent.", "I'm sorry, but I can't send mail.");
        assert!(!found.champion.refusal && found.candidate.refusal);
    }
}
