//! Hearing of what other processes append, as soon as it is committed.
//!
//! A notification can be lost with its connection, so whoever waits also looks for itself now and then.

use std::{sync::Arc, time::Duration};

use autoglm_domain::VersionNumber;
use sqlx::postgres::PgListener;
use tokio::{
    sync::{Mutex, Notify, mpsc},
    task::JoinHandle,
};

use super::{APPENDED, FAILED, ORDER, TRAIN, address::Address, orders};
use crate::JournalError;

/// Between two tries to listen again.
const RETRY: Duration = Duration::from_millis(500);
/// Failures that wait to be taken out.
const FAILURES: usize = 10_000;
/// Orders that do. What comes beyond is not answered.
const ORDERS: usize = 100;

/// Rings when something was appended or ordered. Ends when it is dropped.
#[derive(Debug)]
pub struct Listener {
    bells: Arc<Bells>,
    failures: Mutex<mpsc::Receiver<(VersionNumber, f64)>>,
    orders: Mutex<mpsc::Receiver<(String, String)>>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Bells {
    appended: Notify,
    training_ordered: Notify,
    failures: mpsc::Sender<(VersionNumber, f64)>,
    orders: mpsc::Sender<(String, String)>,
}

impl Listener {
    pub(super) fn start(address: Arc<Address>) -> Self {
        let (failures, told) = mpsc::channel(FAILURES);
        let (orders, given) = mpsc::channel(ORDERS);
        let (appended, training_ordered) = (Notify::new(), Notify::new());
        let bells = Arc::new(Bells { appended, training_ordered, failures, orders });
        let task = tokio::spawn(listen(address, Arc::clone(&bells)));
        Self { bells, failures: Mutex::new(told), orders: Mutex::new(given), task }
    }

    /// Waits for the next append of any process. One that came since the last call counts.
    pub async fn appended(&self) {
        self.bells.appended.notified().await;
    }

    /// Waits until a version failed to answer a request of any process; which, and after how many milliseconds. Of very
    /// many at once the latest are lost.
    pub async fn failed(&self) -> (VersionNumber, f64) {
        let mut failures = self.failures.lock().await;
        match failures.recv().await {
            Some(failure) => failure,
            None => std::future::pending().await,
        }
    }

    /// Waits until somebody gives an order to whoever leads ([`crate::PostgresStore::order`]); its id and text.
    pub async fn ordered(&self) -> (String, String) {
        let mut orders = self.orders.lock().await;
        match orders.recv().await {
            Some(order) => order,
            None => std::future::pending().await,
        }
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
    listener.listen_all([APPENDED, TRAIN, FAILED, ORDER]).await?;
    // What came before this is not told.
    bells.appended.notify_one();
    loop {
        match listener.try_recv().await? {
            Some(told) if told.channel() == TRAIN => bells.training_ordered.notify_one(),
            Some(told) if told.channel() == FAILED => {
                if let Some(failure) = read_failure(told.payload()) {
                    // Nobody who does not lead takes them out.
                    let _ = bells.failures.try_send(failure);
                }
            }
            Some(told) if told.channel() == ORDER => {
                if let Some((id, text)) = orders::read(told.payload()) {
                    let _ = bells.orders.try_send((id.to_owned(), text.to_owned()));
                }
            }
            Some(_) => bells.appended.notify_one(),
            // Connected again.
            None => bells.appended.notify_one(),
        }
    }
}

/// `3 12.5`: the version and the milliseconds.
fn read_failure(payload: &str) -> Option<(VersionNumber, f64)> {
    let (version, latency_ms) = payload.split_once(' ')?;
    Some((VersionNumber(version.parse().ok()?), latency_ms.parse().ok()?))
}
