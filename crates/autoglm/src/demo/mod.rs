//! `autoglm demo`: a stream of real utterances is played at a running server as traffic, simulated users give
//! feedback, the server learns, and what it learned is measured and reported.
//!
//! In: a stream (CLINC150 by default), options, and a server that is already up ([`DemoServer`]). Out: lines
//! for people on a [`Display`], `report.json` and `report.html`, and the [report](report::Report). Everything that a client
//! could do goes over HTTP; only measuring the weights alone and reading what happened use the server's ports.

mod options;
mod stream;

mod answer;
pub(crate) mod users;

mod budget;
mod client;
mod player;
mod tally;

mod server;
mod watch;

mod measure;
mod paraphrase;

mod assemble;
mod report;

mod plot_accuracy;
mod plot_timeline;
mod report_html;
mod svg;

mod display;
mod table;

mod conduct;

#[cfg(test)]
mod doubles;

pub(crate) use budget::{Rounds, merge_seconds};
pub(crate) use client::{Answer, Asking, Client};
pub(crate) use conduct::run;
pub(crate) use display::Display;
pub(crate) use options::{DemoOptions, RecallMode};
pub(crate) use paraphrase::{ParaphraseReport, measure as measure_paraphrases};
pub(crate) use server::{DemoControl, DemoServer};
pub(crate) use stream::{Stream, Utterance, bundled as bundled_stream, load as load_stream};
pub(crate) use tally::quantile;
