//! Labels and annotations on the command line: given at creation, edited by an update, selected by in a list.

use std::collections::BTreeMap;

use clap::Args;
use croft_proto::v1::Metadata;

use crate::failure::{Failure, Result};
use crate::flags::pair;

#[derive(Debug, Clone, Default, Args)]
pub struct Labels {
    /// A label; may be given again
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = pair)]
    pub labels: Vec<(String, String)>,
    /// Free text for tools; may be given again
    #[arg(long = "annotation", value_name = "KEY=VALUE", value_parser = pair)]
    pub annotations: Vec<(String, String)>,
}

impl Labels {
    #[must_use]
    pub fn metadata(self) -> Option<Metadata> {
        if self.labels.is_empty() && self.annotations.is_empty() {
            return None;
        }
        let labels = self.labels.into_iter().collect();
        Some(Metadata { labels, annotations: self.annotations.into_iter().collect(), ..Metadata::default() })
    }
}

/// Which of a list, by label.
#[derive(Debug, Clone, Default, Args)]
pub struct Selector {
    /// Only with this label; may be given again, or several with commas
    #[arg(
        id = "selector",
        short = 'l',
        long = "selector",
        value_name = "KEY=VALUE",
        value_parser = pair,
        value_delimiter = ','
    )]
    pub pairs: Vec<(String, String)>,
}

impl Selector {
    /// As the API's `label_selector`. Two values for one label are refused, as the plane refuses them.
    pub fn text(&self) -> Result<String> {
        // One order, so that equal filters are equal requests.
        let mut pairs = BTreeMap::new();
        for (key, value) in &self.pairs {
            if pairs.insert(key, value).is_some_and(|before| before != value) {
                return Err(Failure::usage(format!(
                    "--selector: nothing has two values for {key}; ask for one of them"
                )));
            }
        }
        Ok(pairs.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(","))
    }
}

/// `KEY=VALUE` sets, `KEY-` takes away.
#[derive(Debug, Clone, Default, Args)]
pub struct LabelEdits {
    /// Set a label, or take it away with KEY-; may be given again
    #[arg(long = "label", value_name = "KEY=VALUE|KEY-", value_parser = edit)]
    labels: Vec<Edit>,
    /// Set an annotation, or take it away with KEY-; may be given again
    #[arg(long = "annotation", value_name = "KEY=VALUE|KEY-", value_parser = edit)]
    annotations: Vec<Edit>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Edit {
    Set(String, String),
    Remove(String),
}

fn edit(text: &str) -> Result<Edit, String> {
    match text.strip_suffix('-') {
        Some(key) if !key.is_empty() && !text.contains('=') => Ok(Edit::Remove(key.to_owned())),
        _ => pair(text).map(|(key, value)| Edit::Set(key, value)).map_err(|error| format!("{error} or KEY-")),
    }
}

impl LabelEdits {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.annotations.is_empty()
    }

    /// Adds to the mask what it changed.
    pub fn apply(&self, metadata: &mut Option<Metadata>, mask: &mut Mask) {
        let metadata = metadata.get_or_insert_default();
        apply(&self.labels, &mut metadata.labels, "metadata.labels", mask);
        apply(&self.annotations, &mut metadata.annotations, "metadata.annotations", mask);
    }
}

fn apply(edits: &[Edit], map: &mut BTreeMap<String, String>, path: &str, mask: &mut Mask) {
    for edit in edits {
        match edit {
            Edit::Set(key, value) => map.insert(key.clone(), value.clone()),
            Edit::Remove(key) => map.remove(key),
        };
    }
    if !edits.is_empty() {
        mask.add(path);
    }
}

/// Which fields an update changes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mask(Vec<String>);

impl Mask {
    pub fn add(&mut self, path: impl Into<String>) {
        self.0.push(path.into());
    }

    /// An empty mask would mean "everything": an update that names nothing is a mistake.
    pub fn finish(self) -> Result<Option<prost_types::FieldMask>> {
        if self.0.is_empty() {
            return Err(Failure::usage("nothing to change: name at least one field (see --help)"));
        }
        Ok(Some(prost_types::FieldMask { paths: self.0 }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_set_and_take_away() {
        let edits = LabelEdits { labels: vec![edit("a=1").unwrap(), edit("b-").unwrap()], annotations: vec![] };
        let mut metadata = Some(Metadata {
            labels: [("b".to_owned(), "2".to_owned()), ("c".to_owned(), "3".to_owned())].into(),
            etag: "e".into(),
            ..Metadata::default()
        });
        let mut mask = Mask::default();
        edits.apply(&mut metadata, &mut mask);
        let metadata = metadata.unwrap();
        assert_eq!(metadata.labels, [("a".to_owned(), "1".to_owned()), ("c".to_owned(), "3".to_owned())].into());
        assert_eq!(metadata.etag, "e", "the update must still fail if somebody was faster");
        assert_eq!(mask.finish().unwrap().unwrap().paths, ["metadata.labels"]);
    }

    #[test]
    fn a_value_may_end_in_a_dash() {
        assert_eq!(edit("a=b-").unwrap(), Edit::Set("a".into(), "b-".into()));
        assert!(edit("-").is_err());
    }

    #[test]
    fn an_update_of_nothing_is_refused() {
        assert!(Mask::default().finish().is_err());
    }
}
