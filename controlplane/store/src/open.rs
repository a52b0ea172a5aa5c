//! Opening and closing: the file and its mode, the schema, one connection that writes and a few that read.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use croft_core::id::{HostId, TokenId};
use croft_core::{Clock, Result, Timestamp};
use sqlx::any::{AnyConnectOptions, AnyPoolOptions};
use sqlx::pool::PoolConnection;
use sqlx::{Any, AnyConnection, AnyPool, ConnectOptions as _, Connection as _, Executor as _, Transaction};
use tokio::sync::watch;

use crate::dialect::{Dialect, encode};
use crate::error::{database, unavailable};
use crate::schema;
use crate::secret::Keys;
use crate::sql::sql;
use crate::tx::Writer;

const READERS: u32 = 8;

#[derive(Debug, Clone)]
pub struct Options {
    /// `sqlite:/path/croft.db`, path encoded as in any URL.
    pub url: String,
    /// Key of the secrets; made (mode 0600) when missing.
    pub key_file: PathBuf,
    pub clock: Arc<dyn Clock>,
}

impl Options {
    /// `croft.db` and `secrets.key` in a data directory, which must exist.
    #[must_use]
    pub fn in_dir(dir: &Path, clock: Arc<dyn Clock>) -> Self {
        Self { url: format!("sqlite:{}", encode(&dir.join("croft.db"))), key_file: dir.join("secrets.key"), clock }
    }
}

/// All of Croft's rows. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub clock: Arc<dyn Clock>,
    pub dialect: Dialect,
    pub url: String,
    pub writer: Arc<tokio::sync::Mutex<Writer>>,
    pub readers: AnyPool,
    /// The newest revision that this process committed.
    pub changed: watch::Sender<i64>,
    pub keys: Keys,
    /// Host to the (epoch, revision) that its agent said to know.
    synced: Mutex<HashMap<HostId, (i64, i64)>>,
    /// When a token's use was last written down.
    used: Mutex<HashMap<TokenId, Timestamp>>,
}

impl Inner {
    pub fn synced(&self) -> MutexGuard<'_, HashMap<HostId, (i64, i64)>> {
        // Plain values: whole whatever panicked while they were held.
        self.synced.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn used(&self) -> MutexGuard<'_, HashMap<TokenId, Timestamp>> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store {
    /// Makes what is missing, brings an older schema forward, refuses a newer one.
    pub async fn open(options: Options) -> Result<Self> {
        sqlx::any::install_default_drivers();
        let Options { url, key_file, clock } = options;
        let dialect = Dialect::of(&url)?;
        private(&dialect.file(&url))?;
        let mut writer = connect(&dialect.writer_url(&url), dialect.writer_setup()).await?;
        schema::bring_forward(&mut writer, &url).await?;
        let keys = keys(&mut writer, &key_file).await?;
        let revision = sql("SELECT revision FROM revision").number(&mut writer).await?;
        let setup = dialect.reader_setup();
        let readers = AnyPoolOptions::new()
            .max_connections(READERS)
            // A file does not hang up.
            .test_before_acquire(false)
            .idle_timeout(None)
            .max_lifetime(None)
            .after_connect(move |conn, _| {
                Box::pin(async move {
                    conn.execute(sqlx::raw_sql(setup)).await?;
                    Ok(())
                })
            })
            .connect_lazy_with(quiet(&dialect.reader_url(&url))?);
        let inner = Inner {
            clock,
            dialect,
            url,
            writer: Arc::new(tokio::sync::Mutex::new(Writer::new(writer))),
            readers,
            changed: watch::Sender::new(revision),
            keys,
            synced: Mutex::default(),
            used: Mutex::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Waits for what is being written. Whatever comes later is refused as unavailable.
    pub async fn close(&self) {
        let mut writer = self.inner.writer.lock().await;
        self.inner.readers.close().await;
        // Last: whoever closes last takes the write-ahead log into the file.
        if let Some(conn) = writer.close()
            && let Err(error) = conn.close().await
        {
            tracing::warn!(%error, "the database was not closed cleanly; it recovers at the next start");
        }
    }

    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.inner.clock.now()
    }

    /// Tells the newest revision that this process committed. A hint: other processes write, too.
    #[must_use]
    pub fn changed(&self) -> watch::Receiver<i64> {
        self.inner.changed.subscribe()
    }

    pub(crate) async fn reader(&self) -> Result<PoolConnection<Any>> {
        self.inner.readers.acquire().await.map_err(database)
    }

    /// For what takes several statements and must see one state.
    pub(crate) async fn snapshot(&self) -> Result<Transaction<'static, Any>> {
        self.inner.readers.begin().await.map_err(database)
    }
}

pub(crate) async fn connect(url: &str, setup: &'static str) -> Result<AnyConnection> {
    let mut conn = quiet(url)?.connect().await.map_err(database)?;
    conn.execute(sqlx::raw_sql(setup)).await.map_err(database)?;
    Ok(conn)
}

/// Statements are not logged: what is bound to them may be secret, and the log is slower than the database.
fn quiet(url: &str) -> Result<AnyConnectOptions> {
    let options: AnyConnectOptions = url.parse().map_err(database)?;
    Ok(options.disable_statement_logging())
}

/// Mode 0600 before the first byte is in it; the write-ahead log takes the same.
fn private(file: &Path) -> Result<()> {
    let failed = |why| unavailable(format!("cannot open the database {}: {why}", file.display()));
    fs::OpenOptions::new().append(true).create(true).mode(0o600).open(file).map_err(failed)?;
    fs::set_permissions(file, fs::Permissions::from_mode(0o600)).map_err(failed)
}

/// A new key only for a database that does not need an old one.
async fn keys(conn: &mut AnyConnection, file: &Path) -> Result<Keys> {
    if let Some(keys) = Keys::read(file)? {
        return Ok(keys);
    }
    let secrets = sql("SELECT COUNT(*) FROM secrets").number(conn).await?;
    if secrets > 0 {
        return Err(unavailable(format!(
            "the key file {} is missing, and {secrets} secrets in the database need it: restore it from a backup",
            file.display()
        )));
    }
    Keys::create(file)
}
