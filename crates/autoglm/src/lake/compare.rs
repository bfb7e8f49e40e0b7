//! Two versions compared by what is in the lake: its rows and the statistics of tests.

use std::collections::BTreeMap;

use autoglm_domain::{
    AbArm, AbState, AbTest, AbTestId, Allocation, AnswerTraits, Error, Result, Timestamp, VersionNumber,
    dimension,
};
use autoglm_lake::{Cell, LakeFiles};
use autoglm_rollout::{AbAnalysis, Better, MetricConfig, Observation, RolloutPolicy, Said};
use serde::Serialize;

/// What two versions are compared by, beside the latency.
const METRICS: [&str; 9] = [
    "overall",
    dimension::ACCURACY,
    dimension::LOGIC,
    dimension::SAFETY,
    dimension::CONSISTENCY,
    "thumb_up_rate",
    "thumb_down_rate",
    "correction_rate",
    "tokens",
];
const LATENCY: &str = "latency_ms";
/// A longer answer counts as one of this many milliseconds, as a mean's interval needs an end.
const LONGEST_MS: f64 = 60_000.0;

/// One metric of both versions.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct MetricRow {
    /// Its name.
    pub(crate) metric: String,
    /// Answers of `a` that have a value.
    pub(crate) count_a: u64,
    /// Of `b`.
    pub(crate) count_b: u64,
    /// Their mean.
    pub(crate) mean_a: Option<f64>,
    /// Of `b`.
    pub(crate) mean_b: Option<f64>,
    /// Mean of `b` minus that of `a`.
    pub(crate) difference: Option<f64>,
    /// Lower end of the difference's confidence sequence.
    pub(crate) lower: f64,
    /// Upper end.
    pub(crate) upper: f64,
    /// What it comes to.
    pub(crate) finding: String,
}

/// Two versions compared.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Comparison {
    /// The one to compare with.
    pub(crate) a: VersionNumber,
    /// The one that is compared.
    pub(crate) b: VersionNumber,
    /// Answers of `a`.
    pub(crate) answers_a: usize,
    /// Answers of `b`.
    pub(crate) answers_b: usize,
    /// Error probability of each interval, at any number of answers.
    pub(crate) alpha: f64,
    /// Every metric that at least one of them has values for.
    pub(crate) metrics: Vec<MetricRow>,
}

/// Compares the answers that users got of `a` and `b`, with what was found and said of them.
///
/// # Errors
/// `NotFound` where a version gave no answer, `Invalid` for an `alpha` that is no error probability, and those of the lake.
pub(crate) async fn compare(
    lake: &LakeFiles,
    a: VersionNumber,
    b: VersionNumber,
    alpha: f64,
) -> Result<Comparison> {
    let answers = answers(lake, [a, b]).await?;
    let of = |version: VersionNumber| answers.iter().filter(|(arm, _)| *arm == version).count();
    let (answers_a, answers_b) = (of(a), of(b));
    for (version, count) in [(a, answers_a), (b, answers_b)] {
        if count == 0 {
            return Err(Error::not_found(format!("the lake has no answer of {version}")));
        }
    }
    let mut metrics = Vec::new();
    for metric in METRICS.into_iter().chain([LATENCY]) {
        let row = row(metric, a, b, alpha, &answers)?;
        metrics.extend(Some(row).filter(|row| row.count_a + row.count_b > 0));
    }
    Ok(Comparison { a, b, answers_a, answers_b, alpha, metrics })
}

/// Each version's mean has a sequence at half the error, so that both hold together; the difference's interval is what
/// both allow.
fn row(
    metric: &str,
    a: VersionNumber,
    b: VersionNumber,
    alpha: f64,
    answers: &[(VersionNumber, Observation)],
) -> Result<MetricRow> {
    let arm = |version| AbArm { version, share: 1.0 };
    // A test as it would have been, had somebody begun it; it is recorded nowhere.
    let test = AbTest {
        id: AbTestId::new(uuid::Uuid::nil()),
        at: Timestamp::default(),
        by: String::new(),
        champion: a,
        arms: vec![arm(a), arm(b)],
        allocation: Allocation::Fixed,
        metric: metric.to_owned(),
        alpha,
        indifference: 0.0,
        min_requests: 1,
        max_requests: u64::MAX,
        state: AbState::Running,
        reason: String::new(),
        found: Vec::new(),
    };
    let mut policy = RolloutPolicy::default();
    let latency = MetricConfig {
        expression: Some(LATENCY.into()),
        least: Some(0.0),
        most: Some(LONGEST_MS),
        better: Some(Better::Lower),
        ..MetricConfig::default()
    };
    policy.metrics.insert(LATENCY.into(), latency);
    let mut test = AbAnalysis::new(&test, &policy)?;
    for (version, observation) in answers {
        test.push(*version, observation);
    }
    let report = test.report();
    let [first, second] = report.arms.as_slice() else {
        return Err(Error::internal("a test of two versions has not two arms"));
    };
    let (lower, upper) = (second.lower - first.upper, second.upper - first.lower);
    let finding = match (lower > 0.0, upper < 0.0) {
        (true, _) => format!("{b} is higher"),
        (_, true) => format!("{b} is lower"),
        _ => "not told apart".to_owned(),
    };
    Ok(MetricRow {
        metric: metric.to_owned(),
        count_a: first.count,
        count_b: second.count,
        mean_a: first.mean,
        mean_b: second.mean,
        difference: second.mean.zip(first.mean).map(|(b, a)| b - a),
        lower,
        upper,
        finding,
    })
}

