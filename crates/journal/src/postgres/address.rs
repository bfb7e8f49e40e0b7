//! Where the database is, and how a session there is set up.

use std::{str::FromStr as _, time::Duration};

use sqlx::{
    AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _, PgConnection, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use crate::{Config, JournalError};

/// Longest that connecting may take.
const CONNECT: Duration = Duration::from_secs(5);

/// The settings of every session. A process that is cut off from the server while it holds the lock on `head` keeps
/// all others from writing: so the server ends a transaction that is idle, and looks whether we are still there.
/// An acknowledged event is on the disk, also where the server's default is not to wait for that.
const SESSION: &str = "
    SET search_path = autoglm;
    SET client_min_messages = warning;
    SET idle_in_transaction_session_timeout = '10s';
    SET tcp_keepalives_idle = 10;
    SET tcp_keepalives_interval = 5;
    SET tcp_keepalives_count = 3;
    SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off';";

/// An address with its secrets, which are never shown.
pub(crate) struct Address {
    options: PgConnectOptions,
    place: String,
    session: String,
}

impl std::fmt::Debug for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Address").field(&self.place).finish()
    }
}

impl Address {
    /// Reads a URL. What it leaves out comes from `PGHOST`, `PGUSER`, `PGPASSWORD` and so on, and from `~/.pgpass`.
    pub(crate) fn parse(url: &str, config: &Config) -> Result<Self, JournalError> {
        let address = |reason: String| JournalError::Address { reason };
        if !["postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme)) {
            return Err(address("it does not begin with `postgres://`".into()));
        }
        let options = PgConnectOptions::from_str(url).map_err(|error| address(error.to_string()))?;
        let options = options.application_name("autoglm").disable_statement_logging();
        let host = match options.get_socket() {
            Some(socket) => socket.display().to_string(),
            None => options.get_host().to_owned(),
        };
        let database = options.get_database().unwrap_or(options.get_username());
        let place = format!("{host}:{}/{database}", options.get_port());
        let session = format!("{SESSION} SET lock_timeout = {};", config.busy_timeout_ms);
        Ok(Self { options, place, session })
    }

    /// Host, port and database.
    pub(crate) fn place(&self) -> &str {
        &self.place
    }

    /// A new session.
    pub(crate) async fn connect(&self) -> Result<PgConnection, JournalError> {
        let connect = async {
            let mut connection = PgConnection::connect_with(&self.options).await?;
            connection.execute(AssertSqlSafe(self.session.clone())).await?;
            Ok(connection)
        };
        let connected = tokio::time::timeout(CONNECT, connect).await;
        let late = || JournalError::Lost { reason: format!("no answer within {} s", CONNECT.as_secs()) };
        connected.map_err(|_| late())?.map_err(|error: sqlx::Error| self.named(error.into()))
    }

    /// The sessions that reads go through. One that the server has ended meanwhile is replaced, not handed out.
    pub(crate) async fn readers(&self, config: &Config) -> Result<PgPool, JournalError> {
        let session = self.session.clone();
        let pool = PgPoolOptions::new()
            .max_connections(config.readers)
            .acquire_timeout(config.busy_timeout().max(Duration::from_secs(1)))
            .test_before_acquire(true)
            .after_connect(move |connection, _| {
                let session = session.clone();
                Box::pin(async move { connection.execute(AssertSqlSafe(session)).await.map(drop) })
            });
        Ok(pool.connect_with(self.options.clone()).await?)
    }

    /// One session that is made again when it is lost, for a listener.
    pub(crate) async fn one(&self) -> Result<PgPool, JournalError> {
        let pool = PgPoolOptions::new().max_connections(1).max_lifetime(None).idle_timeout(None);
        Ok(pool.acquire_timeout(CONNECT).connect_with(self.options.clone()).await?)
    }

    /// A failure of connecting, told of this address.
    pub(crate) fn named(&self, error: JournalError) -> JournalError {
        let at = self.place.clone();
        match error {
            JournalError::Lost { reason } => JournalError::Unreachable { at, reason },
            JournalError::Untrusted { reason, .. } => JournalError::Untrusted { at, reason },
            JournalError::LoginRefused { reason, .. } => JournalError::LoginRefused { at, reason },
            JournalError::NoDatabase { .. } => JournalError::NoDatabase { at },
            other => other.while_opening(at.as_ref()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        let url = "postgres://ada:s3cret@db.example:6432/loop?sslmode=disable";
        let address = Address::parse(url, &Config::default()).unwrap();
        assert_eq!(address.place(), "db.example:6432/loop");
        assert_eq!(format!("{address:?}"), r#"Address("db.example:6432/loop")"#);
        for bad in
            ["postgres://ada:s3cret@:x/", "mysql://ada:s3cret@h/d", "postgres://ada:s3cret@h/d?sslmode=no"]
        {
            let error = Address::parse(bad, &Config::default()).unwrap_err();
            assert!(matches!(error, JournalError::Address { .. }), "{error:?}");
            assert!(!error.to_string().contains("s3cret"), "{error}");
        }
    }
}
