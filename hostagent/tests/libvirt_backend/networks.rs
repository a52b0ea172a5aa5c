//! Strangers share a host: what a guest reaches, sees and pretends.

use std::collections::BTreeSet;
use std::net::TcpListener;

use croft_hostagent::hypervisor::libvirt::Libvirt;
use croft_hostagent::hypervisor::libvirt::network::firewall::Firewall;
use croft_hostagent::hypervisor::libvirt::network::reach::Reach;
use croft_hostagent::hypervisor::{Error, Hypervisor};
use croft_proto::agent::v1::desired_interface::{Bridge, Network};

use crate::lab::{Lab, run, seed};
use crate::shell::Shell;

const ACME: &str = "0190a3c5-6d3e-7000-8000-00000000000a";
const EVIL: &str = "0190a3c5-6d3e-7000-8000-00000000000e";

/// Where a public server stands in the world beyond the host; the host is .1 of each of its networks.
const PUBLIC: &str = "198.51.100.9";
/// Where private ones do: one of each range.
const PRIVATE: &[&str] =
    &["10.77.0.9", "100.100.77.9", "169.254.77.9", "172.31.77.9", "192.0.0.9", "192.168.77.9", "198.18.77.9"];

/// Machines beyond the host, which answer on port 7777. It ends with the test, however that ends.
struct World(std::process::Child);

impl World {
    fn new() -> Self {
        run("ip netns add world && ip link add w0 type veth peer name w1 netns world && ip link set w0 up && \
             ip -n world link set w1 up && ip -n world link set lo up && sysctl -qw net.ipv4.ip_forward=1");
        for there in PRIVATE.iter().chain([&PUBLIC]) {
            run(&format!("ip addr add {}/24 dev w0; ip -n world addr add {there}/24 dev w1", gateway(there)));
        }
        let server = ["netns", "exec", "world", "busybox", "nc", "-ll", "-p", "7777", "-e", "/bin/true"];
        Self(std::process::Command::new("ip").args(server).spawn().unwrap())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = self.0.kill().and_then(|()| self.0.wait());
        let remove = "ip link del w0; ip netns del world";
        let _ = std::process::Command::new("sh").args(["-c", remove]).status();
    }
}

async fn reaches(shell: &mut Shell, ip: &str, port: u16) -> bool {
    shell.run(&format!("nc -w2 {ip} {port} </dev/null")).await.ok()
}

async fn address(shell: &mut Shell) -> String {
    shell.run("ip -4 -o addr show dev eth0 | sed -n 's/.* inet \\([^/]*\\).*/\\1/p'").await.text
}
fn gateway(ip: &str) -> String {
    format!("{}.1", ip.rsplit_once('.').unwrap().0)
}

