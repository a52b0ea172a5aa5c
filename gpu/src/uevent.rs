//! What the kernel says when a device comes, goes or changes hands: its own messages, as udev gets them, without udev.
//!
//! A message only says that it is worth to look again; what is there is read by a probe. Messages are lost when the reader is
//! slow, and then [`Uevents`] says so: look at everything.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::netlink::{KOBJECT_UEVENT, SocketAddrNetlink};
use rustix::net::sockopt::set_socket_recv_buffer_size_force;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recvfrom, socket_with};

/// The kernel's multicast group; 2 is udev's, whose messages wait for its rules and have another format.
const KERNEL: u32 = 1;
/// More than any message: the kernel stops at 2 KiB of variables.
const LARGEST: usize = 16 << 10;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Uevent {
    Device(DeviceEvent),
    /// Some were lost.
    Missed,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceEvent {
    /// `add`, `remove`, `change`, `bind`, `unbind`, …
    pub action: String,
    /// Below `/sys`: `/devices/pci0000:00/0000:00:14.0/usb1/1-2`
    pub path: String,
    /// `pci`, `usb`, `mdev`, …
    pub subsystem: String,
    /// `usb_device`, `usb_interface`; empty where a subsystem has one type only.
    pub kind: String,
    /// All of it: `PCI_SLOT_NAME`, `PRODUCT`, `DRIVER`, …
    pub variables: BTreeMap<String, String>,
}

impl DeviceEvent {
    /// `0000:41:00.0`, `1-2.3`: how its bus names it.
    #[must_use]
    pub fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or(&self.path)
    }

    /// Nothing, where it is no message of the kernel's.
    fn parse(message: &[u8]) -> Option<DeviceEvent> {
        let text = std::str::from_utf8(message).ok()?;
        let mut parts = text.split('\0').filter(|part| !part.is_empty());
        let (action, path) = parts.next()?.split_once('@')?;
        let variables: BTreeMap<_, _> =
            parts.filter_map(|part| part.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
        let variable = |name: &str| variables.get(name).cloned().unwrap_or_default();
        // The head is repeated in the variables; where the two differ somebody made it up.
        if variable("ACTION") != action || variable("DEVPATH") != path {
            return None;
        }
        let (subsystem, kind) = (variable("SUBSYSTEM"), variable("DEVTYPE"));
        Some(DeviceEvent { action: action.to_owned(), path: path.to_owned(), subsystem, kind, variables })
    }
}

/// An endless, blocking stream of what happens. Hears nothing that happened before it was opened: open it, then probe.
#[derive(Debug)]
pub struct Uevents {
    socket: OwnedFd,
    buffer: Vec<u8>,
}

impl Uevents {
    /// Of this network namespace; only the first one of a machine hears of devices.
    pub fn open() -> io::Result<Uevents> {
        let socket =
            socket_with(AddressFamily::NETLINK, SocketType::DGRAM, SocketFlags::CLOEXEC, Some(KOBJECT_UEVENT))?;
        bind(&socket, &SocketAddrNetlink::new(0, KERNEL))?;
        // A server that makes 256 virtual functions says so 512 times in a moment. Only root may ask for this much; others
        // miss messages sooner, and are told.
        let _ = set_socket_recv_buffer_size_force(&socket, 8 << 20);
        Ok(Uevents { socket, buffer: vec![0; LARGEST] })
    }
}

impl AsFd for Uevents {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Iterator for Uevents {
    type Item = io::Result<Uevent>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (length, sender) = match recvfrom(&self.socket, &mut self.buffer[..], RecvFlags::empty()) {
                Ok((_, length, sender)) => (length, sender),
                Err(Errno::INTR) => continue,
                Err(Errno::NOBUFS) => return Some(Ok(Uevent::Missed)),
                Err(errno) => return Some(Err(errno.into())),
            };
            // The kernel has the port 0. A process with the right to may send to the group, too: not believed.
            let sender = sender.and_then(|sender| SocketAddrNetlink::try_from(sender).ok());
            if sender.is_none_or(|sender| sender.pid() != 0) {
                continue;
            }
            if let Some(event) = self.buffer.get(..length).and_then(DeviceEvent::parse) {
                return Some(Ok(Uevent::Device(event)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As received from Linux 6.1 when a stick was plugged in.
    const PLUGGED: &[u8] = b"add@/devices/pci0000:00/0000:00:14.0/usb1/1-2\0ACTION=add\0\
        DEVPATH=/devices/pci0000:00/0000:00:14.0/usb1/1-2\0SUBSYSTEM=usb\0MAJOR=189\0MINOR=1\0DEVNAME=bus/usb/001/002\0\
        DEVTYPE=usb_device\0PRODUCT=46f4/1/0\0TYPE=0/0/0\0BUSNUM=001\0DEVNUM=002\0SEQNUM=2345\0";

    #[test]
    fn a_message_of_the_kernel_is_read() {
        let event = DeviceEvent::parse(PLUGGED).unwrap();
        assert_eq!(
            (event.action.as_str(), event.subsystem.as_str(), event.kind.as_str()),
            ("add", "usb", "usb_device")
        );
        assert_eq!((event.name(), event.variables["PRODUCT"].as_str()), ("1-2", "46f4/1/0"));
        let bound = b"bind@/devices/pci0000:40/0000:40:01.1/0000:41:00.0\0ACTION=bind\0\
            DEVPATH=/devices/pci0000:40/0000:40:01.1/0000:41:00.0\0SUBSYSTEM=pci\0DRIVER=vfio-pci\0\
            PCI_SLOT_NAME=0000:41:00.0\0SEQNUM=7\0";
        let bound = DeviceEvent::parse(bound).unwrap();
        assert_eq!(
            (bound.name(), bound.kind.as_str(), bound.variables["DRIVER"].as_str()),
            ("0000:41:00.0", "", "vfio-pci")
        );
    }

    #[test]
    fn anything_else_is_none() {
        let udev = b"libudev\0\xfe\xed\xca\xfe\0\0\0\x28ACTION=add\0";
        let forged = b"add@/devices/a\0ACTION=remove\0DEVPATH=/devices/a\0SUBSYSTEM=pci\0";
        for bad in [&b""[..], b"\0", b"add", b"add@/devices/a\0", udev, forged, b"\xff@\xff"] {
            assert_eq!(DeviceEvent::parse(bad), None, "{:?}", String::from_utf8_lossy(bad));
        }
    }

    /// The way to make the kernel speak without any hardware: ask a device of ours to announce itself once more.
    #[test]
    fn the_kernel_is_heard() {
        const LOOPBACK: &str = "/sys/devices/virtual/net/lo/uevent";
        let mut events = match Uevents::open() {
            Ok(events) => events,
            Err(error) => return eprintln!("skipped: no uevents here: {error}"),
        };
        if let Err(error) = std::fs::write(LOOPBACK, "change") {
            return eprintln!("skipped: {LOOPBACK} cannot be written: {error}");
        }
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let second = Timespec { tv_sec: 1, tv_nsec: 0 };
        loop {
            if poll(&mut [PollFd::new(&events, PollFlags::IN)], Some(&second)).unwrap() == 0 {
                return eprintln!("skipped: this network namespace hears of no devices");
            }
            match events.next().unwrap().unwrap() {
                Uevent::Device(event) if event.name() == "lo" => {
                    assert_eq!((event.action.as_str(), event.subsystem.as_str()), ("change", "net"));
                    break;
                }
                _ => {}
            }
        }
    }
}
