//! How a host's devices are set up.

use croft_core::device::{DeviceLayout, Layout, Mode};
use croft_core::validate::Violations;
use croft_proto::v1;
use v1::gpu::Mode as Wire;

use super::device::mode_out;

const DEVICES_MAX: usize = 1024;
const PROBLEMS_MAX: usize = 100;
const TEXT_MAX: usize = 500;

#[must_use]
pub fn out(layout: &Layout) -> v1::HostLayout {
    v1::HostLayout {
        name: layout.name(),
        etag: layout.etag(),
        devices: layout.devices.iter().map(device_out).collect(),
        settled: layout.settled(),
        problems: layout.problems.clone(),
    }
}

#[must_use]
pub fn device_out(layout: &DeviceLayout) -> v1::DeviceLayout {
    v1::DeviceLayout {
        device: layout.device.to_string(),
        virtual_functions: i32::from(layout.virtual_functions),
        gpu_mode: layout.gpu_mode.map_or(Wire::Unspecified, mode_out).into(),
    }
}

/// What is wrong in itself is noted; core's [`Layout::check`] says the rest.
#[must_use]
pub fn devices_into(wire: Vec<v1::DeviceLayout>, violations: &mut Violations) -> Vec<DeviceLayout> {
    violations.check(wire.len() <= DEVICES_MAX, "layout.devices", format!("at most {DEVICES_MAX}"));
    let into = |(at, one): (usize, v1::DeviceLayout)| {
        let field = |name: &str| format!("layout.devices[{at}].{name}");
        violations.check(!one.device.is_empty(), &field("device"), "a PCI address, `0000:41:00.0`");
        let functions = u16::try_from(one.virtual_functions);
        violations.check(
            functions.is_ok(),
            &field("virtual_functions"),
            format!("0 or more, not {}", one.virtual_functions),
        );
        let mode = Wire::try_from(one.gpu_mode);
        violations.check(
            mode.is_ok(),
            &field("gpu_mode"),
            format!("IDLE, VGPU, MIG_VGPU or FOREIGN, not {}", one.gpu_mode),
        );
        DeviceLayout {
            device: one.device.as_str().into(),
            virtual_functions: functions.unwrap_or_default(),
            gpu_mode: mode.ok().and_then(mode_into),
        }
    };
    wire.into_iter().take(DEVICES_MAX).enumerate().map(into).collect()
}

fn mode_into(mode: Wire) -> Option<Mode> {
    Some(match mode {
        Wire::Unspecified => return None,
        Wire::Idle => Mode::Idle,
        Wire::Passthrough => Mode::Passthrough,
        Wire::Vgpu => Mode::Vgpu,
        Wire::MigVgpu => Mode::MigVgpu,
        Wire::Foreign => Mode::Foreign,
    })
}

/// As the host tells them.
#[must_use]
pub fn problems_into(problems: Vec<String>) -> Vec<String> {
    problems.iter().take(PROBLEMS_MAX).map(|problem| crate::status::clip(problem, TEXT_MAX)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layout_comes_back_as_it_went_and_what_is_wrong_is_named() {
        let of = |device: &str, virtual_functions, gpu_mode: Wire| v1::DeviceLayout {
            device: device.into(),
            virtual_functions,
            gpu_mode: gpu_mode.into(),
        };
        let good = vec![of("0000:41:00.0", 0, Wire::MigVgpu), of("0000:42:00.0", 4, Wire::Unspecified)];
        let mut violations = Violations::new();
        let kept = devices_into(good.clone(), &mut violations);
        assert!(violations.finish().is_ok());
        assert_eq!(kept.iter().map(device_out).collect::<Vec<_>>(), good);

        let mut violations = Violations::new();
        let _ = devices_into(vec![v1::DeviceLayout { gpu_mode: 99, ..of("", -1, Wire::Idle) }], &mut violations);
        let error = violations.finish().unwrap_err().to_string();
        for field in ["device", "virtual_functions", "gpu_mode"] {
            assert!(error.contains(&format!("layout.devices[0].{field}: ")), "{error}");
        }
    }
}
