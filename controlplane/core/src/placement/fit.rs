//! Whether one host can hold a request, and where exactly; else the first predicate that fails and what would help.

use super::{HostView, Pin, Placement, Request, device};
use crate::device::Assignment;
use crate::host::{Cell, State};
use crate::instance::rebuild;
use crate::instance::seed::FILES_FEATURE;
use crate::meta::selects;

/// In the order in which they are asked: the cheap and the general ones first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Predicate {
    HostState,
    Cordon,
    Elsewhere,
    HostSelector,
    AgentFeature,
    Size,
    Vcpus,
    Memory,
    Disk,
    DiskReserve,
    HugePages,
    DedicatedCpus,
    NumaCell,
    // Devices: that there is one, that it may be used, and that there is room on it.
    Pool,
    DeviceModel,
    DeviceFlavour,
    DeviceHealth,
    IommuGroup,
    GpuMode,
    DeviceTaken,
    Functions,
    Framebuffer,
    MigGeometry,
    /// Nobody knows: the search ended before everything was tried.
    Effort,
}

impl Predicate {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::HostState => "HostState",
            Self::Cordon => "Cordon",
            Self::Elsewhere => "Elsewhere",
            Self::HostSelector => "HostSelector",
            Self::AgentFeature => "AgentFeature",
            Self::Size => "Size",
            Self::Vcpus => "Vcpus",
            Self::Memory => "Memory",
            Self::Disk => "Disk",
            Self::DiskReserve => "DiskReserve",
            Self::HugePages => "HugePages",
            Self::DedicatedCpus => "DedicatedCpus",
            Self::NumaCell => "NumaCell",
            Self::Pool => "Pool",
            Self::DeviceModel => "DeviceModel",
            Self::DeviceFlavour => "DeviceFlavour",
            Self::DeviceHealth => "DeviceHealth",
            Self::IommuGroup => "IommuGroup",
            Self::GpuMode => "GpuMode",
            Self::DeviceTaken => "DeviceTaken",
            Self::Functions => "Functions",
            Self::Framebuffer => "Framebuffer",
            Self::MigGeometry => "MigGeometry",
            Self::Effort => "Effort",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub predicate: Predicate,
    pub message: String,
    pub fix: String,
}

pub(super) fn fails<T>(predicate: Predicate, message: String, fix: impl Into<String>) -> Result<T, Failure> {
    Err(Failure { predicate, message, fix: fix.into() })
}

/// Every host that is tried for one request shares the `effort`.
pub fn fit(host: &HostView, request: &Request, effort: &device::Effort) -> Result<Placement, Failure> {
    check_host(host, request)?;
    check_size(host, request)?;
    check_free(host, request)?;
    let pinned = request.cpu.dedicated || request.cpu.single_numa_cell || request.huge_page_kib != 0;
    if !pinned {
        let devices = device::assign_within(host, &request.devices, &[], effort)?;
        return Ok(Placement { host: host.id.clone(), pins: Vec::new(), devices, parked: None });
    }
    let cells: Vec<&Cell> = host.capacity.cells.iter().collect();
    let first = on_cells(host, request, &cells, effort);
    if request.devices.requests.is_empty() {
        return first;
    }
    // Memory and CPUs go to where the devices are: each cell has a try at being the first one, and the earliest of those that
    // bring the most devices near wins.
    let near = |placement: &Placement| placement.devices.iter().filter(|one| is_near(host, placement, one)).count();
    let turned = (1..cells.len()).map(|by| [&cells[by..], &cells[..by]].concat());
    let others = turned.filter_map(|cells| on_cells(host, request, &cells, effort).ok());
    match first {
        Err(failure) => {
            others.reduce(|best, other| if near(&other) > near(&best) { other } else { best }).ok_or(failure)
        }
        Ok(first) => Ok(others.fold(first, |best, other| if near(&other) > near(&best) { other } else { best })),
    }
}

fn on_cells(
    host: &HostView,
    request: &Request,
    cells: &[&Cell],
    effort: &device::Effort,
) -> Result<Placement, Failure> {
    let pins = pin(host, request, cells)?;
    let devices = device::assign_within(host, &request.devices, &pins, effort)?;
    Ok(Placement { host: host.id.clone(), pins, devices, parked: None })
}

fn is_near(host: &HostView, placement: &Placement, piece: &Assignment) -> bool {
    let node = host.devices.0.get(&piece.device).and_then(|view| view.device.numa_node);
    placement.pins.iter().any(|pin| Some(pin.cell) == node)
}

/// Also on a cordoned host: the instance is there already.
pub fn extend(host: &HostView, wishes: &device::Wishes, pins: &[Pin]) -> Result<Vec<Assignment>, Failure> {
    check_ready(host)?;
    device::assign(host, wishes, pins)
}

