//! A statement on its way to the database: text with `$n`, and what is bound to it.
//!
//! Both dialects take `$n`. sqlx's own builder writes `?` under the Any driver, which PostgreSQL refuses; hence this
//! one.

use std::borrow::Cow;

use croft_core::device::Atom;
use croft_core::id::{
    AuditUid, DeviceId, HostId, ImageUid, InstanceUid, NetworkId, OperationUid, PoolId, TenantId, TokenId,
};
use croft_core::{Result, Timestamp};
use sqlx::any::{AnyArguments, AnyRow};
use sqlx::query::Query;
use sqlx::{Any, AnyConnection, Arguments as _, AssertSqlSafe, Encode, FromRow, SqlSafeStr as _, Type};

use crate::error::database;

/// Rows a statement; SQLite takes 32 766 values in one, PostgreSQL 65 535.
const CHUNK: usize = 100;

/// What may stand in a column: TEXT and BIGINT, nothing else.
pub(crate) trait Column {
    type Sql: for<'q> Encode<'q, Any> + Type<Any> + 'static;
    fn column(&self) -> Self::Sql;
}

macro_rules! text_columns {
    ($($type:ty),*) => {
        $(impl Column for $type {
            type Sql = String;
            fn column(&self) -> String {
                self.to_string()
            }
        })*
    };
}
text_columns!(
    str,
    String,
    TenantId,
    HostId,
    NetworkId,
    PoolId,
    DeviceId,
    TokenId,
    InstanceUid,
    ImageUid,
    OperationUid,
    AuditUid,
    Atom
);

impl Column for i64 {
    type Sql = Self;
    fn column(&self) -> Self {
        *self
    }
}

impl Column for bool {
    type Sql = i64;
    fn column(&self) -> i64 {
        i64::from(*self)
    }
}

impl Column for Timestamp {
    type Sql = i64;
    fn column(&self) -> i64 {
        self.0
    }
}

impl<T: Column + ?Sized> Column for &T {
    type Sql = T::Sql;
    fn column(&self) -> T::Sql {
        (*self).column()
    }
}

impl<T: Column> Column for Option<T>
where
    Option<T::Sql>: for<'q> Encode<'q, Any> + Type<Any>,
{
    type Sql = Option<T::Sql>;
    fn column(&self) -> Option<T::Sql> {
        self.as_ref().map(Column::column)
    }
}

pub(crate) struct Sql {
    text: Cow<'static, str>,
    arguments: AnyArguments,
    bound: usize,
    /// Whether the connection should keep it prepared: not for texts that seldom come again.
    keep: bool,
    error: Option<sqlx::Error>,
}

/// The usual statement: all of its text is known.
pub(crate) fn sql(text: &'static str) -> Sql {
    Sql { text: Cow::Borrowed(text), arguments: AnyArguments::default(), bound: 0, keep: true, error: None }
}

impl Sql {
    /// The next `$n`.
    pub fn bind(mut self, value: impl Column) -> Self {
        self.bound += 1;
        if let Err(error) = self.arguments.add(value.column()) {
            self.error = Some(sqlx::Error::Encode(error));
        }
        self
    }

    /// More text. Never what a user sent: that is bound.
    pub fn push(mut self, text: &str) -> Self {
        self.text.to_mut().push_str(text);
        self
    }

    pub fn push_bind(self, value: impl Column) -> Self {
        let next = self.bound + 1;
        self.push(&format!("${next}")).bind(value)
    }

    /// One more value of the tuple that was opened last.
    pub fn cell(self, value: impl Column) -> Self {
        let first = self.text.ends_with('(');
        self.push(if first { "" } else { ", " }).push_bind(value)
    }

    /// `($n, $n+1, …)`. Filled up to a power of two by repetition, so that few texts serve all lengths and stay
    /// prepared. `items` must not be empty.
    pub fn list<T: Column>(self, items: &[T]) -> Self {
        let filler = items.len().next_power_of_two() - items.len();
        let mut list = self.push("(");
        for item in items.iter().chain(items.iter().cycle().take(filler)) {
            list = list.cell(item);
        }
        list.push(")")
    }

    fn query(self) -> Result<Query<'static, Any, AnyArguments>> {
        if let Some(error) = self.error {
            return Err(database(error));
        }
        let text = match self.text {
            Cow::Borrowed(text) => text.into_sql_str(),
            Cow::Owned(text) => AssertSqlSafe(text).into_sql_str(),
        };
        Ok(sqlx::query_with(text, self.arguments).persistent(self.keep))
    }

    /// How many rows it touched.
    pub async fn run(self, conn: &mut AnyConnection) -> Result<u64> {
        Ok(self.query()?.execute(conn).await.map_err(database)?.rows_affected())
    }

    pub async fn all<R: for<'r> FromRow<'r, AnyRow>>(self, conn: &mut AnyConnection) -> Result<Vec<R>> {
        let rows = self.query()?.fetch_all(conn).await.map_err(database)?;
        rows.iter().map(|row| R::from_row(row).map_err(database)).collect()
    }

    pub async fn optional<R: for<'r> FromRow<'r, AnyRow>>(self, conn: &mut AnyConnection) -> Result<Option<R>> {
        let row = self.query()?.fetch_optional(conn).await.map_err(database)?;
        row.as_ref().map(R::from_row).transpose().map_err(database)
    }

    pub async fn one<R: for<'r> FromRow<'r, AnyRow>>(self, conn: &mut AnyConnection) -> Result<R> {
        let row = self.query()?.fetch_one(conn).await.map_err(database)?;
        R::from_row(&row).map_err(database)
    }

    /// The one value of the one row of a `COUNT(*)` and the like.
    pub async fn number(self, conn: &mut AnyConnection) -> Result<i64> {
        let (number,): (i64,) = self.one(conn).await?;
        Ok(number)
    }

    /// Whether it finds anything.
    pub async fn any(self, conn: &mut AnyConnection) -> Result<bool> {
        Ok(self.query()?.fetch_optional(conn).await.map_err(database)?.is_some())
    }
}

/// `head VALUES (…), (…) tail`, in as few statements as the limits allow. `fill` adds the cells of one row.
pub(crate) async fn insert<T>(
    conn: &mut AnyConnection,
    head: &'static str,
    tail: &'static str,
    rows: &[T],
    fill: impl Fn(Sql, &T) -> Sql,
) -> Result<()> {
    for chunk in rows.chunks(CHUNK) {
        let mut statement = sql(head).push(" VALUES ");
        // One row is the common case and always the same text.
        statement.keep = chunk.len() == 1;
        for (at, row) in chunk.iter().enumerate() {
            statement = fill(statement.push(if at == 0 { "(" } else { ", (" }), row).push(")");
        }
        statement.push(tail).run(conn).await?;
    }
    Ok(())
}
