//! MIG geometry: which piece of a GPU can be cut where, and what two pieces have in common.
//!
//! A board is cut along two rulers at once. A *placement* is a run of **memory slices** (8 on a 7-slice board); the piece
//! it makes also takes a number of **compute slices** (7 there), which the hardware only counts. Both must have room:
//!
//! ```text
//!  memory   m0  m1  m2  m3  m4  m5  m6  m7        3g.40gb at 0 and at 4: no memory slice left,
//!          └──── 3g.40gb ──┘└──── 3g.40gb ──┘     one compute slice left that nothing can use
//!  compute  c0  c1  c2      c3  c4  c5      c6
//! ```
//!
//! A board that lists a profile with all media engines (`+me.all`) has those as a third ruler, counted like the compute slices.
//!
//! Owns: profiles and placements as data, occupancy, fit, what a place spoils, how broken up the rest is, and the names of the atoms a claim is stored as. Refuses to know
//! any product: hosts report their boards' profiles, and this crate does arithmetic on them. No I/O, no dependencies.

#![forbid(unsafe_code)]

mod atom;
mod board;
mod fragments;
mod occupancy;
mod room;

pub use atom::{Atom, ParseAtomError};
pub use board::{Board, BoardError, Media, Placement, Profile};
pub use fragments::Fragments;
pub use occupancy::{Claim, Misfit, Occupancy};
pub use room::{Loss, Room};

/// Slices that fit the bit sets: more than any board has, and a report that says more is refused.
pub const MAX_SLICES: u8 = 8;
