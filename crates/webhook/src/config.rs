//! Who hears of what, who is asked, and who may announce.

use std::{collections::BTreeMap, path::PathBuf};

use autoglm_domain::Question;
use serde::{Deserialize, Serialize};

use crate::{NoticeKind, Result, Secret, WebhookError};

/// Webhooks, signed on both ways: `docs/webhooks.md`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Who hears of versions, by a name of your own: `url`, `events` (`version.created`, `version.promoted`,
    /// `version.rolled_back`, `alias.moved`, `rollout.decided`; empty is all), `secret_env` or `secret_file`,
    /// `timeout_ms`.
    pub hooks: BTreeMap<String, HookConfig>,
    /// Who is asked about candidates, by a name of your own: `url`, `questions` (`confirm-rollout`,
    /// `confirm-promotion`, `rollback`), `secret_env` or `secret_file`, `timeout_ms`.
    pub gates: BTreeMap<String, GateConfig>,
    /// Longest that a candidate waits for its first confirmation, seconds; then its verdict is inconclusive. On live
    /// traffic the stage's own time counts.
    pub wait_s: u64,
    /// Age at which news that could not be delivered is given up, seconds.
    pub keep_s: u64,
    /// Longest pause between two attempts, seconds; it grows from half a second to that.
    pub max_pause_s: u64,
    /// Time between two questions whether to roll back, milliseconds.
    pub rollback_every_ms: u64,
    /// Who may announce a model.
    pub inbound: InboundConfig,
}

/// One receiver of news.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HookConfig {
    /// Where news goes.
    pub url: String,
    /// What is sent; empty is everything.
    #[serde(default)]
    pub events: Vec<NoticeKind>,
    /// The environment variable of the secret, of any name that does not begin with `AUTOGLM_`.
    #[serde(default)]
    pub secret_env: String,
    /// The file of the secret.
    #[serde(default)]
    pub secret_file: PathBuf,
    /// Longest for one attempt, milliseconds.
    #[serde(default = "timeout_ms")]
    pub timeout_ms: u64,
}

/// One who is asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GateConfig {
    /// Where questions go.
    pub url: String,
    /// What is asked.
    pub questions: Vec<Question>,
    /// The environment variable of the secret, of any name that does not begin with `AUTOGLM_`.
    #[serde(default)]
    pub secret_env: String,
    /// The file of the secret.
    #[serde(default)]
    pub secret_file: PathBuf,
    /// Longest for one question, milliseconds.
    #[serde(default = "timeout_ms")]
    pub timeout_ms: u64,
}

/// Announcements of models at `POST /v1/autoglm/webhooks/model`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct InboundConfig {
    /// The environment variable of the secret that announcements are signed with, of any name that does not begin with
    /// `AUTOGLM_`; without a secret none is taken.
    pub secret_env: String,
    /// The file of the secret, in place of a variable.
    pub secret_file: PathBuf,
    /// Most seconds between an announcement's timestamp and the server's clock.
    pub tolerance_s: u64,
    /// Folders below which an adapter may be announced; empty takes none from a path.
    pub folders: Vec<PathBuf>,
    /// Git repositories from which one may be announced, by their exact addresses; empty takes none.
    pub remotes: Vec<String>,
}

fn timeout_ms() -> u64 {
    5_000
}

impl Default for Config {
    fn default() -> Self {
        Self {
            hooks: BTreeMap::new(),
            gates: BTreeMap::new(),
            inbound: InboundConfig::default(),
            wait_s: 3_600,
            keep_s: 3 * 86_400,
            max_pause_s: 60,
            rollback_every_ms: 2_000,
        }
    }
}

impl Default for InboundConfig {
    fn default() -> Self {
        Self {
            secret_env: String::new(),
            secret_file: PathBuf::new(),
            tolerance_s: 300,
            folders: Vec::new(),
            remotes: Vec::new(),
        }
    }
}

