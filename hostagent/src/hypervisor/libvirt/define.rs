//! Making everything that an instance consists of on this host, and taking all of it away again.
//!
//! ```text
//! ensure_defined: record ─ disk ─ seed ─ firewall ─ network, addresses ─ filters ─ domain
//! remove:         domain ─ addresses, network ─ firewall ─ emulator's log ─ files ─ record
//! ```
//! The record comes first and goes last, so that a crash anywhere leaves something that knows what to take away. The
//! firewall is in force before a network that it guards comes up.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::Path;

use croft_proto::agent::v1::{DesiredImage, DesiredInstance};
use uuid::Uuid;
use virt_sys as sys;

use super::Libvirt;
use super::connection::QUICK;
use super::error::{self, failed};
use super::lookup::{self, Found};
use super::network::{self, Names, bridge, filter};
use super::paths::Paths;
use super::record::{Network, Record};
use super::{power, spec};
use crate::hypervisor::{Error, HostDevice, Seed};
use crate::media::{self, Ready, durable, overlay, seed};
use crate::reasons::{DISK_MISSING, HYPERVISOR_ERROR, IMAGE_MISSING};

impl Libvirt {
    pub(super) async fn make(
        &self,
        desired: &DesiredInstance,
        texts: &Seed,
        devices: &[HostDevice],
    ) -> Result<(), Error> {
        let uid = spec::uid(desired)?;
        let image = desired.image.as_ref().ok_or_else(|| spec::invalid("it has no image"))?;
        let ready = self.ready(image)?;
        self.refuse_foreign(uid).await?;

        let mut record = spec::record(desired)?;
        if let Some(earlier) = Record::read(&self.paths, uid)? {
            record.disk_was_made = earlier.disk_was_made;
            if desired.disk_generation > earlier.disk_generation {
                self.throw_disk_away(uid).await?;
                record.disk_was_made = false;
            }
            record.disk_generation = desired.disk_generation.max(earlier.disk_generation);
        }
        self.keep(uid, &record).await?;
        if let Some(disk) = desired.disks.first() {
            self.ensure_disk(uid, disk.size_gib, &ready, &mut record).await?;
        }
        let (path, texts) = (self.paths.seed(uid), texts.clone());
        media::blocking("a seed", move || seed::ensure(&path, &texts)).await?;
        let addresses = self.ensure_networks(&record, &desired.name).await?;

        let xml = self.definition(desired, &ready, &addresses, devices)?;
        self.connection
            .act("define a domain", move |connect| {
                filter::ensure(connect)?;
                // Asked again: the uuid may have been taken while the disk was made.
                match lookup::find(connect, uid)? {
                    Found::Foreign => return Err(lookup::conflict(uid)),
                    Found::Ours(_) | Found::Nothing => {}
                }
                connect.define_domain_xml(&xml).map(drop).map_err(|e| error::define(&e))
            })
            .await
    }

    /// With what the firmware remembers of it. Before the record says so: a crash in between finds it gone and goes on.
    async fn throw_disk_away(&self, uid: Uuid) -> Result<(), Error> {
        self.connection
            .act("let go of a disk", move |connect| match lookup::find(connect, uid)? {
                Found::Foreign => Err(lookup::conflict(uid)),
                Found::Nothing => Ok(()),
                Found::Ours(domain) => {
                    power::refuse_running(&domain, uid)?;
                    if domain.has_managed_save(0).map_err(lookup::query)? {
                        // The memory of a guest that ran on the old disk.
                        domain.managed_save_remove(0).map_err(failed(HYPERVISOR_ERROR, "dropping a saved guest"))?;
                    }
                    Ok(())
                }
            })
            .await?;
        let paths = self.paths.clone();
        media::blocking("an old disk", move || {
            durable::remove(&paths.nvram(uid))?;
            durable::remove(&paths.disk(uid))
        })
        .await
        .map_err(Error::from)
    }

    async fn ensure_disk(&self, uid: Uuid, size_gib: i64, ready: &Ready, record: &mut Record) -> Result<(), Error> {
        let path = self.paths.disk(uid);
        if record.disk_was_made && !path.exists() {
            let message = format!(
                "the disk {} of instance {uid} is gone; put it back, or rebuild or delete the instance",
                path.display()
            );
            return Err(Error::Failed { reason: DISK_MISSING, message });
        }
        let base = ready.disk.as_ref().map(|disk| overlay::Base {
            path: &disk.path,
            format: disk.format,
            virtual_size: disk.virtual_size,
        });
        overlay::ensure(&path, base, size_gib).await?;
        record.disk_was_made = true;
        self.keep(uid, record).await
    }

    async fn keep(&self, uid: Uuid, record: &Record) -> Result<(), Error> {
        let (paths, record) = (self.paths.clone(), record.clone());
        media::blocking("an instance's record", move || record.write(&paths, uid)).await.map_err(Error::from)
    }

    fn definition(
        &self,
        desired: &DesiredInstance,
        ready: &Ready,
        addresses: &BTreeMap<String, Ipv4Addr>,
        devices: &[HostDevice],
    ) -> Result<String, Error> {
        let links = spec::Links {
            address: &|mac| addresses.get(mac).copied(),
            bridge: &|name, vlan| bridge::inspect(Path::new("/sys"), name, vlan, self.library_version),
        };
        let mut domain = spec::domain(desired, ready, &self.facts, &self.paths, &links)?;
        domain.devices = devices.to_vec();
        domain.to_xml().map_err(|e| spec::invalid(e.to_string()))
    }

