//! From what the database says to what a caller can act on.

use croft_core::{Error, Reason};

/// SQLite's primary result codes, <https://www.sqlite.org/rescode.html>.
const BUSY: i32 = 5;
const LOCKED: i32 = 6;
const READONLY: i32 = 8;
const IO: i32 = 10;
const FULL: i32 = 13;
const CANNOT_OPEN: i32 = 14;

pub(crate) fn database(error: sqlx::Error) -> Error {
    match &error {
        sqlx::Error::Database(told) => {
            let code = told.code().and_then(|code| code.parse::<i32>().ok()).map(|code| code & 0xff);
            match code {
                Some(FULL) => {
                    unavailable("the disk that holds the database is full; nothing was written. Free space there")
                }
                Some(BUSY | LOCKED) => unavailable("the database is in use by another process; try again"),
                Some(READONLY) => {
                    unavailable("the database can only be read: check the owner and mode of its directory")
                }
                Some(IO) => {
                    unavailable(format!("the disk that holds the database fails ({told}); look at the kernel's log"))
                }
                Some(CANNOT_OPEN) => {
                    unavailable(format!("the database cannot be opened ({told}): check its path and owner"))
                }
                _ => Error::internal(&error),
            }
        }
        sqlx::Error::PoolTimedOut => unavailable("the database is overloaded; try again"),
        sqlx::Error::PoolClosed => closed(),
        sqlx::Error::Io(why) => unavailable(format!("the database cannot be reached: {why}")),
        _ => Error::internal(&error),
    }
}

pub(crate) fn unavailable(message: impl Into<String>) -> Error {
    Error::Unavailable { reason: Reason::Unavailable, message: message.into() }
}

pub(crate) fn closed() -> Error {
    unavailable("the control plane is stopping; try again")
}
