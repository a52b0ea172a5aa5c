//! What is known of the guest's inside: its addresses, and whether its agent answers; and the way in, for port-forwards.
//!
//! A guest may claim any address. What it says is reported, marked as its own word; connections go only where this host's
//! network really delivers to that guest: to the address that was reserved for it, or to one that the neighbour table
//! ties to its MAC.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use croft_proto::v1;
use tokio::net::{TcpSocket, TcpStream};
use uuid::Uuid;
use virt::connect::Connect;
use virt::error::ErrorNumber;
use virt_sys as sys;

use super::Libvirt;
use super::connection::QUICK;
use super::error::is;
use super::ffi::{self, GuestAddress};
use super::lookup::{self, ours, query};
use super::network::{self, Names};
use super::power;
use super::reasons::GUEST_UNREACHABLE;
use super::record::{self, Record};
use super::xml::Element;
use crate::hypervisor::{Error, Guest};

/// Seconds that an agent gets for one answer.
const AGENT_SECONDS: i32 = 3;
/// For the whole question: the agent may be busy with another one.
const AGENT_DEADLINE: Duration = Duration::from_secs(8);
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);

/// Of one interface. An agent may name thousands, and the report of the whole host would be too long for the plane.
const MOST_ADDRESSES: usize = 16;

const FROM_AGENT: &str = "guest-agent";
const FROM_LEASE: &str = "dhcp-lease";

impl Libvirt {
    pub(super) async fn look_at_guest(&self, uid: Uuid) -> Result<Guest, Error> {
        let record = Record::read(&self.paths, uid)?.unwrap_or_default();
        let macs: Vec<String> = record.interfaces.iter().map(|interface| interface.mac.clone()).collect();
        let description = self
            .connection
            .call(QUICK, "describe a domain", move |connect| {
                let domain = ours(connect, uid)?;
                domain.is_active().map_err(query)?.then(|| lookup::description(&domain)).transpose()
            })
            .await?;
        let Some(description) = description else { return Ok(Guest::default()) };
        let said = match agent_channel_is_connected(&description) {
            true => {
                self.connection.ask_guest(uid, AGENT_DEADLINE, "ask a guest's agent", move |c| ask_agent(c, uid)).await
            }
            false => Ok(None),
        };
        let leases = self.connection.call(QUICK, "list leases", move |c| leases(c, uid)).await?;
        let leased = of_interfaces(&macs, leases, FROM_LEASE);
        match said {
            Ok(Some(addresses)) => {
                let mut addresses = of_interfaces(&macs, addresses, FROM_AGENT);
                mark(&mut addresses, &leased);
                Ok(Guest { addresses, agent: true })
            }
            // A slow agent is no reason to say nothing at all.
            Ok(None) | Err(Error::Unavailable(_)) => {
                let mut addresses = leased.clone();
                mark(&mut addresses, &leased);
                Ok(Guest { addresses, agent: false })
            }
            Err(e) => Err(e),
        }
    }

    pub(super) async fn connect_to_guest(&self, uid: Uuid, port: u16) -> Result<TcpStream, Error> {
        let unreachable = |message: String| Error::Failed { reason: GUEST_UNREACHABLE, message };
        let runs = move |connect: &Connect| power::must_run(&ours(connect, uid)?, uid);
        self.connection.call(QUICK, "describe a domain", runs).await?;
        let record = Record::read(&self.paths, uid)?.ok_or(Error::NotFound(uid))?;
        let mut last = unreachable(format!("instance {uid} has no interface that this host can reach"));
        for interface in &record.interfaces {
            let Some((ip, bridge)) = self.reachable_address(interface).await? else { continue };
            match tokio::time::timeout(CONNECT_DEADLINE, connect_through(&bridge, ip, port)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(e)) => last = unreachable(format!("port {port} of the guest ({ip}): {e}")),
                Err(_) => {
                    let seconds = CONNECT_DEADLINE.as_secs();
                    last = unreachable(format!("port {port} of the guest ({ip}) did not answer in {seconds} s"));
                }
            }
        }
        Err(last)
    }

    /// Where this host's network delivers to that interface and nobody else's.
    async fn reachable_address(&self, interface: &record::Interface) -> Result<Option<(Ipv4Addr, String)>, Error> {
        let mac = interface.mac.clone();
        let (ip, bridge) = match &interface.network {
            record::Network::Tenant(tenant) => {
                let names = Names::of(tenant);
                let bridge = names.bridge.clone();
                let find = move |connect: &Connect| network::address(connect, &names, &mac);
                (self.connection.call(QUICK, "look up a reserved address", find).await?, bridge)
            }
            record::Network::Bridge(bridge) => {
                let table = std::fs::read_to_string("/proc/net/arp").unwrap_or_default();
                (neighbour(&table, bridge, &mac), bridge.clone())
            }
        };
        Ok(ip.map(|ip| (ip, bridge)))
    }
}

/// Through this bridge and nowhere else: while it is down, the host's routes would carry the tenant to whoever has that
/// address out there.
async fn connect_through(bridge: &str, ip: Ipv4Addr, port: u16) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind_device(Some(bridge.as_bytes()))?;
    socket.connect((ip, port).into()).await
}

/// `None`: it does not answer.
fn ask_agent(connect: &Connect, uid: Uuid) -> Result<Option<Vec<GuestAddress>>, Error> {
    let domain = ours(connect, uid)?;
    // Older libvirts do not know it; the deadline of the call holds anyway.
    let _ = ffi::set_agent_timeout(&domain, AGENT_SECONDS);
    match ffi::interface_addresses(&domain, sys::VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_AGENT) {
        Ok(addresses) => Ok(Some(addresses)),
        // It answered, with an error of its own: an agent that may not tell, or is too small to know.
        Err(e) if is(&e, ErrorNumber::AgentCommandFailed) || is(&e, ErrorNumber::InternalError) => Ok(Some(Vec::new())),
        Err(e) => {
            tracing::debug!(%uid, error = e.message(), "the guest agent does not answer");
            Ok(None)
        }
    }
}

