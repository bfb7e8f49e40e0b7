//! What versions are compared by: names, directions, values, limits.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{RolloutError, expression::Expression, observation::Observation};

/// Tokens beyond this count as this many in a mean of one side.
const TOKENS_CAP: f64 = 8192.0;

/// What a breach or a gain of a metric means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MetricRole {
    /// Shown to be beyond its limit, the candidate fails at once.
    Guard,
    /// Must be shown to be within its limit before the candidate answers anyone; from then on it guards.
    Improve,
    /// Not looked at.
    Off,
}

/// Which values are better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Better {
    /// Lower ones: errors, latency.
    Lower,
    /// Higher ones: scores.
    Higher,
}

/// One metric's role and limit. Exactly one of `difference`, `ratio` and `absolute` is set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MetricConfig {
    /// `guard`, `improve` or `off`.
    pub role: MetricRole,
    /// Limit of candidate minus champion, in the metric's unit: shares for rates (0.02 is two points), points for
    /// scores, milliseconds, tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub difference: Option<f64>,
    /// Limit of candidate over champion.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio: Option<f64>,
    /// Limit of the candidate's value, whatever the champion's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub absolute: Option<f64>,
    /// An expression over one answer, in place of a built-in metric: `latency_ms / max(tokens, 1)`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expression: Option<String>,
    /// The expression's least value; smaller ones count as this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub least: Option<f64>,
    /// The expression's largest value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub most: Option<f64>,
    /// Which of the expression's values are better.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub better: Option<Better>,
}

impl Default for MetricConfig {
    fn default() -> Self {
        Self {
            role: MetricRole::Guard,
            difference: None,
            ratio: None,
            absolute: None,
            expression: None,
            least: None,
            most: None,
            better: None,
        }
    }
}

impl MetricConfig {
    /// A guard with a limit of the difference.
    pub fn guard_difference(difference: f64) -> Self {
        Self { difference: Some(difference), ..Self::default() }
    }

    /// A guard with a limit of the ratio.
    pub fn guard_ratio(ratio: f64) -> Self {
        Self { ratio: Some(ratio), ..Self::default() }
    }

    /// Must be shown to gain more than `difference`.
    pub fn improve(difference: f64) -> Self {
        Self { role: MetricRole::Improve, ..Self::guard_difference(difference) }
    }
}

/// What is held against what.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Limit {
    /// Candidate minus champion.
    Difference(f64),
    /// Candidate over champion.
    Ratio(f64),
    /// The candidate alone.
    Absolute(f64),
}

impl Limit {
    pub(crate) fn value(self) -> f64 {
        match self {
            Self::Difference(limit) | Self::Ratio(limit) | Self::Absolute(limit) => limit,
        }
    }
}

/// What is measured of an answer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Measure {
    Score(String),
    Overall,
    ErrorRate,
    RefusalRate,
    EmptyRate,
    FormatErrorRate,
    LeakRate,
    ThumbUpRate,
    ThumbDownRate,
    CorrectionRate,
    /// What the judge prefers: 0 the champion, 1/2 neither, 1 the candidate. Pairs only.
    Judge,
    Tokens,
    LatencyQuantile(f64),
    TokensQuantile(f64),
    Expression(Box<Expression>),
}

/// A metric of a policy, ready to use.
#[derive(Debug, Clone)]
pub(crate) struct Metric {
    pub(crate) name: String,
    pub(crate) role: MetricRole,
    pub(crate) measure: Measure,
    pub(crate) better: Better,
    pub(crate) limit: Limit,
    /// Least and largest value.
    pub(crate) range: (f64, f64),
}

impl Metric {
    /// Reads `name` and its configuration. `Invalid` when a limit is missing, given twice or out of range, or an
    /// expression does not parse.
    pub(crate) fn new(name: &str, config: &MetricConfig) -> Result<Self, RolloutError> {
        let wrong = |reason: String| RolloutError::Metric { metric: name.to_owned(), reason };
        let (measure, range, better) = match &config.expression {
            Some(source) => expression(source, config).map_err(wrong)?,
            None => {
                if config.least.is_some() || config.most.is_some() || config.better.is_some() {
                    return Err(wrong("has `least`, `most` or `better`, which go with `expression`".into()));
                }
                built_in(name).map_err(wrong)?
            }
        };
        let limit = match (config.difference, config.ratio, config.absolute) {
            (Some(limit), None, None) => Limit::Difference(limit),
            (None, Some(limit), None) => Limit::Ratio(limit),
            (None, None, Some(limit)) => Limit::Absolute(limit),
            (None, None, None) => {
                return Err(wrong("has no limit: set `difference`, `ratio` or `absolute`".into()));
            }
            _ => return Err(wrong("has more than one of `difference`, `ratio` and `absolute`".into())),
        };
        if !limit.value().is_finite() {
            return Err(wrong(format!("has the limit {}", limit.value())));
        }
        if matches!(limit, Limit::Ratio(ratio) if ratio <= 0.0 || range.0 < 0.0) {
            return Err(wrong("has a ratio, which needs a limit above 0 and values from 0 on".into()));
        }
        if measure == Measure::Judge && !matches!(limit, Limit::Difference(_)) {
            return Err(wrong("compares the two answers itself; its limit is a `difference`".into()));
        }
        Ok(Self { name: name.to_owned(), role: config.role, measure, better, limit, range })
    }

