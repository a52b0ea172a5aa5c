//! Network interfaces that carry the host's traffic: with routes or addresses of their own (RDMA of the kernel's own making, to a
//! disk or a file system elsewhere, goes by those, too), or below a bridge, a bond, a VLAN; and those that somebody took into a
//! network of his own.

use std::collections::BTreeSet;

use super::{Use, addresses};
use crate::error::{FsError, IfThere as _};
use crate::hostfs::HostFs;
use crate::seat::Seat;

pub(super) fn uses(fs: &HostFs) -> Result<Vec<Use>, FsError> {
    let mut found = of_the_host(fs, &addresses::interfaces(fs)?)?;
    found.extend(elsewhere(fs)?);
    Ok(found)
}

/// Wherever the interface hangs: a virtio card's is below `virtio0`, a USB adapter's below its port. `addressed`: by index.
fn of_the_host(fs: &HostFs, addressed: &BTreeSet<u32>) -> Result<Vec<Use>, FsError> {
    let routes = fs.read("/proc/1/net/route").if_there()?.unwrap_or_default();
    let routes6 = fs.read("/proc/1/net/ipv6_route").if_there()?.unwrap_or_default();
    let mut found = Vec::new();
    for (name, target) in fs.links("/sys/class/net").if_there()?.unwrap_or_default() {
        let Some(seat) = Seat::of(&target) else { continue };
        let routed = routes.lines().any(|line| line.split_whitespace().next() == Some(name.as_str()));
        let routed6 = routes6.lines().any(|line| leads_somewhere(line, &name));
        let index =
            fs.parse(&format!("/sys/class/net/{name}/ifindex"), "a number", |text| text.parse().ok()).if_there()?;
        let usage = match index.is_some_and(|index| addressed.contains(&index)) {
            _ if routed || routed6 => Some("the host's routes"),
            true => Some("an address of the host's"),
            false => None,
        };
        // `upper_br0`, `upper_eth0.42`
        let above = fs.entries(&format!("/sys/class/net/{name}")).if_there()?.unwrap_or_default();
        let above = above.iter().filter_map(|entry| entry.strip_prefix("upper_"));
        for usage in usage.map(str::to_owned).into_iter().chain(above.map(|above| format!("part of {above}"))) {
            let words = format!("{name} ({usage})");
            found.extend(seat.keys().map(|key| (key, words.clone())));
        }
    }
    Ok(found)
}

/// An interface that was moved to another network namespace (a pod's) is listed nowhere here; the directory that it is in stays,
/// and looks empty. Without an interface there is none.
fn elsewhere(fs: &HostFs) -> Result<Vec<Use>, FsError> {
    let mut found = Vec::new();
    // Whose drivers make interfaces: of cards, of parts of cards, of USB interfaces.
    for bus in ["pci", "virtio", "auxiliary", "usb"] {
        let devices = format!("/sys/bus/{bus}/devices");
        for (name, target) in fs.links(&devices).if_there()?.unwrap_or_default() {
            let interfaces = fs.entries(&format!("{devices}/{name}/net")).if_there()?;
            if let (Some([]), Some(seat)) = (interfaces.as_deref(), Seat::of(&target)) {
                let words = format!("{name} (its network interface is in another network namespace)");
                found.extend(seat.keys().map(|key| (key, words.clone())));
            }
        }
    }
    Ok(found)
}

/// Every interface that is up has IPv6 routes to its own link and to multicast: others are what counts.
fn leads_somewhere(line: &str, name: &str) -> bool {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (Some(destination), Some(interface)) = (fields.first(), fields.last()) else { return false };
    let own = ["fe8", "fe9", "fea", "feb", "ff"].iter().any(|prefix| destination.starts_with(prefix));
    *interface == name && !own
}

#[cfg(test)]
mod tests {
    use super::super::testing::Tree;

    fn uses(tree: &Tree) -> Vec<(String, String)> {
        super::uses(&tree.fs()).unwrap()
    }

    fn host(above: &str) -> Tree {
        let tree = Tree::new();
        tree.link("sys/class/net/eth0", &format!("../../devices/pci0000:00/{above}/net/eth0"));
        tree.directory(&format!("sys/devices/pci0000:00/{above}/net/eth0"));
        tree.write("sys/class/net/bonding_masters", "\n");
        tree
    }

