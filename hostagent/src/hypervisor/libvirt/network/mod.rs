//! The NAT network of each tenant on this host: own bridge, own /24, own DHCP and DNS.
//!
//! ```text
//!  guest ── tap ─[nwfilter croft-tenant]─ cr-1a2b3c4d ─[nft table inet croft]─ NAT ── the world
//!                 only its MAC, its IP      10.200.7.1     host: DHCP, DNS
//!                                           dnsmasq        other tenants: nothing
//! ```
//! Every address is reserved for a MAC before the guest is defined, so that the filter knows it and a guest that claims
//! another one is not heard. libvirt's own network definition is the only place where subnets and addresses are kept:
//! what is not there is free, and nothing can disagree with it.
//!
//! Guests of one tenant reach each other; that is what a tenant's network is for. Of what is behind the host they reach
//! the public internet, and private networks only where the operator says so ([`reach`]). IPv6 is not offered.
//! Refuses a network or bridge that has our name and is not ours, and a firewall that cannot be put in force.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use ring::digest;
use virt::connect::Connect;
use virt::error::ErrorNumber;
use virt::network::Network;
use virt_sys as sys;

use super::error::{failed, is};
use super::reasons::{NETWORK_CONFLICT, NETWORK_FAILED, NO_SUBNET};
use super::xml::{Element, el};
use crate::hypervisor::Error;

pub mod bridge;
pub mod filter;
pub mod firewall;
pub mod reach;
pub mod subnet;

use subnet::Subnet;

/// All bridges of tenants' networks begin with this; the firewall's wildcard is built on it.
pub const BRIDGE_PREFIX: &str = "cr-";
const NETWORK_PREFIX: &str = "croft-";
const DNSMASQ_NAMESPACE: &str = "http://libvirt.org/schemas/network/dnsmasq/1.0";

/// How a tenant's network and bridge are called on every host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    pub network: String,
    pub bridge: String,
}

impl Names {
    /// An interface name holds 15 bytes, so the tenant's uid goes in as eight digits of its hash.
    pub fn of(tenant_uid: &str) -> Self {
        let hash = hex::encode(digest::digest(&digest::SHA256, tenant_uid.as_bytes()));
        let short = &hash[..8];
        Self { network: format!("{NETWORK_PREFIX}{short}"), bridge: format!("{BRIDGE_PREFIX}{short}") }
    }

    /// Where in the range of subnets a search for a free one begins: the same tenant mostly gets the same.
    fn seed(&self) -> u32 {
        u32::from_str_radix(&self.bridge[BRIDGE_PREFIX.len()..], 16).unwrap_or(0)
    }
}

/// What a network's definition says.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Definition {
    bridge: String,
    /// The host's own address in it.
    gateway: Ipv4Addr,
    hosts: Vec<Host>,
}

/// An address reserved for a MAC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    pub mac: String,
    pub ip: Ipv4Addr,
    pub name: Option<String>,
}

impl Definition {
    fn parse(xml: &str) -> Option<Self> {
        let network = Element::parse(xml).ok()?;
        let ip = network.first("ip")?;
        let hosts = ip.first("dhcp").into_iter().flat_map(|dhcp| dhcp.all("host")).filter_map(|host| {
            Some(Host {
                mac: host.get("mac")?.to_owned(),
                ip: host.get("ip")?.parse().ok()?,
                name: host.get("name").map(str::to_owned),
            })
        });
        Some(Self {
            bridge: network.first("bridge")?.get("name")?.to_owned(),
            gateway: ip.get("address")?.parse().ok()?,
            hosts: hosts.collect(),
        })
    }

    /// A free address for `mac`, or the one that it has.
    fn reserve(&self, mac: &str, name: &str) -> Result<Reservation, Error> {
        if let Some(host) = self.hosts.iter().find(|host| host.mac.eq_ignore_ascii_case(mac)) {
            return Ok(Reservation::Present(host.clone()));
        }
        let taken: BTreeSet<Ipv4Addr> = self.hosts.iter().map(|host| host.ip).chain([self.gateway]).collect();
        let ip =
            Subnet::of_gateway(self.gateway).guests().find(|ip| !taken.contains(ip)).ok_or_else(|| Error::Failed {
                reason: NO_SUBNET,
                message: format!("all {} addresses of the tenant's network on this host are taken", taken.len() - 1),
            })?;
        // A second interface, or an older namesake that is still being removed, goes without a name.
        let free = !self.hosts.iter().any(|host| host.name.as_deref() == Some(name));
        Ok(Reservation::New(Host {
            mac: mac.to_owned(),
            ip,
            name: (free && !name.is_empty()).then(|| name.to_owned()),
        }))
    }
}

