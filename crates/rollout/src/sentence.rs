//! The sentences of a stage's ruling: what is shown, with the deciding numbers.

use autoglm_domain::{LiveStage, MetricEvidence, MetricStatus};

use crate::{
    StageAnalysis,
    compare::Comparison,
    metric::{Limit, Measure, Metric},
    slices::Fallen,
};

/// A guard, or a gain that cannot come any more.
pub(crate) fn breach(comparison: &Comparison, evidence: &MetricEvidence) -> String {
    let metric = &comparison.metric;
    let lately = comparison.lately().map_or_else(String::new, |lately| {
        let over = format!("over the last {} answers", lately.count);
        match lately.estimate {
            Some(estimate) => format!("{} {over}; in all ", number(metric, estimate)),
            None => format!("{over}; in all "),
        }
    });
    format!("`{}` is shown to be beyond its limit: {lately}{}", evidence.metric, numbers(metric, evidence))
}

/// A gain that is not shown yet.
pub(crate) fn unproven(comparison: &Comparison, evidence: &MetricEvidence) -> String {
    if evidence.status == MetricStatus::Open {
        return format!(
            "`{}` has to be shown to improve, and no answer says anything of it",
            evidence.metric
        );
    }
    format!("`{}` is not shown to improve: {}", evidence.metric, numbers(&comparison.metric, evidence))
}

/// A guard that may or may not be broken.
pub(crate) fn beyond(comparison: &Comparison, evidence: &MetricEvidence) -> String {
    format!(
        "`{}` is beyond its limit so far, which chance may have done: {}",
        evidence.metric,
        numbers(&comparison.metric, evidence)
    )
}

/// A slice that fell.
pub(crate) fn fallen(slice: &Fallen<'_>) -> String {
    let kind = slice.kind;
    let gain = slice.gain;
    let lately = slice.lately.map_or_else(String::new, |(pairs, gain)| {
        format!("{:+.1} points over the last {pairs} pairs; in all ", gain * 100.0)
    });
    format!(
        "the {kind} `{}` is shown to have fallen: {lately}{:+.1} points over {} pairs ({:+.1} to {:+.1}), it may fall {:.1}",
        slice.key,
        gain.difference() * 100.0,
        gain.pairs(),
        gain.lower() * 100.0,
        gain.upper() * 100.0,
        slice.tolerance * 100.0
    )
}

/// A stage that is passed.
pub(crate) fn passed(analysis: &StageAnalysis, metrics: &[MetricEvidence]) -> String {
    let (_, requests) = analysis.counts();
    let what = if analysis.stage() == LiveStage::Shadow { "pairs" } else { "requests" };
    let mut parts = vec![format!("no guard is broken after {requests} {what}")];
    let both = || metrics.iter().zip(analysis.comparisons());
    for (evidence, comparison) in both().filter(|(_, comparison)| analysis.is_gain(comparison)) {
        parts.push(format!(
            "`{}` is shown to improve: {}",
            evidence.metric,
            numbers(&comparison.metric, evidence)
        ));
    }
    let blind: Vec<String> = both()
        .filter(|(it, _)| it.status == MetricStatus::Open)
        .map(|(it, _)| format!("`{}`", it.metric))
        .collect();
    if !blind.is_empty() {
        parts.push(format!("nothing came in for {}", blind.join(", ")));
    }
    parts.join("; ")
}

/// What is held against the limit, in words.
fn numbers(metric: &Metric, evidence: &MetricEvidence) -> String {
    let shown = |value: Option<f64>| value.map_or_else(|| "?".to_owned(), |value| number(metric, value));
    let (estimate, lower, upper) = (shown(evidence.estimate), shown(evidence.lower), shown(evidence.upper));
    let limit = number(metric, evidence.limit);
    let what = match metric.limit {
        Limit::Difference(_) => "against the champion's",
        Limit::Ratio(_) => "the champion's",
        Limit::Absolute(_) => "in itself",
    };
    format!(
        "{estimate} {what} ({lower} to {upper}) over {} answers, the limit is {limit}",
        evidence.candidate_count
    )
}

/// A value in its unit, with a sign where it is a difference.
fn number(metric: &Metric, value: f64) -> String {
    if matches!(metric.limit, Limit::Ratio(_)) {
        return format!("{value:.2} times");
    }
    let (value, unit) = match &metric.measure {
        Measure::Score(_) | Measure::Overall => (value, " points"),
        Measure::LatencyQuantile(_) => (value, " ms"),
        Measure::Tokens | Measure::TokensQuantile(_) => (value, " tokens"),
        Measure::Expression(_) => (value, ""),
        _ => (value * 100.0, " points"),
    };
    match metric.limit {
        Limit::Absolute(_) => format!("{value:.1}{unit}"),
        _ => format!("{value:+.1}{unit}"),
    }
}
