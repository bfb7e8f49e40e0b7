//! Chat templates: a conversation in, the text that the model was taught to continue out.
//!
//! Templates are Jinja, as transformers' `apply_chat_template` understands it: Python's string and dictionary
//! methods, `raise_exception`, `strftime_now` (in UTC), `tojson`, `break` and `continue`, `generation` blocks.
//! They come with models from strangers: a template that loops or fills the memory ends with an error.

mod json;

use std::{path::Path, sync::Arc};

use autoglm_domain::{ChatMessage, Clock, Tool};
use minijinja::{Environment, Error, ErrorKind, UndefinedBehavior, Value, context, syntax::SyntaxConfig};
use serde_json::Map;

use crate::{
    EngineError, Result, ToolStyle, gguf,
    tools::{adapt, messages_value, tools_value},
};

/// Steps and 64-byte units that a rendering may take: under a second, some hundred megabytes.
const FUEL: u64 = 4_000_000;
const NAME: &str = "chat_template";
/// The special tokens that templates may name.
const TOKEN_NAMES: &[&str] =
    &["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// A compiled chat template with the special tokens it names.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    source: String,
    tokens: Vec<(String, String)>,
}

impl ChatTemplate {
    /// Reads the template of a GGUF file or of a model folder: `chat_template.jinja`, else `chat_template` in
    /// `tokenizer_config.json` (a text, or a list of named ones with a `default`). `None` when there is none;
    /// `Invalid` when a file is damaged or the template is not Jinja.
    pub fn load(folder: &Path, clock: Arc<dyn Clock>) -> Result<Option<Self>> {
        if folder.is_file() {
            return gguf::load_template(folder, clock);
        }
        let config: Map<String, serde_json::Value> = match read(&folder.join("tokenizer_config.json"))? {
            Some(text) => serde_json::from_str(&text).map_err(|error| {
                EngineError::Template(format!("tokenizer_config.json is damaged: {error}"))
            })?,
            None => Map::new(),
        };
        let source = match read(&folder.join("chat_template.jinja"))? {
            Some(source) => Some(source),
            None => default_template(config.get("chat_template"))?,
        };
        source.map(|source| Self::new(&source, special_tokens(&config), clock)).transpose()
    }

    /// Compiles `source`. `tokens` are special tokens by the names that templates use, e.g. `bos_token`.
    pub fn new(
        source: &str,
        tokens: impl IntoIterator<Item = (String, String)>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self> {
        let mut environment = Environment::new();
        environment.set_syntax(
            SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().map_err(|e| failed(&e))?,
        );
        environment.set_undefined_behavior(UndefinedBehavior::Lenient);
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.set_fuel(Some(FUEL));
        environment.add_filter("tojson", json::tojson);
        environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, message))
        });
        environment.add_function("strftime_now", move |format: String| {
            jiff::Timestamp::from_millisecond(clock.now().0)
                .and_then(|now| jiff::fmt::strtime::format(&format, now))
                .map_err(|error| Error::new(ErrorKind::InvalidOperation, error.to_string()))
        });
        let tokens: Vec<_> = tokens.into_iter().collect();
        for (name, token) in &tokens {
            environment.add_global(name.clone(), token.clone());
        }
        environment.add_template_owned(NAME, without_generation_tags(source)).map_err(|e| failed(&e))?;
        Ok(Self { environment, source: source.to_owned(), tokens })
    }

    /// The template as it was written.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The special token that the template knows by `name`, e.g. `pad_token`.
    pub fn token(&self, name: &str) -> Option<&str> {
        self.tokens.iter().find(|(known, _)| known == name).map(|(_, token)| token.as_str())
    }

    /// The text of `messages`; `add_generation_prompt` opens the model's turn at the end. `tools` are shown as the
    /// template shows them, or in the system prompt where it knows nothing of tools.
    ///
    /// `Invalid` when the template refuses the conversation (its own words are the message) or takes too long.
    pub fn render(
        &self,
        messages: &[ChatMessage],
        tools: &[Tool],
        add_generation_prompt: bool,
    ) -> Result<String> {
        let template = self.environment.get_template(NAME).map_err(|e| failed(&e))?;
        let messages = messages_value(&adapt(&self.source, messages, tools));
        let rendered = if tools.is_empty() {
            template.render(context! { messages, add_generation_prompt })
        } else {
            template.render(context! { messages, tools => tools_value(tools), add_generation_prompt })
        };
        rendered.map_err(|e| failed(&e))
    }

    /// How the model writes tool calls.
    pub fn tool_style(&self) -> ToolStyle {
        ToolStyle::of(&self.source)
    }
}

