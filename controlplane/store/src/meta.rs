//! The columns that every resource has.

use croft_core::meta::Meta;
use croft_core::{Result, Timestamp};

use crate::column::from_json;

#[derive(sqlx::FromRow)]
pub(crate) struct MetaRow {
    pub uid: String,
    generation: i64,
    labels: String,
    annotations: String,
    create_time: i64,
    update_time: i64,
}

impl MetaRow {
    /// Of a resource that is not being deleted. `table` is for the log, as in [`from_json`].
    pub fn read(self, table: &str) -> Result<Meta> {
        Ok(Meta {
            uid: self.uid,
            generation: self.generation,
            labels: from_json(&self.labels, &format!("{table}.labels"))?,
            annotations: from_json(&self.annotations, &format!("{table}.annotations"))?,
            create_time: Timestamp(self.create_time),
            update_time: Timestamp(self.update_time),
            delete_time: None,
        })
    }
}
