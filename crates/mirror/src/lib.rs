//! Feeds the journal's mirrors: one loop, whatever the mirror.
//!
//! In come a [`Mirror`](autoglm_domain::Mirror), the [`Cursors`](autoglm_domain::Cursors) beside the journal and a
//! [`Board`]; out go deliveries, and on the board how each mirror is doing. A broker or bucket that is away costs delay:
//! the loop tries again, after pauses that grow, and whoever appends to the journal never hears of it.
//!
//! What a crash cannot do: lose an event, as the cursor moves after the delivery; or make the repeat another batch, as
//! the batch's end is kept before the delivery.

mod backoff;
mod board;
mod feed;

pub use board::Board;
pub use feed::Feed;

#[cfg(test)]
mod tests;
