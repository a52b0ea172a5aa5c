//! The nouns: each file holds a noun's verbs, what they take, and the columns of its table.

pub mod audit;
pub mod cluster;
pub mod context;
pub mod device;
pub mod event;
pub mod gpu;
pub mod host;
pub mod image;
pub mod instance;
pub mod network;
pub mod operation;
pub mod pool;
pub mod quota;
pub mod tenant;
pub mod token;
