//! Resumable watches: what both of them (instances, events) share.
//!
//! There is one order of everything, the store's revisions (each change has its own), and one function that reads what
//! came after one. A resume token is a revision that only the watch it was made for takes; a [`Follower`] walks on from
//! it. Pulled by the reader: a slow one fills its own HTTP/2 window and nothing of ours.

mod follower;
mod token;

pub use follower::{Follower, Step};
pub use token::Scope;
