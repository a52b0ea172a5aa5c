//! One look at every domain: ours by their mark, all others as what they hold.
//!
//! An error anywhere fails the whole look, because a domain that was not seen would be taken for gone. Only one that
//! vanished between listing and asking is left out.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use uuid::Uuid;
use virt::connect::Connect;
use virt::domain::{Domain as VirtDomain, DomainPausedReason, DomainShutoffReason, DomainState, DomainStateReason};
use virt::enumutil::Enum;
use virt::error::{Error as VirtError, ErrorNumber};

use super::error::is;
use super::ffi;
use super::hot_plug;
use super::lookup::{mark, query};
use super::metadata::Mark;
use super::xml::Element;
use crate::hypervisor::{Domain, Error, ForeignDomain, OffReason, Power, Survey};
use crate::media::space::GIB;
use crate::reasons::{HYPERVISOR_ERROR, IO_ERROR, OUT_OF_SPACE, PAUSED};

/// `state_dir`: disks of others count when they lie on its file system.
pub fn look(connect: &Connect, state_dir: &Path) -> Result<Survey, Error> {
    let mut survey = Survey::default();
    let file_system = std::fs::metadata(state_dir).map(|meta| meta.dev()).ok();
    for domain in connect.list_all_domains(0).map_err(query)? {
        let seen = domain.uuid().and_then(|uid| Ok((uid, mark(&domain, uid)?)));
        let Some((uid, mark)) = unless_gone(seen)? else { continue };
        match mark {
            Some(mark) => {
                let Some(power) = power(&domain)? else { continue };
                // Gone meanwhile: what it had does not matter any more.
                let Some(xml) = unless_gone(domain.xml_desc(0))? else { continue };
                let devices = hot_plug::attached(&xml)?;
                let Mark { generation, disk_generation, .. } = mark;
                survey.ours.push(Domain { uid, power, generation, disk_generation, devices });
            }
            None => survey.foreign.extend(foreign(&domain, file_system)?),
        }
    }
    survey.ours.sort_by_key(|domain: &Domain| -> Uuid { domain.uid });
    survey.foreign.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(survey)
}

/// `None`: the domain is not there any more.
fn unless_gone<T>(result: Result<T, VirtError>) -> Result<Option<T>, Error> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(e) if is(&e, ErrorNumber::NoDomain) => Ok(None),
        Err(e) => Err(query(e)),
    }
}

/// Is it running, and if not, why? `None`: gone.
pub fn power(domain: &VirtDomain) -> Result<Option<Power>, Error> {
    let Some((state, reason)) = unless_gone(ffi::state(domain))? else { return Ok(None) };
    let reason = match reason {
        Enum::Known(reason) => Some(reason),
        Enum::Unknown(_) => None,
    };
    let unknown = || {
        let message = format!("libvirt tells a state that is not known here: {state:?}");
        Err(Error::Failed { reason: HYPERVISOR_ERROR, message })
    };
    let Enum::Known(known) = state else { return unknown() };
    Ok(Some(match known {
        // Asked to shut down, or idle: it holds everything that it held.
        DomainState::Running | DomainState::Blocked | DomainState::Shutdown => Power::Running,
        DomainState::Paused | DomainState::PMSuspended => paused(domain, reason)?,
        DomainState::Shutoff => Power::Off(off(reason)),
        DomainState::Crashed => Power::Off(OffReason::Crashed),
        DomainState::NoState => return unknown(),
    }))
}

fn off(reason: Option<DomainStateReason>) -> OffReason {
    let Some(DomainStateReason::Shutoff(Enum::Known(reason))) = reason else { return OffReason::Unknown };
    match reason {
        DomainShutoffReason::Shutdown => OffReason::Shutdown,
        DomainShutoffReason::Destroyed => OffReason::Destroyed,
        // The emulator died, or the guest panicked; `Daemon`: libvirtd could not take it over again and ended it.
        DomainShutoffReason::Crashed | DomainShutoffReason::Daemon => OffReason::Crashed,
        DomainShutoffReason::Failed => OffReason::Failed,
        DomainShutoffReason::Unknown
        | DomainShutoffReason::Migrated
        | DomainShutoffReason::Saved
        | DomainShutoffReason::FromSnapshot => OffReason::Unknown,
    }
}

