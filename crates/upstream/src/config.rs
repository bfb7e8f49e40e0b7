//! Where the upstream is, and how long it may take.

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{AdapterProtocol, CircuitConfig, Result, RetryConfig, UpstreamError};

/// Another server in place of the engine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where an OpenAI-compatible server has its API, with the version: `http://127.0.0.1:8000/v1`. It answers in
    /// place of autoglm's engine; empty is autoglm's engine.
    pub base_url: String,
    /// The environment variable that holds the upstream's API key, of any name that does not begin with `AUTOGLM_`;
    /// empty sends none.
    pub api_key_env: String,
    /// The model to ask for; empty is the first that the upstream lists.
    pub model: String,
    /// The upstream's model for embeddings, for memory and judging; empty takes them from a model in this process, which
    /// answers also while the upstream is down.
    pub embedding_model: String,
    /// Most tokens of prompt and answer together; 0 is what the upstream says, or 4096 where it says nothing.
    pub context_length: u32,
    /// What the upstream calls the limit of a chat's answer: `max_tokens`, or `max_completion_tokens` for OpenAI's own
    /// newer models.
    pub max_tokens_field: String,
    /// Longest to connect, milliseconds.
    pub connect_timeout_ms: u64,
    /// Longest from a request to its first token, seconds; retries count.
    pub first_token_timeout_s: u64,
    /// Longest between two tokens, seconds.
    pub token_timeout_s: u64,
    /// Longest for a whole answer, seconds.
    pub request_timeout_s: u64,
    /// Longest for one call of embeddings, seconds.
    pub embedding_timeout_s: u64,
    /// Connections that are kept open while nothing goes through them.
    pub idle_connections: usize,
    /// How adapters get to the upstream: `auto` finds out whether it speaks `vllm` or `sglang`, `off` sends none.
    pub adapters: AdapterProtocol,
    /// Folder that adapters are written to, each under its content hash, and that the upstream can read; empty sends
    /// none.
    pub adapter_dir: PathBuf,
    /// The same folder as the upstream sees it; empty is the same path.
    pub adapter_dir_remote: PathBuf,
    /// Longest to load an adapter, seconds.
    pub adapter_timeout_s: u64,
    /// What is tried again.
    pub retry: RetryConfig,
    /// When requests are refused without asking.
    pub circuit: CircuitConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            base_url: String::new(),
            api_key_env: String::new(),
            model: String::new(),
            embedding_model: String::new(),
            context_length: 0,
            max_tokens_field: "max_tokens".into(),
            connect_timeout_ms: 2000,
            first_token_timeout_s: 120,
            token_timeout_s: 60,
            request_timeout_s: 600,
            embedding_timeout_s: 10,
            idle_connections: 64,
            adapters: AdapterProtocol::Auto,
            adapter_dir: PathBuf::new(),
            adapter_dir_remote: PathBuf::new(),
            adapter_timeout_s: 120,
            retry: RetryConfig::default(),
            circuit: CircuitConfig::default(),
        }
    }
}

impl Config {
    /// Whether an upstream answers at all.
    pub fn is_set(&self) -> bool {
        !self.base_url.is_empty()
    }

    /// Refuses what cannot work. `Invalid`, naming the key.
    pub fn validate(&self) -> Result<()> {
        if !self.is_set() {
            return Ok(());
        }
        let refused = |key: &str, reason: String| Err(UpstreamError::Setting { key: key.to_owned(), reason });
        self.base()?;
        for (key, value) in [
            ("connect_timeout_ms", self.connect_timeout_ms),
            ("first_token_timeout_s", self.first_token_timeout_s),
            ("token_timeout_s", self.token_timeout_s),
            ("request_timeout_s", self.request_timeout_s),
            ("embedding_timeout_s", self.embedding_timeout_s),
            ("adapter_timeout_s", self.adapter_timeout_s),
        ] {
            if value == 0 || value > 86_400_000 {
                return refused(key, format!("is {value}; it must be from 1 to 86400000"));
            }
        }
        if self.api_key_env.starts_with("AUTOGLM_") {
            return refused(
                "api_key_env",
                "begins with `AUTOGLM_`, as only settings do; choose another name".into(),
            );
        }
        if self.max_tokens_field.is_empty() {
            return refused(
                "max_tokens_field",
                "is empty (`max_tokens` is what most servers call it)".into(),
            );
        }
        if !self.adapter_dir_remote.as_os_str().is_empty() && self.adapter_dir.as_os_str().is_empty() {
            return refused("adapter_dir_remote", "needs `adapter_dir`, where the files are written".into());
        }
        self.retry.validate()?;
        self.circuit.validate()
    }

    /// The base address, without a slash at its end.
    pub(crate) fn base(&self) -> Result<reqwest::Url> {
        let refused = |reason: String| UpstreamError::Setting { key: "base_url".into(), reason };
        let text = self.base_url.trim_end_matches('/');
        let url: reqwest::Url = text.parse().map_err(|error| refused(format!("`{text}`: {error}")))?;
        match url.scheme() {
            "http" => {}
            "https" if cfg!(feature = "tls") => {}
            "https" => {
                return Err(refused(format!(
                    "`{text}` wants TLS, which this build lacks: build with `--features tls`, or put a proxy between"
                )));
            }
            other => return Err(refused(format!("`{text}` has the scheme `{other}`, not http or https"))),
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(refused("holds a password: put the key into the variable of `api_key_env`".into()));
        }
        Ok(url)
    }

    pub(crate) fn first_token(&self) -> Duration {
        Duration::from_secs(self.first_token_timeout_s)
    }

    pub(crate) fn between_tokens(&self) -> Duration {
        Duration::from_secs(self.token_timeout_s)
    }

    pub(crate) fn whole(&self) -> Duration {
        Duration::from_secs(self.request_timeout_s)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(base_url: &str) -> String {
        Config { base_url: base_url.into(), ..Config::default() }.validate().unwrap_err().to_string()
    }

    #[test]
    fn addresses_that_cannot_work_are_refused_with_what_is_wrong() {
        assert_eq!(Config::default().validate(), Ok(()));
        let good = Config { base_url: "http://127.0.0.1:8000/v1/".into(), ..Config::default() };
        assert_eq!(good.validate(), Ok(()));
        assert_eq!(good.base().unwrap().as_str(), "http://127.0.0.1:8000/v1");
        assert!(refusal("127.0.0.1:8000").contains("base_url"));
        assert!(refusal("ftp://host/v1").contains("scheme `ftp`"));
        assert!(refusal("http://user:pass@host/v1").contains("api_key_env"));
        #[cfg(not(feature = "tls"))]
        assert!(refusal("https://host/v1").contains("--features tls"));
    }

    #[test]
    fn the_key_is_not_kept_among_the_settings() {
        let config = Config {
            base_url: "http://h/v1".into(),
            api_key_env: "AUTOGLM_UPSTREAM_KEY".into(),
            ..Config::default()
        };
        assert!(config.validate().unwrap_err().to_string().contains("choose another name"));
    }

    #[test]
    fn limits_out_of_range_are_named() {
        let config = Config { base_url: "http://h/v1".into(), token_timeout_s: 0, ..Config::default() };
        assert_eq!(
            config.validate().unwrap_err().to_string(),
            "setting `upstream.token_timeout_s` is 0; it must be from 1 to 86400000"
        );
    }
}
