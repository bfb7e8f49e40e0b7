//! autoglm: a language-model server that learns from its own traffic.
//!
//! This crate is the binary: the command line ([`cli`]), the settings ([`settings`]), the demo ([`demo`]), and the
//! node ([`node`]), which opens every part, serves, and runs the learning loop. Only here are concrete types of the
//! other crates put together.

mod assessed;
mod bench;
mod cli;
mod consolidate;
mod database;
mod demo;
mod demo_run;
mod http;
#[cfg(feature = "lake")]
mod lake;
mod learning_loop;
mod node;
mod printer;
mod proving;
mod settings;
mod signals;
mod starter;

/// Training returns large buffers all the time; the system's allocator gives them back to the kernel and asks for
/// them again.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    cli::main()
}
