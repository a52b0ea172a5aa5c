//! How operators want a host's devices divided, and what the host says of it.

use croft_core::Result;
use croft_core::audit::Call;
use croft_core::device::{DeviceLayout, Layout};
use croft_core::id::HostId;

use crate::call::Done;
use crate::open::Store;

impl Store {
    /// An empty one when none was set.
    pub async fn host_layout_get(&self, host: &HostId) -> Result<Layout> {
        Ok(Layout::empty(host))
    }

    /// `devices` were checked ([`Layout::check`]) but for what the host has. An empty etag matches everything.
    pub async fn host_layout_set(
        &self,
        call: &Call,
        host: &HostId,
        etag: &str,
        devices: Vec<DeviceLayout>,
    ) -> Result<Done<Layout>> {
        let _ = (call, etag, devices);
        Ok(Done::New(Layout::empty(host)))
    }
}

pub(crate) async fn get(_conn: &mut sqlx::AnyConnection, host: &HostId) -> Result<Layout> {
    Ok(Layout::empty(host))
}
