//! What a person can choose about the demo.

use std::path::PathBuf;

use autoglm_domain::{Error, Result};
use serde::Serialize;

/// What the simulated users send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum FeedbackKind {
    /// The right answer, whatever the server said.
    Corrections,
    /// A thumb up or down.
    Thumbs,
    /// A thumb up for a right answer, a correction for a wrong one.
    Mixed,
}

/// How the server uses its memory while it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum RecallMode {
    /// Not at all: the weights answer alone.
    Off,
    /// The nearest experiences are put into the prompt as examples.
    Examples,
    /// A near enough experience answers without generation.
    Answer,
}

impl RecallMode {
    /// As it is written in a request.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Examples => "examples",
            Self::Answer => "answer",
        }
    }
}

/// Options of `autoglm demo`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct DemoOptions {
    /// Play this stream instead of CLINC150: JSON lines of prompt, reference, task?, context?, held_out?
    #[arg(long, value_name = "FILE")]
    pub(crate) stream: Option<PathBuf>,
    /// Name broken lines of the stream and go on without them
    #[arg(long)]
    pub(crate) keep_going: bool,
    /// Leave the server up when the demo is over
    #[arg(long)]
    pub(crate) serve: bool,
    /// Keep the server's data here instead of in a temporary folder
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Seed of everything random
    #[arg(long, default_value_t = 7)]
    pub(crate) seed: u64,
    /// Time for the whole demo, from the first request to the report
    #[arg(long, default_value_t = 7.0, value_name = "N")]
    pub(crate) minutes: f64,
    /// Training runs during the stream [default: one after each task, fewer where each would be shorter than 18 s]
    #[arg(long, value_name = "N")]
    pub(crate) runs: Option<usize>,
    /// Share of the answers that get feedback, 0 to 1
    #[arg(long, default_value_t = 0.6, value_name = "SHARE")]
    pub(crate) feedback_share: f64,
    /// Share of the feedback that is wrong, 0 to 1
    #[arg(long, default_value_t = 0.02, value_name = "SHARE")]
    pub(crate) noise: f64,
    /// What the simulated users send
    #[arg(long, value_enum, default_value_t = FeedbackKind::Mixed, value_name = "KIND")]
    pub(crate) feedback_kind: FeedbackKind,
    /// Also train on everything at once with the same budget, to see what was lost by learning in turn
    #[arg(long)]
    pub(crate) with_upper_bound: bool,
    /// How the server uses its memory while it answers
    #[arg(long, value_enum, default_value_t = RecallMode::Answer, value_name = "MODE")]
    pub(crate) recall: RecallMode,
    /// Where report.html and report.json are written
    #[arg(long, default_value = "autoglm-demo", value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// Use at most this many utterances of a task, and as many held-out ones (for a quick look)
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<usize>,
    /// Connections at once
    #[arg(long, default_value_t = 8, value_name = "N")]
    pub(crate) concurrency: usize,
    /// Do not submit a spoiled candidate
    #[arg(long)]
    pub(crate) no_spoil: bool,
    /// Do not name the task in the requests' metadata
    #[arg(long)]
    pub(crate) no_task: bool,
    /// Held-out utterances of a task that each new version is measured on; 0 is all
    #[arg(long, default_value_t = 300, value_name = "N")]
    pub(crate) measure_per_task: usize,
}

impl DemoOptions {
    /// Refuses what cannot be played, naming the limit.
    pub(crate) fn check(&self) -> Result<()> {
        let share = |name: &str, value: f64| {
            if (0.0..=1.0).contains(&value) {
                return Ok(());
            }
            Err(Error::invalid(format!("--{name} {value} is not between 0 and 1")))
        };
        share("feedback-share", self.feedback_share)?;
        share("noise", self.noise)?;
        if !(0.05..=1440.0).contains(&self.minutes) {
            return Err(Error::invalid(format!("--minutes {} is not between 0.05 and 1440", self.minutes)));
        }
        if !(1..=256).contains(&self.concurrency) {
            return Err(Error::invalid(format!(
                "--concurrency {} is not between 1 and 256",
                self.concurrency
            )));
        }
        if self.runs == Some(0) {
            return Err(Error::invalid("--runs 0 leaves the weights as they are")
                .with_hint("leave it out for one run after each task"));
        }
        if self.limit == Some(0) {
            return Err(Error::invalid("--limit 0 leaves nothing to play")
                .with_hint("leave it out to play everything"));
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    #[derive(clap::Parser)]
    struct Command {
        #[command(flatten)]
        options: DemoOptions,
    }

    /// Options as the command line gives them.
    pub(crate) fn parse(arguments: &[&str]) -> DemoOptions {
        use clap::Parser as _;
        Command::try_parse_from([&["demo"], arguments].concat()).unwrap().options
    }

    #[test]
    fn defaults_are_playable_and_limits_are_named() {
        assert_eq!(parse(&[]).check(), Ok(()));
        let refused = |arguments: &[&str]| parse(arguments).check().unwrap_err().message;
        assert_eq!(refused(&["--noise", "1.5"]), "--noise 1.5 is not between 0 and 1");
        assert_eq!(refused(&["--minutes", "0"]), "--minutes 0 is not between 0.05 and 1440");
        assert_eq!(refused(&["--minutes", "NaN"]), "--minutes NaN is not between 0.05 and 1440");
        assert_eq!(refused(&["--concurrency", "0"]), "--concurrency 0 is not between 1 and 256");
        assert_eq!(refused(&["--runs", "0"]), "--runs 0 leaves the weights as they are");
        assert_eq!(refused(&["--limit", "0"]), "--limit 0 leaves nothing to play");
    }
}
