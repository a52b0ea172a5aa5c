//! SQL and only SQL: every row of Croft is read and written here.
#![forbid(unsafe_code)]

mod stubs;

pub use stubs::*;
