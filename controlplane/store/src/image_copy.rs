//! How each host stands with an image. Truth of the hosts: no audit, and written only where it differs.

use croft_core::id::{HostId, ImageUid};
use croft_core::image::Copy;
use croft_core::{Error, Result};
use sqlx::AnyConnection;

use crate::column::{from_word, to_word};
use crate::open::Store;
use crate::sql::sql;

#[derive(sqlx::FromRow)]
struct Row {
    host: String,
    state: String,
    bytes_done: i64,
    bytes_total: i64,
    reason: String,
    message: String,
}

impl TryFrom<Row> for Copy {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self> {
        Ok(Self {
            host: HostId(row.host),
            state: from_word(&row.state, "image_copies.state")?,
            bytes_done: row.bytes_done,
            bytes_total: row.bytes_total,
            reason: row.reason,
            message: row.message,
        })
    }
}

async fn get(conn: &mut AnyConnection, uid: ImageUid, host: &HostId) -> Result<Option<Copy>> {
    let row: Option<Row> = sql("SELECT host, state, bytes_done, bytes_total, reason, message
                                FROM image_copies
                                WHERE image_uid = $1 AND host = $2")
    .bind(uid)
    .bind(host)
    .optional(conn)
    .await?;
    row.map(TryInto::try_into).transpose()
}

impl Store {
    /// By host.
    pub async fn image_copies(&self, uid: ImageUid) -> Result<Vec<Copy>> {
        let rows: Vec<Row> = sql("SELECT host, state, bytes_done, bytes_total, reason, message
                                  FROM image_copies
                                  WHERE image_uid = $1
                                  ORDER BY host")
        .bind(uid)
        .all(&mut *self.reader().await?)
        .await?;
        rows.into_iter().map(TryInto::try_into).collect()
    }

    /// `true`: it differed and was written. What a host says of an image that was deleted meanwhile is dropped.
    pub async fn image_copy_put(&self, uid: ImageUid, copy: Copy) -> Result<bool> {
        if get(&mut *self.reader().await?, uid, &copy.host).await?.as_ref() == Some(&copy) {
            return Ok(false);
        }
        self.transaction(move |tx| {
            Box::pin(async move {
                let written = sql("INSERT INTO image_copies (image_uid, host, state, bytes_done, bytes_total, reason,
                                                             message)
                                   SELECT i.uid, h.id, $3, $4, $5, $6, $7
                                   FROM images i
                                   JOIN hosts h ON h.id = $2
                                   WHERE i.uid = $1
                                   ON CONFLICT (image_uid, host)
                                   DO UPDATE SET state = excluded.state, bytes_done = excluded.bytes_done,
                                                 bytes_total = excluded.bytes_total, reason = excluded.reason,
                                                 message = excluded.message")
                .bind(uid)
                .bind(&copy.host)
                .bind(to_word(copy.state)?)
                .bind(copy.bytes_done)
                .bind(copy.bytes_total)
                .bind(&copy.reason)
                .bind(&copy.message)
                .run(&mut tx.conn)
                .await?;
                Ok(written > 0)
            })
        })
        .await
    }
}
