//! What the kernel itself uses a device for: a disk that is mounted, swapped to or part of another one; a network card that
//! carries the host's traffic; the screen of its console, its keyboard. No process has those open, and taking the device away
//! would hurt all the same, so each is a holder without a process.

mod addresses;
mod claims;
mod console;
mod disks;
mod mounts;
mod netlink;
mod network;
mod rdma;

use std::collections::BTreeMap;

use crate::error::{FsError, ProbeError};
use crate::host::Holder;
use crate::hostfs::HostFs;

pub(crate) use claims::uses as claims;

/// A device, by address or USB port, and the words for what it is used for: `/dev/nvme0n1p2 (mounted on /)`.
type Use = (String, String);

/// Adds to `holders`.
pub(crate) fn find(fs: &HostFs, holders: &mut BTreeMap<String, Vec<Holder>>, errors: &mut Vec<ProbeError>) {
    let mut ask = |part: Result<Vec<Use>, FsError>, what: &'static str| match part {
        Ok(uses) => {
            for (device, file) in uses {
                let holder = Holder { pid: 0, command: "kernel".to_owned(), unit: None, file };
                holders.entry(device).or_default().push(holder);
            }
        }
        Err(error) => errors.push(ProbeError { device: "holders".to_owned(), what: what.into(), source: error.into() }),
    };
    ask(disks::uses(fs), "disks in use");
    ask(network::uses(fs), "network interfaces in use");
    ask(rdma::uses(fs), "RDMA connections of the host's");
    ask(console::uses(fs), "the host's console");
}

#[cfg(test)]
mod testing;
