//! The header `Retry-After`: seconds, or a date (RFC 9110, section 10.2.3).

use std::time::UNIX_EPOCH;

use autoglm_domain::Timestamp;

/// Seconds to wait from `now`; `None` when the header says neither.
pub(crate) fn retry_after_s(value: &str, now: Timestamp) -> Option<u64> {
    let value = value.trim();
    if let Ok(seconds) = value.parse::<u64>() {
        return Some(seconds);
    }
    let date = httpdate::parse_http_date(value).ok()?;
    let at_ms = i64::try_from(date.duration_since(UNIX_EPOCH).ok()?.as_millis()).ok()?;
    let left_ms = u64::try_from(Timestamp(at_ms).since_ms(now)).unwrap_or(0);
    Some(left_ms.div_ceil(1000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_and_dates_are_understood_and_nothing_else() {
        // 1 January 2026, 00:00:00 UTC.
        let now = Timestamp(1_767_225_600_000);
        assert_eq!(retry_after_s(" 7 ", now), Some(7));
        assert_eq!(retry_after_s("Thu, 01 Jan 2026 00:00:30 GMT", now), Some(30));
        assert_eq!(retry_after_s("Wed, 31 Dec 2025 23:59:30 GMT", now), Some(0));
        for wrong in ["", "-1", "1.5", "soon", "99999999999999999999"] {
            assert_eq!(retry_after_s(wrong, now), None, "{wrong}");
        }
    }
}
