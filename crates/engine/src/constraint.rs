//! Answers of a given form: a grammar that says, token by token, what may come next.
//!
//! [`Grammars::compile`] turns a JSON schema or a grammar of tool calls into a [`Constraint`]; the sampler masks
//! the logits with it before each draw. The end of the answer is only drawn where the grammar is complete.
//! Schemas come from strangers: their size, their nesting and the work of compiling them are bounded.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, OnceLock},
};

use llguidance::{
    Matcher, ParserFactory,
    api::TopLevelGrammar,
    earley::SlicedBiasComputer,
    toktrie::{ApproximateTokEnv, InferenceCapabilities, TokEnv, TokRxInfo, TokTrie},
};
use serde_json::{Value, json};

use crate::{EngineError, Result, Tokenizer, token_bytes::token_bytes};

/// Most bytes of a schema as JSON.
const MAX_SCHEMA_BYTES: usize = 64 << 10;
/// Deepest nesting of a schema.
const MAX_SCHEMA_DEPTH: usize = 64;
/// Longest token of an answer of a form; runs of blanks are the longest in practice.
const MAX_TOKEN_BYTES: usize = 512;
/// Longest reason that is passed on when a schema cannot be compiled.
const MAX_REASON_CHARS: usize = 400;

/// What an answer must be.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Form {
    /// JSON that follows a schema.
    Schema(Value),
    /// A text of a grammar in llguidance's dialect of Lark.
    Grammar(String),
}

/// Compiles grammars for one vocabulary. What they share is made when the first one is asked for.
#[derive(Debug)]
pub(crate) struct Grammars {
    tokenizer: Arc<Tokenizer>,
    eos: Vec<u32>,
    factory: OnceLock<Result<Factory>>,
}

/// The vocabulary as grammars see it.
struct Factory(ParserFactory);

impl std::fmt::Debug for Factory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Factory")
    }
}

impl Grammars {
    /// For answers of `tokenizer`'s tokens that end with one of `eos`.
    pub(crate) fn new(tokenizer: Arc<Tokenizer>, eos: &[u32]) -> Self {
        Self { tokenizer, eos: eos.to_vec(), factory: OnceLock::new() }
    }

    /// A constraint at the beginning of an answer. Takes milliseconds for a common schema, and up to seconds for
    /// a hostile one or the first one with a large vocabulary: not for the batching thread.
    ///
    /// `Invalid` when the schema is too large, cannot be compiled, or allows nothing; the message begins with
    /// `field`.
    pub(crate) fn compile(&self, form: &Form, field: &str) -> Result<Constraint> {
        let grammar = match form {
            Form::Schema(schema) => TopLevelGrammar::from_json_schema(checked(schema, field)?),
            Form::Grammar(text) => TopLevelGrammar::from_lark(text.clone()),
        };
        let factory = self.factory.get_or_init(|| self.factory()).as_ref().map_err(Clone::clone)?;
        // The library catches its own panics while matching, but not while compiling.
        let compiled = catch_unwind(AssertUnwindSafe(|| {
            let mut matcher = Matcher::new(factory.0.create_parser(grammar));
            let allowed = matcher.compute_mask_or_eos()?;
            ensure(!allowed.is_zero(), "it allows no answer at all")?;
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(matcher)
        }));
        let reason = match compiled {
            Ok(Ok(matcher)) => return Ok(Constraint { matcher, eos: self.eos.clone() }),
            Ok(Err(error)) => match error.to_string() {
                dead_end if dead_end.starts_with("NoExtension") => "it allows no answer at all".to_owned(),
                reason => short(&reason),
            },
            Err(_) => "the compiler gave up".to_owned(),
        };
        Err(EngineError::Request(format!("`{field}` cannot be compiled: {reason}")))
    }

    fn factory(&self) -> Result<Factory> {
        let mut words = token_bytes(&self.tokenizer, &self.eos)?;
        // The trie is walked recursively; tokens that are this long are left out of answers of a form.
        words.iter_mut().filter(|word| word.len() > MAX_TOKEN_BYTES).for_each(Vec::clear);
        let size = u32::try_from(words.len()).unwrap_or(u32::MAX);
        let ends: Vec<u32> = self.eos.iter().copied().filter(|id| *id < size).collect();
        let Some(&first) = ends.first() else {
            return Err(EngineError::Request(
                "`response_format` needs a model with an end token, and this one has none".into(),
            ));
        };
        catch_unwind(AssertUnwindSafe(|| {
            let trie = TokTrie::from(&TokRxInfo::new(size, first), &words).with_eos_tokens(&ends);
            // Greedy cutting of forced text is enough: nothing is forced, tokens are only masked.
            let environment: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
            let slices = SlicedBiasComputer::general_slices();
            let factory = ParserFactory::new(&environment, InferenceCapabilities::default(), &slices);
            factory.map_err(|error| error.to_string())
        }))
        .unwrap_or_else(|_| Err("it panicked".to_owned()))
        .map(|mut factory| {
            factory.quiet();
            // Its state is no reason that says anything to whoever wrote the schema.
            factory.limits_mut().verbose_errors = false;
            Factory(factory)
        })
        .map_err(|error| EngineError::Internal(format!("no grammar compiler for this vocabulary: {error}")))
    }
}

