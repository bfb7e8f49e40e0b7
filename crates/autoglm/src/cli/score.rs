//! `autoglm score`: what a model thinks of a text, to compare with other tools.

use std::path::{Path, PathBuf};

use autoglm_domain::{Error, Result};
use autoglm_engine::{Decoder as _, Model, ResidentAdapter, ScoredToken, Tokenizer};
use clap::Args;
use serde::Serialize;

use crate::printer::{Outcome, Printer, Table};

use super::settings_args::{SettingsArgs, model};

/// Arguments of `score`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("what").required(true).args(["text", "ids"]))]
pub(super) struct ScoreArgs {
    /// Model folder, GGUF file or hub id, instead of the starter model
    #[arg(long, value_name = "DIR")]
    model: Option<String>,
    /// Adapter folder in PEFT's format
    #[arg(long, value_name = "DIR")]
    adapter: Option<PathBuf>,
    /// The text to score
    #[arg(long)]
    text: Option<String>,
    /// The tokens to score
    #[arg(long, value_name = "ID,ID,…", value_delimiter = ',')]
    ids: Option<Vec<u32>>,
    /// Write the logits, [time, vocab] in float32, as the tensor `logits` of this safetensors file
    #[arg(long, value_name = "FILE")]
    logits: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// One token with its text.
#[derive(Debug, Serialize)]
struct Line {
    #[serde(flatten)]
    scored: ScoredToken,
    /// `None` where the model has no tokenizer.
    token: Option<String>,
}

/// Everything that `--json` prints.
#[derive(Debug, Serialize)]
struct Scored {
    model: String,
    adapter: Option<PathBuf>,
    tokens: Vec<Line>,
    /// Sum of the log-probabilities.
    logprob: f64,
}

/// Scores a text.
pub(super) fn run(args: &ScoreArgs, settings: &SettingsArgs, printer: &Printer) -> Outcome {
    let settings = settings.load("warn", [model(args.model.clone())])?;
    let folder = crate::starter::resolve(&settings)?;
    let model = Model::load_as(&folder, settings.engine.weights.format()).map_err(Error::from)?;
    let adapter = args.adapter.as_deref().map(|adapter| load(&model, adapter, &settings)).transpose()?;
    let tokenizer = match Tokenizer::of_model(&folder) {
        Ok(tokenizer) => Some(tokenizer),
        // Token ids need none.
        Err(_) if args.ids.is_some() => None,
        Err(error) => return Err(Error::from(error).into()),
    };
    let ids = match (&args.ids, &args.text, &tokenizer) {
        (Some(ids), ..) => ids.clone(),
        (None, Some(text), Some(tokenizer)) => tokenizer.encode(text, true).map_err(Error::from)?,
        _ => return Err(Error::invalid("there is neither a text nor tokens to score").into()),
    };
    let (scored, logits) = autoglm_engine::score(&model, adapter.as_ref(), &ids).map_err(Error::from)?;
    if let Some(path) = &args.logits {
        write(path, scored.len(), &logits)?;
    }
    let logprob = scored.iter().filter_map(|token| token.logprob).map(f64::from).sum();
    let token = |id| tokenizer.as_ref().map(|tokenizer| tokenizer.token_text(id));
    let tokens: Vec<Line> =
        scored.into_iter().map(|scored| Line { token: token(scored.id), scored }).collect();
    let model = folder.display().to_string();
    print(&Scored { model, adapter: args.adapter.clone(), tokens, logprob }, args.json, printer)
}

fn load(model: &Model, folder: &Path, settings: &crate::settings::Settings) -> Result<ResidentAdapter> {
    let reading = autoglm_registry::read_folder(folder, &settings.registry.scan);
    let adapter = tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(reading))?;
    Ok(model.load_adapter(&adapter)?)
}

/// `[time, vocab]`
fn write(path: &Path, time: usize, logits: &[f32]) -> Result<()> {
    let bytes: Vec<u8> = logits.iter().flat_map(|logit| logit.to_le_bytes()).collect();
    let shape = vec![time, logits.len() / time.max(1)];
    let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape, &bytes)
        .map_err(|error| Error::internal(format!("the logits do not fill their shape: {error}")))?;
    let file = safetensors::serialize([("logits", view)], None)
        .map_err(|error| Error::internal(format!("the logits cannot be written: {error}")))?;
    std::fs::write(path, file)
        .map_err(|error| Error::unavailable(format!("cannot write {}: {error}", path.display())))
}

fn print(scored: &Scored, json: bool, printer: &Printer) -> Outcome {
    if json {
        return printer.json(scored);
    }
    let mut table = Table::new(&[">ID", ">LOGPROB", "TOKEN"]);
    for line in &scored.tokens {
        table.row([
            line.scored.id.to_string(),
            line.scored.logprob.map_or_else(|| "-".into(), |logprob| format!("{logprob:.6}")),
            line.token.as_ref().map_or_else(String::new, |token| format!("{token:?}")),
        ]);
    }
    printer.table(&table)?;
    printer.note(&format!("sum {:.6}", scored.logprob));
    Ok(())
}
