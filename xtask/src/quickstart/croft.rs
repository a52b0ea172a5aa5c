//! The `croft` command line, pointed at this site's plane and at nothing else.

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::site::Site;
use crate::run::{Ended, Run};

/// Exit code 3: what was named is not there.
const NOT_FOUND: i32 = 3;

#[derive(Debug)]
pub(super) struct Croft<'a> {
    site: &'a Site,
}

impl<'a> Croft<'a> {
    pub(super) fn of(site: &'a Site) -> Croft<'a> {
        Croft { site }
    }

    pub(super) fn run(&self, words: &[&str]) -> Run {
        let config = self.site.user("config.yaml");
        Run::new(self.site.program("croft")).args(words).without_settings().env("CROFT_CONFIG", config)
    }

    pub(super) fn text(&self, words: &[&str]) -> Result<String> {
        self.run(words).stdout().map(|text| text.trim().to_owned())
    }

    pub(super) fn json(&self, words: &[&str]) -> Result<Value> {
        let text = self.run(words).args(["-o", "json"]).stdout()?;
        serde_json::from_str(&text).with_context(|| format!("`croft {} -o json` printed no JSON", words.join(" ")))
    }

    /// The resource, or nothing when there is none.
    pub(super) fn find(&self, words: &[&str]) -> Result<Option<Value>> {
        let run = self.run(words).args(["-o", "json"]);
        let ended: Ended = run.ended()?;
        if ended.code == Some(NOT_FOUND) {
            return Ok(None);
        }
        if !ended.success {
            bail!("{} failed: {}", run.shown(), ended.stderr.trim());
        }
        serde_json::from_str(&ended.stdout).map(Some).context("croft printed no JSON")
    }
}

/// The items of `{"instances": […]}`.
pub(super) fn items(list: &Value, field: &str) -> Vec<Value> {
    list[field].as_array().cloned().unwrap_or_default()
}

/// A text somewhere in a resource; empty when it is not there.
pub(super) fn text<'v>(value: &'v Value, pointer: &str) -> &'v str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}