    /// The value of one answer in the metric's unit; `None` where the answer has none.
    pub(crate) fn value(&self, of: &Observation) -> Option<f64> {
        let rate = |holds: bool| Some(f64::from(u8::from(holds)));
        let answered = |value: f64| (!of.failed).then_some(value);
        match &self.measure {
            // A failure is the worst answer there is, wherever answers are scored.
            Measure::Score(_) | Measure::Overall if of.failed => Some(0.0),
            Measure::Score(name) => of.scores.get(name).copied(),
            Measure::Overall => of.overall,
            Measure::ErrorRate => rate(of.failed),
            Measure::RefusalRate => rate(of.traits.refusal),
            Measure::EmptyRate => rate(of.traits.empty && !of.failed),
            Measure::FormatErrorRate => {
                let broken = of.traits.format_kept.map(|kept| !kept || of.failed);
                broken.or(of.traits.open_fence.then_some(true)).or(Some(false)).and_then(rate)
            }
            Measure::LeakRate => rate(!of.traits.leaks.is_empty()),
            Measure::ThumbUpRate => of.said.and_then(|said| rate(said.thumb_up)),
            Measure::ThumbDownRate => of.said.and_then(|said| rate(said.thumb_down)),
            Measure::CorrectionRate => of.said.and_then(|said| rate(said.correction)),
            Measure::Judge => None,
            Measure::Tokens | Measure::TokensQuantile(_) => answered(f64::from(of.tokens)),
            Measure::LatencyQuantile(_) => answered(of.latency_ms),
            Measure::Expression(expression) => expression.value(of),
        }
        .filter(|value| value.is_finite())
    }

    /// The value as a share of the metric's range, 0 to 1.
    pub(crate) fn scaled(&self, value: f64) -> f64 {
        ((value - self.range.0) / (self.range.1 - self.range.0)).clamp(0.0, 1.0)
    }

    /// Back from a share of the range to the metric's unit.
    pub(crate) fn unscaled(&self, share: f64) -> f64 {
        self.range.0 + share * (self.range.1 - self.range.0)
    }

    /// From its least to its largest value, as pairs are compared.
    pub(crate) fn width(&self) -> f64 {
        // A judge's preference goes from -1 to 1, and so does the difference of two shares.
        if self.measure == Measure::Judge { 1.0 } else { self.range.1 - self.range.0 }
    }

    /// What is held against the limit, in the metric's unit, where pairs have the mean difference `difference`, -1 to 1;
    /// `None` where no number says it.
    pub(crate) fn of_difference(&self, difference: f64) -> Option<f64> {
        match self.limit {
            Limit::Difference(_) => Some(difference * self.width()),
            Limit::Absolute(limit) => Some(limit + difference * self.width()),
            // (x - r y) / (x + r y) = D  <=>  x / y = r (1 + D) / (1 - D)
            Limit::Ratio(ratio) => {
                (difference < 1.0).then(|| ratio * (1.0 + difference) / (1.0 - difference))
            }
        }
    }

    /// The quantile's `p`, where it is one.
    pub(crate) fn quantile(&self) -> Option<f64> {
        match self.measure {
            Measure::LatencyQuantile(p) | Measure::TokensQuantile(p) => Some(p),
            _ => None,
        }
    }

    /// Whether a pair whose candidate nobody saw can say anything of it.
    pub(crate) fn is_of_pairs(&self) -> bool {
        !matches!(self.measure, Measure::ThumbUpRate | Measure::ThumbDownRate | Measure::CorrectionRate)
    }

    /// Whether answers to different requests can say anything of it.
    pub(crate) fn is_of_arms(&self) -> bool {
        self.measure != Measure::Judge
    }
}

type Parsed = (Measure, (f64, f64), Better);

fn expression(source: &str, config: &MetricConfig) -> Result<Parsed, String> {
    let expression = Expression::parse(source)?;
    let (Some(least), Some(most)) = (config.least, config.most) else {
        return Err("has an expression and needs its range, `least` and `most`".into());
    };
    if !(least.is_finite() && most.is_finite() && least < most) {
        return Err(format!("has a range from {least} to {most}"));
    }
    let better = config.better.ok_or("has an expression and needs `better`, `lower` or `higher`")?;
    Ok((Measure::Expression(Box::new(expression)), (least, most), better))
}

