//! Orders to whoever leads, and what it answers.
//!
//! Both are notifications: an order that nobody takes leaves nothing behind, and whoever gave it hears nothing.

use std::{sync::Arc, time::Duration};

use sqlx::postgres::PgListener;

use super::{ANSWER, ORDER, Postgres, address::Address};
use crate::{JournalError, SqlStore};

/// Most bytes of an order or an answer with its id; Postgres takes less than 8000.
const MOST: usize = 7_900;

impl SqlStore<Postgres> {
    /// Gives an order, named `id`, to whoever leads, and waits for the answer; `None` where none came `within` that time.
    /// No other order may have this id, which has no space in it.
    ///
    /// # Errors
    /// [`JournalError::LongOrder`], and those of the connection.
    pub async fn order(
        &self,
        id: &str,
        order: &str,
        within: Duration,
    ) -> Result<Option<String>, JournalError> {
        let address: &Arc<Address> = &self.engine().address;
        // Before the order is given, so that the answer is not missed.
        let mut listener = PgListener::connect_with(&address.one().await?).await?;
        listener.listen(ANSWER).await?;
        self.notify(ORDER, id, order).await?;
        let answer = async {
            loop {
                let told = listener.recv().await?;
                if let Some((_, answer)) = read(told.payload()).filter(|(of, _)| *of == id) {
                    return Ok(answer.to_owned());
                }
            }
        };
        tokio::time::timeout(within, answer).await.ok().transpose()
    }

    /// Answers the order `id` ([`super::Listener::ordered`]).
    ///
    /// # Errors
    /// [`JournalError::LongOrder`], and those of the connection. That nobody waits any more is none.
    pub async fn answer(&self, id: &str, answer: &str) -> Result<(), JournalError> {
        self.notify(ANSWER, id, answer).await
    }

    async fn notify(&self, channel: &str, id: &str, text: &str) -> Result<(), JournalError> {
        let payload = format!("{id} {text}");
        if payload.len() > MOST {
            return Err(JournalError::LongOrder { bytes: payload.len(), most: MOST });
        }
        sqlx::query("SELECT pg_notify($1, $2)").bind(channel).bind(payload).execute(self.readers()).await?;
        Ok(())
    }
}

/// The id and the text.
pub(super) fn read(payload: &str) -> Option<(&str, &str)> {
    payload.split_once(' ')
}
