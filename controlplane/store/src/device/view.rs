//! Devices as placement sees them.

use std::collections::BTreeMap;
use std::sync::Arc;

use croft_core::Result;
use croft_core::device::{Device, DeviceLayout, Mode};
use croft_core::id::{DeviceId, HostId};
use croft_core::placement::HostView;
use croft_core::placement::device::{DeviceView, DeviceViews};
use sqlx::AnyConnection;

use super::elsewhere::Elsewhere;
use super::{ModeRow, Row, of, select_devices, select_gpu_modes};
use crate::column::from_json;
use crate::sql::sql;

/// What was read beside the hosts themselves.
pub(crate) struct Devices {
    views: BTreeMap<HostId, DeviceViews>,
    modes: BTreeMap<HostId, Vec<(ModeRow, Mode)>>,
}

impl Devices {
    /// Of one host, or of all.
    pub async fn read(conn: &mut AnyConnection, host: Option<&HostId>) -> Result<Self> {
        let rows: Vec<Row> = of(sql(select_devices!("WHERE 1 = 1")), host).all(conn).await?;
        let modes: Vec<ModeRow> = of(sql(select_gpu_modes!("WHERE 1 = 1")), host).all(conn).await?;
        let layouts: Vec<(String, String)> =
            of(sql("SELECT host, devices FROM host_layouts WHERE 1 = 1"), host).all(conn).await?;
        let mut views: BTreeMap<HostId, DeviceViews> = BTreeMap::new();
        let rows: Vec<(Row, Device)> = rows.into_iter().map(Row::with_device).collect::<Result<_>>()?;
        let elsewhere = Elsewhere::among(conn, &rows, host).await?;
        for (row, device) in rows {
            let device = elsewhere.mark(&row.host, device);
            let view = DeviceView::new(Arc::new(device), row.quarantine.is_some());
            views.entry(HostId(row.host)).or_default().0.insert(DeviceId(row.device), view);
        }
        for (host, text) in layouts {
            let layout: Vec<DeviceLayout> = from_json(&text, "host_layouts.devices")?;
            let Some(views) = views.get_mut(&HostId(host)) else { continue };
            for one in layout {
                if let Some(view) = views.0.get_mut(&one.device) {
                    view.kept_for = one.gpu_mode;
                }
            }
        }
        let mut by_host: BTreeMap<HostId, Vec<(ModeRow, Mode)>> = BTreeMap::new();
        for row in modes {
            let mode = row.mode()?;
            by_host.entry(HostId(row.host.clone())).or_default().push((row, mode));
        }
        Ok(Self { views, modes: by_host })
    }

    /// Before the host's claims are taken.
    pub fn fill(&mut self, view: &mut HostView) {
        view.devices = self.views.remove(&view.id).unwrap_or_default();
    }

    /// After them: what the GPUs' own rows say is what a claim is decided against.
    pub fn finish(&mut self, view: &mut HostView) {
        for (row, mode) in self.modes.remove(&view.id).unwrap_or_default() {
            let Some(gpu) = view.devices.0.get_mut(&DeviceId(row.device)) else { continue };
            gpu.mode = mode;
            gpu.framebuffer_used_mib = row.framebuffer_used_mib;
            gpu.vgpu_size_mib = row.vgpu_size_mib;
            gpu.version = row.version;
        }
    }
}
