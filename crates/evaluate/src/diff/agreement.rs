//! How far a judge agrees with people.
//!
//! In: the judge, and pairs of answers that people have labelled. Out: the share of equal verdicts and Cohen's
//! kappa, the share beyond what two raters with these habits would agree on by chance (Cohen 1960), with a 95%
//! interval from its large-sample standard error (Fleiss, Cohen and Everitt 1969, "Large sample standard errors of
//! kappa and weighted kappa", equation 13). With few labels, or where a judge agrees on everything, that error
//! comes out too small; the interval is then widened to what the share's own (Wilson) interval allows.

use autoglm_domain::{ChatMessage, Error, Preference, Result};
use serde::{Deserialize, Serialize};

use super::judge::{PairJudge, Place, prefer};

/// The 97.5% point of the normal distribution.
const Z: f64 = 1.959_963_984_540_054;

/// A pair of answers with what people prefer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Labelled {
    /// What was asked.
    pub prompt: String,
    /// One answer.
    pub first: String,
    /// The other.
    pub second: String,
    /// Which people prefer.
    pub preferred: Place,
}

impl Labelled {
    /// Reads JSON lines; empty ones are passed over. `Invalid` naming the first line that is not a labelled pair.
    pub fn from_json_lines(text: &str) -> Result<Vec<Self>> {
        let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        lines
            .map(|(at, line)| {
                serde_json::from_str(line).map_err(|error| {
                    Error::invalid(format!("line {} is not a labelled pair: {error}", at + 1)).with_hint(
                        "{\"prompt\": \"…\", \"first\": \"…\", \"second\": \"…\", \"preferred\": \"first\"}",
                    )
                })
            })
            .collect()
    }
}

/// What a judge and people agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Agreement {
    /// Labelled pairs.
    pub pairs: u64,
    /// Share of equal verdicts.
    pub share: f64,
    /// Cohen's kappa: 1 is always, 0 no more than by chance.
    pub kappa: f64,
    /// Lower end of its 95% interval.
    pub lower: f64,
    /// Upper end.
    pub upper: f64,
}

/// Has `judge` compare `labelled` pairs, places swapped as on live traffic. `Invalid` when there are none.
pub async fn agreement_with(judge: &dyn PairJudge, labelled: &[Labelled]) -> Result<Agreement> {
    let mut verdicts = Vec::with_capacity(labelled.len());
    for pair in labelled {
        let conversation = [ChatMessage::user(pair.prompt.clone())];
        let ours = match prefer(judge, &conversation, &pair.first, &pair.second).await? {
            Preference::Champion => Place::First,
            Preference::Candidate => Place::Second,
            Preference::Tie => Place::Tie,
        };
        verdicts.push((ours, pair.preferred));
    }
    Agreement::of(&verdicts).ok_or_else(|| Error::invalid("there are no labelled pairs to hold a judge to"))
}

impl Agreement {
    /// Whether the judge agrees with people enough for its verdicts to count: the interval begins at `min_kappa`
    /// or above.
    pub fn is_trusted(&self, min_kappa: f64) -> bool {
        self.lower >= min_kappa
    }

    /// The agreement of two raters over the same pairs; `None` without a pair.
    pub fn of(verdicts: &[(Place, Place)]) -> Option<Self> {
        if verdicts.is_empty() {
            return None;
        }
        let n = verdicts.len() as f64;
        let table = table(verdicts);
        let rows = table.map(|row| row.iter().sum::<f64>());
        let columns = [0, 1, 2].map(|column| table.iter().map(|row| row[column]).sum::<f64>());
        let share: f64 = (0..3).map(|at| table[at][at]).sum();
        let chance: f64 = (0..3).map(|at| rows[at] * columns[at]).sum();
        // Both always say the same one thing: there is nothing that chance would not have done.
        let rest = 1.0 - chance;
        if rest < 1e-12 {
            return Some(Self { pairs: verdicts.len() as u64, share, kappa: 0.0, lower: -1.0, upper: 1.0 });
        }
        let kappa = (share - chance) / rest;
        let mut variance = -(share * chance - 2.0 * chance + share).powi(2);
        for (i, row) in table.iter().enumerate() {
            for (j, cell) in row.iter().enumerate() {
                variance += if i == j {
                    cell * (rest - (rows[i] + columns[i]) * (1.0 - share)).powi(2)
                } else {
                    (1.0 - share).powi(2) * cell * (columns[i] + rows[j]).powi(2)
                };
            }
        }
        let error = (variance.max(0.0) / (n * rest.powi(4))).sqrt();
        let (least, most) = wilson(share, n);
        let of_share = |share: f64| (share - chance) / rest;
        Some(Self {
            pairs: verdicts.len() as u64,
            share,
            kappa,
            lower: (kappa - Z * error).min(of_share(least)).max(-1.0),
            upper: (kappa + Z * error).max(of_share(most)).min(1.0),
        })
    }
}

