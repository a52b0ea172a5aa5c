//! The network of the story: a bridge with the controller on it, and a port for each machine. It is gone with the namespace.

use anyhow::Result;

use crate::run::Run;

/// The controller, which serves packages.
pub(super) const CONTROLLER: &str = "10.77.0.1";
const BRIDGE: &str = "fleet";

/// A machine's place in it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) name: &'static str,
    pub(super) address: &'static str,
    pub(super) mac: &'static str,
    pub(super) memory_mib: u32,
    /// Of 1 GiB, set apart at boot.
    pub(super) huge_pages: u32,
}

/// The plane runs on the first. The second has a page of 1 GiB to set apart, and memory for it.
pub(super) const PLACES: [Place; 2] = [
    Place { name: "h1", address: "10.77.0.11", mac: "52:54:00:77:00:11", memory_mib: 3072, huge_pages: 0 },
    Place { name: "h2", address: "10.77.0.12", mac: "52:54:00:77:00:12", memory_mib: 4096, huge_pages: 1 },
];

impl Place {
    pub(super) fn tap(self) -> String {
        format!("tap-{}", self.name)
    }
}

pub(super) fn lay_out() -> Result<()> {
    ip(&["link", "add", BRIDGE, "type", "bridge"])?;
    ip(&["addr", "add", &format!("{CONTROLLER}/24"), "dev", BRIDGE])?;
    ip(&["link", "set", BRIDGE, "up"])?;
    for place in PLACES {
        let tap = place.tap();
        ip(&["tuntap", "add", "dev", &tap, "mode", "tap"])?;
        ip(&["link", "set", &tap, "master", BRIDGE, "up"])?;
    }
    Ok(())
}

fn ip(words: &[&str]) -> Result<()> {
    Run::new("ip").args(words).stdout().map(drop)
}
