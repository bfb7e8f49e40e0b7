//! News to one hook: in the journal's order, each until it was taken, from where the last process stopped.

use std::{sync::Arc, time::Duration};

use autoglm_domain::{Clock, Cursor, Cursors, Result, Store};

use crate::{
    Config, HookConfig, Secret, WebhookError,
    backoff::Backoff,
    notice::{Notice, notice},
    post::Post,
};

/// Time between two looks at a journal that has nothing new.
const LOOK: Duration = Duration::from_millis(500);
/// Events that are read at a time.
const PAGE: usize = 500;

/// Follows the journal for one hook.
pub struct Follower {
    name: String,
    hook: HookConfig,
    post: Post,
    keep_ms: i64,
    backoff: Backoff,
    store: Arc<dyn Store>,
    cursors: Arc<dyn Cursors>,
    clock: Arc<dyn Clock>,
}

impl Follower {
    /// One for each hook of `config`. `Invalid` when a secret is not there. `seed` is that of the pauses' jitter.
    pub fn all(
        config: &Config,
        store: &Arc<dyn Store>,
        cursors: &Arc<dyn Cursors>,
        clock: &Arc<dyn Clock>,
        seed: u64,
    ) -> crate::Result<Vec<Arc<Self>>> {
        let follower = |(name, hook): (&String, &HookConfig)| {
            let key = format!("hooks.{name}");
            let secret = Secret::load(&key, &hook.secret_env, &hook.secret_file)?;
            let timeout = Duration::from_millis(hook.timeout_ms);
            Ok::<_, WebhookError>(Arc::new(Self {
                name: name.clone(),
                hook: hook.clone(),
                post: Post::new(&key, &hook.url, secret, timeout, Arc::clone(clock))?,
                keep_ms: i64::try_from(config.keep_s.saturating_mul(1000)).unwrap_or(i64::MAX),
                backoff: Backoff::new(Duration::from_secs(config.max_pause_s), seed),
                store: Arc::clone(store),
                cursors: Arc::clone(cursors),
                clock: Arc::clone(clock),
            }))
        };
        config.hooks.iter().map(follower).collect()
    }

    /// Follows until the task is dropped. A hook that is new begins with what happens from now on.
    pub async fn follow(&self) {
        let mut at = None;
        let mut told = None;
        loop {
            let error = match self.turn(&mut at).await {
                Ok(true) => continue,
                Ok(false) => None,
                Err(error) => Some(error.message),
            };
            // What lasts is told once.
            if let Some(error) = error.as_ref().filter(|_| error != told) {
                tracing::warn!(hook = self.name, %error, "the journal cannot be followed");
            }
            told = error;
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Takes in a page of the journal; whether there may be more.
    async fn turn(&self, at: &mut Option<i64>) -> Result<bool> {
        let cursor = format!("webhook-{}", self.name);
        let mut seq = match *at {
            Some(seq) => seq,
            None => match self.cursors.cursor(&cursor).await? {
                Some(kept) => kept.seq,
                None => {
                    let seq = self.cursors.last_seq().await?;
                    self.cursors.set_cursor(&cursor, Cursor::at(seq)).await?;
                    seq
                }
            },
        };
        *at = Some(seq);
        let page = self.store.events_after(seq, PAGE).await?;
        let Some(last) = page.last().map(|recorded| recorded.seq) else { return Ok(false) };
        let full = page.len() == PAGE;
        for recorded in &page {
            let Some(notice) = notice(recorded).filter(|notice| self.wants(notice)) else { continue };
            self.deliver(&notice).await;
            // Each on its own: what was taken is not sent again by the next process.
            self.cursors.set_cursor(&cursor, Cursor::at(notice.seq)).await?;
            (seq, *at) = (notice.seq, Some(notice.seq));
        }
        if last > seq {
            self.cursors.set_cursor(&cursor, Cursor::at(last)).await?;
        }
        *at = Some(last);
        Ok(full)
    }

    fn wants(&self, notice: &Notice) -> bool {
        self.hook.events.is_empty() || self.hook.events.contains(&notice.kind)
    }

    /// Sends it until it is taken, or too old to matter.
    async fn deliver(&self, notice: &Notice) {
        for failed in 1.. {
            if self.clock.now().since_ms(notice.at) > self.keep_ms {
                tracing::warn!(
                    hook = self.name,
                    id = notice.seq,
                    "news is too old to be sent and is given up"
                );
                return self.count("given_up");
            }
            let reason = match self.post.send(&notice.seq.to_string(), &notice.body).await {
                Ok(answer) if (200..300).contains(&answer.status) => return self.count("delivered"),
                Ok(answer) => format!("it answered {}", answer.status),
                Err(reason) => reason,
            };
            self.count("failed");
            if failed == 1 {
                tracing::warn!(hook = self.name, id = notice.seq, reason, "a webhook has to be tried again");
            }
            tokio::time::sleep(self.backoff.pause(failed)).await;
        }
    }

    fn count(&self, outcome: &'static str) {
        metrics::counter!("autoglm_webhook_deliveries_total", "hook" => self.name.clone(), "outcome" => outcome)
            .increment(1);
    }
}
