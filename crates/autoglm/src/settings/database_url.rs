//! The address of a database, whose password is never shown.

use autoglm_domain::{Error, Result};
use serde::{Deserialize, Serialize};

/// What stands where a password would.
const HIDDEN: &str = "***";

/// `postgres://USER:PASSWORD@HOST:PORT/DATABASE`, or empty.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct DatabaseUrl(String);

impl DatabaseUrl {
    /// Whether none is set.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The address with its password, to connect with and nothing else.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Refuses what is no address of a Postgres database.
    pub(super) fn check(&self) -> Result<()> {
        let known = ["postgres://", "postgresql://"].iter().any(|scheme| self.0.starts_with(scheme));
        if self.is_empty() || known {
            return Ok(());
        }
        Err(Error::invalid(format!("`store.url` is `{self}`, which does not begin with `postgres://`"))
            .with_hint(
                "it looks like postgres://USER@HOST:5432/DATABASE; empty is a file in the data directory",
            ))
    }
}

impl From<&str> for DatabaseUrl {
    fn from(url: &str) -> Self {
        Self(url.to_owned())
    }
}

/// Without the password.
impl std::fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (scheme, rest) = match self.0.split_once("://") {
            Some((scheme, rest)) => (format!("{scheme}://"), rest),
            None => (String::new(), self.0.as_str()),
        };
        // A password may hold any sign, so the last `@` ends it.
        let (login, place) = match rest.rsplit_once('@') {
            Some((login, place)) => (Some(login), place),
            None => (None, rest),
        };
        let login = login.map(|login| match login.split_once(':') {
            _ if login.contains(['/', '?']) => format!("{HIDDEN}@"),
            Some((user, _)) => format!("{user}:{HIDDEN}@"),
            None => format!("{login}@"),
        });
        let (place, query) = match place.split_once('?') {
            Some((place, query)) => (place, Some(query)),
            None => (place, None),
        };
        let parameter = |one: &str| match one.split_once('=') {
            // Only what is known to be no secret is shown.
            Some((key, _)) if !["sslmode", "host", "port", "dbname", "user"].contains(&key) => {
                format!("{key}={HIDDEN}")
            }
            _ => one.to_owned(),
        };
        let query = query.map(|query| query.split('&').map(parameter).collect::<Vec<_>>().join("&"));
        write!(f, "{scheme}{}{place}", login.unwrap_or_default())?;
        query.map_or(Ok(()), |query| write!(f, "?{query}"))
    }
}

/// Without the password.
impl std::fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_is_not_shown_wherever_it_stands() {
        for (url, shown) in [
            ("", ""),
            ("postgres://db:5432/loop", "postgres://db:5432/loop"),
            ("postgres://ada@db/loop?sslmode=require", "postgres://ada@db/loop?sslmode=require"),
            ("postgres://ada:s3c@ret@db/loop", "postgres://ada:***@db/loop"),
            ("postgres://ada:s3cret@db/loop?x=1", "postgres://ada:***@db/loop?x=***"),
            ("postgres:///loop?user=ada&password=s3cret", "postgres:///loop?user=ada&password=***"),
            ("postgres:///loop?user=ada&password=s3@cret", "postgres://***@cret"),
            ("postgres://ada:s3?cret@db/loop", "postgres://***@db/loop"),
            ("ada:s3cret@db", "ada:***@db"),
        ] {
            let url = DatabaseUrl::from(url);
            assert_eq!((url.to_string().as_str(), format!("{url:?}")), (shown, format!("{shown:?}")));
        }
    }

    #[test]
    fn another_kind_of_database_is_refused_without_its_password() {
        assert_eq!(DatabaseUrl::default().check(), Ok(()));
        assert_eq!(DatabaseUrl::from("postgresql://db/loop").check(), Ok(()));
        let error = DatabaseUrl::from("mysql://ada:s3cret@db/loop").check().unwrap_err();
        assert_eq!(
            error.message,
            "`store.url` is `mysql://ada:***@db/loop`, which does not begin with `postgres://`"
        );
        assert!(error.hint.is_some());
    }
}
