//! The shape of a model: `config.json` in, [`ModelConfig`] out.
//!
//! Reads what transformers 4 (`rope_theta`, `rope_scaling`) and 5 (`rope_parameters`) write. A key that this
//! engine does not know is refused: a key that changes the arithmetic and is passed over gives a model that
//! loads and is silently wrong.

mod keys;
mod raw;
mod rope;
mod window;

use std::path::Path;

use serde_json::{Map, Value, json};

pub use self::rope::{RopeConfig, RopeScaling};
use crate::{EngineError, Result};

/// The architectures that are computed. What sets them apart is an option of [`ModelConfig`] each; the family
/// decides which options a `config.json` may set, and their defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    /// `LlamaForCausalLM`
    Llama,
    /// `MistralForCausalLM`: a sliding window in every block, where there is one.
    Mistral,
    /// `Qwen2ForCausalLM`: biases on q, k and v; a sliding window in some blocks, where it is switched on.
    Qwen2,
    /// `Qwen3ForCausalLM`: norms on each head's q and k; windows as Qwen2.
    Qwen3,
    /// `GlmForCausalLM`, GLM-4 of 2024: part of each head rotated in neighbouring pairs, gate and up fused.
    Glm,
    /// `Glm4ForCausalLM`, GLM-4 of 2025: as [`Family::Glm`], with norms behind attention and feed-forward too.
    Glm4,
}

impl Family {
    /// Every family.
    pub const ALL: [Self; 6] = [Self::Llama, Self::Mistral, Self::Qwen2, Self::Qwen3, Self::Glm, Self::Glm4];

    /// `architectures[0]`.
    pub fn architecture(self) -> &'static str {
        match self {
            Self::Llama => "LlamaForCausalLM",
            Self::Mistral => "MistralForCausalLM",
            Self::Qwen2 => "Qwen2ForCausalLM",
            Self::Qwen3 => "Qwen3ForCausalLM",
            Self::Glm => "GlmForCausalLM",
            Self::Glm4 => "Glm4ForCausalLM",
        }
    }

    /// `model_type`.
    pub fn model_type(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Mistral => "mistral",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
            Self::Glm => "glm",
            Self::Glm4 => "glm4",
        }
    }

    /// Whether it is one of the two GLM-4s.
    pub(crate) fn is_glm(self) -> bool {
        matches!(self, Self::Glm | Self::Glm4)
    }
}

/// The shape of a decoder-only transformer.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// Architecture.
    pub family: Family,
    /// Rows of the embedding.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width inside the feed-forward block.
    pub intermediate_size: usize,
    /// Transformer blocks.
    pub num_layers: usize,
    /// Query heads.
    pub num_heads: usize,
    /// Key and value heads; divides `num_heads`.
    pub num_kv_heads: usize,
    /// Width of a head; even. `num_heads * head_dim` need not be `hidden_size`.
    pub head_dim: usize,
    /// Added to the mean square under RMSNorm's root.
    pub rms_norm_eps: f32,
    /// Rotary position embedding.
    pub rope: RopeConfig,
    /// Whether the output projection is the embedding.
    pub tie_word_embeddings: bool,
    /// Whether q, k and v have biases.
    pub attention_bias: bool,
    /// Whether the attention's output projection has a bias.
    pub attention_out_bias: bool,
    /// Whether the feed-forward projections have biases.
    pub mlp_bias: bool,
    /// Whether each head's q and k pass an RMSNorm of width `head_dim` before the rotation.
    pub qk_norm: bool,
    /// Whether what attention and feed-forward add to the residual stream passes an RMSNorm first.
    pub branch_norms: bool,
    /// Whether gate and up are one matrix in files and to adapters: `gate_up_proj`, gate first.
    pub fused_gate_up: bool,
    /// Width of the sliding window: a token sees itself and the `sliding_window - 1` tokens before it.
    pub sliding_window: Option<usize>,
    /// For each block, whether it looks through the window; empty without one.
    pub windowed_layers: Vec<bool>,
    /// Most tokens of prompt and answer together.
    pub max_position_embeddings: usize,
    /// Token that begins a text, where there is one.
    pub bos_token_id: Option<u32>,
    /// Tokens that end an answer.
    pub eos_token_ids: Vec<u32>,
    /// Standard deviation of fresh weights.
    pub initializer_range: f32,
}