fn paused(domain: &VirtDomain, reason: Option<DomainStateReason>) -> Result<Power, Error> {
    let Some(DomainStateReason::Paused(Enum::Known(reason))) = reason else {
        return Ok(Power::Paused { reason: PAUSED.into(), message: "the guest is suspended".into() });
    };
    let errors = match reason {
        // On its way up or down: about to be told again.
        DomainPausedReason::StartingUp | DomainPausedReason::ShuttingDown => return Ok(Power::Running),
        DomainPausedReason::IOError => ffi::disk_errors(domain).map_err(query)?,
        other => {
            let message =
                format!("the guest was paused by somebody on the host ({other:?}); `virsh resume` lets it go on");
            return Ok(Power::Paused { reason: PAUSED.into(), message });
        }
    };
    let full: Vec<&str> = errors
        .iter()
        .filter(|error| error.kind == ffi::DiskErrorKind::NoSpace)
        .map(|error| error.disk.as_str())
        .collect();
    Ok(if full.is_empty() {
        let disks: Vec<&str> = errors.iter().map(|error| error.disk.as_str()).collect();
        let message = format!("the guest's disk {} had an I/O error on this host", disks.join(", "));
        Power::Paused { reason: IO_ERROR.into(), message }
    } else {
        let message = format!("the guest waits for space on this host to write to its disk {}", full.join(", "));
        Power::Paused { reason: OUT_OF_SPACE.into(), message }
    })
}

/// What a domain of somebody else's holds: CPUs and memory while it is active, disk space always.
fn foreign(domain: &VirtDomain, file_system: Option<u64>) -> Result<Option<ForeignDomain>, Error> {
    let asked =
        || -> Result<_, VirtError> { Ok((domain.name()?, domain.is_active()?, domain.info()?, domain.xml_desc(0)?)) };
    let Some((name, active, info, xml)) = unless_gone(asked())? else { return Ok(None) };
    let description = Element::parse(&xml);
    let description = description.map_err(|e| Error::Failed { reason: HYPERVISOR_ERROR, message: e.to_string() })?;
    let (vcpus, memory_kib) = if active { (u64::from(info.nr_virt_cpu), info.max_mem) } else { (0, 0) };
    let bytes: u64 = disks(&description).map(|disk| capacity(domain, disk, file_system)).sum();
    Ok(Some(ForeignDomain { name, vcpus, memory_mib: memory_kib.div_ceil(1024), disk_gib: bytes.div_ceil(GIB) }))
}

/// Files that it may fill: disks, not CDs or floppies, not what it only reads.
fn disks(description: &Element) -> impl Iterator<Item = &str> {
    let devices = description.first("devices").into_iter().flat_map(|devices| devices.all("disk"));
    let writable =
        devices.filter(|disk| disk.get("device").unwrap_or("disk") == "disk" && disk.first("readonly").is_none());
    writable.filter_map(|disk| disk.first("source")?.get("file"))
}

/// What the file may grow to. A file that cannot be read counts nothing, and is logged: it is not ours to judge.
fn capacity(domain: &VirtDomain, file: &str, file_system: Option<u64>) -> u64 {
    let meta = std::fs::metadata(file);
    let elsewhere = matches!((&meta, file_system), (Ok(meta), Some(here)) if meta.dev() != here);
    if elsewhere {
        return 0;
    }
    match domain.block_info(file, 0) {
        Ok(info) => info.capacity.max(info.physical),
        Err(e) => {
            tracing::debug!(file, error = e.message(), "the size of a foreign domain's disk cannot be read");
            meta.map_or(0, |meta| meta.len())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_that_it_may_fill_count() {
        let xml = "<domain><devices>\
            <disk type='file'><source file='/a'/></disk>\
            <disk type='file' device='disk'><source file='/b'/></disk>\
            <disk type='file' device='cdrom'><source file='/c'/></disk>\
            <disk type='file' device='disk'><source file='/d'/><readonly/></disk>\
            <disk type='block' device='disk'><source dev='/dev/sdb'/></disk>\
            <disk type='file' device='disk'/></devices></domain>";
        let description = Element::parse(xml).unwrap();
        assert_eq!(disks(&description).collect::<Vec<_>>(), ["/a", "/b"]);
    }

    #[test]
    fn why_a_domain_is_off() {
        let because = |reason| off(Some(DomainStateReason::Shutoff(Enum::Known(reason))));
        assert_eq!(because(DomainShutoffReason::Shutdown), OffReason::Shutdown);
        assert_eq!(because(DomainShutoffReason::Destroyed), OffReason::Destroyed);
        assert_eq!(because(DomainShutoffReason::Daemon), OffReason::Crashed);
        assert_eq!(because(DomainShutoffReason::Failed), OffReason::Failed);
        assert_eq!(because(DomainShutoffReason::Saved), OffReason::Unknown);
        assert_eq!(off(None), OffReason::Unknown);
    }
}
