//! Secrets that both sides of a hook know. They are read from the environment or a file, never from the settings, and
//! never printed.

use std::{fmt, path::Path};

use crate::{Result, WebhookError};

/// Fewest bytes of a secret.
const LEAST: usize = 16;

/// A shared secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// A secret as it is. `Invalid` when it is short; `key` says whose it is.
    pub fn new(key: &str, bytes: &[u8]) -> Result<Self> {
        if bytes.len() < LEAST {
            return Err(WebhookError::ShortSecret { key: key.to_owned(), bytes: bytes.len(), least: LEAST });
        }
        Ok(Self(bytes.to_owned()))
    }

    /// From the variable `env`, or the file `file` without spaces at its ends; exactly one of them must be named.
    pub(crate) fn load(key: &str, env: &str, file: &Path) -> Result<Self> {
        let one_of = |reason: &str| WebhookError::Setting { key: key.to_owned(), reason: reason.to_owned() };
        match (env.is_empty(), file.as_os_str().is_empty()) {
            (true, true) => Err(one_of("has no secret: name one with `secret_env` or `secret_file`")),
            (false, false) => Err(one_of("has both `secret_env` and `secret_file`: leave one of them out")),
            (false, true) => {
                let value = std::env::var(env).map_err(|_| WebhookError::NoVariable {
                    key: key.to_owned(),
                    variable: env.to_owned(),
                })?;
                Self::new(key, value.trim().as_bytes())
            }
            (true, false) => {
                let value = std::fs::read_to_string(file).map_err(|error| WebhookError::NoFile {
                    key: key.to_owned(),
                    path: file.to_owned(),
                    reason: error.to_string(),
                })?;
                Self::new(key, value.trim().as_bytes())
            }
        }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a secret")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_comes_from_one_place_and_is_long_enough() {
        let none = Path::new("");
        assert!(Secret::load("hooks.a", "", none).unwrap_err().to_string().contains("no secret"));
        assert_eq!(
            Secret::load("hooks.a", "NO_SUCH_VARIABLE", none).unwrap_err().to_string(),
            "`webhook.hooks.a.secret_env` names the environment variable `NO_SUCH_VARIABLE`, which is not set"
        );
        assert!(Secret::load("hooks.a", "A", Path::new("b")).unwrap_err().to_string().contains("both"));
        let missing = Secret::load("hooks.a", "", Path::new("/nowhere/secret")).unwrap_err();
        assert!(missing.to_string().contains("`/nowhere/secret`"), "{missing}");
        let short = Secret::new("hooks.a", b"0123456789abcde").unwrap_err();
        assert_eq!(short.to_string(), "the secret of `webhook.hooks.a` has 15 bytes, fewer than 16");
        let good = Secret::new("hooks.a", b"0123456789abcdef").unwrap();
        assert!(!format!("{good:?}").contains("0123"));
    }
}