impl ModelConfig {
    /// Reads `folder/config.json`, and from `folder/generation_config.json`, where there is one, the tokens
    /// that end an answer. `NotFound` without a `config.json`.
    pub fn load(folder: &Path) -> Result<Self> {
        let mut config = Self::from_json(&read(&folder.join("config.json"))?)?;
        match read(&folder.join("generation_config.json")) {
            Ok(text) => config.adopt_generation_config(&text)?,
            Err(EngineError::File { missing: true, .. }) => {}
            Err(error) => return Err(error),
        }
        Ok(config)
    }

    /// Reads the text of a `config.json`. `Invalid` when it is not JSON, lacks a key, holds a key or value
    /// that this engine does not compute, or is out of every proportion.
    pub fn from_json(text: &str) -> Result<Self> {
        let value: Value =
            serde_json::from_str(text).map_err(|error| EngineError::config(format!("not JSON: {error}")))?;
        let Value::Object(object) = value else {
            return Err(EngineError::config("not a JSON object"));
        };
        raw::read(&object)
    }

    /// How many tokens, itself included, a token of block `layer` sees; `None` is all before it.
    pub fn window(&self, layer: usize) -> Option<usize> {
        self.sliding_window.filter(|_| self.windowed_layers.get(layer).copied().unwrap_or(false))
    }

    /// How many values of a head, from its first, are rotated: `head_dim · partial_rotary_factor`, rounded down.
    pub fn rotary_dim(&self) -> usize {
        (self.head_dim as f64 * self.rope.partial_rotary_factor) as usize
    }

    /// Adds the end tokens of a `generation_config.json`; they come first, as there the tuned model's are.
    fn adopt_generation_config(&mut self, text: &str) -> Result<()> {
        let object: Map<String, Value> = serde_json::from_str(text)
            .map_err(|error| EngineError::config(format!("generation_config.json is not JSON: {error}")))?;
        let mut ids = raw::token_ids(&object, "eos_token_id")?;
        ids.retain(|&id| (id as usize) < self.vocab_size);
        for &id in &self.eos_token_ids {
            if !ids.contains(&id) {
                ids.push(id);
            }
        }
        self.eos_token_ids = ids;
        Ok(())
    }

    /// A `config.json` that transformers 4 and 5 and [`ModelConfig::from_json`] read.
    pub fn to_json(&self) -> String {
        let eos = match self.eos_token_ids.as_slice() {
            [] => Value::Null,
            [one] => json!(one),
            many => json!(many),
        };
        let mut object = json!({
            "architectures": [self.family.architecture()],
            "model_type": self.family.model_type(),
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.num_layers,
            "num_attention_heads": self.num_heads,
            "num_key_value_heads": self.num_kv_heads,
            "head_dim": self.head_dim,
            "hidden_act": "silu",
            "rms_norm_eps": decimal(self.rms_norm_eps),
            "rope_theta": self.rope.theta,
            "rope_scaling": self.rope.scaling.to_json(),
            "tie_word_embeddings": self.tie_word_embeddings,
            "max_position_embeddings": self.max_position_embeddings,
            "bos_token_id": self.bos_token_id,
            "eos_token_id": eos,
            "initializer_range": decimal(self.initializer_range),
            "torch_dtype": "float32",
        });
        if let Value::Object(map) = &mut object {
            if !matches!(self.family, Family::Qwen2 | Family::Mistral) {
                map.insert("attention_bias".into(), json!(self.attention_bias));
            }
            if self.family == Family::Llama {
                map.insert("mlp_bias".into(), json!(self.mlp_bias));
            }
            if self.family.is_glm() {
                map.insert("partial_rotary_factor".into(), json!(self.rope.partial_rotary_factor));
            }
            window::write(map, self);
        }
        format!("{object:#}\n")
    }
}

/// The shortest decimal of a 32-bit number, so that `1e-6` is written as such.
fn decimal(value: f32) -> Value {
    value.to_string().parse::<f64>().map_or(Value::Null, |value| json!(value))
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|error| EngineError::file(path, &error))
}

#[cfg(test)]
mod tests;
