//! A database on a real server.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use autoglm_doubles::PostgresServer;
use autoglm_journal::{Config, PostgresStore};
use parking_lot::Mutex;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

/// A database, and the server that it is on.
#[derive(Debug, Clone)]
pub(crate) struct Database {
    pub(crate) server: Arc<Mutex<PostgresServer>>,
    pub(crate) url: String,
    databases: Arc<AtomicUsize>,
}

impl Database {
    /// A server with an empty database; `None` where there is no Postgres.
    pub(crate) fn server() -> Option<Self> {
        let server = PostgresServer::start()?;
        let url = server.url("postgres");
        Some(Self { server: Arc::new(Mutex::new(server)), url, databases: Arc::default() })
    }

    /// Another empty database on the same server.
    pub(crate) async fn fresh(&self) -> Self {
        let name = format!("d{}", self.databases.fetch_add(1, Ordering::SeqCst));
        self.run(&format!("CREATE DATABASE {name}")).await;
        Self { url: self.server.lock().url(&name), ..self.clone() }
    }

    pub(crate) async fn open(&self) -> PostgresStore {
        self.open_with(Config::default()).await
    }

    pub(crate) async fn open_with(&self, config: Config) -> PostgresStore {
        PostgresStore::connect(&self.url, config).await.unwrap()
    }

    /// A session of the server's owner.
    pub(crate) async fn session(&self) -> PgConnection {
        PgConnection::connect(&self.url).await.unwrap()
    }

    /// Runs a statement as the server's owner.
    pub(crate) async fn run(&self, statement: &str) {
        let mut session = self.session().await;
        sqlx::raw_sql(AssertSqlSafe(statement.to_owned())).execute(&mut session).await.unwrap();
        session.close().await.unwrap();
    }
}
