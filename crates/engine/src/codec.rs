//! Requests and training examples to token ids: tokenizer and chat template together.

use std::{path::Path, sync::Arc};

use autoglm_domain::{ChatMessage, Clock, GenerationInput, ResponseFormat, Tool, TrainExample};
use serde_json::json;

use crate::{
    ChatTemplate, EngineError, ModelConfig, Result, Tokenizer, ToolStyle,
    constraint::{Constraint, Form, Grammars},
    tools::grammar,
};

/// What turns text into a model's tokens and says where an answer ends.
#[derive(Debug, Clone)]
pub struct TextCodec {
    tokenizer: Arc<Tokenizer>,
    template: Option<Arc<ChatTemplate>>,
    bos: Option<u32>,
    eos: Vec<u32>,
    grammars: Arc<Grammars>,
}

/// A training example as ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedExample {
    /// The same ids that serving would continue.
    pub prompt: Vec<u32>,
    /// What is to be learnt, up to and including the token that ends the turn.
    pub target: Vec<u32>,
}

impl TextCodec {
    /// Reads the tokenizer and the chat template of a GGUF file or a model folder.
    pub fn load(path: &Path, config: &ModelConfig, clock: Arc<dyn Clock>) -> Result<Self> {
        Self::new(Tokenizer::of_model(path)?, ChatTemplate::load(path, clock)?, config)
    }