fn leases(connect: &Connect, uid: Uuid) -> Result<Vec<GuestAddress>, Error> {
    let domain = ours(connect, uid)?;
    // An interface on a bridge has no lease of ours.
    Ok(ffi::interface_addresses(&domain, sys::VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_LEASE).unwrap_or_default())
}

/// Those of the domain's own interfaces, in their order; the guest's loopback, containers and the like are left out.
fn of_interfaces(macs: &[String], found: Vec<GuestAddress>, source: &str) -> Vec<v1::Address> {
    let mut by_mac: BTreeMap<usize, Vec<v1::Address>> = BTreeMap::new();
    for address in found {
        let at = macs.iter().position(|mac| mac.eq_ignore_ascii_case(&address.mac));
        let (Some(at), Ok(ip)) = (at, address.ip.parse::<IpAddr>()) else { continue };
        let known = by_mac.entry(at).or_default();
        let (ip_text, mac) = (ip.to_string(), macs[at].clone());
        let told = v1::Address { ip: ip_text, mac, source: source.into(), ..v1::Address::default() };
        if useful(ip) && known.len() < MOST_ADDRESSES && !known.contains(&told) {
            known.push(told);
        }
    }
    by_mac.into_values().flatten().collect()
}

/// Which of them this host gave out itself, to the very interface.
fn mark(addresses: &mut [v1::Address], leased: &[v1::Address]) {
    for address in addresses {
        address.leased = leased.iter().any(|lease| (&lease.ip, &lease.mac) == (&address.ip, &address.mac));
    }
}

/// A link-local address tells nobody where to find the guest.
fn useful(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => !ip.is_loopback() && !ip.is_link_local() && !ip.is_unspecified(),
        IpAddr::V6(ip) => !ip.is_loopback() && !ip.is_unicast_link_local() && !ip.is_unspecified(),
    }
}

/// Whether something inside the guest has opened the agent's channel.
pub fn agent_channel_is_connected(description: &Element) -> bool {
    let channels = description.first("devices").into_iter().flat_map(|devices| devices.all("channel"));
    let mut targets = channels.filter_map(|channel| channel.first("target"));
    targets
        .any(|target| target.get("name") == Some("org.qemu.guest_agent.0") && target.get("state") == Some("connected"))
}

/// The address that this host's neighbour table ties to `mac` on `bridge`.
fn neighbour(table: &str, bridge: &str, mac: &str) -> Option<Ipv4Addr> {
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [ip, _type, _flags, address, _mask, device] = fields[..] else { return None };
        (device == bridge && address.eq_ignore_ascii_case(mac)).then(|| ip.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_its_own_interfaces_are_told() {
        let address = |mac: &str, ip: &str| GuestAddress { mac: mac.into(), ip: ip.into() };
        let macs = ["02:00:00:00:00:01".to_owned(), "02:00:00:00:00:02".to_owned()];
        let found = vec![
            address("00:00:00:00:00:00", "127.0.0.1"),
            address("02:00:00:00:00:02", "192.168.1.9"),
            address("02:00:00:00:00:01", "10.200.7.2"),
            address("02:00:00:00:00:01", "fe80::1"),
            address("02:42:00:00:00:01", "172.17.0.1"),
            address("02:00:00:00:00:01", "no address"),
        ];
        let told: Vec<String> = of_interfaces(&macs, found, FROM_AGENT).into_iter().map(|a| a.ip).collect();
        assert_eq!(told, ["10.200.7.2", "192.168.1.9"]);
    }

    #[test]
    fn an_address_that_the_guest_made_up_is_no_lease() {
        let macs = ["02:00:00:00:00:01".to_owned()];
        let address = |ip: &str| GuestAddress { mac: macs[0].clone(), ip: ip.into() };
        let mut told = of_interfaces(&macs, vec![address("10.200.7.2"), address("10.96.0.1")], FROM_AGENT);
        mark(&mut told, &of_interfaces(&macs, vec![address("10.200.7.2")], FROM_LEASE));
        let leased: Vec<bool> = told.iter().map(|address| address.leased).collect();
        assert_eq!(leased, [true, false]);
    }

    #[test]
    fn a_guest_that_names_thousands_of_addresses_is_cut_short() {
        let macs = ["02:00:00:00:00:01".to_owned(), "02:00:00:00:00:02".to_owned()];
        let address = |nth: u32| GuestAddress { mac: macs[0].clone(), ip: format!("fd00::{nth:x}") };
        let mut found: Vec<_> = (1..5000).map(address).collect();
        found.push(GuestAddress { mac: macs[1].clone(), ip: "10.200.7.2".into() });
        let told = of_interfaces(&macs, found, FROM_AGENT);
        assert_eq!((told.len(), told[16].ip.as_str()), (17, "10.200.7.2"));
    }

    #[test]
    fn the_neighbour_table_must_name_bridge_and_mac() {
        let table = "IP address       HW type     Flags       HW address            Mask     Device\n\
                     10.1.0.7         0x1         0x2         02:00:00:00:00:01     *        br0\n\
                     10.1.0.8         0x1         0x2         02:00:00:00:00:02     *        eth0\n";
        assert_eq!(neighbour(table, "br0", "02:00:00:00:00:01"), Some(Ipv4Addr::new(10, 1, 0, 7)));
        assert_eq!(neighbour(table, "br0", "02:00:00:00:00:02"), None);
        assert_eq!(neighbour("", "br0", "02:00:00:00:00:01"), None);
    }
}