/// The answers of the `versions`, in the journal's order.
async fn answers(
    lake: &LakeFiles,
    versions: [VersionNumber; 2],
) -> Result<Vec<(VersionNumber, Observation)>> {
    let mut order = Vec::new();
    let mut answers = BTreeMap::<String, (VersionNumber, Observation)>::new();
    let columns = ["request_id", "model_version", "latency_ms", "completion_tokens"];
    lake.rows("interaction", &columns, |row| {
        let [Cell::Text(id), Cell::Int(version), Cell::Real(latency_ms), Cell::Int(tokens)] = row.as_slice()
        else {
            return;
        };
        let version = VersionNumber(version.unsigned_abs());
        if versions.contains(&version) {
            let observation = Observation {
                latency_ms: *latency_ms,
                tokens: u32::try_from(*tokens).unwrap_or(u32::MAX),
                traits: AnswerTraits::default(),
                said: Some(Said::default()),
                ..Observation::default()
            };
            order.push(id.clone());
            answers.insert(id.clone(), (version, observation));
        }
    })
    .await?;
    // In the journal's order, so the latest assessment is the one that stays.
    let columns = [
        "request_id",
        "overall",
        dimension::ACCURACY,
        dimension::LOGIC,
        dimension::SAFETY,
        dimension::CONSISTENCY,
    ];
    lake.rows("assessment", &columns, |row| {
        let [Cell::Text(id), Cell::Real(overall), scores @ ..] = row.as_slice() else { return };
        let Some((_, observation)) = answers.get_mut(id) else { return };
        observation.overall = Some(*overall);
        let scores = columns.iter().skip(2).zip(scores).filter_map(|(name, score)| match score {
            Cell::Real(score) => Some(((*name).to_owned(), *score)),
            _ => None,
        });
        observation.scores = scores.collect();
    })
    .await?;
    lake.rows("feedback", &["request_id", "thumb", "correction"], |row| {
        let [Cell::Text(id), thumb, correction] = row.as_slice() else { return };
        let Some((_, observation)) = answers.get_mut(id) else { return };
        let said = observation.said.get_or_insert_default();
        said.thumb_up |= *thumb == Cell::Text("up".into());
        said.thumb_down |= *thumb == Cell::Text("down".into());
        said.correction |= *correction != Cell::Null;
    })
    .await?;
    Ok(order.iter().filter_map(|id| answers.remove(id)).collect())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use autoglm_domain::{Event, Mirror as _, Span, Store as _};
    use autoglm_doubles::{MemoryStore, samples};
    use autoglm_lake::{Config, Lake};

    use super::*;

    /// A lake of 800 answers: the even ones of v12, a third of them right, the odd ones of v13, nine of ten right and
    /// liked.
    async fn lake(folder: &tempfile::TempDir) -> LakeFiles {
        let store = Arc::new(MemoryStore::default());
        let mut events = Vec::new();
        for n in 0..800 {
            events.push(Event::Interaction(Box::new(samples::interaction(n))));
            let right = if n % 2 == 0 { n % 3 == 0 } else { n % 10 != 7 };
            events.push(Event::Assessment(samples::assessment(n, n, if right { 100.0 } else { 0.0 })));
            if n % 4 == 1 {
                events.push(Event::Feedback(samples::feedback(n - 1, n)));
            }
        }
        let last = events.len() as i64;
        store.append(events).await.unwrap();
        let config = Config { url: folder.path().display().to_string(), ..Config::default() };
        let lake = Lake::open(&config, store).unwrap();
        let mut at = 0;
        while at < last {
            let upto = lake.batch_end(at, last);
            lake.deliver(Span { after: at, upto }).await.unwrap();
            at = upto;
        }
        LakeFiles::open(&config).unwrap()
    }

    #[tokio::test]
    async fn two_versions_are_told_apart_where_they_differ() {
        let folder = tempfile::tempdir().unwrap();
        let lake = lake(&folder).await;
        let report = compare(&lake, VersionNumber(12), VersionNumber(13), 0.05).await.unwrap();
        assert_eq!((report.answers_a, report.answers_b), (400, 400));
        let metric = |name: &str| report.metrics.iter().find(|row| row.metric == name).unwrap();
        let accuracy = metric("accuracy");
        assert_eq!((accuracy.count_a, accuracy.count_b), (400, 400));
        let (a, b) = (accuracy.mean_a.unwrap(), accuracy.mean_b.unwrap());
        assert!((a - 33.5).abs() < 0.01 && (b - 80.0).abs() < 0.01, "{a} {b}");
        assert!(accuracy.lower > 20.0 && accuracy.upper < 75.0, "{accuracy:?}");
        assert_eq!(accuracy.finding, "v13 is higher");
        let liked = metric("thumb_up_rate");
        assert_eq!(
            (liked.mean_a, liked.mean_b, liked.finding.as_str()),
            (Some(0.0), Some(0.5), "v13 is higher")
        );
        // Latencies of both are drawn alike: 41.5 to 47.5 ms.
        let latency = metric("latency_ms");
        assert_eq!(latency.finding, "not told apart");
        assert!((latency.mean_a.unwrap() - 44.5).abs() < 0.1, "{latency:?}");
        assert!(report.metrics.iter().all(|row| row.metric != "logic"), "what nobody judged is left out");
        let error = compare(&lake, VersionNumber(12), VersionNumber(99), 0.05).await.unwrap_err();
        assert_eq!(error.message, "the lake has no answer of v99");
    }
}
