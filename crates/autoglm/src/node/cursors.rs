//! How far followers of the journal are, kept beside it.

use std::sync::Arc;

use autoglm_domain::{Cursor, Result};
use autoglm_webhook::Cursors;

/// The store's own cursors.
pub(super) struct StoreCursors(pub(super) Arc<dyn autoglm_domain::Cursors>);

#[async_trait::async_trait]
impl Cursors for StoreCursors {
    async fn last_seq(&self) -> Result<i64> {
        self.0.last_seq().await
    }

    async fn load(&self, follower: &str) -> Result<Option<i64>> {
        let all = self.0.cursors().await?;
        Ok(all.into_iter().find(|(name, _)| name == follower).map(|(_, cursor)| cursor.seq))
    }

    async fn save(&self, follower: &str, seq: i64) -> Result<()> {
        self.0.set_cursor(follower, Cursor::at(seq)).await
    }
}
