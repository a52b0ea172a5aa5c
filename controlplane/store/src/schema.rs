//! The schema: migrations embedded in the binary, forward only. A database of a newer schema is refused, not guessed
//! at.

use croft_core::{Error, Result};
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::{AnyConnection, Connection as _, SqlSafeStr as _};

use crate::dialect::Dialect;
use crate::error::{database, unavailable};
use crate::open::connect;
use crate::sql::sql;

/// Version, name, text: one file each in migrations/sqlite. What was released is never edited.
const SQLITE: &[(i64, &str, &str)] = &[(1, "initial", include_str!("../../../migrations/sqlite/0001_initial.sql"))];

/// Which schema is which.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schema {
    /// What this program makes, and the newest that it understands.
    pub program: i64,
    /// What the database has; `None`: there is none yet.
    pub database: Option<i64>,
}

impl Schema {
    /// Reads, and changes nothing: a database of a newer schema can be asked, and one that a plane works with.
    pub async fn of(url: &str) -> Result<Self> {
        sqlx::any::install_default_drivers();
        let dialect = Dialect::of(url)?;
        let nothing = Self { program: newest(), database: None };
        if !dialect.file(url).exists() {
            return Ok(nothing);
        }
        let mut conn = connect(&dialect.reader_url(url), dialect.reader_setup()).await?;
        if sql(dialect.migrations_table()).number(&mut conn).await? == 0 {
            return Ok(nothing);
        }
        let version = sql("SELECT COALESCE(MAX(version), 0) FROM _sqlx_migrations").number(&mut conn).await?;
        conn.close().await.map_err(database)?;
        Ok(Self { database: Some(version), ..nothing })
    }
}

fn newest() -> i64 {
    SQLITE.last().map_or(0, |(version, ..)| *version)
}

pub(crate) async fn bring_forward(conn: &mut AnyConnection, url: &str) -> Result<()> {
    migrator().run(conn).await.map_err(|why| refusal(url, why))
}

fn migrator() -> Migrator {
    let migrations = SQLITE.iter().map(|(version, name, text)| {
        Migration::new(*version, (*name).into(), MigrationType::Simple, text.into_sql_str(), false)
    });
    Migrator::with_migrations(migrations.collect())
}

fn refusal(url: &str, why: MigrateError) -> Error {
    let known = newest();
    match why {
        MigrateError::VersionMissing(version) => unavailable(format!(
            "the database {url} has schema {version}; this croft-controlplane knows up to {known}. Run the newer one, \
             or restore a backup from before the upgrade"
        )),
        MigrateError::VersionMismatch(version) => unavailable(format!(
            "schema {version} of the database {url} was made by another build; run the croft-controlplane that made it"
        )),
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => database(error),
        other => Error::internal(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_embedded_under_its_number() {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../../migrations/sqlite");
        let mut files: Vec<String> =
            std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        files.sort();
        let embedded: Vec<String> =
            SQLITE.iter().map(|(version, name, _)| format!("{version:04}_{name}.sql")).collect();
        assert_eq!(files, embedded);
    }
}
