//! Update masks (AIP-134): which fields of a resource an update writes, and which it may not.
//!
//! Without a mask an update writes what the message has (a field with its default value is not there); `*` writes every
//! field that can be written. A path that cannot be written is refused by name, before anything is looked up.

use croft_core::validate::Violations;
use croft_core::{Error, Result};
use prost_types::FieldMask;

/// Of every resource's metadata.
const METADATA_OUTPUT: [&str; 6] = [
    "metadata.uid",
    "metadata.generation",
    "metadata.etag",
    "metadata.create_time",
    "metadata.update_time",
    "metadata.delete_time",
];

/// What can and cannot be written of one noun.
#[derive(Debug)]
pub struct Fields {
    /// Its name in the request: `instance`.
    pub noun: &'static str,
    pub mutable: &'static [&'static str],
    /// With what to do instead.
    pub immutable: &'static [(&'static str, &'static str)],
    /// Besides the metadata's.
    pub output_only: &'static [&'static str],
}

/// The mutable fields that an update writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Chosen {
    /// Those that the message has.
    Implied,
    /// All, also with what the message leaves empty.
    Full,
    Named(Vec<&'static str>),
}

impl Chosen {
    /// Whether to write `field`, given whether the message has it.
    #[must_use]
    pub fn writes(&self, field: &str, present: bool) -> bool {
        match self {
            Self::Implied => present,
            Self::Full => true,
            Self::Named(fields) => fields.contains(&field),
        }
    }

    /// Whether the message's other fields were meant too, so that one that differs is a mistake worth telling.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        !matches!(self, Self::Named(_))
    }
}

impl Fields {
    pub fn choose(&self, mask: Option<FieldMask>) -> Result<Chosen> {
        let paths = mask.map(|mask| mask.paths).unwrap_or_default();
        match paths.as_slice() {
            [] => return Ok(Chosen::Implied),
            [star] if star == "*" => return Ok(Chosen::Full),
            _ => {}
        }
        let mut violations = Violations::new();
        let mut chosen = Vec::new();
        for path in &paths {
            match self.expand(path) {
                Ok(fields) => chosen.extend(fields),
                Err(why) => violations.add("update_mask", why),
            }
        }
        violations.finish()?;
        Ok(Chosen::Named(chosen))
    }

    /// A path of one field, or of a group that holds nothing but fields that can be written or are output only.
    fn expand(&self, path: &str) -> Result<Vec<&'static str>, String> {
        let noun = self.noun;
        if let Some((field, instead)) = self.immutable.iter().find(|(field, _)| covers(field, path)) {
            return Err(format!("`{path}`: {noun}.{field} never changes; {instead}"));
        }
        if let Some(field) = self.output_only.iter().chain(&METADATA_OUTPUT).find(|field| covers(field, path)) {
            return Err(format!("`{path}`: {noun}.{field} is output only"));
        }
        let below: Vec<_> = self.mutable.iter().copied().filter(|field| covers(path, field)).collect();
        if below.is_empty() {
            return Err(format!("`{path}` is no field of {noun}; these can be written: {}", self.mutable.join(", ")));
        }
        if let Some((field, _)) = self.immutable.iter().find(|(field, _)| covers(path, field)) {
            return Err(format!("`{path}` holds {noun}.{field}, which never changes; name {}", below.join(", ")));
        }
        Ok(below)
    }

    /// For a field that the message has, that cannot be written and that is not what it was.
    #[must_use]
    pub fn unwritable(&self, field: &str) -> Error {
        let instead = self.immutable.iter().find(|(name, _)| *name == field).map_or("", |(_, instead)| *instead);
        Error::invalid(format!("{}.{field}", self.noun), format!("never changes; {instead}"))
    }
}

/// `spec` covers `spec` and `spec.restart`, not `specimen`.
fn covers(outer: &str, inner: &str) -> bool {
    inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIELDS: Fields = Fields {
        noun: "instance",
        mutable: &["metadata.labels", "metadata.annotations", "spec.restart"],
        immutable: &[("spec.vcpus", "create a new one"), ("spec.power", "use StartInstance or StopInstance")],
        output_only: &["status"],
    };

    fn choose(paths: &[&str]) -> Result<Chosen> {
        FIELDS.choose(Some(FieldMask { paths: paths.iter().map(ToString::to_string).collect() }))
    }

    #[test]
    fn what_can_be_written_is_chosen() {
        assert_eq!(FIELDS.choose(None), Ok(Chosen::Implied));
        assert_eq!(choose(&[]), Ok(Chosen::Implied));
        assert_eq!(choose(&["*"]), Ok(Chosen::Full));
        assert_eq!(choose(&["spec.restart"]), Ok(Chosen::Named(vec!["spec.restart"])));
        assert_eq!(choose(&["metadata"]), Ok(Chosen::Named(vec!["metadata.labels", "metadata.annotations"])));
        assert!(Chosen::Full.writes("spec.restart", false) && !Chosen::Implied.writes("spec.restart", false));
    }

    #[test]
    fn what_cannot_be_written_is_refused_by_name() {
        for (path, part) in [
            ("colour", "`colour` is no field of instance; these can be written: metadata.labels"),
            ("spec.restarts", "no field"),
            ("spec.vcpus", "never changes; create a new one"),
            ("spec.power", "use StartInstance or StopInstance"),
            ("spec", "holds instance.spec.vcpus, which never changes; name spec.restart"),
            ("status.state", "instance.status is output only"),
            ("metadata.uid", "output only"),
            ("", "no field"),
        ] {
            let error = choose(&["spec.restart", path]).unwrap_err().to_string();
            assert!(error.starts_with("update_mask: ") && error.contains(part), "{path}: {error}");
        }
    }
}
