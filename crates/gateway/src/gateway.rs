//! The gateway: ports on one side, routes on the other.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use autoglm_domain::{Clock, Embedder, Error, ErrorKind, Generator, IdSource, Store, VersionNumber};
use axum::{
    Router,
    extract::Request,
    middleware,
    routing::{get, post},
};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};

use crate::{
    Admin, AliasTable, Announcements, Config, GatewayError, MetricsPage, Observer, Recall, Route, ab_tests,
    admin, completions, embeddings, error::with_hint, feedback, health, intake, models,
    principal::Principals, responses, rollouts, webhooks,
};

/// HTTP over ports. Fill in the ports, then [`Gateway::serve`], or [`Gateway::router`] to put the routes
/// into a server of your own.
pub struct Gateway {
    /// Settings.
    pub config: Config,
    /// Answers.
    pub generator: Arc<dyn Generator>,
    /// Embeds.
    pub embedder: Arc<dyn Embedder>,
    /// Records.
    pub store: Arc<dyn Store>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Ids of interactions and feedback.
    pub ids: Arc<dyn IdSource>,
    /// Model names.
    pub aliases: Arc<dyn AliasTable>,
    /// Memory.
    pub recall: Arc<dyn Recall>,
    /// Who wants to know what was recorded.
    pub observer: Arc<dyn Observer>,
    /// Who carries out admin orders.
    pub admin: Arc<dyn Admin>,
    /// Who takes models that other systems announce; `None` where none are taken.
    pub announcements: Option<Arc<dyn Announcements>>,
    /// What `/metrics` shows.
    pub metrics: MetricsPage,
}

impl Gateway {
    /// The routes. Without [`Gateway::serve`] nobody tells answers on their way that the server stops.
    pub fn router(self) -> Router {
        Shared::new(self).router()
    }
}

/// How far the server is from its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Everything is answered.
    Running,
    /// No new connections; answers on their way go on.
    Draining,
    /// Answers on their way are cut off.
    Stopping,
}

/// What all requests share.
pub(crate) struct Shared {
    pub(crate) gateway: Gateway,
    pub(crate) principals: Principals,
    pub(crate) phase: watch::Sender<Phase>,
    pub(crate) recordings: Recordings,
    slots: Arc<Semaphore>,
}

impl Shared {
    pub(crate) fn new(gateway: Gateway) -> Arc<Self> {
        Arc::new(Self {
            principals: Principals::new(&gateway.config),
            phase: watch::Sender::new(Phase::Running),
            recordings: Recordings::default(),
            slots: Arc::new(Semaphore::new(gateway.config.max_in_flight.min(Semaphore::MAX_PERMITS))),
            gateway,
        })
    }

    pub(crate) fn router(self: Arc<Self>) -> Router {
        Router::new()
            .route("/v1/chat/completions", post(completions::chat))
            .route("/v1/completions", post(completions::text))
            .route("/v1/responses", post(responses::responses))
            .route("/v1/embeddings", post(embeddings::embeddings))
            .route("/v1/models", get(models::list))
            .route("/v1/models/{*id}", get(models::one))
            .route("/v1/feedback", post(feedback::feedback))
            .route("/v1/autoglm/status", get(admin::status))
            .route("/v1/autoglm/interactions/{id}", get(admin::trace))
            .route("/v1/autoglm/train", post(admin::train))
            .route("/v1/autoglm/mirrors", get(admin::mirrors))
            .route("/v1/autoglm/promote", post(admin::promote))
            .route("/v1/autoglm/rollback", post(admin::rollback))
            .route("/v1/autoglm/rollouts", get(rollouts::list).post(rollouts::start))
            .route("/v1/autoglm/rollouts/{id}", get(rollouts::one))
            .route("/v1/autoglm/rollouts/{id}/pairs", get(rollouts::pairs))
            .route("/v1/autoglm/rollouts/{id}/slices", get(rollouts::slices))
            .route("/v1/autoglm/rollouts/{id}/{action}", post(rollouts::act))
            .route("/v1/autoglm/ab-tests", get(ab_tests::list).post(ab_tests::start))
            .route("/v1/autoglm/ab-tests/{id}", get(ab_tests::one))
            .route("/v1/autoglm/ab-tests/{id}/stop", post(ab_tests::stop))
            .route(webhooks::MODEL, post(webhooks::model))
            .route("/healthz", get(health::healthz))
            .route("/readyz", get(health::readyz))
            .route("/metrics", get(health::metrics))
            .method_not_allowed_fallback(wrong_method)
            .fallback(unknown_route)
            .layer(middleware::from_fn_with_state(Arc::clone(&self), intake::intake))
            .with_state(self)
    }

    /// A place among the requests that are being answered, freed when it is dropped.
    pub(crate) fn slot(&self) -> Result<Slot, GatewayError> {
        let permit = Arc::clone(&self.slots).try_acquire_owned().map_err(|_| {
            let most = self.gateway.config.max_in_flight;
            GatewayError::busy(format!("{most} requests are being answered, which is the limit"))
        })?;
        metrics::gauge!("autoglm_in_flight").increment(1.0);
        Ok(Slot { _permit: permit })
    }

    /// Places that are left.
    pub(crate) fn free_slots(&self) -> usize {
        self.slots.available_permits()
    }

    /// The version behind a model name.
    pub(crate) fn resolve(&self, model: &str) -> Result<VersionNumber, GatewayError> {
        self.gateway.aliases.resolve(model).map_err(no_version)
    }

    /// Who answers a request to `model`.
    pub(crate) fn route(&self, model: &str, conversation: u64) -> Result<Route, GatewayError> {
        self.gateway.aliases.route(model, conversation).map_err(no_version)
    }
}

/// Why a name leads to no version.
fn no_version(error: Error) -> GatewayError {
    match error.kind {
        ErrorKind::NotFound | ErrorKind::Invalid => GatewayError::UnknownModel(with_hint(&error)),
        _ => error.into(),
    }
}

/// See [`Shared::slot`].
pub(crate) struct Slot {
    _permit: OwnedSemaphorePermit,
}

impl Drop for Slot {
    fn drop(&mut self) {
        metrics::gauge!("autoglm_in_flight").decrement(1.0);
    }
}

/// Appends on their way, so that the server does not end before them.
#[derive(Debug, Default)]
pub(crate) struct Recordings {
    running: Arc<(AtomicUsize, Notify)>,
}

impl Recordings {
    /// Counts one append until what is returned is dropped.
    pub(crate) fn begin(&self) -> Recording {
        self.running.0.fetch_add(1, Ordering::SeqCst);
        Recording(Arc::clone(&self.running))
    }

    /// Waits until no append is on its way.
    pub(crate) async fn all_ended(&self) {
        loop {
            let ended = self.running.1.notified();
            if self.running.0.load(Ordering::SeqCst) == 0 {
                return;
            }
            ended.await;
        }
    }
}

/// See [`Recordings::begin`].
pub(crate) struct Recording(Arc<(AtomicUsize, Notify)>);

impl Drop for Recording {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::SeqCst);
        self.0.1.notify_waiters();
    }
}

async fn unknown_route(request: Request) -> GatewayError {
    GatewayError::UnknownRoute { method: request.method().to_string(), path: request.uri().path().to_owned() }
}

async fn wrong_method(request: Request) -> GatewayError {
    GatewayError::WrongMethod { method: request.method().to_string(), path: request.uri().path().to_owned() }
}
