//! Who holds what, for those who only want to know: the metrics join a guest's device with the host's by it.

use uuid::Uuid;

use super::Devices;
use super::record::{Hold, Piece};

/// What one instance holds by one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holding {
    pub uid: Uuid,
    /// The id of its request: the alias in the guest's definition.
    pub request: String,
    /// As the plane knows it: a GPU's own address.
    pub device: String,
    /// A vGPU: the virtual function that the guest has, or the UUID of the mediated device. Empty: the device itself.
    pub function: String,
}

impl Devices {
    /// As journaled: also of instances that are stopped.
    pub async fn holdings(&self) -> Vec<Holding> {
        let Some(inner) = &self.0 else { return Vec::new() };
        let record = inner.record.read().await;
        let all = record.holds.iter().flat_map(|(uid, holds)| holds.iter().map(move |(id, hold)| (*uid, id, hold)));
        let one = |(uid, request, hold): (Uuid, &String, &Hold)| Holding {
            uid,
            request: request.clone(),
            device: hold.device.clone(),
            function: function(hold),
        };
        all.map(one).collect()
    }
}

fn function(hold: &Hold) -> String {
    let name = |piece: &Piece| match piece {
        Piece::Function(address) => Some(address.to_string()),
        Piece::Mdev(uuid) => Some(uuid.clone()),
        Piece::GpuInstance { .. } => None,
    };
    let mut names: Vec<String> = hold.taken.iter().flat_map(|taken| &taken.pieces).filter_map(name).collect();
    // All of the device, with its companions.
    if names.contains(&hold.device) || names.is_empty() {
        return String::new();
    }
    names.swap_remove(0)
}
