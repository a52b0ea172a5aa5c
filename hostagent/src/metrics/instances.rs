//! What each guest uses, by tenant and name. There is one set of series for each instance that runs here, so their number is
//! bounded by what a host can run.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::hypervisor::Figures;
use crate::hypervisor::figures::{Disk, Interface, Traffic};

#[derive(Debug, Clone)]
pub struct Instance {
    pub tenant: String,
    pub name: String,
    pub figures: Figures,
}

#[derive(Debug)]
pub struct Instances(pub Vec<Instance>);

type Labels = Vec<(&'static str, String)>;

impl Instance {
    fn labels(&self, more: &[(&'static str, &str)]) -> Labels {
        let mut labels = vec![
            ("tenant", self.tenant.clone()),
            ("instance", self.name.clone()),
            ("uid", self.figures.uid.to_string()),
        ];
        labels.extend(more.iter().map(|(name, value)| (*name, (*value).to_owned())));
        labels
    }
}

impl Collector for Instances {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let mut all = Families { encoder: &mut encoder, instances: &self.0 };
        all.gauges("vcpus", "vCPUs of an instance", |one| Some(one.vcpus))?;
        all.counters("cpu_seconds", "Host CPU time that an instance used, its emulator included", |one| {
            Some(one.cpu.as_secs_f64())
        })?;
        let help = "Time that vCPUs of an instance were ready to run and had no host CPU (steal)";
        all.counters("cpu_wait_seconds", help, |one| Some(one.cpu_wait?.as_secs_f64()))?;
        all.gauges("memory_bytes", "Memory that an instance was given", |one| Some(one.memory_bytes))?;
        let help = "Memory of the host that an instance has in hand, its emulator included";
        all.gauges("memory_resident_bytes", help, |one| one.resident_bytes)?;
        all.disks(|encoder, rows| {
            let of = |pick: fn(&Disk) -> f64| rows.iter().map(move |(labels, disk)| (labels.clone(), pick(disk)));
            counters(encoder, "disk_read_bytes", "Read from a disk", of(|disk| disk.read.bytes as f64))?;
            counters(encoder, "disk_written_bytes", "Written to a disk", of(|disk| disk.written.bytes as f64))?;
            counters(encoder, "disk_reads", "Reads from a disk", of(|disk| disk.read.requests as f64))?;
            counters(encoder, "disk_writes", "Writes to a disk", of(|disk| disk.written.requests as f64))?;
            let help = "Time that reads from a disk took, added up";
            counters(encoder, "disk_read_seconds", help, of(|disk| disk.read.spent.as_secs_f64()))?;
            let help = "Time that writes to a disk took, added up";
            counters(encoder, "disk_write_seconds", help, of(|disk| disk.written.spent.as_secs_f64()))?;
            let sizes = |pick: fn(&Disk) -> Option<u64>| {
                rows.iter().filter_map(move |(labels, disk)| Some((labels.clone(), pick(disk)?)))
            };
            let help = "Size of a disk, as the guest sees it";
            gauges(encoder, "disk_capacity_bytes", help, sizes(|disk| disk.capacity_bytes))?;
            let help = "What a disk takes on the host";
            gauges(encoder, "disk_allocation_bytes", help, sizes(|disk| disk.allocation_bytes))
        })?;
        all.interfaces(|encoder, rows| {
            let of = |pick: fn(&Interface) -> u64| {
                rows.iter().map(move |(labels, interface)| (labels.clone(), pick(interface) as f64))
            };
            counters(encoder, "network_receive_bytes", "Received by a guest", of(|one| one.received.bytes))?;
            counters(encoder, "network_transmit_bytes", "Sent by a guest", of(|one| one.sent.bytes))?;
            counters(encoder, "network_receive_packets", "Packets to a guest", of(|one| one.received.packets))?;
            counters(encoder, "network_transmit_packets", "Packets from a guest", of(|one| one.sent.packets))?;
            let lost = |traffic: &Traffic| traffic.drops + traffic.errors;
            let rows = |pick: fn(&Interface) -> &Traffic| {
                rows.iter().map(move |(labels, interface)| (labels.clone(), lost(pick(interface)) as f64))
            };
            let help = "Packets to a guest that were dropped or damaged";
            counters(encoder, "network_receive_lost", help, rows(|one| &one.received))?;
            let help = "Packets from a guest that were dropped or damaged";
            counters(encoder, "network_transmit_lost", help, rows(|one| &one.sent))
        })
    }
}

struct Families<'a, 'e> {
    encoder: &'a mut DescriptorEncoder<'e>,
    instances: &'a [Instance],
}

type Rows<'a, T> = Vec<(Labels, &'a T)>;

impl Families<'_, '_> {
    fn gauges(&mut self, name: &str, help: &str, pick: fn(&Figures) -> Option<u64>) -> fmt::Result {
        let rows = self.instances.iter().filter_map(|one| Some((one.labels(&[]), pick(&one.figures)?)));
        gauges(self.encoder, name, help, rows)
    }

    fn counters(&mut self, name: &str, help: &str, pick: fn(&Figures) -> Option<f64>) -> fmt::Result {
        let rows = self.instances.iter().filter_map(|one| Some((one.labels(&[]), pick(&one.figures)?)));
        counters(self.encoder, name, help, rows)
    }

    fn disks(&mut self, encode: impl Fn(&mut DescriptorEncoder<'_>, &Rows<'_, Disk>) -> fmt::Result) -> fmt::Result {
        let mut rows = Vec::new();
        for one in self.instances {
            rows.extend(one.figures.disks.iter().map(|disk| (one.labels(&[("device", &disk.name)]), disk)));
        }
        encode(self.encoder, &rows)
    }

    fn interfaces(
        &mut self,
        encode: impl Fn(&mut DescriptorEncoder<'_>, &Rows<'_, Interface>) -> fmt::Result,
    ) -> fmt::Result {
        let mut rows = Vec::new();
        for one in self.instances {
            rows.extend(one.figures.interfaces.iter().map(|port| (one.labels(&[("interface", &port.name)]), port)));
        }
        encode(self.encoder, &rows)
    }
}

fn counters(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    rows: impl Iterator<Item = (Labels, f64)>,
) -> fmt::Result {
    let name = format!("instance_{name}");
    let mut family = encoder.encode_descriptor(&name, &format!("{help}."), None, MetricType::Counter)?;
    for (labels, value) in rows {
        ConstCounter::new(value).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

fn gauges(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    rows: impl Iterator<Item = (Labels, u64)>,
) -> fmt::Result {
    let name = format!("instance_{name}");
    let mut family = encoder.encode_descriptor(&name, &format!("{help}."), None, MetricType::Gauge)?;
    for (labels, value) in rows {
        ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX)).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}
