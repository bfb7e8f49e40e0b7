//! Who is asking: `Authorization: Bearer …` to a principal.

use std::collections::{BTreeSet, HashMap};

use autoglm_domain::ContentHash;
use axum::http::{HeaderMap, header};

use crate::{Config, GatewayError};

/// Longest principal or session name that is kept; the rest is cut off.
const NAME_CHARS: usize = 256;

/// The configured keys. They are looked up by their hash, so that the time it takes says nothing of a key.
#[derive(Debug)]
pub(crate) struct Principals {
    by_key: HashMap<ContentHash, String>,
    admins: BTreeSet<String>,
}

/// Who is asking, as far as the headers say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Caller {
    /// The principal of a configured key.
    Known(String),
    /// No keys are configured; the hash of the key that came nevertheless.
    Anyone(Option<ContentHash>),
}

impl Principals {
    pub(crate) fn new(config: &Config) -> Self {
        let by_key = config
            .keys
            .0
            .iter()
            .map(|(key, principal)| (ContentHash::of(key.as_bytes()), principal.clone()))
            .collect();
        Self { by_key, admins: config.admins.iter().cloned().collect() }
    }

    /// The caller, or a refusal where keys are configured and this is none of them.
    pub(crate) fn identify(&self, headers: &HeaderMap) -> Result<Caller, GatewayError> {
        let key = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, key)| ContentHash::of(key.trim().as_bytes()));
        if self.by_key.is_empty() {
            return Ok(Caller::Anyone(key));
        }
        let Some(key) = key else {
            return Err(GatewayError::Unauthorized(
                "no API key was given (hint: send the header `Authorization: Bearer KEY`)",
            ));
        };
        match self.by_key.get(&key) {
            Some(principal) => Ok(Caller::Known(principal.clone())),
            None => Err(GatewayError::Unauthorized(
                "the API key is not known (hint: keys are configured in `server.keys`)",
            )),
        }
    }

    /// That the caller may use the admin API.
    pub(crate) fn check_admin(&self, caller: &Caller) -> Result<(), GatewayError> {
        let admin = match caller {
            _ if self.admins.is_empty() => true,
            Caller::Known(principal) => self.admins.contains(principal),
            Caller::Anyone(_) => false,
        };
        if admin {
            return Ok(());
        }
        let message = format!(
            "`{}` may not use the admin API (hint: `server.admins` says who may)",
            caller.principal(None)
        );
        Err(GatewayError::Denied(message))
    }

    /// That the caller may see what `owner` asked: it was them, or they are an admin.
    pub(crate) fn check_may_see(&self, caller: &Caller, owner: &str) -> Result<(), GatewayError> {
        match caller {
            Caller::Known(principal) if principal == owner => Ok(()),
            caller => self.check_admin(caller),
        }
    }
}

impl Caller {
    /// The principal. Where no keys are configured it is the client's `user`, else the hash of its key,
    /// else `anonymous`.
    pub(crate) fn principal(&self, user: Option<&str>) -> String {
        match (self, user) {
            (Self::Known(principal), _) => principal.clone(),
            (Self::Anyone(_), Some(user)) if !user.trim().is_empty() => cut(user),
            (Self::Anyone(Some(key)), _) => format!("key-{}", key.short()),
            (Self::Anyone(None), _) => "anonymous".to_owned(),
        }
    }
}

/// `x-session-id`, where it is readable.
pub(crate) fn session(headers: &HeaderMap) -> Option<String> {
    headers.get("x-session-id").and_then(|value| value.to_str().ok()).filter(|id| !id.is_empty()).map(cut)
}

fn cut(name: &str) -> String {
    name.trim().chars().take(NAME_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn headers(authorization: Option<&'static str>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if let Some(value) = authorization {
            headers.insert(header::AUTHORIZATION, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn without_keys_everyone_is_someone() {
        let open = Principals::new(&Config::default());
        let nobody = open.identify(&headers(None)).unwrap();
        assert_eq!(nobody.principal(None), "anonymous");
        assert_eq!(nobody.principal(Some("ada")), "ada");
        let with_key = open.identify(&headers(Some("bearer sk-1"))).unwrap();
        assert_eq!(with_key.principal(None), format!("key-{}", ContentHash::of(b"sk-1").short()));
        assert_eq!(open.check_admin(&nobody), Ok(()));
    }

    #[test]
    fn with_keys_only_they_are_let_in_and_the_user_field_names_nobody() {
        let keys = [("sk-1".to_owned(), "ada".to_owned()), ("sk-2".to_owned(), "bob".to_owned())];
        let config = Config {
            keys: crate::Keys(keys.into_iter().collect()),
            admins: vec!["ada".into()],
            ..Config::default()
        };
        let principals = Principals::new(&config);
        assert!(principals.identify(&headers(None)).is_err());
        assert!(principals.identify(&headers(Some("Bearer sk-3"))).is_err());
        assert!(principals.identify(&headers(Some("Basic sk-1"))).is_err());
        let ada = principals.identify(&headers(Some("Bearer sk-1"))).unwrap();
        let bob = principals.identify(&headers(Some("Bearer sk-2"))).unwrap();
        assert_eq!(ada.principal(Some("eve")), "ada");
        assert_eq!(principals.check_admin(&ada), Ok(()));
        assert!(principals.check_admin(&bob).is_err());
        assert_eq!(principals.check_may_see(&bob, "bob"), Ok(()));
        assert!(principals.check_may_see(&bob, "ada").is_err());
    }
}