#[tokio::test(flavor = "multi_thread")]
async fn tenants_are_kept_apart_and_the_host_from_both() {
    let Some(lab) = Lab::new().await else { return };
    // A world beyond the host, and services of the host that no guest may reach.
    let _world = World::new();
    run("ip addr add 169.254.169.254/32 dev lo");
    let listener = TcpListener::bind("0.0.0.0:7777").unwrap();
    std::thread::spawn(move || listener.incoming().for_each(drop));

    let (a1, mut one) = lab.boot(&lab.instance("one", Some(ACME))).await;
    let (a2, mut two) = lab.boot(&lab.instance("two", Some(ACME))).await;
    let (b, mut evil) = lab.boot(&lab.instance("evil", Some(EVIL))).await;
    let (ip1, ip2, ip_evil) = (address(&mut one).await, address(&mut two).await, address(&mut evil).await);
    let (home, theirs) = (gateway(&ip1), gateway(&ip_evil));
    assert_eq!(gateway(&ip2), home);
    assert_ne!(home, theirs);
    for shell in [&mut one, &mut two, &mut evil] {
        shell.run("(while :; do echo hi | nc -l -p 8080; done) >/dev/null 2>&1 & true").await;
    }

    // One tenant's guests are one another's neighbours, by address and by name, and reach the world.
    assert!(one.run(&format!("ping -c1 -W5 {ip2}")).await.ok());
    assert!(one.run(&format!("nslookup two {home} | grep -q {ip2}")).await.ok(), "DNS of the tenant's network");
    assert!(one.run(&format!("nc -w5 {PUBLIC} 7777 </dev/null")).await.ok(), "the world");

    // Nobody reaches another tenant's guest, the host, or what lies behind link-local addresses.
    for (shell, target) in [(&mut evil, &ip1), (&mut one, &ip_evil)] {
        assert!(!shell.run(&format!("ping -c2 -W2 {target}")).await.ok(), "ping {target}");
        assert!(!reaches(shell, target, 8080).await, "tcp {target}");
    }
    for host in [home.as_str(), theirs.as_str(), "198.51.100.1", "169.254.169.254"] {
        assert!(!reaches(&mut evil, host, 7777).await, "{host}:7777");
        assert!(!evil.run(&format!("ping -c1 -W2 {host}")).await.ok(), "ping {host}");
    }
    assert!(!evil.run(&format!("nslookup two {home}")).await.ok(), "another tenant's DNS");
    // IPv6 is off on the bridge; even where somebody turns it on, nothing gets through.
    let bridge = run(&format!("ip -o addr | grep ' {theirs}/' | awk '{{print $2}}'")).trim().to_owned();
    run(&format!(
        "test $(sysctl -n net.ipv6.conf.{bridge}.disable_ipv6) = 1; sysctl -qw net.ipv6.conf.{bridge}.disable_ipv6=0"
    ));
    let local = run(&format!("ip -6 -o addr show dev {bridge} | sed -n 's/.*inet6 \\([^/]*\\).*/\\1/p'"));
    assert!(local.starts_with("fe80"), "{local}");
    assert!(!evil.run(&format!("ping6 -c2 -W2 -I eth0 {}", local.trim())).await.ok(), "IPv6");

    // Nobody else's address is answered for, taken or used. `one` tries all three against its own neighbour, where only
    // the filter on its tap stands between.
    assert!(two.run(&format!("nslookup one {home}; ping -c1 -W3 {ip1}")).await.ok());
    let mac_of_home = run(&format!("cat /sys/class/net/$(ip -o addr | grep ' {home}/' | awk '{{print $2}}')/address"));
    one.run(&format!(
        "ip addr add {home}/32 dev eth0; arping -c3 -A -I eth0 -s {home} {home}; arping -c3 -U -I eth0 -s {home} {home}; \
         ip addr del {home}/32 dev eth0"
    ))
    .await;
    let seen = two.run(&format!("grep '^{home} ' /proc/net/arp")).await.text;
    assert!(seen.contains(mac_of_home.trim()), "the gateway was impersonated: {seen}");

    let stolen = format!("{}.77", home.rsplit_once('.').unwrap().0);
    let script = format!(
        "ip addr add {stolen}/24 dev eth0; ping -c2 -W2 -I {stolen} {ip2}; r=$?; ip addr del {stolen}/24 dev eth0; (exit $r)"
    );
    assert!(!one.run(&script).await.ok(), "an address of its own choice");
    let script = format!(
        "old=$(cat /sys/class/net/eth0/address); ip link set eth0 down; ip link set eth0 address 02:66:66:66:66:66; ip link \
         set eth0 up; ping -c2 -W2 {ip2}; r=$?; ip link set eth0 down; ip link set eth0 address $old; ip link set eth0 up; \
         (exit $r)"
    );
    assert!(!one.run(&script).await.ok(), "a MAC of its own choice");
    assert!(one.run(&format!("sleep 1; ping -c3 -W3 {ip2}")).await.ok(), "honest again");

    // A guest that answers DHCP is not heard: its neighbour still gets the host's answer.
    one.run(&format!(
        "printf 'start {stolen}\\nend {stolen}\\ninterface eth0\\noption router {ip1}\\n' >/tmp/d.conf; touch /tmp/l; \
         sed -i '$alease_file /tmp/l' /tmp/d.conf; udhcpd -f /tmp/d.conf >/dev/null 2>&1 & true"
    ))
    .await;
    let lease = two.run("udhcpc -i eth0 -q -n -t 5 -s /bin/true 2>&1").await;
    assert!(lease.text.contains(&format!("lease of {ip2} obtained from {home}")), "{}", lease.text);

    // What one tenant broadcasts, the other does not see.
    let packets = "cat /sys/class/net/eth0/statistics/rx_packets";
    let before: u64 = evil.run(packets).await.text.parse().unwrap();
    one.run(&format!("arping -q -c12 -w12 -I eth0 {stolen}")).await;
    let after: u64 = evil.run(packets).await.text.parse().unwrap();
    assert!(after - before < 8, "{} packets", after - before);

    // Somebody removes the rules; the next look puts them back.
    run("nft delete table inet croft");
    let again = crate::lab::open(&lab.dir);
    again.survey().await.unwrap();
    assert!(run("nft list table inet croft").contains("from_guest"));

    drop((one, two, evil));
    lab.clear(&[a1]).await;
    assert!(run("virsh net-list --name").contains("croft-"), "two still uses it");
    lab.clear(&[a2, b]).await;
    assert_eq!(run("virsh net-list --all --name").trim(), "");
    run("ip addr del 169.254.169.254/32 dev lo");
}

