//! Columns that hold more than a number or a word: JSON, hex, booleans, names of variants.

use croft_core::{Error, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub(crate) fn to_json<T: Serialize + ?Sized>(value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(|why| Error::internal(format!("a value that JSON cannot hold: {why}")))
}

/// `column` names the place for the log: a row that cannot be read was written by another version, or by hand.
pub(crate) fn from_json<T: DeserializeOwned>(text: &str, column: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|why| Error::internal(format!("column {column} holds what is not ours: {why}")))
}

/// A variant's name, as serde spells it, without quotes.
pub(crate) fn to_word<T: Serialize>(value: T) -> Result<String> {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => Ok(word),
        other => Err(Error::internal(format!("not a word: {other:?}"))),
    }
}

pub(crate) fn from_word<T: DeserializeOwned>(word: &str, column: &str) -> Result<T> {
    serde_json::from_value(serde_json::Value::String(word.to_owned()))
        .map_err(|why| Error::internal(format!("column {column} holds `{word}`: {why}")))
}

/// For ids that do not parse.
pub(crate) fn wrong(column: &str, value: &str) -> Error {
    Error::internal(format!("column {column} holds `{value}`"))
}