    #[test]
    fn a_card_is_in_use_when_it_carries_routes() {
        // A virtio card is one directory further down.
        for above in ["0000:00:02.0", "0000:00:02.0/virtio0"] {
            let tree = host(above);
            assert!(uses(&tree).is_empty());
            tree.write("proc/1/net/route", "Iface Destination Gateway\neth0 00000000 0101A8C0 0003\n");
            assert_eq!(uses(&tree), [("0000:00:02.0".to_owned(), "eth0 (the host's routes)".to_owned())]);
            tree.write("proc/1/net/route", "Iface Destination Gateway\n");
            let zeros = "0".repeat(32);
            let link_local = format!("fe80{} 40 {zeros} 00 {zeros} 00000100 1 0 00000001 eth0\n", "0".repeat(28));
            let multicast = format!("ff00{} 08 {zeros} 00 {zeros} 00000100 1 0 00000001 eth0\n", "0".repeat(28));
            tree.write("proc/1/net/ipv6_route", &(link_local + &multicast));
            assert!(uses(&tree).is_empty(), "every interface that is up has such routes");
            let default = format!("{zeros} 00 {zeros} 00 fe80{}1 00000400 1 0 00000003 eth0\n", "0".repeat(27));
            let on_link = format!("2001{} 40 {zeros} 00 {zeros} 00000100 1 0 00000001 eth0\n", "0".repeat(28));
            for route in [default, on_link] {
                tree.write("proc/1/net/ipv6_route", &route);
                assert_eq!(uses(&tree).len(), 1, "{route}");
            }
        }
    }

    #[test]
    fn a_card_is_in_use_below_a_bridge_a_bond_or_a_vlan() {
        let tree = host("0000:00:02.0");
        for above in ["br0", "eth0.42"] {
            tree.link(
                &format!("sys/devices/pci0000:00/0000:00:02.0/net/eth0/upper_{above}"),
                "../../../../virtual/net/x",
            );
        }
        let words: Vec<_> = uses(&tree).into_iter().map(|(_, words)| words).collect();
        assert_eq!(words, ["eth0 (part of br0)", "eth0 (part of eth0.42)"]);
    }

    /// No route in the main table: policy routing has its own, and RDMA needs none.
    #[test]
    fn a_card_is_in_use_when_the_host_has_an_address_on_it() {
        let tree = host("0000:00:02.0");
        tree.write("sys/devices/pci0000:00/0000:00:02.0/net/eth0/ifindex", "4\n");
        assert_eq!(super::of_the_host(&tree.fs(), &[3].into()).unwrap(), []);
        let words = "eth0 (an address of the host's)".to_owned();
        assert_eq!(super::of_the_host(&tree.fs(), &[4].into()).unwrap(), [("0000:00:02.0".to_owned(), words)]);
    }

    #[test]
    fn a_card_is_in_use_when_its_interface_is_in_another_namespace() {
        let functions =
            [("pci", "0000:01:00.0", ""), ("virtio", "virtio0", "0000:02:00.0/"), ("pci", "0000:03:00.0", "")];
        let tree = Tree::new();
        for (bus, name, above) in functions {
            let at = format!("devices/pci0000:00/{above}{name}");
            tree.directory(&format!("sys/{at}/net"));
            tree.link(&format!("sys/bus/{bus}/devices/{name}"), &format!("../../../{at}"));
        }
        tree.directory("sys/devices/pci0000:00/0000:03:00.0/net/eth3");
        // One without an interface, as one on vfio-pci.
        tree.directory("sys/devices/pci0000:00/0000:04:00.0");
        tree.link("sys/bus/pci/devices/0000:04:00.0", "../../../devices/pci0000:00/0000:04:00.0");
        let found: Vec<_> = uses(&tree).into_iter().map(|(device, words)| format!("{device}: {words}")).collect();
        let elsewhere = "(its network interface is in another network namespace)";
        assert_eq!(
            found,
            [format!("0000:01:00.0: 0000:01:00.0 {elsewhere}"), format!("0000:02:00.0: virtio0 {elsewhere}")]
        );
    }
}
