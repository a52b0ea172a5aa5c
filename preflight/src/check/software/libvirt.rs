//! libvirt: installed, new enough, listening.

use super::super::{Check, Found};
use crate::facts::{Facts, Version};
use crate::finding::{Finding, Level};

pub(in crate::check) const CHECK: Check = Check {
    id: "libvirt",
    looks_at: "libvirtd or virtqemud, its version (tested from 9.0 on), its socket",
    why: "the agent defines and starts every instance by libvirt",
    worst: Level::Fail,
    role: Some("libvirt"),
    look,
};

/// Debian 12's.
const TESTED: Version = Version(9, 0);
/// From here on a Linux bridge of libvirt's carries VLANs.
const VLANS: Version = Version(11, 0);

/// A daemon, and the socket at which it, or systemd for it, listens.
const DAEMONS: [(&str, &str); 2] =
    [("libvirtd", "/run/libvirt/libvirt-sock"), ("virtqemud", "/run/libvirt/virtqemud-sock")];

fn look(facts: &Facts) -> Found {
    let installed: Vec<_> =
        DAEMONS.into_iter().filter_map(|(name, socket)| Some((name, socket, facts.version_of(name)?))).collect();
    let [(name, _, told), ..] = installed[..] else {
        let fix = "apt-get install libvirt-daemon-system";
        return Ok(vec![Finding::fail("host", "not installed: neither libvirtd nor virtqemud", fix).by("libvirt")]);
    };
    let line = match told {
        Ok(line) => line,
        Err(why) => {
            return Ok(vec![Finding::warn(
                "host",
                format!("{name}: {why}"),
                "see that it runs: systemctl status libvirtd",
            )]);
        }
    };
    let mut findings = vec![match Version::find(line) {
        Some(version) if version < TESTED => {
            let fix = "upgrade to Debian 12 or Ubuntu 24.04, or newer";
            Finding::warn("host", format!("{line}, older than what is tested ({TESTED})"), fix)
        }
        Some(version) if version < VLANS => Finding::info(
            "host",
            line,
            "for networks with a VLAN on a Linux bridge: libvirt 11.0 or newer, or an Open vSwitch bridge",
        )
        .because("networks with a VLAN on a Linux bridge need libvirt 11.0; everything else works"),
        Some(_) => Finding::ok("host", line),
        None => Finding::warn("host", format!("{line}: a version that cannot be read"), "look at it by hand"),
    }];
    let mut listens = false;
    for (_, socket, _) in &installed {
        listens |= facts.fs.has(socket)?;
    }
    if !listens {
        let fix = "systemctl enable --now libvirtd";
        findings.push(
            Finding::warn("host", format!("{name} does not listen: no socket in /run/libvirt"), fix).by("libvirt"),
        );
    }
    Ok(findings)
}
