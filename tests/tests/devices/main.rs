//! Devices through the whole fleet: asked for, charged, carved on a simulated machine, given to a guest, and taken home again.

mod shared;

mod crowds;
mod given;
mod misfortune;
