//! The libvirt backend against a real libvirtd, QEMU (TCG) and guests that boot in seconds.
//!
//! Runs only inside `tests/with-libvirtd.sh` (which sets CROFT_LIBVIRT_TEST=1), because it kills libvirtd, makes networks
//! and writes firewall rules: `tests/with-libvirtd.sh cargo test -p croft-hostagent --test libvirt_backend`.

#![expect(clippy::unwrap_used, reason = "every function here is part of a test")]

mod agents;
mod cloud_image;
#[path = "../conformance/mod.rs"]
mod conformance;
mod devices;
mod images;
mod lab;
mod libvirtd;
mod life;
mod networks;
mod shell;
mod trouble;