enum Reservation {
    Present(Host),
    New(Host),
}

impl Host {
    fn to_element(&self) -> Element {
        let host = el("host").attr("mac", &self.mac);
        let host = match &self.name {
            Some(name) => host.attr("name", name),
            None => host,
        };
        host.attr("ip", self.ip)
    }
}

fn network_xml(names: &Names, gateway: Ipv4Addr, first: &Host) -> Element {
    el("network")
        .attr("xmlns:dnsmasq", DNSMASQ_NAMESPACE)
        .child(el("name").text(&names.network))
        .child(el("forward").attr("mode", "nat"))
        .child(el("bridge").attr("name", &names.bridge).attr("stp", "off").attr("delay", 0))
        .child(
            // Without a range only reserved MACs get an address.
            el("ip").attr("address", gateway).attr("prefix", 24).child(el("dhcp").child(first.to_element())),
        )
        // The host's /etc/hosts is nobody else's business.
        .child(el("dnsmasq:options").child(el("dnsmasq:option").attr("value", "no-hosts")))
}

/// Makes the tenant's network, if it is not there, and reserves an address for `mac` in it. Repeating it mends what a
/// restart of the machine took away.
pub fn ensure(connect: &Connect, names: &Names, range: Subnet, mac: &str, name: &str) -> Result<Ipv4Addr, Error> {
    let network_failed = failed(NETWORK_FAILED, "the tenant's network");
    let (network, ip) = match lookup(connect, names)? {
        Some((network, definition)) => match definition.reserve(mac, name)? {
            Reservation::Present(host) => (network, host.ip),
            Reservation::New(host) => {
                update(&network, sys::VIR_NETWORK_UPDATE_COMMAND_ADD_LAST, &host)?;
                (network, host.ip)
            }
        },
        None => {
            let gateway = choose_subnet(connect, names, range)?.gateway();
            let empty = Definition { bridge: names.bridge.clone(), gateway, hosts: Vec::new() };
            let Reservation::New(host) = empty.reserve(mac, name)? else {
                return Err(Error::Failed { reason: NETWORK_FAILED, message: "an empty network has a host".into() });
            };
            let xml = network_xml(names, gateway, &host).write().map_err(|e| super::spec::invalid(e.to_string()))?;
            (connect.define_network_xml(&xml).map_err(&network_failed)?, host.ip)
        }
    };
    if !network.is_active().map_err(&network_failed)? {
        start(&network, names)?;
    }
    Ok(ip)
}

/// The address reserved for a MAC.
pub fn address(connect: &Connect, names: &Names, mac: &str) -> Result<Option<Ipv4Addr>, Error> {
    let found = lookup(connect, names)?;
    Ok(found.and_then(|(_, definition)| {
        definition.hosts.into_iter().find(|host| host.mac.eq_ignore_ascii_case(mac)).map(|host| host.ip)
    }))
}

/// Gives the address of `mac` back; the network goes with its last one.
pub fn release(connect: &Connect, names: &Names, mac: &str) -> Result<(), Error> {
    let network_failed = failed(NETWORK_FAILED, "the tenant's network");
    let Some((network, definition)) = lookup(connect, names)? else { return Ok(()) };
    let (gone, left): (Vec<_>, Vec<_>) = definition.hosts.iter().partition(|host| host.mac.eq_ignore_ascii_case(mac));
    if !left.is_empty() {
        return gone.iter().try_for_each(|host| update(&network, sys::VIR_NETWORK_UPDATE_COMMAND_DELETE, host));
    }
    if network.is_active().map_err(&network_failed)? {
        network.destroy().map_err(&network_failed)?;
    }
    network.undefine().map_err(&network_failed)
}

