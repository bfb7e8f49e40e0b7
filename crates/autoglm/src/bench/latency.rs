//! Latencies in figures.

use std::time::Duration;

use serde::Serialize;

use crate::demo::quantile;

/// Percentiles of some latencies.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(crate) struct Latency {
    /// How many.
    pub(crate) count: usize,
    /// Median, milliseconds.
    pub(crate) p50_ms: f64,
    /// Ninety-ninth percentile, milliseconds.
    pub(crate) p99_ms: f64,
    /// The slowest, milliseconds.
    pub(crate) max_ms: f64,
}

impl Latency {
    /// Of these; all zero where there are none.
    pub(crate) fn of(latencies: impl IntoIterator<Item = Duration>) -> Self {
        let ms: Vec<f64> = latencies.into_iter().map(|one| one.as_secs_f64() * 1e3).collect();
        let at = |share| quantile(ms.iter().copied(), share).unwrap_or_default();
        Self { count: ms.len(), p50_ms: at(0.5), p99_ms: at(0.99), max_ms: at(1.0) }
    }
}

/// The middle value; the lower of the two middle ones where there are two. 0 where there is none.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    quantile(values, 0.5).unwrap_or_default()
}

/// Milliseconds, for a table.
pub(crate) fn ms(value: f64) -> String {
    if value < 10.0 { format!("{value:.2} ms") } else { format!("{value:.0} ms") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_latencies_that_were_seen() {
        let latency = Latency::of((1..=100).map(Duration::from_millis));
        assert_eq!(latency, Latency { count: 100, p50_ms: 50.0, p99_ms: 99.0, max_ms: 100.0 });
        assert_eq!(Latency::of([]), Latency::default());
        assert_eq!((median([3.0, 1.0, 2.0]), median([])), (2.0, 0.0));
    }
}
