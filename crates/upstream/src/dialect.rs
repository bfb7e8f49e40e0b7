//! How the servers that load adapters while they run want to be spoken to.

use serde::Serialize;
use serde_json::{Value, json};

/// A way to load adapters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Dialect {
    /// `/v1/load_lora_adapter`; the adapter's name is a model's name. Needs `--enable-lora` and
    /// `VLLM_ALLOW_RUNTIME_LORA_UPDATING=True`.
    Vllm,
    /// `/load_lora_adapter`; a request names the adapter beside the model. Needs `--enable-lora`.
    Sglang,
}

/// What a request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) model: String,
    pub(crate) lora_path: Option<String>,
}

impl Dialect {
    /// Both, the commoner first.
    pub(crate) const ALL: [Self; 2] = [Self::Vllm, Self::Sglang];

    /// The server that it comes from.
    pub fn server(self) -> &'static str {
        match self {
            Self::Vllm => "vLLM",
            Self::Sglang => "SGLang",
        }
    }

    /// Where adapters are loaded, below the server's root.
    pub(crate) fn load_path(self) -> &'static str {
        match self {
            Self::Vllm => "/v1/load_lora_adapter",
            Self::Sglang => "/load_lora_adapter",
        }
    }

    /// Where they are unloaded.
    pub(crate) fn unload_path(self) -> &'static str {
        match self {
            Self::Vllm => "/v1/unload_lora_adapter",
            Self::Sglang => "/unload_lora_adapter",
        }
    }

    /// Loads the PEFT folder `path` under `name`.
    pub(crate) fn load_body(self, name: &str, path: &str) -> Value {
        json!({"lora_name": name, "lora_path": path})
    }

    /// Unloads `name`.
    pub(crate) fn unload_body(self, name: &str) -> Value {
        json!({"lora_name": name})
    }

    /// The adapter `name` over `model`.
    pub(crate) fn target(self, model: &str, name: &str) -> Target {
        match self {
            Self::Vllm => Target { model: name.to_owned(), lora_path: None },
            Self::Sglang => Target { model: model.to_owned(), lora_path: Some(name.to_owned()) },
        }
    }
}