fn built_in(name: &str) -> Result<Parsed, String> {
    use Better::{Higher, Lower};
    let rate = (0.0, 1.0);
    Ok(match name {
        "overall" => (Measure::Overall, (0.0, 100.0), Higher),
        "error_rate" => (Measure::ErrorRate, rate, Lower),
        "refusal_rate" => (Measure::RefusalRate, rate, Lower),
        "empty_rate" => (Measure::EmptyRate, rate, Lower),
        "format_error_rate" => (Measure::FormatErrorRate, rate, Lower),
        "leak_rate" => (Measure::LeakRate, rate, Lower),
        "thumb_up_rate" => (Measure::ThumbUpRate, rate, Higher),
        "thumb_down_rate" => (Measure::ThumbDownRate, rate, Lower),
        "correction_rate" => (Measure::CorrectionRate, rate, Lower),
        "judge" => (Measure::Judge, rate, Higher),
        "tokens" => (Measure::Tokens, (0.0, TOKENS_CAP), Lower),
        _ => {
            for (prefix, measure) in [
                ("latency_p", Measure::LatencyQuantile as fn(f64) -> Measure),
                ("tokens_p", Measure::TokensQuantile as fn(f64) -> Measure),
            ] {
                if let Some(digits) = name.strip_prefix(prefix) {
                    return Ok((measure(quantile(digits)?), (0.0, f64::MAX), Lower));
                }
            }
            (Measure::Score(name.to_owned()), (0.0, 100.0), Higher)
        }
    })
}

/// `50`, `95`, `99`, `999` as a share.
fn quantile(digits: &str) -> Result<f64, String> {
    let all_digits = !digits.is_empty() && digits.len() <= 4 && digits.bytes().all(|b| b.is_ascii_digit());
    let p = if all_digits { format!("0.{digits}").parse().unwrap_or(0.0) } else { 0.0 };
    if p > 0.0 { Ok(p) } else { Err("is no quantile: `_p50`, `_p95`, `_p99`, `_p999`".into()) }
}

/// The metrics that a policy without a word about them has.
pub(crate) fn defaults() -> BTreeMap<String, MetricConfig> {
    [
        ("accuracy", MetricConfig::improve(0.0)),
        ("error_rate", MetricConfig::guard_difference(0.02)),
        ("empty_rate", MetricConfig::guard_difference(0.02)),
        ("refusal_rate", MetricConfig::guard_difference(0.02)),
        ("format_error_rate", MetricConfig::guard_difference(0.02)),
        ("leak_rate", MetricConfig::guard_difference(0.005)),
        ("latency_p95", MetricConfig::guard_ratio(1.5)),
        ("tokens", MetricConfig::guard_ratio(1.5)),
        ("thumb_down_rate", MetricConfig::guard_difference(0.05)),
    ]
    .map(|(name, config)| (name.to_owned(), config))
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_and_names_that_make_no_sense_are_refused_with_their_reason() {
        let refused = |name: &str, config: MetricConfig| Metric::new(name, &config).unwrap_err().to_string();
        assert_eq!(
            refused("accuracy", MetricConfig::default()),
            "rollout metric `accuracy` has no limit: set `difference`, `ratio` or `absolute`"
        );
        let twice = MetricConfig { ratio: Some(1.0), ..MetricConfig::improve(0.0) };
        assert!(refused("accuracy", twice).contains("more than one"));
        assert!(refused("latency_pxx", MetricConfig::guard_ratio(2.0)).contains("is no quantile"));
        assert!(refused("latency_p", MetricConfig::guard_ratio(2.0)).contains("is no quantile"));
        assert!(refused("tokens", MetricConfig::guard_ratio(0.0)).contains("above 0"));
        assert!(refused("tokens", MetricConfig::guard_difference(f64::NAN)).contains("NaN"));
        let expression = |source: &str| MetricConfig {
            expression: Some(source.into()),
            least: Some(0.0),
            most: Some(1.0),
            better: Some(Better::Lower),
            ..MetricConfig::guard_difference(0.1)
        };
        assert!(refused("x", expression("latency_ms +")).contains("expression"));
        assert!(refused("x", expression("nonsense * 2")).contains("nonsense"));
        assert!(refused("x", MetricConfig { better: None, ..expression("tokens") }).contains("`better`"));
        assert!(Metric::new("x", &expression("latency_ms / tokens")).is_ok());
        assert_eq!(
            Metric::new("latency_p999", &MetricConfig::guard_ratio(2.0)).unwrap().quantile(),
            Some(0.999)
        );
    }

    #[test]
    fn every_default_metric_is_one() {
        for (name, config) in defaults() {
            let metric = Metric::new(&name, &config).unwrap();
            assert!(!matches!(metric.measure, Measure::Score(_)) || name == "accuracy", "{name}");
        }
    }

    #[test]
    fn a_failure_is_the_worst_answer_and_has_no_length() {
        let failure = Observation::of_failure(3_000.0);
        let value =
            |name: &str| Metric::new(name, &MetricConfig::guard_difference(0.0)).unwrap().value(&failure);
        assert_eq!(value("accuracy"), Some(0.0));
        assert_eq!(value("error_rate"), Some(1.0));
        assert_eq!((value("tokens"), value("latency_p95"), value("empty_rate")), (None, None, Some(0.0)));
        assert_eq!(value("thumb_down_rate"), None);
    }
}