    /// The cached image; the driver fetches it before it asks for a domain.
    fn ready(&self, image: &DesiredImage) -> Result<Ready, Error> {
        self.cache.ready(image)?.ok_or_else(|| Error::Failed {
            reason: IMAGE_MISSING,
            message: format!("image {} is not on this host (any more)", image.name),
        })
    }

    async fn refuse_foreign(&self, uid: Uuid) -> Result<(), Error> {
        let find = move |connect: &virt::connect::Connect| match lookup::find(connect, uid)? {
            Found::Foreign => Err(lookup::conflict(uid)),
            Found::Ours(_) | Found::Nothing => Ok(()),
        };
        self.connection.call(QUICK, "look for a domain", find).await
    }

    /// The tenant's networks with an address for each of the instance's interfaces in them.
    async fn ensure_networks(&self, record: &Record, name: &str) -> Result<BTreeMap<String, Ipv4Addr>, Error> {
        let wanted = tenant_interfaces(record);
        if wanted.is_empty() {
            return Ok(BTreeMap::new());
        }
        let mut firewall = self.firewall.lock().await;
        let mut bridges = self.connection.call(QUICK, "list networks", network::bridges).await?;
        bridges.extend(wanted.iter().map(|(_, names)| names.bridge.clone()));
        firewall.apply(bridges).await?;
        let (range, name) = (self.tenant_subnets, name.to_owned());
        self.connection
            .act("make a tenant's network", move |connect| {
                let ensure = |(mac, names): (String, Names)| {
                    let ip = network::ensure(connect, &names, range, &mac, &name)?;
                    Ok((mac, ip))
                };
                wanted.into_iter().map(ensure).collect()
            })
            .await
    }

    pub(super) async fn take_away(&self, uid: Uuid) -> Result<(), Error> {
        let record = Record::read(&self.paths, uid)?;
        let made = record.is_some();
        self.connection
            .act("undefine a domain", move |connect| {
                let domain = match lookup::find(connect, uid)? {
                    Found::Ours(domain) => domain,
                    Found::Nothing => return Ok(()),
                    // Our own domain whose mark somebody took away, for all we know: it may run on the files below, and
                    // then "gone" would not be true.
                    Found::Foreign if made => return Err(lookup::conflict(uid)),
                    Found::Foreign => return Ok(()),
                };
                power::refuse_running(&domain, uid)?;
                let flags = sys::VIR_DOMAIN_UNDEFINE_NVRAM
                    | sys::VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
                    | sys::VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
                    | sys::VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA;
                domain.undefine_flags(flags).map_err(failed(HYPERVISOR_ERROR, "undefining the domain"))
            })
            .await?;
        if let Some(record) = record {
            self.release_networks(&record).await?;
        }
        let paths = self.paths.clone();
        // A large disk takes its time to go.
        media::blocking("an instance's files", move || remove_files(&paths, uid)).await.map_err(Error::from)
    }

    async fn release_networks(&self, record: &Record) -> Result<(), Error> {
        let held = tenant_interfaces(record);
        if held.is_empty() {
            return Ok(());
        }
        let mut firewall = self.firewall.lock().await;
        let left = self
            .connection
            .act("give an address back", move |connect| {
                held.iter().try_for_each(|(mac, names)| network::release(connect, names, mac))?;
                network::bridges(connect)
            })
            .await?;
        firewall.apply(left).await
    }

    /// Puts the firewall in force again when somebody flushed it away under running guests, or started us with other
    /// options.
    pub(super) async fn keep_firewall(&self) -> Result<(), Error> {
        let mut firewall = self.firewall.lock().await;
        let bridges = self.connection.call(QUICK, "list networks", network::bridges).await?;
        firewall.keep(bridges).await
    }
}

fn tenant_interfaces(record: &Record) -> Vec<(String, Names)> {
    let tenant = |interface: &super::record::Interface| match &interface.network {
        Network::Tenant(tenant) => Some((interface.mac.clone(), Names::of(tenant))),
        Network::Bridge(_) => None,
    };
    record.interfaces.iter().filter_map(tenant).collect()
}

/// The instance's directory, the record last; and what the emulator logged.
fn remove_files(paths: &Paths, uid: Uuid) -> Result<(), media::Error> {
    let log = Paths::emulator_log(uid);
    durable::remove(&log)?;
    for piece in 0.. {
        let mut name = log.clone().into_os_string();
        name.push(format!(".{piece}"));
        let piece = Path::new(&name).to_owned();
        if !piece.exists() {
            break;
        }
        durable::remove(&piece)?;
    }
    let dir = paths.instance(uid);
    let entries = match fs::read_dir(&dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(|e| media::Error::io("list", &dir, &e))?,
    };
    for entry in entries.filter_map(Result::ok).filter(|entry| entry.path() != paths.record(uid)) {
        durable::remove(&entry.path())?;
    }
    durable::remove(&paths.record(uid))?;
    match fs::remove_dir(&dir) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(media::Error::io("remove", &dir, &e)),
        _ => durable::sync_parent(&dir),
    }
}
