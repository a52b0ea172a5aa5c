//! What a host says of its devices. Written only where it differs from what is known.

use croft_core::Result;
use croft_core::device::Device;
use croft_core::id::HostId;

use crate::open::Store;

#[derive(Debug, Clone, PartialEq)]
pub struct DeviceReport {
    /// All there are; `None`: it could not look, and this says nothing of any.
    pub devices: Option<Vec<Device>>,
    /// Of the agent that says so.
    pub boot_id: String,
    /// Of the layout that `layout_problems` answers to.
    pub layout_generation: i64,
    pub layout_problems: Vec<String>,
}

impl Store {
    /// `true`: something was new.
    pub async fn device_report(&self, host: &HostId, report: DeviceReport) -> Result<bool> {
        let _ = (host, report);
        Ok(false)
    }
}