/// Shares of each pair of verdicts: `table[ours][theirs]`.
fn table(verdicts: &[(Place, Place)]) -> [[f64; 3]; 3] {
    let index = |place: Place| match place {
        Place::First => 0,
        Place::Second => 1,
        Place::Tie => 2,
    };
    let mut table = [[0.0; 3]; 3];
    for (ours, theirs) in verdicts {
        table[index(*ours)][index(*theirs)] += 1.0 / verdicts.len() as f64;
    }
    table
}

/// Wilson's 95% interval of a share of `n` (Wilson 1927).
fn wilson(share: f64, n: f64) -> (f64, f64) {
    let z2 = Z * Z;
    let centre = (share + z2 / (2.0 * n)) / (1.0 + z2 / n);
    let half = Z / (1.0 + z2 / n) * (share * (1.0 - share) / n + z2 / (4.0 * n * n)).sqrt();
    (centre - half, centre + half)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdicts(counts: [[usize; 3]; 3]) -> Vec<(Place, Place)> {
        let places = [Place::First, Place::Second, Place::Tie];
        let mut all = Vec::new();
        for (row, ours) in counts.iter().zip(places) {
            for (count, theirs) in row.iter().zip(places) {
                all.extend(std::iter::repeat_n((ours, theirs), *count));
            }
        }
        all
    }

    /// Expected numbers from 20 lines of Python over the same table: κ = 0.42857, error 0.05371 by equation 13;
    /// 4,000 bootstrap samples give 0.0547.
    #[test]
    fn kappa_and_its_interval_are_as_computed_elsewhere() {
        let found = Agreement::of(&verdicts([[106, 10, 4], [22, 28, 10], [2, 12, 6]])).unwrap();
        assert!((found.share - 0.70).abs() < 1e-12, "{found:?}");
        assert!((found.kappa - 0.428_571).abs() < 1e-6, "{found:?}");
        // 0.42857 ± 1.96 * 0.05371 is 0.3233 to 0.5338; Wilson's interval of the share, 0.6332 to 0.7592, is wider.
        assert!((found.lower - 0.301_4).abs() < 1e-3, "{found:?}");
        assert!((found.upper - 0.541_4).abs() < 1e-3, "{found:?}");
    }

    #[test]
    fn a_judge_that_always_says_the_same_agrees_by_chance_only() {
        let always_first = Agreement::of(&verdicts([[30, 15, 5], [0; 3], [0; 3]])).unwrap();
        assert!((always_first.share - 0.6).abs() < 1e-12);
        assert!(always_first.kappa.abs() < 1e-9, "{always_first:?}");
        let nothing_to_tell = Agreement::of(&verdicts([[9, 0, 0], [0; 3], [0; 3]])).unwrap();
        assert_eq!((nothing_to_tell.kappa, nothing_to_tell.lower), (0.0, -1.0));
        let few = Agreement::of(&verdicts([[3, 0, 0], [0, 3, 0], [0; 3]])).unwrap();
        assert_eq!(few.kappa, 1.0);
        assert!(few.lower < 0.3, "six pairs show little, however well they agree: {few:?}");
        assert_eq!(Agreement::of(&[]), None);
    }

    #[test]
    fn a_line_that_is_no_label_is_named() {
        let good = r#"{"prompt": "p", "first": "a", "second": "b", "preferred": "tie"}"#;
        assert_eq!(Labelled::from_json_lines(&format!("{good}\n\n")).unwrap()[0].preferred, Place::Tie);
        let error = Labelled::from_json_lines(&format!("{good}\n{{}}")).unwrap_err();
        assert!(error.message.starts_with("line 2 is not a labelled pair: missing field"), "{error}");
    }
}
