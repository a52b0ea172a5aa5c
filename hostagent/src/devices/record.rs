//! What the agent must still know of devices after a crash or a reboot: one file beside the instances' records.
//!
//! Written before the effect where losing it would do harm (who holds what, where a function belongs, which wishes a hold is
//! made of), and after it where a repetition is harmless (resets, marks lifted).

use std::collections::{BTreeMap, BTreeSet};

use base64::engine::general_purpose::STANDARD as BASE64;
use croft_gpu::apply::Left;
use croft_gpu::gpu::Fault;
use croft_gpu::identity::Identity;
use croft_gpu::pci::PciAddress;
use croft_gpu::plan::usb::UsbIdentity;
use croft_gpu::plan::{MigPiece, Mode, Wish};
use croft_proto::v1;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

/// Raised when a reader of the old form would misunderstand the new one.
pub const FORMAT: u32 = 1;

/// A PCI address, the name of a maker of mediated devices, or `usb-…`: as the plane knows a device.
pub type DeviceId = String;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    pub format: u32,
    /// The boot in which everything below was last made true.
    #[serde(default)]
    pub boot_id: String,
    /// Who each device was when it was first seen, or when it was last accepted.
    #[serde(default)]
    pub known: BTreeMap<DeviceId, Known>,
    #[serde(default)]
    pub marks: BTreeMap<DeviceId, Mark>,
    /// The last release of each device that was carried out.
    #[serde(default)]
    pub releases: BTreeMap<DeviceId, i64>,
    /// By instance, and by the id of the request.
    #[serde(default)]
    pub holds: BTreeMap<Uuid, BTreeMap<String, Hold>>,
    /// GPUs that were set up for slices, and the mode that they go back to.
    #[serde(default)]
    pub modes: BTreeMap<PciAddress, Mode>,
    /// Physical functions that the layout gave virtual ones, and the wish that takes these away again.
    #[serde(default)]
    pub functions: BTreeMap<PciAddress, Wish>,
    /// What of a device is still to be done before anybody else may have it: wishes that lead it home.
    #[serde(default)]
    pub unreturned: BTreeMap<DeviceId, Vec<Wish>>,
    /// Steps of a failed plan that could not be taken back.
    #[serde(default)]
    pub left: BTreeMap<DeviceId, Vec<Left>>,
    /// What GPUs reported of themselves, which no look finds again. Until a reboot, a reset of ours, or an operator's word.
    #[serde(default)]
    pub faults: BTreeMap<PciAddress, Vec<Fault>>,
    #[serde(default)]
    pub resets: BTreeMap<DeviceId, Cleaned>,
    /// Intent, as the plane last told it.
    #[serde(default)]
    pub layout: Layout,
    /// The file could not be read: nothing is known of who holds what.
    #[serde(default)]
    pub corrupt: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Known {
    pub who: Who,
    /// The boot in which it last said that it is that one: while the machine is on, cards do not change.
    #[serde(default)]
    pub proven: String,
    /// The report of it without what changes: for when it is missing, and for what a GPU tells only while it has its driver.
    #[serde(with = "wire")]
    pub device: v1::Device,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Who {
    Pci(Identity),
    Usb(UsbIdentity),
    /// A device without hardware, known by its name alone.
    Named,
}

/// Nothing new is placed on a marked device, and nothing that holds it is started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    pub kind: MarkKind,
    /// One of `crate::reasons`.
    pub reason: String,
    pub message: String,
    /// Microseconds since 1970.
    pub time: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum MarkKind {
    /// Doubt. Until somebody releases it.
    Quarantined,
    /// A write to it never returned. Until the machine has another boot.
    Stuck { boot_id: String },
    /// Another card than the one that is remembered. Until somebody releases it.
    Changed,
}

/// What an instance holds by one request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    pub device: DeviceId,
    /// In the order in which they were made true; given back from the last to the first.
    pub taken: Vec<Taken>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taken {
    pub wish: Wish,
    /// `None`: nothing of its own to give back.
    pub back: Option<Wish>,
    pub pieces: Vec<Piece>,
}

/// What nobody else may have meanwhile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Piece {
    Function(PciAddress),
    Mdev(String),
    GpuInstance { gpu: PciAddress, piece: MigPiece },
}

