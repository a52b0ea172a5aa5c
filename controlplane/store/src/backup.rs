//! A consistent copy of the database while it is in use.
//!
//! The copy begins a new stretch of history: its revision jumps ahead, and nothing before it can be resumed. Otherwise
//! a watcher with a token from after the backup would, once the restored plane had come as far, be told another story.

use std::fs;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use croft_core::{Error, Result};
use sqlx::Connection as _;

use crate::dialect::encode;
use crate::error::{database, unavailable};
use crate::open::{Store, connect};
use crate::sql::sql;

/// Room for two thousand million restores.
const JUMP: i64 = 1 << 32;

impl Store {
    /// To a file that must not exist yet; mode 0600. Back up the key file with it: without it, seeds and
    /// clusters' credentials in the copy cannot be read.
    pub async fn backup_to(&self, path: &Path) -> Result<()> {
        let failed = |why| unavailable(format!("cannot write the backup {}: {why}", path.display()));
        // Empty, and private from the first byte; never over something that is there.
        fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
        let copied =
            self.copy(path).await.and_then(|()| fs::File::open(path).and_then(|file| file.sync_all()).map_err(failed));
        if copied.is_err() {
            // Half a backup is none. What is left of it, if it cannot be removed, is named in the error's path.
            let _ = fs::remove_file(path);
        }
        copied
    }

    async fn copy(&self, path: &Path) -> Result<()> {
        let text = path.to_str().ok_or_else(|| Error::invalid("path", "is not UTF-8"))?;
        // A connection of its own: it reads for long, and must be able to write elsewhere.
        let mut conn = connect(&self.inner.dialect.writer_url(&self.inner.url), "PRAGMA busy_timeout = 10000").await?;
        sql("VACUUM INTO $1").bind(text).run(&mut conn).await?;
        conn.close().await.map_err(database)?;
        let mut copy = connect(&format!("sqlite:{}?mode=rw", encode(path)), "PRAGMA synchronous = FULL").await?;
        sql("UPDATE revision SET revision = revision + $1, oldest = revision + $1").bind(JUMP).run(&mut copy).await?;
        copy.close().await.map_err(database)
    }
}
