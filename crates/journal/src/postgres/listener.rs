//! Hearing of what other processes append, as soon as it is committed.
//!
//! A notification can be lost with its connection, so whoever waits also looks for itself now and then.

use std::{sync::Arc, time::Duration};

use sqlx::postgres::PgListener;
use tokio::{sync::Notify, task::JoinHandle};

use super::{APPENDED, TRAIN, address::Address};
use crate::JournalError;

/// Between two tries to listen again.
const RETRY: Duration = Duration::from_millis(500);

/// Rings when something was appended or ordered. Ends when it is dropped.
#[derive(Debug)]
pub struct Listener {
    bells: Arc<Bells>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Bells {
    appended: Notify,
    training_ordered: Notify,
}

impl Listener {
    pub(super) fn start(address: Arc<Address>) -> Self {
        let bells = Arc::<Bells>::default();
        let task = tokio::spawn(listen(address, Arc::clone(&bells)));
        Self { bells, task }
    }

    /// Waits for the next append of any process. One that came since the last call counts.
    pub async fn appended(&self) {
        self.bells.appended.notified().await;
    }

    /// Waits until somebody wants a training run ([`crate::PostgresStore::order_training`]).
    pub async fn training_ordered(&self) {
        self.bells.training_ordered.notified().await;
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn listen(address: Arc<Address>, bells: Arc<Bells>) {
    loop {
        let Err(error) = hear(&address, &bells).await;
        tracing::debug!(%error, "notifications are not heard; the store is looked at instead");
        tokio::time::sleep(RETRY).await;
    }
}

async fn hear(address: &Address, bells: &Bells) -> Result<std::convert::Infallible, JournalError> {
    let mut listener = PgListener::connect_with(&address.one().await?).await?;
    listener.listen_all([APPENDED, TRAIN]).await?;
    // What came before this is not told.
    bells.appended.notify_one();
    loop {
        match listener.try_recv().await? {
            Some(told) if told.channel() == TRAIN => bells.training_ordered.notify_one(),
            Some(_) => bells.appended.notify_one(),
            // Connected again.
            None => bells.appended.notify_one(),
        }
    }
}
