//! What the agent asks of a hypervisor: our verbs, not libvirt's.
//!
//! Two implementations, chosen by configuration at start: [`libvirt`] drives libvirtd and QEMU; [`simulated`] keeps its
//! state in a directory and refuses what libvirt refuses. Both must pass one story, `tests/conformance`.
//!
//! Every verb is safe to repeat and says nothing about intent: the driver of each instance (`crate::driver`) decides what
//! to call when. Uids are the instance's; a domain without Croft's mark is *foreign* and never an argument here.

use std::collections::BTreeMap;
use std::path::PathBuf;

use async_trait::async_trait;
use croft_proto::agent::v1::{DesiredImage, DesiredInstance};
use croft_proto::v1;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::broadcast;
use uuid::Uuid;

use crate::reasons;

pub mod figures;
mod host_device;
pub mod libvirt;
mod machine;
pub mod simulated;

pub use figures::Figures;
pub use host_device::{Attached, HostDevice, Rom, Source};

/// A hypervisor on this machine.
#[async_trait]
pub trait Hypervisor: Send + Sync + 'static {
    /// What it is, for `HostInfo`: version text, domain type and why that one.
    async fn about(&self) -> Result<About, Error>;

    /// One look at every domain, Croft's and foreign. An error means "not seen", never "nothing there".
    async fn survey(&self) -> Result<Survey, Error>;

    /// What the domains that run have used, foreign ones perhaps among them; one that cannot tell now is left out.
    async fn figures(&self) -> Result<Vec<Figures>, Error>;

    /// Something may have changed for this uid (`None`: look at everything again). Lossy on purpose: a lagging reader
    /// surveys.
    fn events(&self) -> broadcast::Receiver<Option<Uuid>>;

    /// The machine's boot: another one after every restart of the machine, the same one after a restart of the agent.
    async fn boot_id(&self) -> Result<String, Error> {
        machine::boot_id().await
    }

    /// The machine is on its way down: a guest that ends now did not power itself off, and none is to be started.
    async fn host_is_stopping(&self) -> bool {
        machine::is_stopping().await
    }

    /// How often this guest has restarted while this process watched (libvirt: reboot events); only differences mean
    /// something. `None`: cannot tell, so a reboot counts as done once it was asked for.
    fn guest_restarts(&self, _uid: Uuid) -> Option<u64> {
        None
    }

    /// Makes the image usable on this host: fetched, verified, cached. Progress goes to `progress` (done, total bytes).
    /// Called for one image by one caller at a time; dropping the future gives up, and what was fetched may be kept for
    /// the next try.
    async fn ensure_image(
        &self,
        image: &DesiredImage,
        progress: &(dyn Fn(u64, u64) + Send + Sync),
    ) -> Result<(), Error>;

    /// Drops cached images that are not in `keep` (uids) and that no disk is an overlay of.
    async fn prune_images(&self, keep: &[Uuid]) -> Result<(), Error>;

    /// Disk, seed, network and definition; the domain is not started. `seed`: see [`Seed`]. The image must be there, and so
    /// must `devices`, bound as their kind demands.
    /// Repeated before every start, so it also mends what a restart of the machine took away (an inactive network), and
    /// brings a definition of an older generation up to date. An existing disk is made anew only where it is of a lower
    /// `disk_generation` than is asked for: then what is on it is lost, and the domain must not run.
    async fn ensure_defined(&self, desired: &DesiredInstance, seed: &Seed, devices: &[HostDevice])
    -> Result<(), Error>;

    /// Brings the seed that [`Hypervisor::ensure_defined`] made up to date, whether the domain runs or not: a guest that runs
    /// reads the new one from now on, and nothing of the old one is left. Refused with SeedTooLarge where the new one does not
    /// fit in the place of the old one, which a guest that runs cannot be given another of.
    async fn replace_seed(&self, uid: Uuid, seed: &Seed) -> Result<(), Error>;

    /// Gives a running guest one device more, now and for later starts; nothing to do when it has one of that alias.
    async fn attach(&self, uid: Uuid, device: &HostDevice) -> Result<(), Error>;

    /// Takes a device out of a domain, now and for later starts; nothing to do when it has none of that alias. Returns
    /// when the guest has let go, or fails with DeviceNotReleased when it does not in time; it may still do so later.
    async fn detach(&self, uid: Uuid, alias: &str) -> Result<(), Error>;

    /// Starts a defined domain; nothing to do when it runs.
    async fn start(&self, uid: Uuid) -> Result<(), Error>;

    /// Asks the guest to power off (agent, else ACPI) and returns at once.
    async fn request_shutdown(&self, uid: Uuid) -> Result<(), Error>;

    /// Asks the guest to restart and returns at once.
    async fn request_reboot(&self, uid: Uuid) -> Result<(), Error>;

    /// The reset button.
    async fn reset(&self, uid: Uuid) -> Result<(), Error>;

    /// Pulls the plug; nothing to do when it does not run.
    async fn destroy(&self, uid: Uuid) -> Result<(), Error>;

    /// Lets a domain that was paused by an I/O error (ENOSPC) go on.
    async fn resume(&self, uid: Uuid) -> Result<(), Error>;

    /// Removes everything of it that [`Hypervisor::ensure_defined`] made, domain, disk, seed, NVRAM and a network that
    /// nobody uses any more; not the console log, which the janitor ages out. The domain must not run.
    async fn remove(&self, uid: Uuid) -> Result<(), Error>;

    /// What the guest says of itself: addresses (guest agent, else DHCP lease) and whether the guest agent answers.
    async fn guest(&self, uid: Uuid) -> Result<Guest, Error>;

    /// The live serial console. One holder at a time: a second one is refused with [`Error::Busy`].
    async fn console(&self, uid: Uuid) -> Result<Box<dyn Duplex>, Error>;

    /// Files of the console log, oldest first; empty when nothing was ever written.
    async fn console_log(&self, uid: Uuid) -> Result<Vec<PathBuf>, Error>;

    /// A TCP connection to a port of the guest, from the host's side of its network.
    async fn connect(&self, uid: Uuid, port: u16) -> Result<Box<dyn Duplex>, Error>;
}

