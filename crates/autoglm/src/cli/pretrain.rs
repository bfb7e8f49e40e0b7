//! `autoglm pretrain`: a small model from plain text, such as the starter model.

use std::path::PathBuf;

use autoglm_domain::Error;
use autoglm_engine::{PretrainOptions, PretrainProgress};
use clap::Args;

use crate::printer::{Outcome, Printer};

use super::settings_args::SettingsArgs;

/// Arguments of `pretrain`; see [`PretrainOptions`].
#[derive(Debug, Args)]
pub(super) struct PretrainArgs {
    /// Text files: .txt (documents separated by 0x1E) or .jsonl (field text), plain or .zst
    #[arg(required = true, value_name = "FILE")]
    corpus: Vec<PathBuf>,
    /// Folder to write
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Continue from the weights and tokenizer of this folder
    #[arg(long, value_name = "DIR")]
    from: Option<PathBuf>,
    /// How long to train, seconds; the schedule runs over this time
    #[arg(long, value_name = "N", default_value_t = PretrainOptions::default().seconds)]
    seconds: f64,
    /// Steps to train, whatever the time; 0 leaves it to --seconds
    #[arg(long, value_name = "N", default_value_t = PretrainOptions::default().steps)]
    steps: u64,
    /// Go on with the pretraining that was interrupted in --out; the other options must be the same, but for the time
    #[arg(long)]
    resume: bool,
    /// Compute blocks again on the way back instead of keeping them, for less memory
    #[arg(long)]
    gradient_checkpointing: bool,
    /// Tokens of the vocabulary
    #[arg(long, value_name = "N", default_value_t = PretrainOptions::default().vocab_size)]
    vocab_size: usize,
    /// Width of the residual stream
    #[arg(long, value_name = "N", default_value_t = PretrainOptions::default().hidden_size)]
    hidden_size: usize,
    /// Width of the feed-forward layers
    #[arg(long, value_name = "N", default_value_t = PretrainOptions::default().intermediate_size)]
    intermediate_size: usize,
    /// Blocks
    #[arg(long, value_name = "N", default_value_t = PretrainOptions::default().num_layers)]
    num_layers: usize,
    /// Query heads
    #[arg(long, value_name = "N", default_value_t = PretrainOptions::default().num_heads)]
    num_heads: usize,
    /// Key and value heads
    #[arg(long, value_name = "N", default_value_t = PretrainOptions::default().num_kv_heads)]
    num_kv_heads: usize,
    /// Longest context that the model will claim, tokens
    #[arg(long, value_name = "N", default_value_t = PretrainOptions::default().context)]
    context: usize,
    /// Tokens of a training window
    #[arg(long, value_name = "N", default_value_t = PretrainOptions::default().window)]
    window: usize,
    /// Tokens of an optimiser step
    #[arg(long, value_name = "N", default_value_t = PretrainOptions::default().batch_tokens)]
    batch_tokens: usize,
    /// Share of a batch that is conversations made from the text, 0 to 1
    #[arg(long, value_name = "SHARE", default_value_t = PretrainOptions::default().conversation_share)]
    conversation_share: f64,
    /// Share of the paragraphs that are lower-cased, 0 to 1
    #[arg(long, value_name = "SHARE", default_value_t = PretrainOptions::default().lowercase_share)]
    lowercase_share: f64,
    /// Peak learning rate
    #[arg(long, value_name = "RATE", default_value_t = PretrainOptions::default().learning_rate)]
    learning_rate: f32,
    /// AdamW's weight decay
    #[arg(long, value_name = "DECAY", default_value_t = PretrainOptions::default().weight_decay)]
    weight_decay: f32,
    /// Seed of weights and of the order of the data
    #[arg(long, value_name = "N", default_value_t = PretrainOptions::default().seed)]
    seed: u64,
    /// Threads; 0 is one for each processor
    #[arg(long, value_name = "N", default_value_t = 0)]
    threads: usize,
}

impl From<PretrainArgs> for PretrainOptions {
    fn from(args: PretrainArgs) -> Self {
        let threads = if args.threads == 0 { Self::default().threads } else { args.threads };
        Self {
            corpus: args.corpus,
            out: args.out,
            from: args.from,
            vocab_size: args.vocab_size,
            hidden_size: args.hidden_size,
            intermediate_size: args.intermediate_size,
            num_layers: args.num_layers,
            num_heads: args.num_heads,
            num_kv_heads: args.num_kv_heads,
            context: args.context,
            window: args.window,
            batch_tokens: args.batch_tokens,
            conversation_share: args.conversation_share,
            lowercase_share: args.lowercase_share,
            learning_rate: args.learning_rate,
            weight_decay: args.weight_decay,
            seconds: args.seconds,
            steps: args.steps,
            gradient_checkpointing: args.gradient_checkpointing,
            resume: args.resume,
            seed: args.seed,
            threads,
        }
    }
}

