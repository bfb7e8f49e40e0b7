//! What `/metrics` shows: everything that any crate counts through the `metrics` facade.

use std::sync::{Mutex, PoisonError};

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use crate::GatewayError;

static INSTALLED: Mutex<Option<PrometheusHandle>> = Mutex::new(None);

/// Bounds of the histograms of seconds, from a cached answer to a long generation.
const SECONDS: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0];

/// What `/metrics` shows.
#[derive(Clone)]
pub struct MetricsPage(PrometheusHandle);

impl MetricsPage {
    /// Makes the Prometheus recorder the process's recorder; from then on every `metrics::counter!` and the
    /// like is shown. Further calls give the same page. `Internal` when another recorder was installed.
    pub fn install() -> Result<Self, GatewayError> {
        let mut installed = INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(handle) = &*installed {
            return Ok(Self(handle.clone()));
        }
        let failed = |error: &dyn std::fmt::Display| GatewayError::Internal(format!("metrics: {error}"));
        let handle = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS)
            .map_err(|error| failed(&error))?
            .install_recorder()
            .map_err(|error| failed(&error))?;
        describe();
        *installed = Some(handle.clone());
        Ok(Self(handle))
    }

    /// The page in Prometheus's text form.
    pub fn render(&self) -> String {
        self.0.render()
    }

    /// Sorts recent samples into their histograms; needed now and then when nobody reads the page.
    pub(crate) fn tidy(&self) {
        self.0.run_upkeep();
    }
}

fn describe() {
    describe_counter!("autoglm_http_requests_total", "Requests by route, method and status.");
    describe_histogram!(
        "autoglm_http_response_seconds",
        Unit::Seconds,
        "From request to the response's head, by route."
    );
    describe_counter!("autoglm_answers_total", "Recorded answers by endpoint, source and finish reason.");
    describe_histogram!("autoglm_answer_seconds", Unit::Seconds, "From request to last token, by endpoint.");
    describe_histogram!("autoglm_first_token_seconds", Unit::Seconds, "From request to first token.");
    describe_histogram!("autoglm_embedding_seconds", Unit::Seconds, "From request to vectors.");
    describe_counter!("autoglm_tokens_total", "Tokens by kind: prompt, completion, embedding.");
    describe_gauge!("autoglm_in_flight", "Requests that are being answered.");
    describe_counter!("autoglm_feedback_total", "Feedback by what it said.");
    describe_counter!("autoglm_recall_failures_total", "Requests answered without memory because it failed.");
    describe_gauge!("autoglm_mirror_behind", "Events that a mirror of the journal lacks.");
    describe_gauge!("autoglm_mirror_seq", "Position in the journal up to which a mirror has everything.");
    describe_gauge!("autoglm_mirror_up", "1 while a mirror takes what it is given, 0 while it fails.");
    describe_counter!("autoglm_mirror_delivered_total", "Events that were delivered to a mirror.");
    describe_counter!("autoglm_mirror_failures_total", "Failed deliveries to a mirror.");
    describe_counter!("autoglm_ingested_total", "Messages from elsewhere by what became of them.");
    describe_counter!(
        "autoglm_record_failures_total",
        "Answers withheld because they could not be recorded."
    );
}
