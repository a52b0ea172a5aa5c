//! The nouns and rules of Croft, as plain data and plain functions.
//!
//! Everything that decides is here and can be tested without a database, a network or a clock: who may do what
//! ([`access`]), what a request may look like ([`validate`] and the nouns), what fits where ([`placement`]), what a
//! tenant may hold ([`quota`]), and what a VM's state is ([`instance::machine`]). Knows no tonic, sqlx or tokio.
#![forbid(unsafe_code)]

pub mod access;
pub mod audit;
pub mod cluster;
pub mod condition;
pub mod device;
pub mod error;
pub mod event;
pub mod host;
pub mod id;
pub mod image;
pub mod instance;
pub mod join;
pub mod maintenance;
pub mod meta;
pub mod name;
pub mod network;
pub mod operation;
pub mod placement;
pub mod ports;
pub mod quota;
pub mod tenant;
pub mod time;
pub mod token;
pub mod validate;

pub use error::{Error, Reason, Result};
pub use time::{Clock, Timestamp};
