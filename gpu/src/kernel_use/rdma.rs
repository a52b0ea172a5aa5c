//! RDMA adapters that the kernel itself is connected through: NVMe over fabrics, NFS, iSER, Lustre. What they carry is on another
//! host, and neither a disk nor a mount here says so.
//!
//! Asked for are connections (`rdma resource show cm_id`), of which the kernel knows whose they are. Not queue pairs: every
//! driver has some of its own, the connection manager makes most of the others in its own name, and to list them the kernel
//! asks the adapter, which may be the very one that does not answer. What a user's program is connected through, it has open
//! (`/dev/infiniband/uverbs0`); a disk that is reached by SRP hangs on the adapter as on any controller; and SMC goes where the
//! interface has an address.
//!
//! Met an adapter of software alone (`rdma_rxe`, Linux 6.1) with NVMe over it: idle and listened on it is free, connected it is
//! in use. **No adapter of hardware so far.**

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use rustix::net::netlink::RDMA;

use super::Use;
use super::netlink::{self, attributes};
use crate::error::{FsError, IfThere as _};
use crate::hostfs::HostFs;
use crate::seat::Seat;

const ADAPTERS: &str = "/sys/class/infiniband";

pub(super) fn uses(fs: &HostFs) -> Result<Vec<Use>, FsError> {
    let links = fs.links(ADAPTERS).if_there()?.unwrap_or_default();
    let seats: Vec<_> = links.into_iter().filter_map(|(name, target)| Some((name, Seat::of(&target)?))).collect();
    // A directory that stands for a host has nobody to ask. Nor is it asked for nothing: that would load modules.
    if seats.is_empty() || !fs.is_this_machine()? {
        return Ok(Vec::new());
    }
    let failed = |error| FsError::io("ask for connections of", fs.root().join(&ADAPTERS[1..]), error);
    let indices = indices().map_err(failed)?;
    let mut found = Vec::new();
    for (name, seat) in seats {
        // One that left since, or came, or was given another name.
        let Some(index) = indices.get(&name) else { continue };
        match connected(*index) {
            Ok(owners) => found.extend(words(&name, &seat, &owners)),
            Err(_) if !fs.has(&format!("{ADAPTERS}/{name}"))? => {}
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(found)
}

fn words(name: &str, seat: &Seat, owners: &BTreeSet<String>) -> Vec<Use> {
    let words = |owner: &String| format!("{name} (connections of {owner})");
    owners.iter().flat_map(|owner| seat.keys().map(move |key| (key, words(owner)))).collect()
}

/// `RDMA_NL_GET_TYPE(RDMA_NL_NLDEV, …)` of <rdma/rdma_netlink.h>, as the attributes below.
const GET_DEVICES: u16 = 5 << 10 | 1;
const GET_CONNECTIONS: u16 = 5 << 10 | 11;

const DEVICE_INDEX: u16 = 1;
const DEVICE_NAME: u16 = 2;
const STATE: u16 = 27;
const KERNEL_NAME: u16 = 29;
const CONNECTIONS: u16 = 30;

/// The kernel's number for each adapter.
fn indices() -> io::Result<BTreeMap<String, u32>> {
    let mut all = BTreeMap::new();
    netlink::list(Some(RDMA), GET_DEVICES, &[], |kind, message| {
        if kind == GET_DEVICES {
            all.extend(device(message)?);
        }
        Ok(())
    })?;
    Ok(all)
}

fn device(message: &[u8]) -> io::Result<Option<(String, u32)>> {
    let (mut name, mut index) = (None, None);
    for (kind, value) in attributes(message)? {
        match kind {
            DEVICE_NAME => name = Some(text(value)),
            DEVICE_INDEX => index = Some(netlink::number(value, 0)?),
            _ => {}
        }
    }
    Ok(name.zip(index))
}

/// The modules that are connected through an adapter.
fn connected(index: u32) -> io::Result<BTreeSet<String>> {
    let request = [&8_u16.to_ne_bytes()[..], &DEVICE_INDEX.to_ne_bytes(), &index.to_ne_bytes()].concat();
    let mut all = BTreeSet::new();
    netlink::list(Some(RDMA), GET_CONNECTIONS, &request, |kind, message| {
        if kind == GET_CONNECTIONS {
            all.extend(owners(message)?);
        }
        Ok(())
    })?;
    Ok(all)
}

fn owners(message: &[u8]) -> io::Result<BTreeSet<String>> {
    /// `RDMA_CM_LISTEN`: who serves others listens on every adapter there is, and misses none.
    const LISTENS: u8 = 8;
    let mut owners = BTreeSet::new();
    for (_, table) in attributes(message)?.into_iter().filter(|(kind, _)| *kind == CONNECTIONS) {
        for (_, connection) in attributes(table)? {
            let all = attributes(connection)?;
            let value = |wanted| all.iter().find(|(kind, _)| *kind == wanted).map(|(_, value)| *value);
            if value(STATE).and_then(<[u8]>::first) != Some(&LISTENS) {
                // A user's has a process in its place.
                owners.extend(value(KERNEL_NAME).map(text));
            }
        }
    }
    Ok(owners)
}

fn text(value: &[u8]) -> String {
    let value = value.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(value).into_owned()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::netlink::tests::attribute;
    use super::*;

    const PROCESS: u16 = 28;

    fn handle() -> Vec<u8> {
        [attribute(DEVICE_INDEX, &3_u32.to_ne_bytes()), attribute(DEVICE_NAME, b"mlx5_0\0")].concat()
    }

    fn connection(state: u8, owner: &[u8]) -> Vec<u8> {
        const ENTRY: u16 = 31;
        const PORT: u16 = 3;
        attribute(ENTRY, &[attribute(PORT, &1_u32.to_ne_bytes()), attribute(STATE, &[state]), owner.to_vec()].concat())
    }

    #[test]
    fn an_adapter_has_a_number() {
        assert_eq!(device(&handle()).unwrap(), Some(("mlx5_0".to_owned(), 3)));
        assert_eq!(device(&[]).unwrap(), None);
    }

    #[test]
    fn connections_of_the_kernel_count_and_listeners_and_users_do_not() {
        const CONNECTED: u8 = 5;
        let kernel = |name: &[u8]| attribute(KERNEL_NAME, name);
        let user = attribute(PROCESS, &4711_u32.to_ne_bytes());
        let of = |entries: &[Vec<u8>]| {
            let table = attribute(CONNECTIONS, &entries.concat());
            owners(&[handle(), table].concat()).unwrap().into_iter().collect::<Vec<_>>()
        };
        assert_eq!(of(&[]), Vec::<String>::new());
        assert_eq!(of(&[connection(8, &kernel(b"nvmet_rdma\0")), connection(CONNECTED, &user)]), Vec::<String>::new());
        let nvme = || connection(CONNECTED, &kernel(b"nvme_rdma\0"));
        let mount = connection(2, &kernel(b"rpcrdma\0"));
        assert_eq!(of(&[nvme(), nvme(), mount]), ["nvme_rdma", "rpcrdma"]);
        assert!(owners(&[handle(), attribute(CONNECTIONS, &nvme()[..9])].concat()).is_err(), "cut off");
    }

    #[test]
    fn a_connection_is_the_adapters_function() {
        let seat = Seat::of(Path::new("../../devices/pci0000:00/0000:01:00.0/infiniband/mlx5_0")).unwrap();
        let found = words("mlx5_0", &seat, &["nvme_rdma".to_owned()].into());
        assert_eq!(found, [("0000:01:00.0".to_owned(), "mlx5_0 (connections of nvme_rdma)".to_owned())]);
    }

    /// Of whatever adapters this machine has: one of software alone will do (`rdma link add rxe0 type rxe netdev eth0`).
    #[test]
    fn the_kernel_tells_who_is_connected() {
        let fs = HostFs::at("/").unwrap();
        let adapters = fs.links(ADAPTERS).if_there().unwrap().unwrap_or_default();
        if adapters.is_empty() {
            println!("skipped: connections of a real kernel: this machine has no RDMA adapter");
            return;
        }
        let indices = indices().unwrap();
        for (name, _) in adapters {
            println!("{name}: {:?}", connected(indices[&name]).unwrap());
        }
        assert!(connected(u32::MAX).is_err(), "of an adapter that is not there nothing is known");
        uses(&fs).unwrap();
    }

    #[test]
    fn a_tree_is_not_this_machine() {
        let tree = super::super::testing::Tree::new();
        tree.link("sys/class/infiniband/mlx5_0", "../../devices/pci0000:00/0000:01:00.0/infiniband/mlx5_0");
        assert_eq!(uses(&tree.fs()).unwrap(), []);
    }
}
