//! Blobs that hosts fetch by digest: seeds. A host gets only what an instance placed on it refers to.

use croft_core::Result;
use croft_core::id::HostId;

use crate::open::Store;
use crate::secret;
use crate::sql::sql;

impl Store {
    /// In clear; `None` for what is not this host's business.
    pub async fn blob_get(&self, host: &HostId, digest: &str) -> Result<Option<Vec<u8>>> {
        let mut tx = self.snapshot().await?;
        let referred = sql("SELECT 1 AS found FROM instances WHERE host = $1 AND seed_digest = $2")
            .bind(host)
            .bind(digest)
            .any(&mut tx)
            .await?;
        if !referred {
            return Ok(None);
        }
        secret::get(&mut tx, &self.inner.keys, digest).await
    }
}
