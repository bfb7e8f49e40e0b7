//! Settings of the gateway.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

/// Settings of the gateway; the defaults work.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Address and port to listen on; port 0 takes a free one.
    pub listen: String,
    /// Largest request body, bytes; larger ones are refused with 413.
    pub max_body_bytes: usize,
    /// Seconds that a client may take to send its body.
    pub body_timeout_s: u64,
    /// Seconds that an answer may take from request to last token.
    pub request_timeout_s: u64,
    /// Requests that may be answered at once; further ones are refused with 429.
    pub max_in_flight: usize,
    /// Most choices (prompts times `n`) of one request.
    pub max_choices: usize,
    /// Most texts of one embedding request.
    pub max_embedding_inputs: usize,
    /// Seconds without a token after which a comment keeps a stream's connection open.
    pub keep_alive_s: u64,
    /// Seconds that answers on their way may go on after the server was told to stop.
    pub shutdown_grace_s: u64,
    /// Temperature where the request names none. OpenAI has 1; 0 makes answers stable.
    pub temperature: f32,
    /// Most tokens of a plain completion where the request names none (OpenAI has 16 too). Chat answers are
    /// bounded by the context alone.
    pub completion_max_tokens: u32,
    /// API keys and the principal that each stands for. When empty, everyone is let in.
    #[serde(skip_serializing)]
    pub keys: Keys,
    /// Principals that may use `/v1/autoglm/…`; when empty, everyone who is let in may.
    pub admins: Vec<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:8080".into(),
            max_body_bytes: 4 << 20,
            body_timeout_s: 30,
            request_timeout_s: 600,
            max_in_flight: 256,
            max_choices: 16,
            max_embedding_inputs: 2048,
            keep_alive_s: 15,
            shutdown_grace_s: 30,
            temperature: 0.0,
            completion_max_tokens: 16,
            keys: Keys::default(),
            admins: Vec::new(),
        }
    }
}

/// API keys with their principals. Never printed.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Keys(pub BTreeMap<String, String>);

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} keys", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_and_never_printed() {
        let config: Config = serde_json::from_str(r#"{"keys": {"sk-secret": "ada"}}"#).unwrap();
        assert_eq!(config.keys.0["sk-secret"], "ada");
        let printed = format!("{config:?}{}", serde_json::to_string(&config).unwrap());
        assert!(!printed.contains("sk-secret"), "{printed}");
        assert!(serde_json::from_str::<Config>(r#"{"max_inflight": 3}"#).is_err());
    }
}