/// Bytes in both directions.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

#[derive(Debug)]
pub struct About {
    /// `libvirt 9.0.0, QEMU 7.2.22`; an error: it does not say so now, and the rest holds all the same.
    pub hypervisor: Result<String, Error>,
    /// `kvm`, `qemu` or `simulated`
    pub domain_type: String,
    pub domain_type_reason: String,
    /// In GiB, of the file system that holds images and disks.
    pub disk_gib: u64,
    pub disk_free_gib: u64,
}

/// Everything seen in one successful look.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Survey {
    pub ours: Vec<Domain>,
    pub foreign: Vec<ForeignDomain>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Domain {
    pub uid: Uuid,
    pub power: Power,
    /// From the domain's metadata: the desired generation it was defined from.
    pub generation: i64,
    /// The `disk_generation` that its root disk was made for.
    pub disk_generation: i64,
    /// What it has of the host's, now; of one that is off: what it will have when it is started.
    pub devices: Vec<Attached>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Power {
    Running,
    /// Paused; `reason` is `OutOfSpace`, `IoError` or `Paused`.
    Paused {
        reason: String,
        message: String,
    },
    /// Defined, not running, and how it came to that as far as the hypervisor knows.
    Off(OffReason),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OffReason {
    /// Never ran since it was defined, or the hypervisor does not know (after a host reboot, for example).
    Unknown,
    /// The guest powered itself off, asked or not.
    Shutdown,
    /// The plug was pulled.
    Destroyed,
    Crashed,
    /// It did not come up.
    Failed,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignDomain {
    pub name: String,
    pub vcpus: u64,
    pub memory_mib: u64,
    pub disk_gib: u64,
}

/// The texts of a NoCloud seed, as fetched by digest.
#[derive(Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Seed {
    #[serde(rename = "meta-data")]
    pub meta_data: String,
    #[serde(rename = "user-data")]
    pub user_data: String,
    #[serde(rename = "network-config", default)]
    pub network_config: Option<String>,
    /// More files on the volume, by plain name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub files: BTreeMap<String, String>,
}

impl std::fmt::Debug for Seed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seed(secret)")
    }
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Guest {
    pub addresses: Vec<v1::Address>,
    /// The guest agent answered.
    pub agent: bool,
}

/// Why a verb did not do its work. `reason` strings are UpperCamelCase and have a page in docs/errors.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The hypervisor does not answer; try again later. Says nothing about the domains.
    #[error("{0}")]
    Unavailable(String),
    /// No such domain.
    #[error("no domain {0}")]
    NotFound(Uuid),
    /// Held by somebody else.
    #[error("{0}")]
    Busy(String),
    /// Will not work however often it is tried: a hostile image, an unknown bridge, a full disk.
    #[error("{message}")]
    Refused { reason: &'static str, message: String },
    /// Anything else; worth another try with back-off.
    #[error("{reason}: {message}")]
    Failed { reason: &'static str, message: String },
}

impl Error {
    /// One of `crate::reasons`.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Unavailable(_) => reasons::HYPERVISOR_UNAVAILABLE,
            Self::NotFound(_) => reasons::DOMAIN_MISSING,
            Self::Busy(_) => reasons::HYPERVISOR_BUSY,
            Self::Refused { reason, .. } | Self::Failed { reason, .. } => reason,
        }
    }

    /// Without the reason, which is shown beside it.
    #[must_use]
    pub fn message(&self) -> String {
        match self {
            Self::Refused { message, .. } | Self::Failed { message, .. } => message.clone(),
            Self::Unavailable(_) | Self::NotFound(_) | Self::Busy(_) => self.to_string(),
        }
    }
}
