//! GPUs that are one as good as the other: when one of them led nowhere, the next one need not be tried.

use super::{DeviceView, DeviceViews};
use crate::device::{Assignment, Gpu};

/// Whether `later` takes of its GPU what `earlier` takes of one that is like it.
pub fn leads_nowhere_else(views: &DeviceViews, earlier: &Assignment, later: &Assignment) -> bool {
    earlier.atoms == later.atoms
        && earlier.vgpu_type == later.vgpu_type
        && match (views.0.get(&earlier.device), views.0.get(&later.device)) {
            (Some(one), Some(other)) => alike(one, other),
            _ => false,
        }
}

/// GPUs that stand alone only: another function may be in a pool that names it, and a group is more than its device.
pub fn alike(one: &DeviceView, other: &DeviceView) -> bool {
    let (Some(gpu), Some(like)) = (one.gpu(), other.gpu()) else { return false };
    one.device.companions.is_empty()
        && other.device.companions.is_empty()
        && one.device.functions_total == other.device.functions_total
        && one.device.iommu_group.is_some() == other.device.iommu_group.is_some()
        && one.closed().is_none()
        && other.closed().is_none()
        && one.taken == other.taken
        && (one.mode, one.framebuffer_used_mib, one.vgpu_size_mib, one.kept_for)
            == (other.mode, other.framebuffer_used_mib, other.vgpu_size_mib, other.kept_for)
        && of_one_make(gpu, like)
}

fn of_one_make(gpu: &Gpu, like: &Gpu) -> bool {
    gpu.model == like.model
        && gpu.mode == like.mode
        && gpu.memory_mib == like.memory_mib
        && gpu.vgpu_framework == like.vgpu_framework
        && gpu.heterogeneous_capable == like.heterogeneous_capable
        && gpu.board == like.board
        && gpu.vgpu_types == like.vgpu_types
}
