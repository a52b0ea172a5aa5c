//! Making devices ready for an instance: found, checked, carved, bound. Safe to repeat, before every start.
//!
//! ```text
//!  look ─► the one that was placed? ─► plan ─► journal: who, and the way back ─► steps ─► look ─► next
//!             │ no                       │ refused                                │ failed
//!             ▼                          ▼                                        ▼
//!         DeviceChanged, …         the planner's reason                  as before, or marked
//! ```
//! The way back is asked before the first step and journaled with the hold: afterwards the host no longer shows it. A hold is
//! forgotten only where the device is known to be as before.

use croft_gpu::host::Host;
use croft_gpu::pci::{PciAddress, Space};
use croft_gpu::plan::{self, MigPiece, Mode, Wish};
use croft_proto::agent::v1::DesiredDevice;
use uuid::Uuid;

use super::find::{self, Found};
use super::obstacle::{self, Obstacle};
use super::record::{Hold, LayoutMode, Piece, Record, Taken, Who};
use super::request::{self, Request};
use super::session::{Session, Setback};
use crate::crash;
use crate::hypervisor::{HostDevice, Rom, Source};
use crate::reasons;

impl Session<'_> {
    /// All of them, or the first obstacle; what is held by then stays held, until it is given back.
    pub async fn hold_all(&mut self, uid: Uuid, desired: &[DesiredDevice]) -> Result<Vec<HostDevice>, Obstacle> {
        for device in desired {
            self.hold_one(uid, device).await?;
        }
        // Fabric Manager trains the links of GPUs that are with their guest's driver already.
        for device in desired {
            let request = Request::check(self.host(), &self.record().await, device)?;
            if let Request::Function { partition: Some(id), .. } = request {
                let (wish, back) =
                    (Wish::FabricPartition { id, active: true }, Wish::FabricPartition { id, active: false });
                let taken = Taken { wish, back: Some(back), pieces: Vec::new() };
                self.make_true(uid, &device.id, &device.device, taken).await?;
            }
        }
        let record = self.record().await;
        let devices = desired.iter().map(|device| host_devices(self.host(), &record, uid, device));
        Ok(devices.collect::<Result<Vec<_>, _>>()?.concat())
    }

    async fn hold_one(&mut self, uid: Uuid, desired: &DesiredDevice) -> Result<(), Obstacle> {
        let request = Request::check(self.host(), &self.record().await, desired)?;
        let (id, device) = (desired.id.as_str(), desired.device.as_str());
        match request {
            Request::Function { address, companions, .. } => {
                let taken = self.function(uid, address, &companions).await?;
                self.make_true(uid, id, device, taken).await
            }
            Request::Slice { gpu, index, type_name, piece } => {
                self.set_up(uid, id, device, gpu, piece.as_ref()).await?;
                let wish = request::slice(self.host(), (uid, id), gpu, index, &type_name, piece.as_ref())?;
                let taken = self.vgpu(wish, gpu, piece)?;
                self.let_go_of_other_slices(uid, id, &taken.wish).await?;
                self.make_true(uid, id, device, taken).await
            }
            Request::Mediated { parent, type_name } => {
                let uuid = request::mdev_uuid(uid, id);
                let wish = Wish::Mdev { parent, type_name, uuid: uuid.clone(), gpu_instance: None };
                let back = plan::give_back(self.host(), &wish)?;
                let taken = Taken { wish, back, pieces: vec![Piece::Mdev(uuid)] };
                self.make_true(uid, id, device, taken).await
            }
            // Nothing is bound: QEMU takes it from its driver when it is attached, and gives it back by itself. Then it is
            // cleaned.
            Request::Usb => {
                let found = find::device(self.host(), &self.record().await, device)?;
                if let Who::Usb(known) = self.remembered(device, found).await {
                    let wish = Wish::Usb { device: known };
                    let back = plan::give_back(self.host(), &wish)?;
                    return self.make_true(uid, id, device, Taken { wish, back, pieces: Vec::new() }).await;
                }
                Err(Obstacle::new(reasons::DEVICE_CHANGED, format!("{device} is no USB device now")))
            }
        }
    }

    /// Who it was when it was first seen: a stick keeps that, whichever port it is in.
    async fn remembered(&self, device: &str, found: Found<'_>) -> Who {
        let record = self.record().await;
        record.known.get(device).map_or_else(|| find::who(self.host(), found), |known| known.who.clone())
    }

    async fn function(&self, uid: Uuid, address: PciAddress, companions: &[PciAddress]) -> Result<Taken, Obstacle> {
        let record = self.record().await;
        let wish = Wish::Passthrough { address };
        let back = plan::give_back(self.host(), &wish)?;
        let Some(Wish::Return { homes }) = &back else {
            return Err(Obstacle::new(reasons::DEVICE_CHANGED, format!("there is no way back for {address}")));
        };
        // A companion that was not claimed may be somebody else's.
        if let Some(other) = homes.keys().find(|other| **other != address && !companions.contains(other)) {
            let message = format!("{other} is in the IOMMU group of {address} now, and was not when this was placed");
            return Err(Obstacle::new(reasons::DEVICE_CHANGED, message));
        }
        for going in homes.keys() {
            if let Some((of, mark)) = record.marks.get_key_value(&going.to_string()) {
                return Err(obstacle::of_mark(of, mark));
            }
            let foreign = record.layout.modes.get(going) == Some(&LayoutMode::Foreign);
            if foreign && record.holder_of_function(*going) != Some(uid) {
                let message = format!("{going} is left to others by the layout of this host");
                return Err(Obstacle::new(reasons::DEVICE_FOREIGN, message));
            }
        }
        let others = homes.keys().filter(|other| **other != address);
        let pieces = [&address].into_iter().chain(others).map(|address| Piece::Function(*address)).collect();
        Ok(Taken { wish, back, pieces })
    }

    fn vgpu(&self, wish: Wish, gpu: PciAddress, piece: Option<MigPiece>) -> Result<Taken, Obstacle> {
        let back = plan::give_back(self.host(), &wish)?;
        let mut pieces = match &wish {
            Wish::Vgpu { function, .. } => vec![Piece::Function(*function)],
            Wish::Mdev { parent, uuid, .. } => {
                let function = parent.parse().ok().map(Piece::Function);
                [Piece::Mdev(uuid.clone())].into_iter().chain(function).collect()
            }
            _ => Vec::new(),
        };
        pieces.extend(piece.map(|piece| Piece::GpuInstance { gpu, piece }));
        Ok(Taken { wish, back, pieces })
    }

    /// One request has one slice. It is on another function than before where a reboot gave the functions other addresses.
    async fn let_go_of_other_slices(&mut self, uid: Uuid, id: &str, slice: &Wish) -> Result<(), Obstacle> {
        let is_slice = |wish: &Wish| matches!(wish, Wish::Vgpu { .. } | Wish::Mdev { .. });
        let hold = self.record().await.hold(uid, id).cloned().unwrap_or_default();
        for other in hold.taken.iter().filter(|taken| is_slice(&taken.wish) && taken.wish != *slice) {
            if let Some(back) = other.back.as_ref().filter(|back| !self.is_gone(back)) {
                self.way_home(Some(uid), &hold.device, back).await?;
            }
            self.note(|record| forget(record, uid, id, &other.wish)).await?;
        }
        Ok(())
    }

    /// The GPU's mode. Where it goes back to is kept for all who hold a slice of it together.
    async fn set_up(
        &mut self,
        uid: Uuid,
        id: &str,
        device: &str,
        gpu: PciAddress,
        piece: Option<&MigPiece>,
    ) -> Result<(), Obstacle> {
        let record = self.record().await;
        let mode = match held_mode(&record, uid, id) {
            Some(mode) => mode,
            None => request::mode(self.host(), &record, gpu, piece)?,
        };
        if !record.modes.contains_key(&gpu) {
            let home = request::current_mode(self.host(), gpu)?;
            self.note(|record| {
                record.modes.insert(gpu, home);
            })
            .await?;
        }
        let taken = Taken { wish: Wish::Mode { gpu, mode }, back: None, pieces: Vec::new() };
        let made = self.make_true(uid, id, device, taken).await;
        if made.is_err() {
            // Nobody changed it, as far as is known: nothing leads back.
            self.note(|record| {
                if !record.is_sliced(gpu) {
                    record.modes.remove(&gpu);
                }
            })
            .await?;
        }
        made
    }

    /// Makes one wish true, and journals it before.
    pub async fn make_true(&mut self, uid: Uuid, id: &str, device: &str, taken: Taken) -> Result<(), Obstacle> {
        let plan = self.plan(Some(uid), &taken.wish).await?;
        let record = self.record().await;
        let is_new = record.hold(uid, id).is_none_or(|hold| !hold.taken.iter().any(|known| known.wish == taken.wish));
        let wish = taken.wish.clone();
        if is_new {
            crash::point("agent.hold.before");
            self.note(|record| hold_of(record, uid, id, device).taken.push(taken)).await?;
            crash::point("agent.hold.after");
        }
        let carried = match wish {
            Wish::Mode { gpu, .. } => self.carry_out_mode(Some(uid), gpu, &wish, plan).await,
            _ => self.carry_out(device, plan).await.map(drop),
        };
        match carried {
            Ok(()) => Ok(()),
            Err(Setback::AsBefore(obstacle)) if is_new => {
                self.note(|record| forget(record, uid, id, &wish)).await?;
                Err(obstacle)
            }
            Err(setback) => Err(setback.into()),
        }
    }
}

