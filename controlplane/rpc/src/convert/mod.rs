//! Between the wire and the nouns of core. Pure: nothing here looks at the store or decides who may see what.
//!
//! What comes in is checked for shape and every complaint names its field; what goes out cannot fail.

pub mod cluster;
pub mod desired;
pub mod desired_device;
pub mod device;
pub mod drain;
pub mod event;
pub mod host;
pub mod image;
pub mod info;
pub mod instance;
pub mod layout;
pub mod meta;
pub mod network;
pub mod node;
pub mod observed;
pub mod operation;
pub mod pool;
pub mod quota;
pub mod request;
pub mod tenant;
pub mod time;
pub mod token;
