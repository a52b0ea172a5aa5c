//! Collects everything that is wrong with a request, so that its author mends it once.

use crate::error::{Error, FieldViolation, Result};

#[derive(Debug, Default)]
pub struct Violations(Vec<FieldViolation>);

impl Violations {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The same of the same field is said once.
    pub fn add(&mut self, field: impl Into<String>, description: impl Into<String>) {
        let violation = FieldViolation { field: field.into(), description: description.into() };
        if !self.0.contains(&violation) {
            self.0.push(violation);
        }
    }

    pub fn check(&mut self, holds: bool, field: &str, description: impl Into<String>) {
        if !holds {
            self.add(field, description);
        }
    }

    /// The id of something new, as [`is_slug`] wants it.
    pub fn check_slug(&mut self, id: &str, max: usize, field: &str) {
        self.check(
            is_slug(id, max),
            field,
            format!("1 to {max} of [a-z0-9-], begins with a letter, does not end with -"),
        );
    }

    /// Free text on one line, of at most `max` characters.
    pub fn check_line(&mut self, text: &str, max: usize, field: &str) {
        self.check(
            text.chars().count() <= max && !text.chars().any(char::is_control),
            field,
            format!("at most {max} characters on one line"),
        );
    }

    pub fn finish(self) -> Result<()> {
        if self.0.is_empty() { Ok(()) } else { Err(Error::Invalid(self.0)) }
    }
}

/// 1 to `max` of `[a-z0-9-]`, begins with a letter, does not end with `-`.
#[must_use]
pub fn is_slug(text: &str, max: usize) -> bool {
    (1..=max).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && !text.ends_with('-')
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
}

/// A DNS name in lower case: labels of `[a-z0-9-]` joined by dots, at most `max` in all.
#[must_use]
pub fn is_dns_name(text: &str, max: usize) -> bool {
    (1..=max).contains(&text.len())
        && text.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
        })
}

/// 64 lower-case hex digits.
#[must_use]
pub fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}
