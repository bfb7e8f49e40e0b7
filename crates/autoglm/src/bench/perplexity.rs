//! `autoglm bench perplexity`: what a text costs a model, to compare models and types of weights.

use std::path::Path;

use autoglm_domain::{Error, Result};
use autoglm_engine::{Model, Perplexity, Tokenizer};

use crate::{
    printer::{Outcome, Printer, Table},
    settings::Settings,
    starter,
};

/// Window where none is asked for, as llama.cpp has it.
const WINDOW: usize = 512;

/// Reads model and text, and slides over it.
pub(crate) fn run(
    settings: &Settings,
    text: &Path,
    window: Option<usize>,
    stride: Option<usize>,
    printer: &Printer,
) -> Result<Perplexity> {
    let read = std::fs::read(text)
        .map_err(|error| Error::not_found(format!("cannot read `{}`: {error}", text.display())))?;
    let content = String::from_utf8(read)
        .map_err(|error| Error::invalid(format!("`{}` is no UTF-8: {error}", text.display())))?;
    let path = starter::resolve(settings)?;
    let model = Model::load_as(&path, settings.engine.weights.format()).map_err(Error::from)?;
    let tokenizer = Tokenizer::of_model(&path).map_err(Error::from)?;
    let window = window.unwrap_or_else(|| model.config().max_position_embeddings.min(WINDOW));
    let stride = stride.unwrap_or(window / 2);
    let mut tenth = 0;
    let mut progress = |done: usize, all: usize| {
        if done * 10 / all > tenth {
            tenth = done * 10 / all;
            printer.note(&format!("{done} of {all} tokens"));
        }
    };
    Ok(autoglm_engine::perplexity(&model, &tokenizer, &content, window, stride, &mut progress)?)
}

/// As a table of one row.
pub(crate) fn print(report: &Perplexity, printer: &Printer) -> Outcome {
    let mut table = Table::new(&[">TOKENS", ">BYTES", ">NATS/TOKEN", ">NATS/BYTE", ">PERPLEXITY"]);
    table.row([
        report.tokens.to_string(),
        report.bytes.to_string(),
        format!("{:.5}", report.nats_per_token),
        format!("{:.5}", report.nats_per_byte),
        format!("{:.3}", report.perplexity),
    ]);
    printer.table(&table)
}