fn check_ready(host: &HostView) -> Result<(), Failure> {
    if host.state != State::Ready {
        let state = host.state.as_str();
        return fails(Predicate::HostState, format!("the host is {state}"), "bring its agent back");
    }
    if let Some(why) = &host.unready {
        return fails(Predicate::HostState, why.clone(), "see the agent's log there");
    }
    Ok(())
}

fn check_host(host: &HostView, request: &Request) -> Result<(), Failure> {
    check_ready(host)?;
    if host.cordoned {
        return fails(
            Predicate::Cordon,
            "the host is cordoned".to_owned(),
            format!("`croft host uncordon {}`", host.id),
        );
    }
    if request.away_from.as_ref() == Some(&host.id) {
        return fails(
            Predicate::Elsewhere,
            "it is to be rebuilt on another host than this one".to_owned(),
            "make room on another host, or rebuild it without --elsewhere".to_owned(),
        );
    }
    if let Some(phase) = host.maintenance {
        return fails(
            Predicate::Cordon,
            format!("the host is under maintenance ({})", phase.as_str()),
            format!("`croft host undrain {}`", host.id),
        );
    }
    if let Some((key, value)) = request.host_selector.iter().find(|(key, value)| host.labels.get(*key) != Some(*value))
    {
        debug_assert!(!selects(&request.host_selector, &host.labels));
        return fails(
            Predicate::HostSelector,
            format!("the host has no label {key}={value}"),
            format!("`croft host update {} --label {key}={value}`, or select less", host.id),
        );
    }
    if request.rebuilt && !host.rebuilds {
        return fails(
            Predicate::AgentFeature,
            format!("its agent lacks {}, which an instance that was rebuilt needs", rebuild::FEATURE),
            "upgrade croft-hostagent there",
        );
    }
    if request.joins && !host.seed_files {
        return fails(
            Predicate::AgentFeature,
            format!("its agent lacks {FILES_FEATURE}, which a node of a cluster needs"),
            "upgrade croft-hostagent there",
        );
    }
    Ok(())
}

/// Larger than the host is when nothing else runs there: waiting will not help.
fn check_size(host: &HostView, request: &Request) -> Result<(), Failure> {
    let capacity = &host.capacity;
    // A guest with more vCPUs than there are CPUs only waits for itself.
    if request.vcpus > capacity.vcpus {
        return fails(
            Predicate::Size,
            format!("{} vCPUs are more than its {} logical CPUs", request.vcpus, capacity.vcpus),
            "ask for fewer vCPUs",
        );
    }
    let memory = (capacity.memory_mib - host.reserve.memory_mib - host.overhead_memory_mib).max(0);
    if request.memory_mib > memory {
        return fails(
            Predicate::Size,
            format!("{} MiB are more than the {memory} MiB it could ever give", request.memory_mib),
            "ask for less memory",
        );
    }
    let disk = (capacity.disk_gib - host.reserve.disk_gib).max(0);
    if request.disk_gib > disk {
        return fails(
            Predicate::Size,
            format!("{} GiB of disk are more than the {disk} GiB it could ever give", request.disk_gib),
            "ask for a smaller disk",
        );
    }
    Ok(())
}

fn check_free(host: &HostView, request: &Request) -> Result<(), Failure> {
    let free = host.free();
    if !request.cpu.dedicated && request.vcpus > free.vcpus {
        let (asked, left) = (request.vcpus, free.vcpus.max(0));
        return fails(Predicate::Vcpus, format!("{asked} vCPUs asked, {left} free"), freeing(asked - left, "vCPUs"));
    }
    let memory = host.overhead_memory_mib + if request.huge_page_kib == 0 { request.memory_mib } else { 0 };
    if memory > free.memory_mib {
        let left = free.memory_mib.max(0);
        return fails(
            Predicate::Memory,
            format!("{memory} MiB asked (with {} overhead), {left} free", host.overhead_memory_mib),
            freeing(memory - left, "MiB"),
        );
    }
    if request.disk_gib > free.disk_gib {
        let left = free.disk_gib.max(0);
        return fails(
            Predicate::Disk,
            format!("{} GiB of disk asked, {left} not promised to others", request.disk_gib),
            freeing(request.disk_gib - left, "GiB of disk"),
        );
    }
    if host.capacity.disk_free_gib < host.reserve.disk_gib {
        return fails(
            Predicate::DiskReserve,
            format!(
                "the file system has {} GiB free, below the reserve of {}",
                host.capacity.disk_free_gib, host.reserve.disk_gib
            ),
            "free space on the host, or lower its reserve",
        );
    }
    Ok(())
}

fn freeing(amount: i64, unit: &str) -> String {
    format!("stop needing {amount} {unit} there, or add a host")
}

