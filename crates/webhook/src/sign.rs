//! Signatures: who sent a body, and when.

use std::fmt::Write as _;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::{Secret, WebhookError};

/// Seconds since the Unix epoch at which the request was signed.
pub const TIMESTAMP_HEADER: &str = "x-autoglm-timestamp";
/// `sha256=` and the signature in hexadecimal digits.
pub const SIGNATURE_HEADER: &str = "x-autoglm-signature";
/// What is delivered: the same for every attempt, another for everything else of the same hook.
pub const DELIVERY_HEADER: &str = "x-autoglm-delivery";

const SCHEME: &str = "sha256=";

/// `sha256=HEX` of HMAC-SHA256 (RFC 2104, FIPS 198-1) over `timestamp "." body`.
pub fn sign(secret: &Secret, timestamp_s: i64, body: &[u8]) -> String {
    let mut text = SCHEME.to_owned();
    if let Some(mac) = mac(secret, timestamp_s, body) {
        for byte in mac.finalize().into_bytes() {
            let _ = write!(text, "{byte:02x}");
        }
    }
    text
}

/// That `signature` is that of `body`. Compared in constant time.
pub fn verify(secret: &Secret, timestamp_s: i64, body: &[u8], signature: &str) -> Result<(), WebhookError> {
    let digits = signature.trim().strip_prefix(SCHEME).ok_or(WebhookError::Header(SIGNATURE_HEADER))?;
    let given = bytes(digits).ok_or(WebhookError::Header(SIGNATURE_HEADER))?;
    let mac = mac(secret, timestamp_s, body).ok_or(WebhookError::Forged)?;
    mac.verify_slice(&given).map_err(|_| WebhookError::Forged)
}

/// `None` never: HMAC takes keys of any length.
fn mac(secret: &Secret, timestamp_s: i64, body: &[u8]) -> Option<Hmac<Sha256>> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.bytes()).ok()?;
    mac.update(timestamp_s.to_string().as_bytes());
    mac.update(b".");
    mac.update(body);
    Some(mac)
}

/// Bytes from hexadecimal digits.
fn bytes(digits: &str) -> Option<Vec<u8>> {
    if !digits.len().is_multiple_of(2) || !digits.is_ascii() {
        return None;
    }
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> Secret {
        Secret::new("test", text.as_bytes()).unwrap()
    }

    #[test]
    fn a_signature_is_what_other_programs_compute() {
        // printf '1700000000.{"a":1}' | openssl dgst -sha256 -hmac 0123456789abcdef
        let expected = "sha256=9eb18f493f8ec135d9eb2dad817c369bb4e9cbfa818657897a7437c1cd8c3a23";
        assert_eq!(sign(&secret("0123456789abcdef"), 1_700_000_000, br#"{"a":1}"#), expected);
    }

    #[test]
    fn whatever_is_changed_is_noticed() {
        let (key, other) = (secret("0123456789abcdef"), secret("0123456789abcdeF"));
        let good = sign(&key, 5, b"body");
        assert_eq!(verify(&key, 5, b"body", &good), Ok(()));
        assert_eq!(verify(&other, 5, b"body", &good), Err(WebhookError::Forged));
        assert_eq!(verify(&key, 6, b"body", &good), Err(WebhookError::Forged));
        assert_eq!(verify(&key, 5, b"bodY", &good), Err(WebhookError::Forged));
        assert_eq!(verify(&key, 5, b"body", &good[..good.len() - 2]), Err(WebhookError::Forged));
        for malformed in ["", "sha256=", "sha256=0", "sha256=zz", "md5=00", &good[7..]] {
            assert!(verify(&key, 5, b"body", malformed).is_err(), "{malformed}");
        }
    }
}
