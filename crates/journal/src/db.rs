//! Statements as both engines read them.
//!
//! SQLite and Postgres agree on `$1`, `ON CONFLICT`, `RETURNING` and joins, so nearly every statement is written
//! once, in `apply` and `read`. What they do not agree on is an associated constant here, or lies with the engine.

use std::future::Future;

use sqlx::{FromRow, postgres::PgRow, sqlite::SqliteRow};

use crate::JournalError;

/// A value of a statement, for `$1` and so on in order.
#[derive(Debug, Clone, Copy)]
pub enum Arg<'a> {
    /// A number, or none.
    Int(Option<i64>),
    /// A number with a fraction.
    Real(f64),
    /// A text.
    Text(&'a str),
    /// Bytes, or none.
    Bytes(Option<&'a [u8]>),
}

impl From<f64> for Arg<'_> {
    fn from(number: f64) -> Self {
        Self::Real(number)
    }
}

impl From<i64> for Arg<'_> {
    fn from(number: i64) -> Self {
        Self::Int(Some(number))
    }
}

impl From<Option<i64>> for Arg<'_> {
    fn from(number: Option<i64>) -> Self {
        Self::Int(number)
    }
}

impl<'a> From<&'a str> for Arg<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text)
    }
}

impl<'a> From<&'a String> for Arg<'a> {
    fn from(text: &'a String) -> Self {
        Self::Text(text)
    }
}

/// What a statement may give: a tuple of numbers, texts and bytes.
pub trait Row: for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, PgRow> + Send + Unpin {}

impl<T> Row for T where T: for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, PgRow> + Send + Unpin {}

/// A connection, in a transaction or not.
pub trait Db: Send {
    /// Begins a transaction in which every statement sees the same moment.
    const MOMENT: &'static str;
    /// The feedback on the interactions whose positions are `$1`, a JSON array: interaction, position, body.
    const FEEDBACK: &'static str;
    /// The interactions whose ids are `$1`, a JSON array.
    const INTERACTIONS_OF: &'static str;
    /// The pairs whose ids are `$1`, a JSON array.
    const PAIRS_OF: &'static str;

    /// What `statement` gives.
    fn rows<T: Row>(
        &mut self,
        statement: &'static str,
        args: &[Arg<'_>],
    ) -> impl Future<Output = Result<Vec<T>, JournalError>> + Send;

    /// Runs `statement`; how many rows it changed.
    fn execute(
        &mut self,
        statement: &'static str,
        args: &[Arg<'_>],
    ) -> impl Future<Output = Result<u64, JournalError>> + Send;

    /// The first row that `statement` gives, if it gives any.
    fn row<T: Row>(
        &mut self,
        statement: &'static str,
        args: &[Arg<'_>],
    ) -> impl Future<Output = Result<Option<T>, JournalError>> + Send {
        async move { Ok(self.rows::<T>(statement, args).await?.into_iter().next()) }
    }
}

/// Implements [`Db`] for the connection of an engine.
macro_rules! db_of {
    ($connection:ty, $moment:expr, $feedback:expr, $interactions:expr, $pairs:expr) => {
        impl $crate::db::Db for $connection {
            const MOMENT: &'static str = $moment;
            const FEEDBACK: &'static str = $feedback;
            const INTERACTIONS_OF: &'static str = $interactions;
            const PAIRS_OF: &'static str = $pairs;

            async fn rows<T: $crate::db::Row>(
                &mut self,
                statement: &'static str,
                args: &[$crate::db::Arg<'_>],
            ) -> Result<Vec<T>, $crate::JournalError> {
                let query = args.iter().fold(sqlx::query_as(statement), |query, arg| match *arg {
                    $crate::db::Arg::Int(number) => query.bind(number),
                    $crate::db::Arg::Real(number) => query.bind(number),
                    $crate::db::Arg::Text(text) => query.bind(text),
                    $crate::db::Arg::Bytes(bytes) => query.bind(bytes),
                });
                Ok(query.fetch_all(self).await?)
            }

            async fn execute(
                &mut self,
                statement: &'static str,
                args: &[$crate::db::Arg<'_>],
            ) -> Result<u64, $crate::JournalError> {
                let query = args.iter().fold(sqlx::query(statement), |query, arg| match *arg {
                    $crate::db::Arg::Int(number) => query.bind(number),
                    $crate::db::Arg::Real(number) => query.bind(number),
                    $crate::db::Arg::Text(text) => query.bind(text),
                    $crate::db::Arg::Bytes(bytes) => query.bind(bytes),
                });
                Ok(query.execute(self).await?.rows_affected())
            }
        }
    };
}

pub(crate) use db_of;
