//! `autoglm quantize`: a model as a GGUF file, in a type of one's choice.

use std::{path::PathBuf, sync::Arc};

use autoglm_domain::{Error, SystemClock};
use autoglm_engine::{Conversion, TensorType, convert};
use clap::{Args, ValueEnum};

use crate::printer::{Outcome, Printer, Table};

use super::settings_args::{DataArgs, SettingsArgs, model};

/// Arguments of `quantize`.
#[derive(Debug, Args)]
pub(super) struct QuantizeArgs {
    /// Model folder, GGUF file or hub id; `starter` is the starter model
    #[arg(value_name = "MODEL")]
    source: String,
    /// File to write
    #[arg(value_name = "OUT.gguf")]
    out: PathBuf,
    /// How the matrices are stored; norms and biases stay f32
    #[arg(long = "type", value_enum, default_value_t = Stored::Q8_0, value_name = "TYPE")]
    stored: Stored,
    #[command(flatten)]
    data: DataArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Types that can be written.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Stored {
    /// 8 bits and a scale for 32 values
    #[value(name = "q8_0")]
    Q8_0,
    /// 4 bits, with scales and minima for 256 values; the matrix of the logits q8_0
    #[value(name = "q4_k")]
    Q4K,
    /// 16-bit floats of IEEE
    F16,
    /// 16-bit floats with the range of 32 bits
    Bf16,
    /// 32-bit floats
    F32,
}

impl From<Stored> for TensorType {
    fn from(stored: Stored) -> Self {
        match stored {
            Stored::Q8_0 => Self::Q8_0,
            Stored::Q4K => Self::Q4K,
            Stored::F16 => Self::F16,
            Stored::Bf16 => Self::Bf16,
            Stored::F32 => Self::F32,
        }
    }
}

/// Converts.
pub(super) fn run(args: &QuantizeArgs, settings: &SettingsArgs, printer: &Printer) -> Outcome {
    let named = if args.source == "starter" { String::new() } else { args.source.clone() };
    let settings = settings.load("warn", [model(Some(named)), args.data.named()])?;
    let source = crate::starter::resolve(&settings)?;
    let conversion =
        convert(&source, &args.out, args.stored.into(), Arc::new(SystemClock)).map_err(Error::from)?;
    if args.json {
        return printer.json(&conversion);
    }
    print(&conversion, printer)
}

fn print(conversion: &Conversion, printer: &Printer) -> Outcome {
    for note in &conversion.notes {
        printer.note(note);
    }
    for (name, kind) in &conversion.fallbacks {
        printer.note(&format!("{name} is {kind}"));
    }
    let mut table = Table::new(&["TYPE", ">TENSORS"]);
    for (name, count) in &conversion.types {
        table.row([name.clone(), count.to_string()]);
    }
    printer.table(&table)?;
    printer.note(&format!("{:.1} MB", conversion.bytes as f64 / 1e6));
    Ok(())
}