    /// Puts the parts together. `Invalid` when the tokenizer has ids that the model lacks.
    pub fn new(tokenizer: Tokenizer, template: Option<ChatTemplate>, config: &ModelConfig) -> Result<Self> {
        if tokenizer.vocab_size() > config.vocab_size {
            return Err(EngineError::Tokenizer(format!(
                "has ids up to {}, but the model's vocabulary ends at {}",
                tokenizer.vocab_size() - 1,
                config.vocab_size
            )));
        }
        let tokenizer = Arc::new(tokenizer);
        Ok(Self {
            grammars: Arc::new(Grammars::new(Arc::clone(&tokenizer), &config.eos_token_ids)),
            tokenizer,
            template: template.map(Arc::new),
            bos: config.bos_token_id,
            eos: config.eos_token_ids.clone(),
        })
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Arc<Tokenizer> {
        &self.tokenizer
    }

    /// Tokens that end an answer.
    pub fn eos_token_ids(&self) -> &[u32] {
        &self.eos
    }

    /// The constraint of an answer to `input`: of the calls that it requires, else of `format`; where tools may be
    /// called or not, of either. `None` where any text will do. Takes up to seconds for a hostile schema.
    pub(crate) fn constraint(
        &self,
        input: &GenerationInput,
        format: &ResponseFormat,
    ) -> Result<Option<Constraint>> {
        let schema = match format {
            ResponseFormat::Text => None,
            ResponseFormat::JsonObject => Some(json!({"type": "object"})),
            ResponseFormat::JsonSchema(schema) => Some(schema.clone()),
        };
        let (form, field) = match (input, schema) {
            (GenerationInput::ChatWithTools { toolbox, .. }, schema) => {
                match grammar(self.tool_style(), toolbox, schema.as_ref(), &self.tokenizer)? {
                    Some(grammar) => (Form::Grammar(grammar), "tools"),
                    None => return Ok(None),
                }
            }
            (_, Some(schema)) => (Form::Schema(schema), "response_format"),
            (_, None) => return Ok(None),
        };
        self.grammars.compile(&form, field).map(Some)
    }

    /// How the model writes tool calls.
    pub fn tool_style(&self) -> ToolStyle {
        self.template.as_ref().map_or(ToolStyle::Hermes, |template| template.tool_style())
    }

    /// Special tokens that show in the text of an answer that may call tools, with what they show.
    pub(crate) fn tool_markers(&self) -> Vec<(u32, String)> {
        let markers = self.tool_style().markers().iter();
        markers
            .filter_map(|marker| Some((self.tokenizer.token_id(marker)?, (*marker).to_owned())))
            .filter(|(id, _)| self.tokenizer.is_special(*id))
            .collect()
    }

    /// The ids to continue. `Invalid` for a conversation when the model has no chat template or the template
    /// refuses it, and for an empty text when the model has no begin token.
    pub fn encode(&self, input: &GenerationInput) -> Result<Vec<u32>> {
        let mut ids = match input {
            GenerationInput::Chat(messages) => self.encode_chat(messages, &[])?,
            GenerationInput::ChatWithTools { messages, toolbox } => {
                self.encode_chat(messages, &toolbox.tools)?
            }
            GenerationInput::Text(text) => self.tokenizer.encode(text, true)?,
        };
        if ids.is_empty() {
            let empty = || EngineError::Request("the prompt is empty".into());
            ids.push(self.bos.ok_or_else(empty)?);
        }
        Ok(ids)
    }

    /// The ids of one training example.
    pub fn encode_example(&self, example: &TrainExample) -> Result<EncodedExample> {
        let prompt = self.encode_chat(&example.prompt, &[])?;
        let mut target = self.tokenizer.encode(&self.completion(example)?, false)?;
        match target.iter().position(|id| self.eos.contains(id)) {
            Some(end) => target.truncate(end + 1),
            None => target.extend(self.eos.first()),
        }
        Ok(EncodedExample { prompt, target })
    }

    fn encode_chat(&self, messages: &[ChatMessage], tools: &[Tool]) -> Result<Vec<u32>> {
        if messages.is_empty() {
            return Err(EngineError::Request("the conversation has no messages".into()));
        }
        self.tokenizer.encode(&self.template()?.render(messages, tools, true)?, false)
    }

    /// The target with what the template writes after an answer. Where the template rewrites earlier turns, so
    /// that one rendering does not begin with the other, the target alone.
    fn completion(&self, example: &TrainExample) -> Result<String> {
        let template = self.template()?;
        let opened = template.render(&example.prompt, &[], true)?;
        let mut turns = example.prompt.clone();
        turns.push(ChatMessage::assistant(example.target.clone()));
        let closed = template.render(&turns, &[], false)?;
        let completion = closed.strip_prefix(&opened).filter(|rest| rest.contains(&example.target));
        Ok(completion.unwrap_or(&example.target).to_owned())
    }

    fn template(&self) -> Result<&ChatTemplate> {
        self.template.as_deref().ok_or_else(|| {
            EngineError::Template(
                "the model has none; add `chat_template.jinja` or use plain completions".into(),
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use autoglm_domain::SystemClock;

    use super::*;
    use crate::tokenizer::{tests::small, train_bpe};

    fn config(vocab_size: usize) -> ModelConfig {
        let json = format!(
            r#"{{"model_type": "llama", "vocab_size": {vocab_size}, "hidden_size": 8, "intermediate_size": 8,
            "num_hidden_layers": 1, "num_attention_heads": 1, "bos_token_id": 0, "eos_token_id": 1}}"#
        );
        ModelConfig::from_json(&json).unwrap()
    }

    fn codec(template: &str) -> TextCodec {
        let json = train_bpe(["the cat the cat"].iter(), 270, &["<s>", "</s>", "<|end|>"]).unwrap();
        let template = ChatTemplate::new(template, [], Arc::new(SystemClock)).unwrap();
        TextCodec::new(Tokenizer::from_bytes(json.as_bytes()).unwrap(), Some(template), &config(270)).unwrap()
    }

    const PLAIN: &str = "{% for m in messages %}{{ m.role }}: {{ m.content }}</s>\n{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}";

    fn example(target: &str) -> TrainExample {
        TrainExample {
            prompt: vec![ChatMessage::user("the cat?")],
            target: target.into(),
            weight: 1.0,
            frequency: 1.0,
            objective: Default::default(),
        }
    }

    #[test]
    fn an_example_is_the_served_prompt_and_the_target_up_to_the_end_token() {
        let codec = codec(PLAIN);
        let encoded = codec.encode_example(&example("a cat")).unwrap();
        let served = codec.encode(&GenerationInput::Chat(example("").prompt)).unwrap();
        assert_eq!(encoded.prompt, served);
        assert_eq!(encoded.target.last(), Some(&1));
        assert_eq!(codec.tokenizer().decode(&encoded.target).unwrap(), "a cat");
    }

    #[test]
    fn a_template_that_rewrites_turns_still_gives_the_target_and_an_end() {
        let codec = codec("{{ messages | length }}{% if add_generation_prompt %}>{% endif %}");
        let encoded = codec.encode_example(&example("a cat")).unwrap();
        assert_eq!(codec.tokenizer().decode(&encoded.target).unwrap(), "a cat");
        assert_eq!(encoded.target.last(), Some(&1));
    }

    #[test]
    fn empty_prompts_begin_with_the_begin_token_and_mismatches_are_refused() {
        let codec = codec(PLAIN);
        assert_eq!(codec.encode(&GenerationInput::Text(String::new())).unwrap(), [0]);
        assert!(codec.encode(&GenerationInput::Chat(Vec::new())).is_err());
        let error = TextCodec::new(small(), None, &config(100)).unwrap_err();
        assert!(error.to_string().contains("the model's vocabulary ends at 100"), "{error}");
        let bare = TextCodec::new(small(), None, &config(300)).unwrap();
        let error = bare.encode(&GenerationInput::Chat(example("").prompt)).unwrap_err();
        assert!(error.to_string().contains("chat_template.jinja"), "{error}");
    }
}