fn hold_of<'r>(record: &'r mut Record, uid: Uuid, id: &str, device: &str) -> &'r mut Hold {
    let new = || Hold { device: device.to_owned(), taken: Vec::new() };
    record.holds.entry(uid).or_default().entry(id.to_owned()).or_insert_with(new)
}

fn forget(record: &mut Record, uid: Uuid, id: &str, wish: &Wish) {
    let Some(holds) = record.holds.get_mut(&uid) else { return };
    if let Some(hold) = holds.get_mut(id) {
        hold.taken.retain(|taken| taken.wish != *wish);
        if hold.taken.is_empty() {
            holds.remove(id);
        }
    }
    if holds.is_empty() {
        record.holds.remove(&uid);
    }
}

/// The mode in which this very slice was made, which a reboot does not change.
fn held_mode(record: &Record, uid: Uuid, id: &str) -> Option<Mode> {
    record.hold(uid, id)?.taken.iter().find_map(|taken| match &taken.wish {
        Wish::Mode { mode, .. } => Some(*mode),
        _ => None,
    })
}

/// What the guest's definition says of a request that is held.
pub(super) fn host_devices(
    host: &Host,
    record: &Record,
    uid: Uuid,
    desired: &DesiredDevice,
) -> Result<Vec<HostDevice>, Obstacle> {
    let not_held = || Obstacle::new(reasons::DEVICE_MISSING, format!("{} is not held", desired.device));
    let request = Request::check(host, record, desired)?;
    let hold = record.hold(uid, &desired.id).ok_or_else(not_held)?;
    if let (Request::Usb, Found::Usb(device)) = (&request, find::device(host, record, &desired.device)?) {
        let source = Source::Usb { bus: device.port.bus, device: device.device_number };
        return Ok(vec![HostDevice { alias: HostDevice::alias(&desired.id, 0), source, numa_node: None }]);
    }
    let mut devices = Vec::new();
    for taken in &hold.taken {
        let sources: Vec<(Source, Option<PciAddress>)> = match &taken.wish {
            Wish::Passthrough { .. } => {
                let functions = taken.pieces.iter().filter_map(|piece| match piece {
                    Piece::Function(address) => Some(*address),
                    Piece::Mdev(_) | Piece::GpuInstance { .. } => None,
                });
                functions.map(|address| (function_source(host, address, &request), Some(address))).collect()
            }
            Wish::Vgpu { function, .. } => vec![(Source::VgpuFunction { address: *function }, Some(*function))],
            Wish::Mdev { uuid, parent, .. } => vec![(Source::Mdev { uuid: uuid.clone() }, parent.parse().ok())],
            _ => Vec::new(),
        };
        for (source, address) in sources {
            let numa_node = host.pci.devices.iter().find(|function| Some(function.address) == address);
            let numa_node = numa_node.and_then(|function| function.numa_node);
            let alias = HostDevice::alias(&desired.id, devices.len());
            devices.push(HostDevice { alias, source, numa_node });
        }
    }
    if devices.is_empty() { Err(not_held()) } else { Ok(devices) }
}

fn function_source(host: &Host, address: PciAddress, request: &Request) -> Source {
    if let Request::Function { mac: Some(mac), address: main, .. } = request
        && *main == address
    {
        return Source::NicFunction { address, mac: mac.clone() };
    }
    let bars = host.pci.devices.iter().find(|function| function.address == address);
    let bars = bars.into_iter().flat_map(|function| &function.bars).filter(|bar| bar.space == Space::Memory64);
    let window_mib = bars.map(|bar| bar.bytes.next_power_of_two() >> 20).sum();
    let rom = if find::is_gpu(host, address) { Rom::Hidden } else { Rom::Shown };
    Source::Function { address, rom, window_mib }
}