fn read(path: &Path) -> Result<Option<String>> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(EngineError::file(path, &error)),
    }
}

/// The text of `chat_template`: itself, or the one named `default` of a list.
fn default_template(value: Option<&serde_json::Value>) -> Result<Option<String>> {
    let damaged =
        || EngineError::Template("`chat_template` is neither a text nor a list of named texts".into());
    match value {
        None | Some(serde_json::Value::Null) => Ok(None),
        Some(serde_json::Value::String(source)) => Ok(Some(source.clone())),
        Some(serde_json::Value::Array(named)) => {
            let default = named.iter().find(|entry| entry.get("name").is_some_and(|name| name == "default"));
            let Some(entry) = default else {
                return Err(EngineError::Template("no chat template is named `default`".into()));
            };
            let source = entry.get("template").and_then(serde_json::Value::as_str).ok_or_else(damaged)?;
            Ok(Some(source.to_owned()))
        }
        Some(_) => Err(damaged()),
    }
}

/// Special tokens of a `tokenizer_config.json`, where each is a text or an object with `content`.
fn special_tokens(config: &Map<String, serde_json::Value>) -> Vec<(String, String)> {
    TOKEN_NAMES
        .iter()
        .filter_map(|name| {
            let value = config.get(*name)?;
            let text = value.as_str().or_else(|| value.get("content")?.as_str())?;
            Some(((*name).to_owned(), text.to_owned()))
        })
        .collect()
}

/// `generation` blocks mark the model's turns for training masks; here they are blocks that always apply.
fn without_generation_tags(source: &str) -> String {
    let mut rest = source;
    let mut result = String::with_capacity(source.len());
    while let Some((before, after)) = rest.split_once("{%") {
        let Some((tag, after)) = after.split_once("%}") else { break };
        let word = tag.trim_matches(['-', '+']).trim();
        let replaced = match word {
            "generation" => tag.replace(word, "if true"),
            "endgeneration" => tag.replace(word, "endif"),
            _ => tag.to_owned(),
        };
        result.extend([before, "{%", &replaced, "%}"]);
        rest = after;
    }
    result.push_str(rest);
    result
}

fn failed(error: &Error) -> EngineError {
    let message = match error.kind() {
        ErrorKind::OutOfFuel => format!("takes more than {FUEL} steps"),
        _ => match (error.detail(), error.line()) {
            (Some(detail), Some(line)) => format!("{detail} (line {line})"),
            _ => error.to_string(),
        },
    };
    EngineError::Template(message)
}

#[cfg(test)]
mod tests {
    use autoglm_domain::{ManualClock, Timestamp};
    use serde::Deserialize;

    use super::*;

    /// 26 November 2026, noon.
    fn clock() -> Arc<dyn Clock> {
        Arc::new(ManualClock::at(Timestamp(1_795_694_400_000)))
    }

    fn template(source: &str) -> Result<ChatTemplate> {
        let tokens = [("bos_token", "<|begin_of_text|>"), ("eos_token", "<|eot_id|>")];
        ChatTemplate::new(source, tokens.map(|(name, text)| (name.into(), text.into())), clock())
    }

    fn render(source: &str) -> Result<String> {
        template(source)?.render(&[ChatMessage::user("hi"), ChatMessage::assistant("yo")], &[], true)
    }

    #[derive(Deserialize)]
    struct Golden {
        template: String,
        messages: Vec<ChatMessage>,
        generation: bool,
        text: Option<String>,
        refusal: Option<String>,
    }

