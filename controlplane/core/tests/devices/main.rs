//! Placement of devices: exact pieces, never two owners, and refusals that name the culprit.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod fixtures;

mod closed;
mod effort;
mod fleet;
mod pools;
mod slices;
mod whole;