/// Bridges of all tenants' networks on this host.
pub fn bridges(connect: &Connect) -> Result<BTreeSet<String>, Error> {
    Ok(all(connect)?.into_iter().filter(|(ours, _)| *ours).map(|(_, definition)| definition.bridge).collect())
}

/// The network with our name, refused when it is not ours.
fn lookup(connect: &Connect, names: &Names) -> Result<Option<(Network, Definition)>, Error> {
    let network = match connect.lookup_network_by_name(&names.network) {
        Err(e) if is(&e, ErrorNumber::NoNetwork) => return Ok(None),
        network => network.map_err(failed(NETWORK_FAILED, "looking for the tenant's network"))?,
    };
    let definition = Definition::parse(&definition_xml(&network)?);
    match definition.filter(|definition| definition.bridge == names.bridge) {
        Some(definition) => Ok(Some((network, definition))),
        None => Err(Error::Refused {
            reason: NETWORK_CONFLICT,
            message: format!(
                "the libvirt network {} is there and is not Croft's (its bridge is not {}); remove or rename it",
                names.network, names.bridge
            ),
        }),
    }
}

/// The persistent definition: what a restart of libvirtd would know.
fn definition_xml(network: &Network) -> Result<String, Error> {
    network.xml_desc(sys::VIR_NETWORK_XML_INACTIVE).map_err(failed(NETWORK_FAILED, "reading a network"))
}

/// Every network with an IPv4 subnet; true: one of ours.
fn all(connect: &Connect) -> Result<Vec<(bool, Definition)>, Error> {
    let networks = connect.list_all_networks(0).map_err(failed(NETWORK_FAILED, "listing networks"))?;
    let mut found = Vec::new();
    for network in networks {
        let name = network.name().map_err(failed(NETWORK_FAILED, "reading a network"))?;
        // Somebody may remove a network of his own in the meantime.
        let Ok(xml) = definition_xml(&network) else { continue };
        let Some(definition) = Definition::parse(&xml) else { continue };
        let ours = name.starts_with(NETWORK_PREFIX) && definition.bridge.starts_with(BRIDGE_PREFIX);
        found.push((ours, definition));
    }
    Ok(found)
}

fn choose_subnet(connect: &Connect, names: &Names, range: Subnet) -> Result<Subnet, Error> {
    // libvirt's own networks, running or not, and everything that the host routes somewhere.
    let mut taken: Vec<Subnet> = all(connect)?.iter().map(|(_, found)| Subnet::of_gateway(found.gateway)).collect();
    taken.extend(subnet::routed().map_err(|e| Error::Failed {
        reason: NETWORK_FAILED,
        message: format!("cannot read the host's routes from /proc/net/route: {e}"),
    })?);
    range.free_24(names.seed(), &taken).ok_or_else(|| Error::Refused {
        reason: NO_SUBNET,
        message: format!("no /24 of {range} is free on this host; give its agent a wider --tenant-subnets"),
    })
}

fn update(network: &Network, command: sys::virNetworkUpdateCommand, host: &Host) -> Result<(), Error> {
    let section = sys::VIR_NETWORK_SECTION_IP_DHCP_HOST;
    let active = network.is_active().map_err(failed(NETWORK_FAILED, "the tenant's network"))?;
    let live = if active { sys::VIR_NETWORK_UPDATE_AFFECT_LIVE } else { 0 };
    let flags = live | sys::VIR_NETWORK_UPDATE_AFFECT_CONFIG;
    let xml = host.to_element().write().map_err(|e| super::spec::invalid(e.to_string()))?;
    network.update(command, section, 0, &xml, flags).map_err(failed(NETWORK_FAILED, "reserving an address"))
}

fn start(network: &Network, names: &Names) -> Result<(), Error> {
    match network.create() {
        Ok(()) => Ok(()),
        // Started by somebody in between, or a second agent call.
        Err(_) if network.is_active().unwrap_or(false) => Ok(()),
        Err(e) => {
            let message = format!("the tenant's network {} does not start: {}", names.network, e.message());
            Err(Error::Failed { reason: NETWORK_FAILED, message })
        }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
