//! NVIDIA's management library.

mod error;

pub use error::{NvmlError, code, meaning};