/// The last time that a device was cleaned between two holders.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cleaned {
    pub method: String,
    /// Microseconds since 1970.
    pub time: i64,
    pub clean: bool,
    pub message: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    pub generation: i64,
    /// How many virtual functions each physical one is to have; not for GPUs.
    pub functions: BTreeMap<PciAddress, u16>,
    pub modes: BTreeMap<PciAddress, LayoutMode>,
    /// Which hardware was at those addresses when the layout first named them: it is meant for that, and for no other.
    #[serde(default)]
    pub meant: BTreeMap<PciAddress, Identity>,
    /// What was asked for and cannot be understood.
    pub nonsense: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LayoutMode {
    Idle,
    Vgpu,
    MigVgpu,
    /// Left to others, never touched.
    Foreign,
}

impl Layout {
    #[must_use]
    pub fn names(&self, address: PciAddress) -> bool {
        self.functions.contains_key(&address) || self.modes.contains_key(&address)
    }
}

impl Default for Record {
    fn default() -> Self {
        Self {
            format: FORMAT,
            boot_id: String::new(),
            known: BTreeMap::new(),
            marks: BTreeMap::new(),
            releases: BTreeMap::new(),
            holds: BTreeMap::new(),
            modes: BTreeMap::new(),
            functions: BTreeMap::new(),
            unreturned: BTreeMap::new(),
            left: BTreeMap::new(),
            faults: BTreeMap::new(),
            resets: BTreeMap::new(),
            layout: Layout::default(),
            corrupt: None,
        }
    }
}

impl Record {
    #[must_use]
    pub fn hold(&self, uid: Uuid, request: &str) -> Option<&Hold> {
        self.holds.get(&uid)?.get(request)
    }

    /// Ids of the requests by which an instance holds something.
    #[must_use]
    pub fn held(&self, uid: Uuid) -> BTreeSet<String> {
        self.holds.get(&uid).into_iter().flat_map(BTreeMap::keys).cloned().collect()
    }

    /// Does anybody hold something of it?
    #[must_use]
    pub fn is_held(&self, device: &str) -> bool {
        self.holds.values().flat_map(BTreeMap::values).any(|hold| hold.device == device)
    }

    /// Is it held, or is something to be settled before anybody else may have it?
    #[must_use]
    pub fn is_spoken_for(&self, device: &str) -> bool {
        let open = self.unreturned.contains_key(device) || self.left.contains_key(device);
        open || self.marks.contains_key(device) || self.is_held(device)
    }

    /// Everything that anybody holds, with whose it is.
    pub fn pieces(&self) -> impl Iterator<Item = (Uuid, &Hold, &Piece)> {
        self.holds.iter().flat_map(|(&uid, holds)| {
            holds.values().flat_map(move |hold| {
                hold.taken.iter().flat_map(|taken| &taken.pieces).map(move |piece| (uid, hold, piece))
            })
        })
    }

    /// Does anybody hold it, doubt it, or want it to be like this or that? Then what becomes of it is not for the agent to say.
    #[must_use]
    pub fn is_spoken_for_or_laid_out(&self, device: &str) -> bool {
        let named = device.parse::<PciAddress>().is_ok_and(|address| self.layout.names(address));
        named
            || self.is_spoken_for(device)
            || device.parse().is_ok_and(|address| self.holder_of_function(address).is_some())
    }

    /// Who holds the whole of a function.
    #[must_use]
    pub fn holder_of_function(&self, address: PciAddress) -> Option<Uuid> {
        let is = |piece: &Piece| *piece == Piece::Function(address);
        self.pieces().find(|(_, _, piece)| is(piece)).map(|(uid, ..)| uid)
    }

    /// Does anybody hold a slice of this GPU?
    #[must_use]
    pub fn is_sliced(&self, gpu: PciAddress) -> bool {
        let of_it = |taken: &Taken| matches!(&taken.wish, Wish::Mode { gpu: of, .. } if *of == gpu);
        self.holds.values().flat_map(BTreeMap::values).flat_map(|hold| &hold.taken).any(of_it)
    }
}

/// A report is kept in its wire form: nothing of it can get lost between two notations.
mod wire {
    use super::{BASE64, Deserialize, Deserializer, Serialize, Serializer, v1};
    use base64::Engine as _;
    use prost::Message as _;

    pub fn serialize<S: Serializer>(device: &v1::Device, to: S) -> Result<S::Ok, S::Error> {
        BASE64.encode(device.encode_to_vec()).serialize(to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<v1::Device, D::Error> {
        let bytes = BASE64.decode(String::deserialize(from)?).map_err(serde::de::Error::custom)?;
        v1::Device::decode(bytes.as_slice()).map_err(serde::de::Error::custom)
    }
}
