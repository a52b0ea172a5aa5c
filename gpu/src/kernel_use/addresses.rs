//! Interfaces on which the host has addresses. No file says so of IPv4: the kernel is asked, as `ip address` does.

use std::collections::BTreeSet;
use std::io;

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with};

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

/// Index and scope of each address. Never waits: what this reads the kernel has written by then.
fn list() -> io::Result<Vec<(u32, u8)>> {
    // No protocol is NETLINK_ROUTE.
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
    send(&socket, &request(), SendFlags::empty())?;
    let mut all = Vec::new();
    // More than the kernel puts into one datagram of a list.
    let mut buffer = vec![0; 64 << 10];
    loop {
        let (_, length) = recv(&socket, &mut buffer[..], RecvFlags::DONTWAIT)?;
        if length > buffer.len() || !messages(&buffer[..length], &mut all)? {
            break Ok(all);
        }
    }
}

const HEADER: usize = 16;

/// `RTM_GETADDR`, of all families.
fn request() -> Vec<u8> {
    const RTM_GETADDR: u16 = 22;
    const NLM_F_REQUEST_DUMP: u16 = 0x301;
    let mut message = Vec::new();
    message.extend_from_slice(&24_u32.to_ne_bytes());
    message.extend_from_slice(&RTM_GETADDR.to_ne_bytes());
    message.extend_from_slice(&NLM_F_REQUEST_DUMP.to_ne_bytes());
    // Number and port of the message, family, prefix, flags, scope, index.
    message.extend_from_slice(&[0; 16]);
    message
}

/// `struct ifaddrmsg` after each header. Are there more to come?
fn messages(mut bytes: &[u8], all: &mut Vec<(u32, u8)>) -> io::Result<bool> {
    const NLMSG_ERROR: u16 = 2;
    const NLMSG_DONE: u16 = 3;
    const RTM_NEWADDR: u16 = 20;
    let odd = || io::Error::from(io::ErrorKind::InvalidData);
    let number = |bytes: &[u8], at: usize| {
        let four = bytes.get(at..at + 4).and_then(|four| four.try_into().ok());
        four.map(u32::from_ne_bytes).ok_or_else(odd)
    };
    while !bytes.is_empty() {
        let length = number(bytes, 0)? as usize;
        let kind = bytes.get(4..6).and_then(|two| two.try_into().ok()).map(u16::from_ne_bytes).ok_or_else(odd)?;
        let message = bytes.get(HEADER..length).ok_or_else(odd)?;
        match kind {
            NLMSG_DONE => return Ok(false),
            NLMSG_ERROR => {
                let errno = i32::from_ne_bytes(number(message, 0)?.to_ne_bytes());
                return Err(Errno::from_raw_os_error(-errno).into());
            }
            RTM_NEWADDR => all.push((number(message, 4)?, *message.get(3).ok_or_else(odd)?)),
            _ => {}
        }
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(true)
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

    #[test]
    fn what_the_kernel_refuses_is_no_empty_list() {
        let mut refused = request();
        refused[..4].copy_from_slice(&36_u32.to_ne_bytes());
        refused[4..6].copy_from_slice(&2_u16.to_ne_bytes());
        refused[16..20].copy_from_slice(&(-13_i32).to_ne_bytes());
        refused.extend_from_slice(&[0; 12]);
        assert_eq!(messages(&refused, &mut Vec::new()).unwrap_err().raw_os_error(), Some(13));
        assert!(messages(&refused[..20], &mut Vec::new()).is_err(), "cut off");
    }
}
