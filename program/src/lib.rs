//! What Croft's three programs have in common: which version they are, and that they write their own manual.
//!
//! A version is not compiled into the libraries: only the few lines of a program's `main.rs` see it and are compiled again for
//! another one. So two versions of the packages cost one compilation (`cargo xtask package --version`).
#![forbid(unsafe_code)]

mod manual;

use std::sync::OnceLock;

pub use manual::{Manual, write_manual};

static VERSION: OnceLock<&'static str> = OnceLock::new();

/// Which version this program is: the first thing that its `main` says, with `option_env!("CROFT_VERSION")`.
///
/// `None`, and a second call, change nothing: it is the workspace's version.
pub fn is_version(version: Option<&'static str>) {
    if let Some(version) = version {
        VERSION.get_or_init(|| version);
    }
}

/// What `--version`, logs, metrics and the agent's protocol say.
#[must_use]
pub fn version() -> &'static str {
    VERSION.get_or_init(|| env!("CARGO_PKG_VERSION"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_first_counts() {
        is_version(None);
        let first = version();
        is_version(Some("9.9.9"));
        assert_eq!(version(), first);
    }
}
