//! What the gate promises: coverage of its intervals, power of its rule, and what it does with an engine and
//! a store.

mod coverage;
mod fakes;
mod gate;
mod power;
mod runner;
mod scenario;
