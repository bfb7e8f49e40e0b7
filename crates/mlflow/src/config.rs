//! Where MLflow is and what goes there.

use serde::{Deserialize, Serialize};

use crate::{MlflowError, Result};

/// An MLflow tracking server that runs, versions and aliases are mirrored to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Its address, such as `http://127.0.0.1:5000`; empty mirrors nothing.
    pub url: String,
    /// The experiment that runs belong to; made where it is missing.
    pub experiment: String,
    /// The registered model that versions belong to; made where it is missing.
    pub model: String,
    /// Whether adapters are uploaded as artifacts of their runs, through the server; it must serve artifacts.
    pub upload: bool,
    /// Our alias that follows the one of the same name in MLflow, such as `champion`: a move made there is made here.
    /// Empty follows none.
    pub follow_alias: String,
    /// Seconds between two looks whether that alias was moved in MLflow.
    pub poll_s: u64,
    /// Longest for one request, milliseconds; an upload may take ten times as long.
    pub timeout_ms: u64,
    /// The environment variable that holds a bearer token, of any name that does not begin with `AUTOGLM_`; empty sends
    /// none.
    pub token_env: String,
    /// The user for basic authentication; empty sends none.
    pub username: String,
    /// The environment variable that holds that user's password, of any name that does not begin with `AUTOGLM_`.
    pub password_env: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            url: String::new(),
            experiment: "autoglm".into(),
            model: "autoglm".into(),
            upload: true,
            follow_alias: String::new(),
            poll_s: 10,
            timeout_ms: 10_000,
            token_env: String::new(),
            username: String::new(),
            password_env: String::new(),
        }
    }
}

impl Config {
    /// Whether anything is mirrored.
    pub fn is_set(&self) -> bool {
        !self.url.is_empty()
    }

    /// Refuses what cannot work. `Invalid`, naming the key.
    pub fn validate(&self) -> Result<()> {
        if !self.is_set() {
            return Ok(());
        }
        self.base()?;
        for (key, value) in [("experiment", &self.experiment), ("model", &self.model)] {
            if value.is_empty() || value.contains(['/', ':', '\'', '"']) {
                return setting(key, format!("is `{value}`; it must be a name without `/`, `:` and quotes"));
            }
        }
        for (key, value) in [("poll_s", self.poll_s), ("timeout_ms", self.timeout_ms)] {
            if !(1..=86_400_000).contains(&value) {
                return setting(key, format!("is {value}; it must be from 1 to 86400000"));
            }
        }
        for (key, name) in [("token_env", &self.token_env), ("password_env", &self.password_env)] {
            if name.starts_with("AUTOGLM_") {
                return setting(
                    key,
                    "begins with `AUTOGLM_`, as only settings do; choose another name".into(),
                );
            }
        }
        if self.username.is_empty() != self.password_env.is_empty() {
            return setting("username", "and `password_env` go together".into());
        }
        Ok(())
    }

    /// The server's address, without a slash at its end.
    pub(crate) fn base(&self) -> Result<String> {
        let text = self.url.trim_end_matches('/');
        let url: reqwest::Url = match text.parse() {
            Ok(url) => url,
            Err(error) => return setting("url", format!("is `{text}`: {error}")),
        };
        match url.scheme() {
            "http" => {}
            "https" if cfg!(feature = "tls") => {}
            "https" => {
                let why = "wants TLS, which this build lacks: build with `--features tls`";
                return setting("url", format!("is `{text}`, which {why}"));
            }
            other => return setting("url", format!("has the scheme `{other}`, not http or https")),
        }
        if !url.username().is_empty() || url.password().is_some() {
            return setting("url", "holds a password: use `username` and `password_env`".into());
        }
        Ok(text.to_owned())
    }
}

fn setting<T>(key: &str, reason: String) -> Result<T> {
    Err(MlflowError::Setting { key: key.to_owned(), reason })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(change: impl FnOnce(&mut Config)) -> String {
        let mut config = Config { url: "http://h:5000".into(), ..Config::default() };
        change(&mut config);
        config.validate().unwrap_err().to_string()
    }

    #[test]
    fn what_cannot_work_is_named() {
        assert_eq!(Config::default().validate(), Ok(()));
        assert_eq!(
            Config { url: "http://h:5000/".into(), ..Config::default() }.base().unwrap(),
            "http://h:5000"
        );
        assert!(refused(|it| it.url = "h:5000".into()).contains("mlflow.url"));
        assert!(refused(|it| it.url = "http://u:p@h".into()).contains("password_env"));
        assert!(refused(|it| it.model = "a/b".into()).contains("mlflow.model"));
        assert!(refused(|it| it.poll_s = 0).contains("from 1"));
        assert!(refused(|it| it.username = "ada".into()).contains("go together"));
        assert!(refused(|it| it.token_env = "AUTOGLM_T".into()).contains("choose another name"));
    }
}