/// The fewest cells that can hold it in equal shares; one cell only when asked so.
fn pin(host: &HostView, request: &Request, cells: &[&Cell]) -> Result<Vec<Pin>, Failure> {
    let count = i64::try_from(cells.len()).unwrap_or(i64::MAX);
    let most = if request.cpu.single_numa_cell { 1 } else { count.max(1) };
    let mut first = None;
    for share in (1..=most).filter(|n| request.vcpus % n == 0 && request.memory_mib % n == 0) {
        match pin_to(host, request, cells, share) {
            Ok(pins) => return Ok(pins),
            // The answer for one cell is the simplest to read.
            Err(failure) => first = first.or(Some(failure)),
        }
    }
    match first {
        Some(failure) => Err(failure),
        None => fails(Predicate::NumaCell, "the host reports no NUMA cell".to_owned(), "check the agent's inventory"),
    }
}

fn pin_to(host: &HostView, request: &Request, cells: &[&Cell], shares: i64) -> Result<Vec<Pin>, Failure> {
    let (vcpus, memory_mib) = (request.vcpus / shares, request.memory_mib / shares);
    let mut pins = Vec::new();
    let mut failure = None;
    for cell in cells {
        match pin_cell(host, cell, request, vcpus, memory_mib) {
            Ok(pin) => pins.push(pin),
            Err(why) => failure = failure.max_by_predicate(why),
        }
        if i64::try_from(pins.len()) == Ok(shares) {
            return leave_enough(host, pins);
        }
    }
    match failure {
        Some(why) => Err(why),
        None => fails(
            Predicate::NumaCell,
            format!("{shares} NUMA cells are needed, it has {}", host.capacity.cells.len()),
            "ask for less, or without a pinned shape",
        ),
    }
}

/// Others were promised time on the shared CPUs; taking CPUs away must leave them enough.
fn leave_enough(host: &HostView, pins: Vec<Pin>) -> Result<Vec<Pin>, Failure> {
    let taken = host.whole_cores(&pins);
    let after = HostView { dedicated: host.dedicated.iter().chain(&taken).copied().collect(), ..host.clone() };
    let short = -after.free().vcpus;
    if short <= 0 || pins.iter().all(|pin| pin.cpus.is_empty()) {
        return Ok(pins);
    }
    fails(
        Predicate::DedicatedCpus,
        format!("the CPUs left would be {short} vCPUs short of what shares them"),
        "ask for fewer dedicated CPUs, or add a host",
    )
}

trait MaxByPredicate {
    fn max_by_predicate(self, other: Failure) -> Self;
}

impl MaxByPredicate for Option<Failure> {
    fn max_by_predicate(self, other: Failure) -> Self {
        match self {
            Some(mine) if mine.predicate >= other.predicate => Some(mine),
            _ => Some(other),
        }
    }
}

fn pin_cell(host: &HostView, cell: &Cell, request: &Request, vcpus: i64, memory_mib: i64) -> Result<Pin, Failure> {
    let id = cell.id;
    if request.huge_page_kib != 0 {
        let size = request.huge_page_kib;
        let left = host.huge_free_mib(id, size).max(0);
        if memory_mib % (size / 1024).max(1) != 0 || memory_mib > left {
            return fails(
                Predicate::HugePages,
                format!("NUMA cell {id}: {memory_mib} MiB of {size} KiB pages asked, {left} free"),
                "reserve more huge pages on the host, or ask for less",
            );
        }
    } else if memory_mib > cell.memory_mib {
        return fails(
            Predicate::NumaCell,
            format!("NUMA cell {id}: {memory_mib} MiB asked, it has {}", cell.memory_mib),
            "ask for less memory, or for several cells",
        );
    }
    let cpus = if request.cpu.dedicated { dedicated(host, cell, vcpus)? } else { Vec::new() };
    let width = i64::try_from(cell.cores.iter().flatten().count()).unwrap_or(i64::MAX);
    if vcpus > width {
        return fails(
            Predicate::NumaCell,
            format!("NUMA cell {id}: {vcpus} vCPUs asked, it has {width} logical CPUs"),
            "ask for fewer vCPUs, or for several cells",
        );
    }
    Ok(Pin { cell: id, vcpus, cpus, memory_mib })
}

/// Of whole free cores only: two tenants on the siblings of one core could watch each other.
fn dedicated(host: &HostView, cell: &Cell, vcpus: i64) -> Result<Vec<i32>, Failure> {
    let wanted = usize::try_from(vcpus).unwrap_or(usize::MAX);
    let free = |core: &&Vec<i32>| core.iter().all(|cpu| !host.dedicated.contains(cpu));
    let cpus: Vec<i32> = cell.cores.iter().filter(free).flatten().copied().take(wanted).collect();
    if cpus.len() < wanted {
        return fails(
            Predicate::DedicatedCpus,
            format!("NUMA cell {}: {vcpus} CPUs of whole free cores asked, {} free", cell.id, cpus.len()),
            "ask for fewer dedicated CPUs, or add a host",
        );
    }
    Ok(cpus)
}