impl PretrainArgs {
    /// Refuses what cannot be trained, naming the flag.
    fn check(&self) -> autoglm_domain::Result<()> {
        let refuse = |message: String| Err(Error::invalid(message));
        for (flag, value) in
            [("conversation-share", self.conversation_share), ("lowercase-share", self.lowercase_share)]
        {
            if !(0.0..=1.0).contains(&value) {
                return refuse(format!("--{flag} {value} is not between 0 and 1"));
            }
        }
        if !(self.seconds > 0.0 && self.seconds.is_finite()) {
            return refuse(format!("--seconds {} is not above 0", self.seconds));
        }
        for (flag, value) in [
            ("hidden-size", self.hidden_size),
            ("intermediate-size", self.intermediate_size),
            ("num-layers", self.num_layers),
            ("num-heads", self.num_heads),
            ("num-kv-heads", self.num_kv_heads),
            ("window", self.window),
            ("batch-tokens", self.batch_tokens),
        ] {
            if value == 0 {
                return refuse(format!("--{flag} 0 leaves nothing to train"));
            }
        }
        if !self.num_heads.is_multiple_of(self.num_kv_heads) {
            let (heads, kv) = (self.num_heads, self.num_kv_heads);
            return refuse(format!("--num-heads {heads} is not a multiple of --num-kv-heads {kv}"));
        }
        if !self.hidden_size.is_multiple_of(2 * self.num_heads) {
            let (hidden, heads) = (self.hidden_size, self.num_heads);
            return refuse(format!("--hidden-size {hidden} is not an even multiple of --num-heads {heads}"));
        }
        if self.window > self.context {
            return refuse(format!("--window {} is longer than --context {}", self.window, self.context));
        }
        Ok(())
    }
}

/// Pretrains; progress goes to stderr, the folder's name to stdout.
pub(super) fn run(args: PretrainArgs, settings: &SettingsArgs, printer: &Printer) -> Outcome {
    settings.load("warn", [])?;
    args.check()?;
    let options = PretrainOptions::from(args);
    let seconds = options.seconds;
    autoglm_engine::pretrain(&options, &mut |progress| printer.note(&line(&progress, seconds)))
        .map_err(Error::from)?;
    printer.data(&options.out.display().to_string())
}

fn line(progress: &PretrainProgress, of: f64) -> String {
    let PretrainProgress { step, tokens, loss, held_out_loss, seconds } = progress;
    let speed = if *seconds > 0.0 { *tokens as f64 / seconds } else { 0.0 };
    let held_out =
        if held_out_loss.is_finite() { format!("  held-out {held_out_loss:.3}") } else { String::new() };
    format!(
        "{seconds:>6.0}/{of:.0} s  step {step}  {:.1} M tokens  {speed:.0}/s  loss {loss:.3}{held_out}",
        *tokens as f64 / 1e6
    )
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Command {
        #[command(flatten)]
        args: PretrainArgs,
    }

    fn parse(arguments: &[&str]) -> PretrainArgs {
        Command::try_parse_from([&["pretrain", "a.txt", "--out", "m"], arguments].concat()).unwrap().args
    }

    #[test]
    fn flags_default_to_the_engines_defaults() {
        let options = PretrainOptions::from(parse(&[]));
        let expected =
            PretrainOptions { corpus: vec!["a.txt".into()], out: "m".into(), ..PretrainOptions::default() };
        assert_eq!(format!("{options:?}"), format!("{expected:?}"));
        assert_eq!(PretrainOptions::from(parse(&["--seed", "9"])).seed, 9);
    }

    #[test]
    fn shapes_that_cannot_be_are_named() {
        let refused = |arguments: &[&str]| parse(arguments).check().unwrap_err().message;
        assert_eq!(parse(&[]).check(), Ok(()));
        assert_eq!(refused(&["--num-heads", "3"]), "--num-heads 3 is not a multiple of --num-kv-heads 2");
        assert_eq!(
            refused(&["--hidden-size", "250"]),
            "--hidden-size 250 is not an even multiple of --num-heads 4"
        );
        assert_eq!(refused(&["--window", "1000"]), "--window 1000 is longer than --context 512");
        assert_eq!(refused(&["--seconds", "nan"]), "--seconds NaN is not above 0");
        assert_eq!(refused(&["--lowercase-share", "2"]), "--lowercase-share 2 is not between 0 and 1");
    }

    #[test]
    fn progress_is_one_line() {
        let progress = PretrainProgress {
            step: 40,
            tokens: 2_000_000,
            loss: 3.2468,
            held_out_loss: f64::NAN,
            seconds: 100.0,
        };
        assert_eq!(line(&progress, 3600.0), "   100/3600 s  step 40  2.0 M tokens  20000/s  loss 3.247");
    }
}
