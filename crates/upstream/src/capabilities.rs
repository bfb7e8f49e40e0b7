//! What the upstream can do, found out once.

use std::time::Duration;

use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use crate::{AdapterProtocol, Config, Dialect, Result, UpstreamError, transport::Transport};

/// Longest for one question.
const LIMIT: Duration = Duration::from_secs(10);

/// What the upstream can do.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Capabilities {
    /// The model that is asked for.
    pub model: String,
    /// Models that it lists.
    pub models: Vec<String>,
    /// Most tokens of prompt and answer together, where it says so.
    pub context_length: Option<u32>,
    /// How it loads adapters, or why none can be loaded.
    #[serde(serialize_with = "dialect_or_reason")]
    pub adapters: std::result::Result<Dialect, String>,
}

/// `"vllm"`, or `{"none": reason}`.
fn dialect_or_reason<S: Serializer>(
    adapters: &std::result::Result<Dialect, String>,
    serializer: S,
) -> std::result::Result<S::Ok, S::Error> {
    match adapters {
        Ok(dialect) => dialect.serialize(serializer),
        Err(reason) => json!({"none": reason}).serialize(serializer),
    }
}

impl Capabilities {
    /// Asks the upstream.
    pub(crate) async fn of(transport: &Transport, config: &Config) -> Result<Self> {
        let listed = match transport.get(&format!("{}/models", transport.base()), LIMIT).await {
            Ok(list) => list,
            // A server that lists nothing can still answer to the name of its model.
            Err(UpstreamError::NotThere { .. }) if !config.model.is_empty() => Value::Null,
            Err(error) => return Err(error),
        };
        let entries = listed.get("data").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let id = |entry: &Value| entry.get("id").and_then(Value::as_str).map(str::to_owned);
        let models: Vec<String> = entries.iter().filter_map(id).collect();
        let model = match (config.model.as_str(), models.first()) {
            ("", Some(first)) => first.clone(),
            ("", None) => {
                let reason = "is empty, and the upstream lists no model".into();
                return Err(UpstreamError::Setting { key: "model".into(), reason });
            }
            (given, _) => given.to_owned(),
        };
        if !models.is_empty() && !models.contains(&model) {
            tracing::warn!(model, "the upstream does not list the model that it is asked for");
        }
        let entry = entries.iter().find(|entry| id(entry).as_deref() == Some(&model));
        let context_length = entry.and_then(context_length);
        let adapters = adapters(transport, config).await?;
        Ok(Self { model, models, context_length, adapters })
    }

    /// In a sentence, for the log.
    pub fn summary(&self) -> String {
        let context = self.context_length.map_or_else(String::new, |tokens| format!(", {tokens} tokens"));
        let adapters = match &self.adapters {
            Ok(dialect) => format!("adapters are loaded in the way of {}", dialect.server()),
            Err(reason) => format!("only the base model answers: {reason}"),
        };
        format!("model `{}`{context}; {adapters}", self.model)
    }
}

/// The context of a listed model; the name differs from server to server.
fn context_length(entry: &Value) -> Option<u32> {
    ["/max_model_len", "/context_length", "/context_window", "/meta/n_ctx"]
        .iter()
        .find_map(|path| entry.pointer(path).and_then(Value::as_u64))
        .and_then(|tokens| u32::try_from(tokens).ok())
}

async fn adapters(transport: &Transport, config: &Config) -> Result<std::result::Result<Dialect, String>> {
    if config.adapters == AdapterProtocol::Off {
        return Ok(Err("`upstream.adapters` is `off`".into()));
    }
    if config.adapter_dir.as_os_str().is_empty() {
        return Ok(Err("`upstream.adapter_dir` names no folder for adapters".into()));
    }
    match config.adapters {
        AdapterProtocol::Vllm => return Ok(Ok(Dialect::Vllm)),
        AdapterProtocol::Sglang => return Ok(Ok(Dialect::Sglang)),
        AdapterProtocol::Auto | AdapterProtocol::Off => {}
    }
    for dialect in Dialect::ALL {
        // An empty order changes nothing: a server that has the path finds its fields missing.
        let url = format!("{}{}", transport.root(), dialect.load_path());
        match transport.post(&url, &json!({}), LIMIT).await {
            Err(UpstreamError::Refused { .. }) => return Ok(Ok(dialect)),
            Ok(_) | Err(UpstreamError::NotThere { .. } | UpstreamError::Unauthorized { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Err("it has neither vLLM's nor SGLang's way to load adapters while it runs".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_context_is_found_under_every_name() {
        assert_eq!(context_length(&json!({"id": "m", "max_model_len": 8192})), Some(8192));
        assert_eq!(context_length(&json!({"id": "m", "meta": {"n_ctx": 512}})), Some(512));
        assert_eq!(context_length(&json!({"id": "m", "context_length": -1})), None);
    }

    #[test]
    fn the_summary_says_what_cannot_be_done() {
        let capabilities = Capabilities {
            model: "m".into(),
            models: vec!["m".into()],
            context_length: Some(8192),
            adapters: Err("off".into()),
        };
        assert_eq!(capabilities.summary(), "model `m`, 8192 tokens; only the base model answers: off");
    }
}
