//! The loop: one batch after another, for as long as there is something to deliver.

use std::sync::Arc;

use autoglm_domain::{Clock, Cursor, Cursors, Error, Mirror, MirrorHealth, Result, Span};

use crate::{Board, backoff::Backoff};

/// Feeds one mirror.
pub struct Feed {
    mirror: Arc<dyn Mirror>,
    cursors: Arc<dyn Cursors>,
    board: Arc<Board>,
    clock: Arc<dyn Clock>,
    backoff: Backoff,
    /// As it is kept; `None` where it has to be read first.
    cursor: Option<Cursor>,
}

impl Feed {
    /// Feeds `mirror` from where `cursors` says that it is. `seed` is that of the pauses between tries.
    pub fn new(
        mirror: Arc<dyn Mirror>,
        cursors: Arc<dyn Cursors>,
        board: Arc<Board>,
        clock: Arc<dyn Clock>,
        seed: u64,
    ) -> Self {
        Self { mirror, cursors, board, clock, backoff: Backoff::new(seed), cursor: None }
    }

    /// Follows the journal until the task is dropped, which may be at any moment.
    pub async fn run(mut self) {
        let name = self.mirror.name();
        let _idle = IdleAgain { board: Arc::clone(&self.board), clock: Arc::clone(&self.clock), name };
        let mut told: Option<String> = None;
        loop {
            let pause = match self.catch_up().await {
                Ok(()) => {
                    if told.take().is_some() {
                        tracing::info!(mirror = name, "the mirror has caught up");
                    }
                    self.mirror.pace()
                }
                Err(error) => {
                    let failures = self.board.failed(name, &error, self.clock.now());
                    // What lasts is told once.
                    if told.as_ref() != Some(&error.message) {
                        tracing::warn!(mirror = name, %error, failures, "the mirror has to wait");
                    }
                    told = Some(error.message);
                    // Whether it was kept is not known.
                    self.cursor = None;
                    self.backoff.pause(failures)
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// Delivers everything that is in the journal now.
    async fn catch_up(&mut self) -> Result<()> {
        let name = self.mirror.name();
        let mut cursor = match self.cursor {
            Some(cursor) => cursor,
            None => self.cursors.cursor(name).await?.unwrap_or_default(),
        };
        let last = self.cursors.last_seq().await?;
        lag(name, last, cursor.seq);
        if last < cursor.begun {
            let reason = format!("mirror `{name}` is at {}, and the journal ends at {last}", cursor.begun);
            return Err(Error::conflict(reason).with_hint(
                "the database was restored from an older copy, or is another one: give it a new mirror",
            ));
        }
        while cursor.begun < last || cursor.batch().is_some() {
            let Some(batch) = cursor.batch() else {
                cursor = self.keep(self.next(cursor.seq, last)).await?;
                continue;
            };
            let health = if cursor.begun == last { MirrorHealth::Healthy } else { MirrorHealth::CatchingUp };
            self.board.tries(name, health, self.clock.now());
            self.mirror.deliver(batch).await?;
            self.board.is(name, health, self.clock.now());
            metrics::counter!("autoglm_mirror_delivered_total", "mirror" => name).increment(batch.len());
            // Done with this batch and begun with the next, in one.
            cursor = self.keep(self.next(batch.upto, last)).await?;
            lag(name, last, cursor.seq);
        }
        self.board.is(name, MirrorHealth::Healthy, self.clock.now());
        self.cursor = Some(cursor);
        Ok(())
    }

    /// Delivered up to `seq`, and the batch after it begun, where there is one.
    fn next(&self, seq: i64, last: i64) -> Cursor {
        if seq >= last {
            return Cursor::at(seq);
        }
        Cursor { seq, begun: self.mirror.batch_end(seq, last).clamp(seq + 1, last) }
    }

    async fn keep(&self, cursor: Cursor) -> Result<Cursor> {
        self.cursors.set_cursor(self.mirror.name(), cursor).await?;
        Ok(cursor)
    }
}

fn lag(mirror: &'static str, last: i64, seq: i64) {
    let behind = Span { after: seq, upto: last }.len();
    metrics::gauge!("autoglm_mirror_behind", "mirror" => mirror).set(behind as f64);
    metrics::gauge!("autoglm_mirror_seq", "mirror" => mirror).set(seq as f64);
}

/// Says so when nobody feeds the mirror any longer.
struct IdleAgain {
    board: Arc<Board>,
    clock: Arc<dyn Clock>,
    name: &'static str,
}

impl Drop for IdleAgain {
    fn drop(&mut self) {
        self.board.is(self.name, MirrorHealth::Idle, self.clock.now());
    }
}
