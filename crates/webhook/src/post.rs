//! One signed request to one hook.

use std::{sync::Arc, time::Duration};

use autoglm_domain::Clock;
use reqwest::header::CONTENT_TYPE;

use crate::{
    DELIVERY_HEADER, Result, SIGNATURE_HEADER, Secret, TIMESTAMP_HEADER, WebhookError, config::address, sign,
};

/// Most bytes of an answer that are read.
const MAX_ANSWER: usize = 64 * 1024;

/// The way to one hook.
pub(crate) struct Post {
    http: reqwest::Client,
    url: reqwest::Url,
    secret: Secret,
    timeout: Duration,
    clock: Arc<dyn Clock>,
}

/// What a hook answered.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

impl Post {
    /// To `url` of the hook `key`.
    pub(crate) fn new(
        key: &str,
        url: &str,
        secret: Secret,
        timeout: Duration,
        clock: Arc<dyn Clock>,
    ) -> Result<Self> {
        #[cfg(feature = "tls")]
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            // Another thread may have been quicker, which is as well.
            drop(rustls::crypto::ring::default_provider().install_default());
        }
        let http = reqwest::Client::builder()
            // A redirect would carry the body to somewhere that nobody configured.
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("autoglm/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| WebhookError::Setting { key: format!("{key}.url"), reason: deepest(&error) })?;
        Ok(Self { http, url: address(key, url)?, secret, timeout, clock })
    }

    /// Sends `body`, signed at this moment. An error says in a few words why there is no answer.
    pub(crate) async fn send(&self, delivery: &str, body: &str) -> std::result::Result<Answer, String> {
        let timestamp_s = self.clock.now().0.div_euclid(1000);
        let request = self
            .http
            .post(self.url.clone())
            .timeout(self.timeout)
            .header(CONTENT_TYPE, "application/json")
            .header(DELIVERY_HEADER, delivery)
            .header(TIMESTAMP_HEADER, timestamp_s)
            .header(SIGNATURE_HEADER, sign(&self.secret, timestamp_s, body.as_bytes()))
            .body(body.to_owned());
        let mut response = request.send().await.map_err(|error| self.reason(&error))?;
        let status = response.status().as_u16();
        let mut body = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(|error| self.reason(&error))? {
            body.extend_from_slice(&piece);
            if body.len() > MAX_ANSWER {
                return Err(format!("its answer has more than {MAX_ANSWER} bytes"));
            }
        }
        Ok(Answer { status, body })
    }

    fn reason(&self, error: &reqwest::Error) -> String {
        if error.is_timeout() {
            return format!("no answer within {} ms", self.timeout.as_millis());
        }
        deepest(error)
    }
}

/// What was at the bottom of it.
fn deepest(error: &reqwest::Error) -> String {
    let mut deepest: &dyn std::error::Error = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    deepest.to_string()
}
