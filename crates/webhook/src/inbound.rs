//! Whether a request from outside is to be believed: signed with the secret, lately, and not seen before.

use std::{collections::BTreeMap, sync::Arc};

use autoglm_domain::Clock;
use parking_lot::Mutex;

use crate::{InboundConfig, Result, SIGNATURE_HEADER, Secret, TIMESTAMP_HEADER, WebhookError, verify};

/// Requests that are remembered; each was signed with the secret, so strangers cannot fill it.
const MOST_SEEN: usize = 100_000;

/// Checks requests from outside.
pub struct Inbound {
    secret: Secret,
    tolerance_s: u64,
    clock: Arc<dyn Clock>,
    /// What was taken within the tolerance, and when it was signed, seconds.
    seen: Mutex<BTreeMap<String, i64>>,
}

impl Inbound {
    /// `None` where `config` names no secret. `Invalid` when the secret that it names is not there.
    pub fn new(config: &InboundConfig, clock: Arc<dyn Clock>) -> Result<Option<Self>> {
        let (tolerance_s, seen) = (config.tolerance_s, Mutex::default());
        Ok(config.secret()?.map(|secret| Self { secret, tolerance_s, clock, seen }))
    }

    /// Takes a request in, once. `Denied` when it is not to be believed, `Conflict` when it came before.
    pub fn check(&self, timestamp: &str, signature: &str, body: &[u8]) -> Result<()> {
        let at: i64 = timestamp.trim().parse().map_err(|_| WebhookError::Header(TIMESTAMP_HEADER))?;
        if signature.is_empty() {
            return Err(WebhookError::Header(SIGNATURE_HEADER));
        }
        verify(&self.secret, at, body, signature)?;
        let now = self.clock.now().0.div_euclid(1000);
        let (away_s, tolerance_s) = (now.abs_diff(at), self.tolerance_s);
        if away_s > tolerance_s {
            return Err(WebhookError::Stale { away_s, tolerance_s });
        }
        let mut seen = self.seen.lock();
        seen.retain(|_, at| now.abs_diff(*at) <= tolerance_s);
        if seen.len() >= MOST_SEEN || seen.insert(signature.trim().to_ascii_lowercase(), at).is_some() {
            return Err(WebhookError::Replayed);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use autoglm_domain::{ManualClock, Timestamp};

    use super::*;
    use crate::sign;

    #[test]
    fn a_request_is_taken_once_and_within_its_time() {
        let clock = Arc::new(ManualClock::at(Timestamp(1_000_000)));
        let secret = Secret::new("inbound", b"0123456789abcdef").unwrap();
        let seen = Mutex::default();
        let inbound = Inbound { secret: secret.clone(), tolerance_s: 300, clock: clock.clone(), seen };
        let good = sign(&secret, 1000, b"{}");
        assert_eq!(inbound.check("1000", &good, b"{}"), Ok(()));
        assert_eq!(inbound.check("1000", &good, b"{}"), Err(WebhookError::Replayed));
        assert_eq!(
            inbound.check("1000", &good.to_uppercase().replace("SHA", "sha"), b"{}"),
            Err(WebhookError::Replayed)
        );
        assert_eq!(inbound.check("1000", &good, b"{ }"), Err(WebhookError::Forged));
        assert_eq!(inbound.check("1001", &good, b"{}"), Err(WebhookError::Forged));
        assert_eq!(inbound.check("soon", &good, b"{}"), Err(WebhookError::Header(TIMESTAMP_HEADER)));
        assert_eq!(inbound.check("1000", "", b"{}"), Err(WebhookError::Header(SIGNATURE_HEADER)));
        let early = sign(&secret, 1301, b"{}");
        let stale = WebhookError::Stale { away_s: 301, tolerance_s: 300 };
        assert_eq!(inbound.check("1301", &early, b"{}"), Err(stale.clone()));
        clock.advance_ms(301_000);
        assert_eq!(inbound.check("1000", &good, b"{}"), Err(stale));
        assert_eq!(inbound.check("1301", &early, b"{}"), Ok(()));
        assert_eq!(inbound.seen.lock().len(), 1, "what is too old to be taken is not remembered");
    }
}
