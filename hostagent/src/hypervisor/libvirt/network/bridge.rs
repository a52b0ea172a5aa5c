//! Bridges that the operator made: looked at, never changed.

use std::path::Path;

use super::super::domain::BridgeKind;
use super::super::reasons::VLAN_UNSUPPORTED;
use crate::hypervisor::Error;
use crate::reasons::NETWORK_UNKNOWN;

/// libvirt can tag a port of a Linux bridge from this version on.
const LINUX_VLAN_SINCE: u32 = 11_000_000;

/// What kind of bridge `name` is, and whether it can carry the VLAN. `sys` is /sys; `libvirt` its version.
pub fn inspect(sys: &Path, name: &str, vlan: Option<u16>, libvirt: u32) -> Result<BridgeKind, Error> {
    let device = sys.join("class/net").join(name);
    if !device.exists() {
        return Err(Error::Refused {
            reason: NETWORK_UNKNOWN,
            message: format!("this host has no bridge {name}; make it, or cordon the host for networks that need it"),
        });
    }
    let linux = device.join("bridge");
    if !linux.exists() {
        // Open vSwitch shows its bridges as plain devices; the datapath's own name gives it away.
        if sys.join("class/net/ovs-system").exists() {
            return Ok(BridgeKind::OpenVSwitch);
        }
        let message = format!("{name} on this host is neither a Linux bridge nor one of Open vSwitch");
        return Err(Error::Refused { reason: NETWORK_UNKNOWN, message });
    }
    let filters = || std::fs::read_to_string(linux.join("vlan_filtering")).is_ok_and(|text| text.trim() == "1");
    match vlan {
        None => Ok(BridgeKind::Linux),
        Some(_) if libvirt >= LINUX_VLAN_SINCE && filters() => Ok(BridgeKind::Linux),
        Some(id) => Err(Error::Refused {
            reason: VLAN_UNSUPPORTED,
            message: format!(
                "VLAN {id} on {name}: tagging a port of a Linux bridge needs libvirt 11 and vlan_filtering on the bridge; \
                 make a bridge on the VLAN's own interface and name that, or use Open vSwitch"
            ),
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn reason(result: Result<BridgeKind, Error>) -> &'static str {
        match result {
            Err(Error::Refused { reason, .. }) => reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn kinds_and_refusals() {
        let sys = tempfile::tempdir().unwrap();
        let net = sys.path().join("class/net");
        fs::create_dir_all(net.join("br0/bridge")).unwrap();
        fs::write(net.join("br0/bridge/vlan_filtering"), "1\n").unwrap();
        fs::create_dir_all(net.join("br1/bridge")).unwrap();
        fs::create_dir_all(net.join("eth0")).unwrap();
        let inspect = |name, vlan, version| inspect(sys.path(), name, vlan, version);

        assert_eq!(inspect("br0", None, 9_000_000).unwrap(), BridgeKind::Linux);
        assert_eq!(inspect("br0", Some(7), 11_000_000).unwrap(), BridgeKind::Linux);
        assert_eq!(reason(inspect("br0", Some(7), 9_000_000)), "VlanUnsupported");
        assert_eq!(reason(inspect("br1", Some(7), 11_000_000)), "VlanUnsupported");
        assert_eq!(reason(inspect("br9", None, 11_000_000)), "NetworkUnknown");
        assert_eq!(reason(inspect("eth0", None, 11_000_000)), "NetworkUnknown");

        fs::create_dir_all(net.join("ovs-system")).unwrap();
        assert_eq!(inspect("eth0", Some(7), 9_000_000).unwrap(), BridgeKind::OpenVSwitch);
    }
}
