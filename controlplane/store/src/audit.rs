//! The audit log: append-only, one row for each mutating call (in its own commit) and each denied or failed one.

use croft_core::audit::AuditEntry;
use croft_core::id::{AuditUid, TenantId};
use croft_core::{Result, Timestamp};
use sqlx::AnyConnection;

use crate::column::wrong;
use crate::open::Store;
use crate::page::Page;
use crate::sql::{insert, sql};

#[derive(sqlx::FromRow)]
struct Row {
    uid: String,
    time: i64,
    actor: String,
    method: String,
    tenant: Option<String>,
    target: String,
    request_id: String,
    result: String,
    message: String,
    peer: String,
}

impl TryFrom<Row> for AuditEntry {
    type Error = croft_core::Error;

    fn try_from(row: Row) -> Result<Self> {
        Ok(Self {
            uid: AuditUid::parse(&row.uid).ok_or_else(|| wrong("audit.uid", &row.uid))?,
            time: Timestamp(row.time),
            actor: row.actor,
            method: row.method,
            tenant: row.tenant.map(TenantId),
            target: row.target,
            request_id: row.request_id,
            result: row.result,
            message: row.message,
            peer: row.peer,
        })
    }
}

/// A tenant that does not exist leaves the row to the platform's admins.
pub(crate) async fn write(conn: &mut AnyConnection, entries: &[AuditEntry]) -> Result<()> {
    insert(
        conn,
        "INSERT INTO audit (uid, time, actor, method, tenant, target, request_id, result, message, peer, tenant_uid)",
        "",
        entries,
        |row, entry| {
            row.cell(entry.uid)
                .cell(entry.time)
                .cell(&entry.actor)
                .cell(&entry.method)
                .cell(&entry.tenant)
                .cell(&entry.target)
                .cell(&entry.request_id)
                .cell(&entry.result)
                .cell(&entry.message)
                .cell(&entry.peer)
                .push(", (SELECT uid FROM tenants WHERE id = ")
                .push_bind(&entry.tenant)
                .push(")")
        },
    )
    .await
}

impl Store {
    /// For calls that were denied or failed; those that went well left their row themselves. `uid` and `time` as given.
    pub async fn audit_append(&self, entry: AuditEntry) -> Result<()> {
        self.transaction(move |tx| Box::pin(async move { write(&mut tx.conn, &[entry]).await })).await
    }

    /// Newest first.
    pub async fn audit_list(
        &self,
        within: Option<&TenantId>,
        page: &Page,
    ) -> Result<(Vec<AuditEntry>, Option<String>)> {
        let list = format!("audit {within:?}");
        let (time, uid) = match page.after::<2>(&list)? {
            Some([time, uid]) => (time.parse().unwrap_or(i64::MIN), uid),
            None => (i64::MAX, String::new()),
        };
        let mut conn = self.reader().await?;
        let rows: Vec<Row> = sql("SELECT uid, time, actor, method, tenant, target, request_id, result, message, peer
                                  FROM audit
                                  WHERE (time, uid) < ($1, $2)
                                    AND ($3 IS NULL OR tenant_uid IN (
                                        SELECT a.tenant_uid
                                        FROM tenant_ancestors a
                                        JOIN tenants t ON t.uid = a.ancestor_uid
                                        WHERE t.id = $3))
                                  ORDER BY time DESC, uid DESC
                                  LIMIT $4")
        .bind(time)
        .bind(uid)
        .bind(within)
        .bind(page.fetch())
        .all(&mut conn)
        .await?;
        let mut entries: Vec<AuditEntry> = rows.into_iter().map(TryInto::try_into).collect::<Result<_>>()?;
        let next = page.cut(&list, &mut entries, |entry| [entry.time.0.to_string(), entry.uid.to_string()]);
        Ok((entries, next))
    }
}
