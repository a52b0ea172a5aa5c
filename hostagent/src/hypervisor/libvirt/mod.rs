//! libvirtd and QEMU on this machine.
//!
//! ```text
//! define ── spec ── domain ── definition, passthrough ── xml   what a domain is, and its text
//!    │        └──── paths, record               where its things lie; what was made
//!    ├──── network/{mod,subnet,filter,firewall,reach,bridge}
//!    └──── crate::media                         image, disk, seed
//! power, guest, console, survey, hot_plug       verbs
//! lookup, metadata                              which domain is ours
//! figures ── ffi_stats                          what guests use
//! connection ── events, ffi, error              libvirt itself
//! ```
//! Nothing here decides *what* should be: verbs in, facts out. Domains without Croft's mark are counted and never touched.
//! The rest of this file is the table of contents of the trait.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use croft_proto::agent::v1::{DesiredImage, DesiredInstance};
use tokio::sync::{Mutex, broadcast};
use uuid::Uuid;

use self::connection::{Connection, QUICK, SLOW};
use self::console::Consoles;
use self::network::firewall::Firewall;
use self::network::subnet::Subnet;
use self::paths::Paths;
use self::power::Request;
use self::spec::Facts;
use super::{About, Duplex, Error, Figures, Guest, HostDevice, Hypervisor, Seed, Survey};
use crate::media::cache::{Cache, Limits};
use crate::media::fetch::Fetcher;
use crate::media::space::{self, GIB};
use crate::media::{self, address::Policy};

pub mod config;
pub mod reasons;

mod connection;
mod console;
mod define;
mod definition;
mod domain;
mod error;
mod events;
mod ffi;
mod ffi_stats;
mod figures;
mod guest;
mod hot_plug;
mod lookup;
mod metadata;
pub mod network;
mod passthrough;
mod paths;
mod power;
mod probe;
mod record;
mod spec;
mod survey;
mod xml;

pub use config::{Args, DomainTypeChoice, LibvirtConfig};

/// How often the firewall is looked at while nothing happens.
const FIREWALL_EVERY: Duration = Duration::from_secs(30);

/// The backend; see the module. Cheap to share, one per agent.
#[derive(Debug)]
pub struct Libvirt {
    connection: Connection,
    paths: Paths,
    cache: Arc<Cache>,
    consoles: Consoles,
    facts: Facts,
    domain_type_reason: String,
    tenant_subnets: Subnet,
    library_version: u32,
    /// One change of networks at a time, because the firewall is written from all of them.
    firewall: Mutex<Firewall>,
    firewall_seen: std::sync::Mutex<Option<Instant>>,
}

/// [`Libvirt::open`] on a thread that may block.
pub async fn open(config: LibvirtConfig) -> Result<Arc<Libvirt>, Error> {
    let opened = tokio::task::spawn_blocking(move || Libvirt::open(config)).await;
    opened.unwrap_or_else(|e| Err(Error::Unavailable(format!("the libvirt backend cannot be opened: {e}"))))
}

impl Libvirt {
    /// Decides the domain type and makes the directories. Must be called within a tokio runtime, and may block for two
    /// seconds. Does not need libvirtd: until it comes, verbs answer [`Error::Unavailable`].
    pub fn open(config: LibvirtConfig) -> Result<Arc<Self>, Error> {
        let paths = Paths::new(&config.state_dir)?;
        paths.ensure()?;
        let decision = probe::decide(config.domain_type)?;
        tracing::info!(domain_type = decision.domain_type.as_str(), reason = decision.reason, "domain type");
        tracing::info!("guests on tenants' networks reach the public internet; {}", config.tenant_reach);
        for (allowed, denied) in config.tenant_reach.overruled() {
            tracing::warn!("--tenant-allow-prefix {allowed} opens nothing: --tenant-deny-prefix {denied} beats it");
        }
        let fetcher = Fetcher::new(Policy { allow: config.allow_prefixes }, config.image_ca_file);
        let limits = Limits {
            max_virtual: config.max_virtual_gib.saturating_mul(GIB),
            disk_reserve: config.disk_reserve_gib.saturating_mul(GIB),
        };
        Ok(Arc::new(Self {
            connection: Connection::new(&config.uri),
            cache: Cache::new(paths.images(), config.image_dir, fetcher, limits),
            paths,
            consoles: Consoles::default(),
            facts: Facts { domain_type: decision.domain_type, cells: numa_cells(), memory_mib: memory_mib() },
            domain_type_reason: decision.reason,
            tenant_subnets: config.tenant_subnets,
            library_version: virt::connect::Connect::version().unwrap_or(0),
            firewall: Mutex::new(Firewall::new(config.tenant_reach)),
            firewall_seen: std::sync::Mutex::default(),
        }))
    }

    async fn versions(&self) -> Result<(u32, u32), Error> {
        let ask = |connect: &virt::connect::Connect| {
            Ok((connect.lib_version().map_err(lookup::query)?, connect.hyp_version().map_err(lookup::query)?))
        };
        self.connection.call(QUICK, "tell its version", ask).await
    }

    fn firewall_is_due(&self) -> bool {
        let mut seen = self.firewall_seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let due = seen.is_none_or(|at| at.elapsed() >= FIREWALL_EVERY);
        if due {
            *seen = Some(Instant::now());
        }
        due
    }
}

