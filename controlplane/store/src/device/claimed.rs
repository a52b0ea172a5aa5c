//! Pieces of devices that instances hold: rows of `device_claims`, and on each GPU's row what it is promised for.
//!
//! A GPU's mode, framebuffer and version change here alone, with its pieces, in the same transaction.

use std::collections::{BTreeMap, BTreeSet};

use croft_core::Result;
use croft_core::device::{Atom, Mode};
use croft_core::id::{DeviceId, HostId, InstanceUid};
use croft_core::placement::device::DeviceClaim;
use sqlx::AnyConnection;

use super::{ModeRow, select_gpu_modes};
use crate::column::to_word;
use crate::host::claimed::CPU;
use crate::sql::{insert, sql};

/// One instance's part of one device.
#[derive(Debug, Clone)]
pub(crate) struct Piece<'a> {
    pub host: &'a HostId,
    pub uid: InstanceUid,
    pub claim: &'a DeviceClaim,
}

/// What several claims of one commit make of a GPU.
struct Promised {
    mode: Mode,
    framebuffer_mib: i64,
    vgpu_size_mib: i64,
    version: i64,
}

/// `false`: a GPU has moved on from the version that a claim rests on; what was written must be rolled back.
pub(crate) async fn take(conn: &mut AnyConnection, pieces: &[Piece<'_>]) -> Result<bool> {
    let mut gpus: BTreeMap<(&HostId, &DeviceId), Promised> = BTreeMap::new();
    for piece in pieces {
        let claim = piece.claim;
        let Some(mode) = claim.mode else { continue };
        let blank = Promised { mode, framebuffer_mib: 0, vgpu_size_mib: 0, version: claim.version };
        // The version that the first one saw: the later ones were decided on top of it.
        let gpu = gpus.entry((piece.host, &claim.device)).or_insert(blank);
        gpu.mode = mode;
        gpu.framebuffer_mib += claim.framebuffer_mib;
        gpu.vgpu_size_mib = if claim.vgpu_size_mib > 0 { claim.vgpu_size_mib } else { gpu.vgpu_size_mib };
    }
    for ((host, device), gpu) in gpus {
        let touched = sql("UPDATE gpu_modes
                           SET mode = $4, framebuffer_used_mib = framebuffer_used_mib + $5,
                               vgpu_size_mib = CASE WHEN $6 > 0 THEN $6 ELSE vgpu_size_mib END, version = version + 1
                           WHERE host = $1 AND device = $2 AND version = $3")
        .bind(host)
        .bind(device)
        .bind(gpu.version)
        .bind(to_word(gpu.mode)?)
        .bind(gpu.framebuffer_mib)
        .bind(gpu.vgpu_size_mib)
        .run(conn)
        .await?;
        if touched == 0 {
            return Ok(false);
        }
    }
    let atoms: Vec<(&Piece<'_>, Atom)> =
        pieces.iter().flat_map(|piece| piece.claim.atoms.iter().map(move |atom| (piece, *atom))).collect();
    insert(conn, "INSERT INTO device_claims (host, device, atom, instance_uid)", "", &atoms, |row, (piece, atom)| {
        row.cell(piece.host).cell(&piece.claim.device).cell(*atom).cell(piece.uid)
    })
    .await?;
    Ok(true)
}

/// Deletes the pieces of one instance that these claims name.
pub(crate) async fn delete(
    conn: &mut AnyConnection,
    host: &HostId,
    uid: InstanceUid,
    claims: &[DeviceClaim],
) -> Result<()> {
    for claim in claims {
        sql("DELETE FROM device_claims WHERE host = $1 AND device = $2 AND instance_uid = $3 AND atom IN ")
            .bind(host)
            .bind(&claim.device)
            .bind(uid)
            .list(&claim.atoms)
            .run(conn)
            .await?;
    }
    Ok(())
}

/// After the pieces of `claims` were deleted: gives their framebuffer back; a GPU of which nobody holds any more is IDLE.
pub(crate) async fn give_back(conn: &mut AnyConnection, claims: &[(HostId, DeviceClaim)]) -> Result<()> {
    let mut gpus: BTreeMap<(&HostId, &DeviceId), i64> = BTreeMap::new();
    for (host, claim) in claims.iter().filter(|(_, claim)| claim.mode.is_some()) {
        *gpus.entry((host, &claim.device)).or_default() += claim.framebuffer_mib;
    }
    for ((host, device), framebuffer_mib) in gpus {
        let held = sql("SELECT 1 AS found FROM device_claims WHERE host = $1 AND device = $2 LIMIT 1")
            .bind(host)
            .bind(device)
            .any(conn)
            .await?;
        sql("UPDATE gpu_modes
             SET framebuffer_used_mib = framebuffer_used_mib - $3, version = version + 1,
                 mode = CASE WHEN $4 = 1 THEN mode ELSE 'IDLE' END,
                 vgpu_size_mib = CASE WHEN $4 = 1 THEN vgpu_size_mib ELSE 0 END
             WHERE host = $1 AND device = $2")
        .bind(host)
        .bind(device)
        .bind(framebuffer_mib)
        .bind(held)
        .run(conn)
        .await?;
    }
    Ok(())
}

/// What is held of some hosts' devices, for the checks of a batch, which adds to it what it takes.
#[derive(Debug, Default)]
pub(crate) struct Holdings {
    atoms: BTreeSet<(HostId, DeviceId, Atom)>,
    gpus: BTreeMap<(HostId, DeviceId), Gpu>,
}

#[derive(Debug, Clone)]
struct Gpu {
    mode: Mode,
    framebuffer_mib: i64,
    framebuffer_used_mib: i64,
    vgpu_size_mib: i64,
    mixes: bool,
    version: i64,
}

impl Gpu {
    fn fits(&self, claim: &DeviceClaim, mode: Mode) -> bool {
        claim.version == self.version
            && (self.mode == Mode::Idle || self.mode == mode && mode != Mode::Passthrough)
            && self.framebuffer_used_mib + claim.framebuffer_mib <= self.framebuffer_mib
            && (self.mixes
                || claim.vgpu_size_mib == 0
                || self.vgpu_size_mib == 0
                || claim.vgpu_size_mib == self.vgpu_size_mib)
    }
}

impl Holdings {
    pub async fn read(conn: &mut AnyConnection, hosts: &[HostId]) -> Result<Self> {
        if hosts.is_empty() {
            return Ok(Self::default());
        }
        let rows: Vec<(String, String, String)> = sql("SELECT host, device, atom FROM device_claims WHERE device <> ")
            .push_bind(CPU)
            .push(" AND host IN ")
            .list(hosts)
            .all(conn)
            .await?;
        let modes: Vec<ModeRow> = sql(select_gpu_modes!("WHERE host IN ")).list(hosts).all(conn).await?;
        let gpus = modes.into_iter().map(|row| {
            let gpu = Gpu {
                mode: row.mode()?,
                framebuffer_mib: row.framebuffer_mib,
                framebuffer_used_mib: row.framebuffer_used_mib,
                vgpu_size_mib: row.vgpu_size_mib,
                mixes: row.mixes != 0,
                version: row.version,
            };
            Ok(((HostId(row.host), DeviceId(row.device)), gpu))
        });
        let gpus = gpus.collect::<Result<_>>()?;
        let atoms = rows
            .into_iter()
            .map(|(host, device, text)| Ok((HostId(host), DeviceId(device), super::atom(&text)?)))
            .collect::<Result<_>>()?;
        Ok(Self { atoms, gpus })
    }

    /// Whether all of it is still there to be taken, as whoever placed it believed.
    pub fn fit(&self, host: &HostId, claims: &[DeviceClaim]) -> bool {
        claims.iter().all(|claim| {
            let key = |atom: &Atom| (host.clone(), claim.device.clone(), *atom);
            claim.atoms.iter().all(|atom| !self.atoms.contains(&key(atom)))
                && claim.mode.is_none_or(|mode| {
                    let gpu = self.gpus.get(&(host.clone(), claim.device.clone()));
                    gpu.is_some_and(|gpu| gpu.fits(claim, mode))
                })
        })
    }

    pub fn take(&mut self, host: &HostId, claims: &[DeviceClaim]) {
        for claim in claims {
            self.atoms.extend(claim.atoms.iter().map(|atom| (host.clone(), claim.device.clone(), *atom)));
            let Some(mode) = claim.mode else { continue };
            let Some(gpu) = self.gpus.get_mut(&(host.clone(), claim.device.clone())) else { continue };
            gpu.mode = mode;
            gpu.framebuffer_used_mib += claim.framebuffer_mib;
            gpu.vgpu_size_mib = if claim.vgpu_size_mib > 0 { claim.vgpu_size_mib } else { gpu.vgpu_size_mib };
        }
    }
}
