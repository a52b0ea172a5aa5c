//! SQL and only SQL: every row of Croft is read and written here, by verbs named after their noun.
//!
//! ```text
//!  verbs (tenant_create, instance_claim, …)
//!    │ mutate: replay · dry run · audit row            call.rs
//!    ▼
//!  one transaction at a time, in a task of its own      tx.rs      ── revision, changes ──► watchers
//!    ▼
//!  statements with $n, TEXT and BIGINT columns          sql.rs     ── dialect.rs where databases differ
//! ```
//! Decides nothing that `croft_core` can decide, and awaits nothing but SQL inside a transaction. Rows are read by a
//! pool that cannot write, and written by one connection that waits for the disk.
#![forbid(unsafe_code)]

mod audit;
mod backup;
mod blob;
mod call;
mod change;
mod cluster;
mod column;
mod consistency;
pub mod crash;
mod device;
mod dialect;
mod error;
pub mod event;
mod host;
mod image;
mod image_copy;
mod instance;
mod janitor;
mod labels;
mod meta;
mod network;
mod open;
mod operation;
mod page;
mod pool;
mod quota;
mod schema;
mod secret;
mod sql;
mod tenant;
mod token;
mod tx;

pub use call::Done;
pub use change::Changes;
pub use cluster::{ClusterScope, NewCredential};
pub use device::DeviceFilter;
pub use device::report::DeviceReport;
pub use host::desired::{Desired, Tombstone};
pub use host::maintenance::Drain;
pub use host::report::HostReport;
pub use image::ImageScope;
pub use instance::attach::{AttachAnswer, AttachRequest, Extension};
pub use instance::claim::{ClaimAnswer, ClaimRequest};
pub use instance::command::Command;
pub use instance::list::{InstanceFilter, StateCount};
pub use instance::node::{Denied, NodeNews, NodeStep, Stepped};
pub use instance::place::PlaceAnswer;
pub use instance::settle::Settled;
pub use janitor::{HistoryRows, Trimmed};
pub use open::{Options, Store};
pub use page::Page;
pub use schema::Schema;
pub use tenant::TenantFilter;
pub use token::ADMIN as ADMIN_TOKEN;
