//! Lists that the kernel gives by netlink and by no file, as `ip` and `rdma` ask for them.

use std::io;

use rustix::io::Errno;
use rustix::net::{AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with};

const HEADER: usize = 16;

/// Each message of a list. `kind`: of the request; `request`: what follows its header. Never waits: what this reads the kernel
/// has written by then.
pub(super) fn list(
    protocol: Option<Protocol>,
    kind: u16,
    request: &[u8],
    mut each: impl FnMut(u16, &[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?;
    send(&socket, &message(kind, request), SendFlags::empty())?;
    // More than the kernel puts into one datagram of a list.
    let mut buffer = vec![0; 64 << 10];
    loop {
        let (_, length) = recv(&socket, &mut buffer[..], RecvFlags::DONTWAIT)?;
        if length > buffer.len() || !messages(&buffer[..length], &mut each)? {
            break Ok(());
        }
    }
}

fn message(kind: u16, request: &[u8]) -> Vec<u8> {
    const NLM_F_REQUEST_DUMP: u16 = 0x301;
    let length = u32::try_from(HEADER + request.len()).unwrap_or(u32::MAX);
    let mut message = Vec::new();
    message.extend_from_slice(&length.to_ne_bytes());
    message.extend_from_slice(&kind.to_ne_bytes());
    message.extend_from_slice(&NLM_F_REQUEST_DUMP.to_ne_bytes());
    // Number and port of the message.
    message.extend_from_slice(&[0; 8]);
    message.extend_from_slice(request);
    message
}

/// Are there more to come?
fn messages(mut bytes: &[u8], each: &mut impl FnMut(u16, &[u8]) -> io::Result<()>) -> io::Result<bool> {
    const NLMSG_ERROR: u16 = 2;
    const NLMSG_DONE: u16 = 3;
    while !bytes.is_empty() {
        let (length, kind) = (number(bytes, 0)? as usize, short(bytes, 4)?);
        let message = bytes.get(HEADER..length).ok_or_else(odd)?;
        match kind {
            // A list that failed on the way ends like any other, and says so in its last word. Old kernels leave that out.
            NLMSG_DONE if message.is_empty() => return Ok(false),
            NLMSG_DONE | NLMSG_ERROR => {
                return match i32::from_ne_bytes(number(message, 0)?.to_ne_bytes()) {
                    0 => Ok(false),
                    errno => Err(Errno::from_raw_os_error(-errno).into()),
                };
            }
            kind => each(kind, message)?,
        }
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(true)
}

/// Each attribute of a message, or of another attribute: its number and what it holds.
pub(super) fn attributes(mut bytes: &[u8]) -> io::Result<Vec<(u16, &[u8])>> {
    /// Beside the number: that it holds others, that it is in network order.
    const FLAGS: u16 = 0xc000;
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let length = usize::from(short(bytes, 0)?);
        all.push((short(bytes, 2)? & !FLAGS, bytes.get(4..length).ok_or_else(odd)?));
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(all)
}

pub(super) fn number(bytes: &[u8], at: usize) -> io::Result<u32> {
    let four = bytes.get(at..at + 4).and_then(|four| four.try_into().ok());
    four.map(u32::from_ne_bytes).ok_or_else(odd)
}

fn short(bytes: &[u8], at: usize) -> io::Result<u16> {
    let two = bytes.get(at..at + 2).and_then(|two| two.try_into().ok());
    two.map(u16::from_ne_bytes).ok_or_else(odd)
}

pub(super) fn odd() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the kernel says something over netlink that is cut off")
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// As the kernel writes one.
    pub fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(4 + value.len()).unwrap();
        let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
        bytes.extend_from_slice(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn what_the_kernel_refuses_is_no_empty_list() {
        let refused = message(2, &[&(-13_i32).to_ne_bytes()[..], &[0; 16]].concat());
        let broken_off = message(3, &(-22_i32).to_ne_bytes());
        let mut none = |_, _: &[u8]| panic!("a refusal is no message");
        assert_eq!(messages(&refused, &mut none).unwrap_err().raw_os_error(), Some(13));
        assert_eq!(messages(&broken_off, &mut none).unwrap_err().raw_os_error(), Some(22));
        assert!(messages(&refused[..20], &mut none).is_err(), "cut off");
    }

    #[test]
    fn messages_come_one_after_another_until_the_last() {
        let mut heard = Vec::new();
        let mut each = |kind, message: &[u8]| {
            heard.push((kind, message.to_vec()));
            Ok(())
        };
        let datagram = [message(20, &[1, 2, 3, 4]), message(21, &[])].concat();
        assert!(messages(&datagram, &mut each).unwrap());
        assert!(!messages(&message(3, &[0; 4]), &mut each).unwrap());
        assert_eq!(heard, [(20, vec![1, 2, 3, 4]), (21, vec![])]);
    }

    #[test]
    fn attributes_hold_attributes() {
        let inner = [attribute(2, b"mlx5_0\0"), attribute(29, b"rdma_cm\0")].concat();
        let outer = attribute(19 | 0x8000, &inner);
        let [(19, held)] = attributes(&outer).unwrap()[..] else { panic!() };
        assert_eq!(attributes(held).unwrap(), [(2, &b"mlx5_0\0"[..]), (29, &b"rdma_cm\0"[..])]);
        for bad in [&outer[..3], &outer[..8], &[0, 0, 1, 0][..]] {
            assert!(attributes(bad).is_err(), "{bad:?}");
        }
    }
}