/// An agent with these options takes over, and looks after the firewall for the first time.
async fn restarted(lab: &Lab, allow: &[&str], deny: &[&str]) {
    let prefixes = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
    let mut config = crate::lab::config(&lab.dir);
    config.tenant_reach = Reach { allow: prefixes(allow), deny: prefixes(deny) };
    Libvirt::open(config).unwrap().survey().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn private_networks_behind_the_host_are_closed_until_they_are_opened() {
    let Some(lab) = Lab::new().await else { return };
    let _world = World::new();
    // The resolver of the host is on a private network, as they are.
    let resolver = lab.dir.join("resolv.conf");
    std::fs::write(&resolver, "nameserver 10.77.0.9\n").unwrap();
    run(&format!("mount --bind {} /etc/resolv.conf", resolver.display()));
    run("ip netns exec world dnsmasq --conf-file=/dev/null --no-resolv --no-hosts --address=/far.test/203.0.113.7 \
         --pid-file=/run/libvirt/far-dnsmasq.pid");
    let listener = TcpListener::bind("0.0.0.0:7778").unwrap();
    std::thread::spawn(move || listener.incoming().for_each(drop));

    let (uid, mut guest) = lab.boot(&lab.instance("one", Some(ACME))).await;
    let home = gateway(&address(&mut guest).await);
    let resolves = format!("nslookup far.test {home} | grep -q 203.0.113.7");
    assert!(reaches(&mut guest, PUBLIC, 7777).await, "the world");
    for there in PRIVATE {
        run(&format!("busybox nc -w5 {there} 7777 </dev/null"));
        assert!(!reaches(&mut guest, there, 7777).await, "{there}");
        assert!(!guest.run(&format!("ping -c1 -W2 {there}")).await.ok(), "ping {there}");
    }
    assert!(guest.run(&resolves).await.ok(), "the host asks its resolver for the guest");
    assert!(!guest.run("nslookup far.test 10.77.0.9").await.ok(), "the guest does not");

    restarted(&lab, &["10.77.0.0/24", "192.168.77.9/32"], &[]).await;
    for there in PRIVATE {
        let opened = ["10.77.0.9", "192.168.77.9"].contains(there);
        assert_eq!(reaches(&mut guest, there, 7777).await, opened, "{there}");
    }
    assert!(!reaches(&mut guest, "10.77.0.1", 7778).await, "the host in a network that was opened");

    // It outlives libvirtd.
    let rules = run("nft list table inet croft");
    crate::libvirtd::signal("KILL");
    crate::libvirtd::start_again();
    run("virsh net-list");
    assert_eq!(run("nft list table inet croft"), rules);
    assert!(reaches(&mut guest, "10.77.0.9", 7777).await && !reaches(&mut guest, "172.31.77.9", 7777).await);

    // What is denied beats what is allowed, and may be public.
    restarted(&lab, &["10.0.0.0/8"], &["10.77.0.9/32", "198.51.100.0/24"]).await;
    assert!(!reaches(&mut guest, "10.77.0.9", 7777).await && !reaches(&mut guest, PUBLIC, 7777).await);

    restarted(&lab, &[], &[]).await;
    assert!(!reaches(&mut guest, "10.77.0.9", 7777).await && reaches(&mut guest, PUBLIC, 7777).await);
    assert!(guest.run(&resolves).await.ok());

    drop(guest);
    lab.clear(&[uid]).await;
    assert!(!run("nft list tables").contains("croft"), "removed with the last network");
    run("kill $(cat /run/libvirt/far-dnsmasq.pid); umount /etc/resolv.conf");
}

#[tokio::test]
async fn the_table_is_written_again_whenever_it_is_not_as_it_was_written() {
    let Some(_lab) = Lab::new().await else { return };
    let bridges = BTreeSet::from(["cr-0000000a".to_owned()]);
    // With handles, which tell a table from one that was written in its place.
    let look = || run("nft -a list table inet croft");
    let mut firewall = Firewall::new(Reach::default());
    firewall.keep(bridges.clone()).await.unwrap();
    let first = look();
    firewall.keep(bridges.clone()).await.unwrap();
    assert_eq!(look(), first, "left alone");
    for edit in ["flush chain inet croft from_guest", "add rule inet croft to_guest accept", "delete table inet croft"]
    {
        let rules = run("nft list table inet croft");
        run(&format!("nft {edit}"));
        firewall.keep(bridges.clone()).await.unwrap();
        assert_eq!(run("nft list table inet croft"), rules, "after {edit}");
    }
    // Another network came or went, or the agent was started with other options.
    firewall.keep(BTreeSet::from(["cr-0000000b".to_owned()])).await.unwrap();
    assert!(look().contains("cr-0000000b") && !look().contains("cr-0000000a"));
    let reach = Reach { allow: vec!["10.20.0.0/16".parse().unwrap()], deny: Vec::new() };
    Firewall::new(reach).keep(bridges).await.unwrap();
    assert!(look().contains("ip daddr 10.20.0.0/16 accept"), "{}", look());
    // And one that nobody needs any more goes, whoever left it.
    Firewall::new(Reach::default()).keep(BTreeSet::new()).await.unwrap();
    assert!(!run("nft list tables").contains("croft"));
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_bridges_are_used_as_they_are_or_refused() {
    let Some(lab) = Lab::new().await else { return };
    let mut desired = lab.instance("bridged", Some(ACME));
    let bridge = |name: &str, vlan| Some(Network::Bridge(Bridge { bridge: name.into(), vlan }));
    desired.interfaces[0].network = bridge("br-missing", 0);
    lab.libvirt.ensure_image(desired.image.as_ref().unwrap(), &|_, _| {}).await.unwrap();
    let missing = lab.libvirt.ensure_defined(&desired, &seed(""), &[]).await.unwrap_err();
    assert!(matches!(missing, Error::Refused { reason: "NetworkUnknown", .. }), "{missing}");

    run("ip link add br-op type bridge && ip addr add 192.0.2.1/24 dev br-op && ip link set br-op up");
    desired.interfaces[0].network = bridge("br-op", 9);
    let vlan = lab.libvirt.ensure_defined(&desired, &seed(""), &[]).await.unwrap_err();
    assert!(matches!(vlan, Error::Refused { reason: "VlanUnsupported", .. }), "{vlan}");

    desired.interfaces[0].network = bridge("br-op", 0);
    let (uid, mut shell) = lab.boot(&desired).await;
    assert!(shell.run("ip addr add 192.0.2.7/24 dev eth0; ping -c1 -W5 192.0.2.1").await.ok());
    shell.run("(while :; do echo hi | nc -l -p 8080; done) >/dev/null 2>&1 & true").await;
    // The host's neighbour table knows it.
    drop(lab.until_connected(uid, 8080).await);
    // The operator's network filters MACs all the same.
    let script = "ip link set eth0 down; ip link set eth0 address 02:66:66:66:66:66; ip link set eth0 up; ping -c2 -W2 192.0.2.1";
    assert!(!shell.run(script).await.ok());
    drop(shell);
    lab.clear(&[uid]).await;
    assert_eq!(run("nft list tables").trim(), run("nft list tables | grep -v 'inet croft' || true").trim());
    run("ip link del br-op");
}

/// After a restart of the machine a network may be down, and then the host's routes lead elsewhere.
#[tokio::test(flavor = "multi_thread")]
async fn a_port_forward_goes_to_the_guest_or_nowhere() {
    let Some(lab) = Lab::new().await else { return };
    let desired = lab.instance("web", Some("0190a3c5-6d3e-7000-8000-0000000000aa"));
    let uid = lab.define(&desired).await;
    let off = lab.libvirt.connect(uid, 8080).await.err().expect("it does not run");
    assert!(matches!(off, Error::Failed { reason: "DomainNotRunning", .. }), "{off}");
    lab.libvirt.start(uid).await.unwrap();
    let xml = run("virsh net-dumpxml $(virsh net-list --all --name | head -1)");
    let ip = xml.split("<host ").nth(1).and_then(|host| host.split("ip='").nth(1)).unwrap().split('\'').next().unwrap();
    // Somebody else out there has the guest's address.
    run(&format!("virsh net-destroy $(virsh net-list --all --name | head -1); ip addr add {ip}/32 dev lo"));
    let listener = tokio::net::TcpListener::bind((ip, 8080)).await.unwrap();
    tokio::net::TcpStream::connect((ip, 8080)).await.expect("the host's routes lead there");
    listener.accept().await.unwrap();
    let refused = lab.libvirt.connect(uid, 8080).await.err().expect("somebody else answered");
    assert!(matches!(refused, Error::Failed { reason: "GuestUnreachable", .. }), "{refused}");
    run(&format!("ip addr del {ip}/32 dev lo"));
    lab.clear(&[uid]).await;
}