impl Config {
    /// Refuses what cannot work. `Invalid`, naming the key. Secrets are not read here.
    pub fn validate(&self) -> Result<()> {
        let hooks =
            self.hooks.iter().map(|(name, it)| ("hooks", name, &it.url, it.timeout_ms, &it.secret_env));
        let gates =
            self.gates.iter().map(|(name, it)| ("gates", name, &it.url, it.timeout_ms, &it.secret_env));
        for (table, name, url, timeout_ms, env) in hooks.chain(gates) {
            let key = format!("{table}.{name}");
            if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c)) {
                return setting(&key, "must have a name of letters, digits, `-` and `_`");
            }
            address(&key, url)?;
            between(&format!("{key}.timeout_ms"), timeout_ms, 1, 600_000)?;
            variable(&key, env)?;
        }
        for (name, gate) in &self.gates {
            if gate.questions.is_empty() {
                return setting(&format!("gates.{name}.questions"), "is empty, so that nothing is asked");
            }
        }
        variable("inbound", &self.inbound.secret_env)?;
        between("inbound.tolerance_s", self.inbound.tolerance_s, 1, 86_400)?;
        between("max_pause_s", self.max_pause_s, 1, 86_400)?;
        between("rollback_every_ms", self.rollback_every_ms, 100, 86_400_000)
    }
}

impl InboundConfig {
    /// The secret, where announcements are taken.
    pub(crate) fn secret(&self) -> Result<Option<Secret>> {
        if self.secret_env.is_empty() && self.secret_file.as_os_str().is_empty() {
            return Ok(None);
        }
        Secret::load("inbound", &self.secret_env, &self.secret_file).map(Some)
    }
}

fn setting<T>(key: &str, reason: &str) -> Result<T> {
    Err(WebhookError::Setting { key: key.to_owned(), reason: reason.to_owned() })
}

fn between(key: &str, value: u64, least: u64, most: u64) -> Result<()> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    setting(key, &format!("is {value}; it must be from {least} to {most}"))
}

fn variable(key: &str, name: &str) -> Result<()> {
    if name.starts_with("AUTOGLM_") {
        return setting(
            &format!("{key}.secret_env"),
            "begins with `AUTOGLM_`, as only settings do; choose another name",
        );
    }
    Ok(())
}

/// The address of a hook.
pub(crate) fn address(key: &str, text: &str) -> Result<reqwest::Url> {
    let key = format!("{key}.url");
    let url: reqwest::Url = match text.parse() {
        Ok(url) => url,
        Err(error) => return setting(&key, &format!("is `{text}`: {error}")),
    };
    match url.scheme() {
        "http" => {}
        "https" if cfg!(feature = "tls") => {}
        "https" => {
            let reason =
                format!("is `{text}`, which wants TLS, and this build lacks it: build with `--features tls`");
            return setting(&key, &reason);
        }
        other => return setting(&key, &format!("has the scheme `{other}`, not http or https")),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return setting(&key, "holds a password: requests are signed with the secret");
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(hook: &str) -> String {
        let config: Config = serde_json::from_str(&format!(r#"{{"hooks": {{"a": {hook}}}}}"#)).unwrap();
        config.validate().unwrap_err().to_string()
    }

    #[test]
    fn what_cannot_work_is_named() {
        assert_eq!(Config::default().validate(), Ok(()));
        assert!(refused(r#"{"url": "127.0.0.1:1"}"#).contains("webhook.hooks.a.url"));
        assert!(refused(r#"{"url": "http://u:p@h/"}"#).contains("password"));
        assert!(refused(r#"{"url": "http://h/", "timeout_ms": 0}"#).contains("from 1 to 600000"));
        assert!(refused(r#"{"url": "http://h/", "secret_env": "AUTOGLM_X"}"#).contains("choose another"));
        #[cfg(not(feature = "tls"))]
        assert!(refused(r#"{"url": "https://h/"}"#).contains("--features tls"));
        let gate = r#"{"gates": {"g": {"url": "http://h/", "questions": []}}}"#;
        let gate: Config = serde_json::from_str(gate).unwrap();
        assert!(gate.validate().unwrap_err().to_string().contains("gates.g.questions"));
        let unknown = serde_json::from_str::<Config>(r#"{"hooks": {"a": {"url": "x", "event": []}}}"#);
        assert!(unknown.unwrap_err().to_string().contains("unknown field `event`"));
        let questions = r#"{"url": "http://h/", "questions": ["confirm-rollout", "rollback"]}"#;
        assert!(serde_json::from_str::<GateConfig>(questions).is_ok());
        assert!(serde_json::from_str::<HookConfig>(r#"{"url": "x", "events": ["version.made"]}"#).is_err());
    }
}
