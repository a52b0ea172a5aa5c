//! Selecting rows by their labels, for nouns whose labels are a JSON column alone. Instances, of which there are many,
//! have a table of labels with an index.

use croft_core::Result;
use croft_core::meta::Labels;

use crate::column::to_json;
use crate::sql::Sql;

/// ` AND …` for each pair: the row's column `labels` has it. A key or value needs no escape in JSON (core's
/// `check_labels`), so `"key":"value"` with its quotes is in the text exactly if the pair is in the map. `REPLACE`,
/// because both databases have it and it minds the case.
pub(crate) fn select(mut statement: Sql, selector: &Labels) -> Result<Sql> {
    for (key, value) in selector {
        let pair = format!("{}:{}", to_json(key)?, to_json(value)?);
        statement = statement.push(" AND REPLACE(labels, ").push_bind(pair).push(", '') <> labels");
    }
    Ok(statement)
}
