//! What a guest's interface may send and hear, as libvirt network filters on its tap.
//!
//! Our own filters instead of libvirt's `clean-traffic`: that one is a package which may be missing, lets a guest answer
//! DHCP, and lets it use any address until it has one. Here the address is known beforehand.
//!
//! | filter | for | lets out |
//! |---|---|---|
//! | `croft-tenant` | the tenant's NAT network | ARP and IPv4 from its own MAC and its own address, and asking for DHCP |
//! | `croft-bridge` | a bridge of the operator's | IPv4, IPv6 and ARP from its own MAC, but neither DHCP answers nor router advertisements |

use virt::connect::Connect;

use super::super::error::failed;
use super::super::reasons::NETWORK_FAILED;
use super::super::xml::{Element, el};
use crate::hypervisor::Error;

pub const TENANT: &str = "croft-tenant";
pub const BRIDGE: &str = "croft-bridge";

/// Fixed, so that defining them again changes them in place while guests use them.
const TENANT_UUID: &str = "6f0c1e5a-7d0b-4c53-9d5e-3c8f2f5b7a01";
const BRIDGE_UUID: &str = "6f0c1e5a-7d0b-4c53-9d5e-3c8f2f5b7a02";

/// Defines both. libvirt compares a definition with the one it has and rebuilds nothing when they are equal.
pub fn ensure(connect: &Connect) -> Result<(), Error> {
    for (name, xml) in [(TENANT, tenant()), (BRIDGE, bridge())] {
        let text = xml.write().map_err(|e| super::super::spec::invalid(e.to_string()))?;
        connect.define_nwfilter_xml(&text).map_err(failed(NETWORK_FAILED, &format!("defining the filter {name}")))?;
    }
    Ok(())
}

fn rule(action: &str, direction: &str, priority: u32, what: Element) -> Element {
    el("rule").attr("action", action).attr("direction", direction).attr("priority", priority).child(what)
}

fn filter(name: &str, uuid: &str) -> Element {
    el("filter").attr("name", name).attr("chain", "root").child(el("uuid").text(uuid))
}

fn dhcp_answer() -> Element {
    el("ip").attr("protocol", "udp").attr("srcportstart", 67).attr("srcportend", 67)
}

fn dhcpv6_answer() -> Element {
    el("ipv6").attr("protocol", "udp").attr("srcportstart", 547).attr("srcportend", 547)
}

fn router_advertisement() -> Element {
    el("ipv6").attr("protocol", "icmpv6").attr("type", 134)
}

/// Rules are tried by priority, lowest first.
fn tenant() -> Element {
    let own_mac = || el("mac").attr("match", "no").attr("srcmacaddr", "$MAC");
    filter(TENANT, TENANT_UUID)
        .child(rule("drop", "out", 100, own_mac()))
        // Answering DHCP would hand other guests a gateway of one's own.
        .child(rule("drop", "out", 110, dhcp_answer()))
        .child(rule(
            "accept",
            "out",
            120,
            el("ip")
                .attr("srcipaddr", "0.0.0.0")
                .attr("protocol", "udp")
                .attr("srcportstart", 68)
                .attr("dstportstart", 67),
        ))
        .child(rule("accept", "out", 130, el("ip").attr("srcipaddr", "$IP")))
        .child(rule("accept", "out", 140, el("arp").attr("arpsrcmacaddr", "$MAC").attr("arpsrcipaddr", "$IP")))
        // Asking whether an address is taken before using it (RFC 5227) is done without having one.
        .child(rule(
            "accept",
            "out",
            150,
            el("arp").attr("arpsrcmacaddr", "$MAC").attr("arpsrcipaddr", "0.0.0.0").attr("opcode", "Request"),
        ))
        .child(rule("accept", "in", 160, el("arp")))
        .child(rule("accept", "in", 170, el("ip")))
        // IPv6, VLAN tags, spanning tree and everything else, both ways.
        .child(rule("drop", "inout", 1000, el("mac")))
}

fn bridge() -> Element {
    let own_mac = || el("mac").attr("match", "no").attr("srcmacaddr", "$MAC");
    filter(BRIDGE, BRIDGE_UUID)
        .child(rule("drop", "out", 100, own_mac()))
        .child(rule("drop", "out", 110, dhcp_answer()))
        .child(rule("drop", "out", 111, dhcpv6_answer()))
        .child(rule("drop", "out", 112, router_advertisement()))
        .child(rule("drop", "out", 120, el("arp").attr("match", "no").attr("arpsrcmacaddr", "$MAC")))
        .child(rule("accept", "inout", 130, el("arp")))
        .child(rule("accept", "inout", 140, el("ip")))
        .child(rule("accept", "inout", 150, el("ipv6")))
        .child(rule("drop", "inout", 1000, el("mac")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_as_libvirt_gets_them() {
        insta::assert_snapshot!("filter-tenant", tenant().write().unwrap());
        insta::assert_snapshot!("filter-bridge", bridge().write().unwrap());
    }
}