/// An error with `reason` unless `holds`.
fn ensure(holds: bool, reason: &'static str) -> std::result::Result<(), &'static str> {
    if holds { Ok(()) } else { Err(reason) }
}

/// `schema` within its limits, written without blanks where JSON needs none but for one after a comma or colon:
/// a model that likes blanks could otherwise write them for ever.
pub(crate) fn checked(schema: &Value, field: &str) -> Result<Value> {
    let bytes = schema.to_string().len();
    if bytes > MAX_SCHEMA_BYTES {
        return Err(EngineError::Request(format!(
            "`{field}` has a schema of {bytes} bytes, more than {MAX_SCHEMA_BYTES}"
        )));
    }
    if depth(schema) > MAX_SCHEMA_DEPTH {
        return Err(EngineError::Request(format!(
            "`{field}` has a schema nested more than {MAX_SCHEMA_DEPTH} deep"
        )));
    }
    let mut schema = match schema {
        Value::Bool(true) => json!({}),
        other => other.clone(),
    };
    let Some(map) = schema.as_object_mut() else {
        return Err(EngineError::Request(format!("`{field}` has a schema that is not an object")));
    };
    map.insert("x-guidance".to_owned(), writing());
    Ok(schema)
}

/// How JSON is written.
pub(crate) fn writing() -> Value {
    json!({"whitespace_flexible": false, "item_separator": ", ?", "key_separator": ": ?"})
}

fn depth(value: &Value) -> usize {
    let inner = match value {
        Value::Array(items) => items.iter().map(depth).max(),
        Value::Object(map) => map.values().map(depth).max(),
        _ => return 0,
    };
    1 + inner.unwrap_or(0)
}

/// The reason in one line, cut.
fn short(reason: &str) -> String {
    let words: Vec<&str> = reason.split_whitespace().collect();
    let line = words.join(" ");
    let cut: String = line.chars().take(MAX_REASON_CHARS).collect();
    if cut.len() < line.len() { format!("{cut}…") } else { cut }
}

/// Where one answer is in its grammar.
pub(crate) struct Constraint {
    matcher: Matcher,
    eos: Vec<u32>,
}

impl std::fmt::Debug for Constraint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Constraint").field("stopped", &self.matcher.is_stopped()).finish_non_exhaustive()
    }
}

impl Constraint {
    /// Sets the logits `[vocab]` of tokens that may not come next to -∞. At least one stays above it.
    pub(crate) fn mask(&mut self, logits: &mut [f32]) -> Result<()> {
        let allowed = self.matcher.compute_mask_or_eos().map_err(|error| lost(&error.to_string()))?;
        let words = allowed.as_slice();
        let is_allowed = |id: usize| words.get(id / 32).is_some_and(|word| word >> (id % 32) & 1 == 1);
        let mut best = f32::NEG_INFINITY;
        for (id, logit) in logits.iter_mut().enumerate() {
            if is_allowed(id) {
                best = best.max(*logit);
            } else {
                *logit = f32::NEG_INFINITY;
            }
        }
        if best > f32::NEG_INFINITY {
            return Ok(());
        }
        // The model rules out all that the grammar allows: they are equally likely then.
        let mut any = false;
        for (id, logit) in logits.iter_mut().enumerate() {
            if is_allowed(id) {
                *logit = 0.0;
                any = true;
            }
        }
        if any { Ok(()) } else { Err(lost("no token may follow")) }
    }

    /// Takes in the token that was drawn.
    pub(crate) fn accept(&mut self, id: u32) -> Result<()> {
        if self.eos.contains(&id) {
            return Ok(());
        }
        self.matcher.consume_token(id).map_err(|error| lost(&error.to_string()))
    }
}

fn lost(reason: &str) -> EngineError {
    EngineError::Request(format!("the answer's form is too complex to follow: {}", short(reason)))
}

#[cfg(test)]
mod tests;
