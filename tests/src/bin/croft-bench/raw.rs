//! The reference: commits of one small row, by the same library, with the same settings, in the same directory.

use std::path::Path;
use std::time::Instant;

use sqlx::AnyConnection;
use sqlx::Connection as _;

/// Commits a second, one row each, journal WAL, synchronous FULL.
pub async fn commits_per_second(directory: &Path, commits: usize) -> anyhow::Result<f64> {
    sqlx::any::install_default_drivers();
    let url = format!("sqlite:{}?mode=rwc", directory.join("raw.db").display());
    let mut connection = AnyConnection::connect(&url).await?;
    for setting in ["PRAGMA journal_mode = WAL", "PRAGMA synchronous = FULL", "CREATE TABLE rows (n BIGINT, text TEXT)"]
    {
        sqlx::query(setting).execute(&mut connection).await?;
    }
    let began = Instant::now();
    for n in 0..commits {
        let mut transaction = connection.begin().await?;
        sqlx::query("INSERT INTO rows (n, text) VALUES ($1, $2)")
            .bind(i64::try_from(n)?)
            .bind("one small row")
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
    }
    let rate = commits as f64 / began.elapsed().as_secs_f64();
    connection.close().await?;
    Ok(rate)
}
