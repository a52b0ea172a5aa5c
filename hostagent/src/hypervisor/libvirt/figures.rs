//! What guests use, in libvirt's words and in ours.
//!
//! One call for all that run. It does not wait for a guest that is busy with something else (`NOWAIT`): of that one less is
//! told, and a graph has a gap.

use std::collections::BTreeMap;
use std::time::Duration;

use uuid::Uuid;
use virt::connect::Connect;

use super::ffi_stats;
use super::lookup::query;
use crate::hypervisor::Error;
use crate::hypervisor::figures::{Disk, Figures, Interface, Io, Traffic};

const KIB: u64 = 1024;

/// Of every domain that runs, foreign ones too: whoever asks knows which are ours.
pub fn look(connect: &Connect) -> Result<Vec<Figures>, Error> {
    let told = ffi_stats::running_domains(connect).map_err(query)?;
    Ok(told.iter().filter_map(|stats| figures(stats.uid, &stats.numbers, &stats.texts)).collect())
}

/// `None`: libvirt could not even tell how much CPU time it has used.
fn figures(uid: Uuid, numbers: &BTreeMap<String, u64>, texts: &BTreeMap<String, String>) -> Option<Figures> {
    let number = |name: &str| numbers.get(name).copied();
    let vcpus = number("vcpu.current").unwrap_or(0);
    let waits: Vec<u64> = (0..vcpus).filter_map(|at| number(&format!("vcpu.{at}.delay"))).collect();
    let disk = |at: u64| {
        let number = |name: &str| number(&format!("block.{at}.{name}"));
        Some(Disk {
            name: texts.get(&format!("block.{at}.name"))?.clone(),
            read: Io {
                requests: number("rd.reqs")?,
                bytes: number("rd.bytes")?,
                spent: Duration::from_nanos(number("rd.times")?),
            },
            written: Io {
                requests: number("wr.reqs")?,
                bytes: number("wr.bytes")?,
                spent: Duration::from_nanos(number("wr.times")?),
            },
            capacity_bytes: number("capacity"),
            allocation_bytes: number("allocation"),
        })
    };
    // libvirt tells of tap devices as the guest sees them.
    let interface = |at: u64| {
        let traffic = |way: &str| {
            let number = |name: &str| number(&format!("net.{at}.{way}.{name}"));
            Some(Traffic {
                bytes: number("bytes")?,
                packets: number("pkts")?,
                drops: number("drop")?,
                errors: number("errs")?,
            })
        };
        Some(Interface {
            name: texts.get(&format!("net.{at}.name"))?.clone(),
            received: traffic("rx")?,
            sent: traffic("tx")?,
        })
    };
    Some(Figures {
        uid,
        vcpus,
        cpu: Duration::from_nanos(number("cpu.time")?),
        cpu_wait: (!waits.is_empty()).then(|| Duration::from_nanos(waits.iter().sum())),
        memory_bytes: number("balloon.current").unwrap_or(0) * KIB,
        resident_bytes: number("balloon.rss").map(|kib| kib * KIB),
        disks: (0..number("block.count").unwrap_or(0)).filter_map(disk).collect(),
        interfaces: (0..number("net.count").unwrap_or(0)).filter_map(interface).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_libvirt_does_not_tell_is_not_there() {
        let numbers = |pairs: &[(&str, u64)]| pairs.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
        let texts = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        let told = numbers(&[
            ("cpu.time", 2_000_000_000),
            ("vcpu.current", 2),
            ("vcpu.0.delay", 300_000_000),
            ("vcpu.1.delay", 200_000_000),
            ("balloon.current", 2048),
            ("block.count", 2),
            ("block.0.rd.reqs", 1),
            ("block.0.rd.bytes", 512),
            ("block.0.rd.times", 7),
            ("block.0.wr.reqs", 2),
            ("block.0.wr.bytes", 1024),
            ("block.0.wr.times", 9),
            ("net.count", 1),
        ]);
        let found = figures(Uuid::from_u128(1), &told, &texts(&[("block.0.name", "vda"), ("block.1.name", "sda")]));
        let found = found.expect("figures");
        assert_eq!((found.vcpus, found.cpu), (2, Duration::from_secs(2)));
        assert_eq!(found.cpu_wait, Some(Duration::from_millis(500)));
        assert_eq!((found.memory_bytes, found.resident_bytes), (2048 * KIB, None));
        assert_eq!(found.disks.len(), 1, "of sda nothing is known: {:?}", found.disks);
        assert_eq!((found.disks[0].written.bytes, found.disks[0].capacity_bytes), (1024, None));
        assert_eq!(found.interfaces, []);
        assert_eq!(figures(Uuid::from_u128(1), &BTreeMap::new(), &BTreeMap::new()), None);
    }
}
