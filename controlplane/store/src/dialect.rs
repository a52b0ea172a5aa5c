//! What differs between databases: how a connection is set up, and how a write begins. Everything else is one text.

use std::path::PathBuf;

use croft_core::Result;

use crate::error::unavailable;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    Sqlite,
}

impl Dialect {
    pub fn of(url: &str) -> Result<Self> {
        match url.split_once(':') {
            Some(("sqlite", rest)) if !rest.starts_with(":memory:") && !rest.starts_with("//:memory:") => {
                Ok(Self::Sqlite)
            }
            _ => Err(unavailable(format!("database `{url}`: only a file, `sqlite:/path/to/croft.db`, is supported"))),
        }
    }

    /// The one writer. FULL: a commit that was answered survives a power cut.
    pub fn writer_setup(self) -> &'static str {
        match self {
            Self::Sqlite => {
                "PRAGMA journal_mode = WAL;
                 PRAGMA synchronous = FULL;
                 PRAGMA foreign_keys = ON;
                 PRAGMA busy_timeout = 10000;
                 PRAGMA journal_size_limit = 67108864;
                 PRAGMA trusted_schema = OFF;"
            }
        }
    }

    pub fn reader_setup(self) -> &'static str {
        match self {
            Self::Sqlite => {
                "PRAGMA query_only = ON;
                 PRAGMA busy_timeout = 10000;
                 PRAGMA trusted_schema = OFF;"
            }
        }
    }

    /// IMMEDIATE: a transaction that read first and then could not write would have to be run again.
    pub fn begin(self) -> &'static str {
        match self {
            Self::Sqlite => "BEGIN IMMEDIATE",
        }
    }

    /// Asks the database whether it is whole; a row with anything but `ok` is a fault.
    pub fn self_check(self) -> &'static str {
        match self {
            Self::Sqlite => "PRAGMA quick_check(20)",
        }
    }

    /// How many tables of migrations there are: none in a database that nobody has begun with.
    pub fn migrations_table(self) -> &'static str {
        match self {
            Self::Sqlite => "SELECT COUNT(*) FROM sqlite_master WHERE type = 'table' AND name = '_sqlx_migrations'",
        }
    }

    pub fn writer_url(self, url: &str) -> String {
        match self {
            Self::Sqlite => format!("{}?mode=rwc", bare(url)),
        }
    }

    pub fn reader_url(self, url: &str) -> String {
        match self {
            Self::Sqlite => format!("{}?mode=ro", bare(url)),
        }
    }

    /// The database file, whose mode is ours to set.
    pub fn file(self, url: &str) -> PathBuf {
        match self {
            Self::Sqlite => {
                let path = bare(url).trim_start_matches("sqlite:");
                PathBuf::from(decode(path.strip_prefix("//").unwrap_or(path)))
            }
        }
    }
}

fn bare(url: &str) -> &str {
    url.split_once('?').map_or(url, |(before, _)| before)
}

/// `%20` and its like, as in any URL.
fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let escaped = after.get(..2).and_then(|digits| hex::decode(digits).ok()).filter(|_| first == b'%');
        match escaped.as_deref() {
            Some([byte]) => {
                bytes.push(*byte);
                rest = &after[2..];
            }
            _ => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A path as part of a URL.
pub(crate) fn encode(path: &std::path::Path) -> String {
    use std::fmt::Write as _;
    use std::os::unix::ffi::OsStrExt as _;
    let mut text = String::new();
    for byte in path.as_os_str().as_bytes() {
        if byte.is_ascii_alphanumeric() || b"/._-~".contains(byte) {
            text.push(char::from(*byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_survive_the_url() {
        let path = std::path::Path::new("/var/lib/my croft?/100%#ü.db");
        let url = format!("sqlite:{}", encode(path));
        assert_eq!(Dialect::of(&url).unwrap().file(&Dialect::Sqlite.writer_url(&url)), path);
        assert!(Dialect::of("postgres://x/y").is_err() && Dialect::of("sqlite::memory:").is_err());
    }
}
