//! Which addresses are dialled for a cluster.
//!
//! A tenant names the server and the plane dials it: without a check, a tenant could knock at what only the plane's own
//! machine reaches, its loopback services and the metadata server of its cloud. Private networks are open, for clusters live
//! there. Names are checked after they were resolved, and the address that was checked is the one that is dialled.

use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::vec;

use hyper_util::client::legacy::connect::dns::Name;
use ipnet::IpNet;
use tower::Service;

/// Whose cluster it is.
#[derive(Debug, Clone)]
pub(crate) enum Reach {
    /// The platform's: its operators know what they name.
    Everywhere,
    /// A tenant's, with what the operator opened besides.
    OutsideAnd(Arc<[IpNet]>),
}

impl Reach {
    pub(crate) fn check(&self, ip: IpAddr) -> Result<(), String> {
        let Self::OutsideAnd(allowed) = self else { return Ok(()) };
        // ::ffff:127.0.0.1 is dialled as 127.0.0.1.
        let plain = ip.to_canonical();
        match inner(plain) {
            Some(kind) if !allowed.iter().any(|prefix| prefix.contains(&plain)) => {
                Err(format!("{ip} is {kind}; an operator can open it to tenants with --tenant-cluster-allow-prefix"))
            }
            _ => Ok(()),
        }
    }

    /// What may be dialled under this name.
    pub(crate) async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let mut refused = None;
        let found = tokio::net::lookup_host((host, port)).await?;
        let good: Vec<_> = found.filter(|at| self.check(at.ip()).map_err(|why| refused = Some(why)).is_ok()).collect();
        match refused {
            Some(why) if good.is_empty() => Err(io::Error::new(io::ErrorKind::PermissionDenied, why)),
            _ if good.is_empty() => Err(io::Error::new(io::ErrorKind::NotFound, format!("{host} has no address"))),
            _ => Ok(good),
        }
    }
}

/// What kind of address it is, where it leads to the machine itself or no further than its own links.
fn inner(ip: IpAddr) -> Option<&'static str> {
    match ip {
        IpAddr::V4(ip) => inner_v4(ip),
        IpAddr::V6(ip) => inner_v6(ip),
    }
}

fn inner_v4(ip: Ipv4Addr) -> Option<&'static str> {
    match ip.octets() {
        [0, ..] => Some("an address of this host (unspecified)"),
        [127, ..] => Some("a loopback address"),
        [169, 254, ..] => Some("a link-local address"),
        [224..=239, ..] => Some("a multicast address"),
        [240..=255, ..] => Some("a reserved address"),
        _ => None,
    }
}

fn inner_v6(ip: Ipv6Addr) -> Option<&'static str> {
    let low = |high: u16, low: u16| Ipv4Addr::from_bits((u32::from(high) << 16) | u32::from(low));
    match ip.segments() {
        _ if ip.is_unspecified() => Some("an address of this host (unspecified)"),
        _ if ip.is_loopback() => Some("a loopback address"),
        [0xfe80..=0xfebf, ..] => Some("a link-local address"),
        [0xff00..=0xffff, ..] => Some("a multicast address"),
        // Addresses that carry an IPv4 address go where that one goes.
        [0, 0, 0, 0, 0, 0, y, z] | [0x0064, 0xff9b, 0, 0, 0, 0, y, z] => inner_v4(low(y, z)),
        [0x2002, b, c, ..] => inner_v4(low(b, c)),
        _ => None,
    }
}

/// A value of `--tenant-cluster-allow-prefix`.
pub fn prefix(text: &str) -> Result<IpNet, String> {
    let prefix: IpNet =
        text.parse().map_err(|_| format!("`{text}` is not a network prefix such as 10.0.0.0/8 or fd00::/8"))?;
    if prefix.trunc() != prefix {
        return Err(format!("`{text}` has bits set beyond its length; did you mean {}?", prefix.trunc()));
    }
    Ok(prefix)
}

/// For the HTTP client. It asks for names only: an address that stands in the kubeconfig is checked when that is read.
#[derive(Debug, Clone)]
pub(crate) struct Resolver(pub(crate) Reach);

impl Service<Name> for Resolver {
    type Response = vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let reach = self.0.clone();
        // The client puts its own port in the place of this one.
        Box::pin(async move { Ok(reach.resolve(name.as_str(), 0).await?.into_iter()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenants(allowed: &[&str]) -> Reach {
        Reach::OutsideAnd(allowed.iter().map(|text| prefix(text).unwrap()).collect())
    }

    #[test]
    fn a_tenants_cluster_is_not_on_the_planes_own_machine() {
        let good = |reach: &Reach, ip: &str| reach.check(ip.parse().unwrap()).is_ok();
        let reach = tenants(&[]);
        for ip in ["10.1.2.3", "192.168.0.1", "1.1.1.1", "fd00::1", "2606:4700::1", "64:ff9b::101:101"] {
            assert!(good(&reach, ip), "{ip}");
        }
        for ip in [
            "127.0.0.1",
            "127.9.9.9",
            "0.0.0.0",
            "169.254.169.254",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::7f00:1",
            "::ffff:127.0.0.1",
            "fe80::1",
            "ff02::1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
        ] {
            assert!(!good(&reach, ip), "{ip}");
            assert!(good(&Reach::Everywhere, ip), "{ip}");
        }
        let opened = tenants(&["127.0.0.0/8"]);
        assert!(good(&opened, "127.0.0.1") && good(&opened, "::ffff:127.0.0.1") && !good(&opened, "169.254.1.1"));
        let why = reach.check("127.0.0.1".parse().unwrap()).unwrap_err();
        assert!(why.contains("a loopback address") && why.contains("--tenant-cluster-allow-prefix"), "{why}");
    }

    #[tokio::test]
    async fn a_name_is_judged_by_where_it_leads() {
        let error = tenants(&[]).resolve("localhost", 6443).await.unwrap_err();
        assert!(error.to_string().contains("a loopback address"), "{error}");
        assert!(!Reach::Everywhere.resolve("localhost", 6443).await.unwrap().is_empty());
        let found = tenants(&["127.0.0.0/8"]).resolve("localhost", 6443).await.unwrap();
        assert!(found.iter().all(|at| at.is_ipv4() && at.port() == 6443), "{found:?}");
    }

    #[test]
    fn prefixes_are_read_strictly() {
        assert_eq!(prefix("10.0.0.0/8").unwrap().to_string(), "10.0.0.0/8");
        for (wrong, why) in [("10.0.0.0", "not a network prefix"), ("10.0.0.1/8", "did you mean 10.0.0.0/8?")] {
            let error = prefix(wrong).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }
}