    /// `tests/templates/golden.py` made the texts.
    #[test]
    fn conversations_render_as_in_transformers() {
        let golden: Vec<Golden> =
            serde_json::from_str(include_str!("../tests/templates/golden.json")).unwrap();
        assert_eq!(golden.len(), 50);
        for case in golden {
            let source = match case.template.as_str() {
                "llama3" => include_str!("../tests/templates/llama3.jinja"),
                "chatml" => include_str!("../tests/templates/chatml.jinja"),
                "qwen3" => include_str!("../tests/templates/qwen3.jinja"),
                "glm4" => include_str!("../tests/templates/glm4.jinja"),
                _ => include_str!("../tests/templates/mistral.jinja"),
            };
            match template(source).unwrap().render(&case.messages, &[], case.generation) {
                Ok(text) => assert_eq!(Some(text), case.text, "{}", case.template),
                Err(error) => {
                    let words = case.refusal.unwrap_or_else(|| panic!("{}: {error}", case.template));
                    assert!(error.to_string().contains(&words), "{error}");
                }
            }
        }
    }

    #[test]
    fn a_refusal_of_the_template_is_the_message() {
        let error = render("{{ raise_exception('roles must alternate') }}").unwrap_err();
        assert_eq!(error.to_string(), "chat template: roles must alternate (line 1)");
    }

    #[test]
    fn templates_that_loop_or_swell_end_with_an_error() {
        for source in [
            "{% for a in range(9999) %}{% for b in range(9999) %}{% for c in range(9999) %}{% endfor %}{% endfor %}{% endfor %}",
            "{% set ns = namespace(t='ab') %}{% for a in range(64) %}{% set ns.t = ns.t + ns.t %}{% endfor %}{{ ns.t }}",
            "{% macro m() %}{{ m() }}{{ m() }}{% endmacro %}{{ m() }}",
            "{{ 'x' * 100000000000 }}",
        ] {
            let error = render(source).unwrap_err();
            assert!(matches!(error, EngineError::Template(_)), "{error}");
        }
        assert!(render("{% for a in b").unwrap_err().to_string().contains("line 1"));
    }

    #[test]
    fn python_and_json_behave_as_in_transformers() {
        // Python: json.dumps({"b": [1, 2.5, True, None], "a": "é<&'\n"}, ensure_ascii=False)
        let source = r#"{{ {"b": [1, 2.5, true, none], "a": "é<&'\n"} | tojson }}"#;
        assert_eq!(render(source).unwrap(), r#"{"b": [1, 2.5, true, null], "a": "é<&'\n"}"#);
        // Python: json.dumps({"a": [1, {}], "b": []}, indent=2)
        let source = r#"{{ {"a": [1, {}], "b": []} | tojson(indent=2) }}"#;
        assert_eq!(render(source).unwrap(), "{\n  \"a\": [\n    1,\n    {}\n  ],\n  \"b\": []\n}");
        assert_eq!(
            render("{{ messages[0].content.upper() ~ messages[-1]['content'][::-1] }}").unwrap(),
            "HIoy"
        );
        assert_eq!(
            render("{{ bos_token }}{{ missing }}|{{ strftime_now('%Y-%m-%d') }}").unwrap(),
            "<|begin_of_text|>|2026-11-26"
        );
        assert_eq!(render("a{%- generation -%} b {%- endgeneration -%} c").unwrap(), "abc");
        assert!(render("{{ strftime_now('%!') }}").is_err());
    }

    #[test]
    fn a_folders_template_is_found_in_each_of_its_places() {
        let folder = tempfile::tempdir().unwrap();
        let load = || ChatTemplate::load(folder.path(), clock());
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        let text = || load().unwrap().unwrap().render(&[ChatMessage::user("hi")], &[], false).unwrap();
        assert!(load().unwrap().is_none());
        write(
            "tokenizer_config.json",
            r#"{"chat_template": "{{ bos_token }}1", "bos_token": {"content": "<s>"}}"#,
        );
        assert_eq!(text(), "<s>1");
        write(
            "tokenizer_config.json",
            r#"{"chat_template": [{"name": "rag", "template": "2"}, {"name": "default", "template": "3"}]}"#,
        );
        assert_eq!(text(), "3");
        write("chat_template.jinja", "4\n");
        assert_eq!(text(), "4");
        write("tokenizer_config.json", "{");
        assert!(load().unwrap_err().to_string().contains("tokenizer_config.json is damaged"));
    }
}