#[async_trait]
impl Hypervisor for Libvirt {
    async fn about(&self) -> Result<About, Error> {
        let room = space::room(self.paths.state())?;
        let text = |version: u32| format!("{}.{}.{}", version / 1_000_000, version / 1000 % 1000, version % 1000);
        // A libvirtd that is slow to answer takes no disk away: without that a host would count as one that has none.
        let said = self.versions().await;
        let hypervisor = said.map(|(library, emulator)| format!("libvirt {}, QEMU {}", text(library), text(emulator)));
        Ok(About {
            hypervisor,
            domain_type: self.facts.domain_type.as_str().into(),
            domain_type_reason: self.domain_type_reason.clone(),
            disk_gib: room.total / GIB,
            disk_free_gib: room.free / GIB,
        })
    }

    async fn survey(&self) -> Result<Survey, Error> {
        if self.firewall_is_due() {
            // Says nothing about the domains, so it does not fail the survey.
            if let Err(error) = self.keep_firewall().await {
                tracing::error!(%error, "the rules that keep tenants apart cannot be checked");
            }
        }
        let state_dir = self.paths.state().to_owned();
        self.connection.call(SLOW, "list domains", move |connect| survey::look(connect, &state_dir)).await
    }

    async fn figures(&self) -> Result<Vec<Figures>, Error> {
        self.connection.call(QUICK, "tell what guests use", figures::look).await
    }

    fn events(&self) -> broadcast::Receiver<Option<Uuid>> {
        self.connection.events()
    }

    fn guest_restarts(&self, uid: Uuid) -> Option<u64> {
        Some(self.connection.restarts(uid))
    }

    async fn ensure_image(
        &self,
        image: &DesiredImage,
        progress: &(dyn Fn(u64, u64) + Send + Sync),
    ) -> Result<(), Error> {
        self.cache.ensure(image, progress).await.map(drop).map_err(Error::from)
    }

    async fn prune_images(&self, keep: &[Uuid]) -> Result<(), Error> {
        let (cache, paths, keep) = (Arc::clone(&self.cache), self.paths.clone(), keep.to_vec());
        let prune = move || cache.prune(&keep, &record::images_in_use(&paths)?);
        media::blocking("old images", prune).await.map_err(Error::from)
    }

    async fn ensure_defined(
        &self,
        desired: &DesiredInstance,
        seed: &Seed,
        devices: &[HostDevice],
    ) -> Result<(), Error> {
        self.make(desired, seed, devices).await
    }

    async fn replace_seed(&self, uid: Uuid, seed: &Seed) -> Result<(), Error> {
        let (path, texts) = (self.paths.seed(uid), seed.clone());
        media::blocking("a seed", move || media::seed::replace(&path, &texts)).await.map_err(Error::from)
    }

    async fn attach(&self, uid: Uuid, device: &HostDevice) -> Result<(), Error> {
        self.plug_in(uid, device).await
    }

    async fn detach(&self, uid: Uuid, alias: &str) -> Result<(), Error> {
        self.unplug(uid, alias).await
    }

    async fn start(&self, uid: Uuid) -> Result<(), Error> {
        self.start_domain(uid).await
    }

    async fn request_shutdown(&self, uid: Uuid) -> Result<(), Error> {
        self.request(uid, Request::PowerOff).await
    }

    async fn request_reboot(&self, uid: Uuid) -> Result<(), Error> {
        self.request(uid, Request::Restart).await
    }

    async fn reset(&self, uid: Uuid) -> Result<(), Error> {
        self.reset_domain(uid).await
    }

    async fn destroy(&self, uid: Uuid) -> Result<(), Error> {
        self.destroy_domain(uid).await
    }

    async fn resume(&self, uid: Uuid) -> Result<(), Error> {
        self.resume_domain(uid).await
    }

    async fn remove(&self, uid: Uuid) -> Result<(), Error> {
        self.take_away(uid).await
    }

    async fn guest(&self, uid: Uuid) -> Result<Guest, Error> {
        self.look_at_guest(uid).await
    }

    async fn console(&self, uid: Uuid) -> Result<Box<dyn Duplex>, Error> {
        Ok(Box::new(self.consoles.open(&self.paths, uid).await?))
    }

    async fn console_log(&self, uid: Uuid) -> Result<Vec<PathBuf>, Error> {
        Ok(console::log(&self.paths, uid))
    }

    async fn connect(&self, uid: Uuid, port: u16) -> Result<Box<dyn Duplex>, Error> {
        Ok(Box::new(self.connect_to_guest(uid, port).await?))
    }
}

/// CPUs of each NUMA cell, as the kernel tells them; empty where it knows none.
fn numa_cells() -> BTreeMap<u32, Vec<u32>> {
    let Ok(nodes) = std::fs::read_dir("/sys/devices/system/node") else { return BTreeMap::new() };
    let cell = |entry: std::fs::DirEntry| {
        let id = entry.file_name().to_str()?.strip_prefix("node")?.parse().ok()?;
        let cpus = std::fs::read_to_string(entry.path().join("cpulist")).ok()?;
        Some((id, cpu_numbers(cpus.trim())))
    };
    nodes.filter_map(Result::ok).filter_map(cell).collect()
}

/// All the memory of this machine; when it cannot be told, nothing is refused for it.
fn memory_mib() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = total.and_then(|rest| rest.split_whitespace().next()).and_then(|number| number.parse::<u64>().ok());
    kib.map_or(u64::MAX, |kib| kib / 1024)
}

/// `0-3,8` to numbers.
fn cpu_numbers(list: &str) -> Vec<u32> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse::<u32>().ok()?..=last.parse::<u32>().ok()?)
    };
    list.split(',').filter_map(range).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_lists_of_the_kernel() {
        assert_eq!(cpu_numbers("0-3,8,10-11"), [0, 1, 2, 3, 8, 10, 11]);
        assert_eq!(cpu_numbers(""), [0; 0]);
    }
}
