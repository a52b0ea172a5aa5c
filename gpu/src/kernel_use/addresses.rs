//! Interfaces on which the host has addresses. No file says so of IPv4: the kernel is asked, as `ip address` does.

use std::collections::BTreeSet;
use std::io;

use super::netlink;
use crate::error::FsError;
use crate::hostfs::HostFs;

/// By index. An address that only the link itself knows (`fe80::…`, which every interface that is up has) does not count.
pub(super) fn interfaces(fs: &HostFs) -> Result<BTreeSet<u32>, FsError> {
    // A directory that stands for a host has nobody to ask.
    if !fs.is_this_machine()? {
        return Ok(BTreeSet::new());
    }
    let all = list().map_err(|error| FsError::io("ask for addresses of", fs.root().join("sys/class/net"), error))?;
    // <linux/rtnetlink.h>
    const RT_SCOPE_LINK: u8 = 253;
    Ok(all.into_iter().filter(|(_, scope)| *scope < RT_SCOPE_LINK).map(|(index, _)| index).collect())
}

/// Index and scope of each address.
fn list() -> io::Result<Vec<(u32, u8)>> {
    const RTM_NEWADDR: u16 = 20;
    const RTM_GETADDR: u16 = 22;
    let mut all = Vec::new();
    // Of all families: family, prefix, flags, scope, index. No protocol is NETLINK_ROUTE.
    netlink::list(None, RTM_GETADDR, &[0; 8], |kind, message| {
        if kind == RTM_NEWADDR {
            all.push((netlink::number(message, 4)?, *message.get(3).ok_or_else(netlink::odd)?));
        }
        Ok(())
    })?;
    Ok(all)
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn the_kernel_lists_the_addresses_of_its_interfaces() {
        const LOOPBACK: u32 = 1;
        const HOST: u8 = 254;
        let is_there = UdpSocket::bind("127.0.0.1:0").is_ok();
        assert_eq!(list().unwrap().contains(&(LOOPBACK, HOST)), is_there);
        assert!(!interfaces(&HostFs::at("/").unwrap()).unwrap().contains(&LOOPBACK), "nobody else knows that one");
    }

    #[test]
    fn a_tree_is_not_this_machine() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(interfaces(&HostFs::at(root.path()).unwrap()).unwrap(), BTreeSet::new());
    }
}
