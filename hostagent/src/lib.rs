//! The host agent: runs the instances that the control plane placed on this machine.
//!
//! ```text
//!              link ── session with the plane: intent down, truth up
//!               │  ▲
//!        supervisor │ board          one driver for each VM: journal + look → decide → act
//!               │  │                    │            │
//!            journal ◄── driver ──► surveyor ──► hypervisor (libvirt | simulated)
//!                           └─────► devices: looks, plans, steps in helper processes
//! ```
//!
//! It stops nothing because it lost the plane, and reports nothing as gone that it did not look for. Domains without
//! Croft's mark are never touched. A kill -9 at any moment loses nothing that was acknowledged.
//!
//! [`Agent::spawn`] runs one in this process; nothing here is global except rustls' crypto provider, which the caller
//! installs.

pub mod agent;
pub mod board;
pub mod clock;
pub mod config;
pub mod console_janitor;
pub mod crash;
pub mod devices;
pub mod driver;
pub mod durable;
pub mod enrol;
pub mod features;
pub mod host_report;
pub mod hypervisor;
pub mod identity;
pub mod images;
pub mod inventory;
pub mod journal;
pub mod link;
pub mod media;
pub mod metrics;
pub mod plane;
pub mod prefix;
pub mod reasons;
pub mod run;
pub mod supervisor;
pub mod surveyor;
pub mod tasks;
pub mod tunnel;

pub use agent::{Agent, AgentHandle, Config};
