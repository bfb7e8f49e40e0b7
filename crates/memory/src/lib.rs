//! The experience pool: what was verified, kept, found again, and handed to training.
//!
//! Comes in: interactions with feedback and assessment ([`Memory::remember_all`]), prompts
//! ([`Memory::recall`]), lines of JSON ([`Memory::import`]). Goes out: events to the store, recalled answers
//! and examples, what training may use ([`Memory::training_pool`]), suites for the gate
//! ([`Memory::held_out`]), counts ([`Memory::stats`]).
//!
//! The store is the truth; everything here is rebuilt from it by [`Memory::open`].

mod config;
mod error;
mod prompt_key;

mod gate;
mod ledger;
mod weigh;

mod clusters;
mod dense;
mod features;
mod lexical;
mod panel;
mod pool;

mod material;
mod memory;
mod recall;
mod stats;
mod transfer;

pub use config::{Config, RecallMode};
pub use error::MemoryError;
pub use gate::Refusal;
pub use ledger::Remembered;
pub use memory::Memory;
pub use recall::{Recall, RecallOptions, Recalled};
pub use stats::Stats;
pub use transfer::{BrokenLine, Imported};
