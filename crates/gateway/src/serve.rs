//! Listening, and ending without dropping an answer.

use std::{future::Future, io::ErrorKind, sync::Arc, time::Duration};

use axum::serve::ListenerExt as _;
use tokio::{net::TcpListener, time::sleep};

use crate::{
    Gateway, GatewayError,
    gateway::{Phase, Shared},
};

/// How long connections may take to close after their answers were cut off.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// How often histograms are tidied up.
const TIDY: Duration = Duration::from_secs(10);

/// Listens on `address` (`127.0.0.1:8080`; port 0 takes a free one).
///
/// `Conflict` when another process has the port, `Invalid` when the address makes no sense here; both name
/// the address.
pub async fn bind(address: &str) -> Result<TcpListener, GatewayError> {
    TcpListener::bind(address).await.map_err(|error| match error.kind() {
        ErrorKind::AddrInUse => GatewayError::PortInUse { address: address.to_owned() },
        _ => GatewayError::Bind { address: address.to_owned(), reason: error.to_string() },
    })
}

impl Gateway {
    /// Answers on `listener` until `shutdown` ends. Then no connection is accepted any more and answers on
    /// their way go on for [`Config::shutdown_grace_s`](crate::Config::shutdown_grace_s); after that they
    /// are cut off and recorded as cancelled. Returns when everything that was answered is recorded.
    pub async fn serve(
        self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), GatewayError> {
        let grace = Duration::from_secs(self.config.shutdown_grace_s);
        let shared = Shared::new(self);
        let listener = listener.tap_io(|connection| {
            // Without this a small chunk waits for the acknowledgement of the one before.
            if let Err(error) = connection.set_nodelay(true) {
                tracing::debug!(%error, "TCP_NODELAY was refused");
            }
        });
        let draining = Arc::clone(&shared);
        let server = axum::serve(listener, Arc::clone(&shared).router()).with_graceful_shutdown(async move {
            shutdown.await;
            tracing::info!("shutting down: answers on their way go on");
            draining.phase.send_replace(Phase::Draining);
        });
        let ended = tokio::select! {
            ended = async { server.await } => ended,
            () = stop_after(&shared, grace) => Ok(()),
            () = tidy(&shared) => Ok(()),
        };
        shared.recordings.all_ended().await;
        ended.map_err(|error| GatewayError::Internal(format!("the listener failed: {error}")))
    }
}

/// Ends when the server has had every chance to end by itself.
async fn stop_after(shared: &Shared, grace: Duration) {
    let mut phase = shared.phase.subscribe();
    // The sender lives in `shared`, so that this only ends when the phase is reached.
    drop(phase.wait_for(|phase| *phase >= Phase::Draining).await);
    sleep(grace).await;
    tracing::warn!("cutting off the answers that are still on their way");
    shared.phase.send_replace(Phase::Stopping);
    sleep(LAST_WORDS).await;
}

/// Never ends.
async fn tidy(shared: &Shared) {
    loop {
        sleep(TIDY).await;
        shared.gateway.metrics.tidy();
    }
}
