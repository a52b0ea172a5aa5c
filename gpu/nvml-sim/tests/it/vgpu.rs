//! What the vGPU host driver tells of its boards.

use croft_gpu::nvml::{Nvml, code, snapshot};
use croft_gpu_sim::boards::H200_SXM_141GB;
use croft_gpu_sim::driver::{self, create_gpu_instance};
use croft_gpu_sim::state::{Flavour, MigMode};

use crate::{host, library, on_host};

#[test]
fn types_are_named_and_counted_by_what_they_stand_on() {
    let boards = || {
        host(Flavour::VgpuVendor, &[&H200_SXM_141GB], |state| {
            let gpu = &mut state.gpus[0];
            gpu.mig = MigMode { current: true, pending: true };
            driver::sriov_enabled(gpu, &["0000:00:06.2".parse().unwrap(), "0000:00:06.3".parse().unwrap()]);
            create_gpu_instance(gpu, 14, None).unwrap();
        })
    };
    on_host("vgpu::types_are_named_and_counted_by_what_they_stand_on", boards, |root, _| {
        let gpu = "0000:00:06.0".parse().unwrap();
        let told = snapshot(Some(&library())).unwrap();
        assert_eq!((told.gpus[0].errors.as_slice(), told.gpus[0].makes_vgpus), (&[][..], true));
        let types = &told.gpus[0].vgpu_types;
        let named = |name: &str| types.iter().find(|vgpu| vgpu.name == name).unwrap_or_else(|| panic!("{types:?}"));
        let backed = named("H200X-2-35C");
        assert_eq!((backed.mig_profile.as_deref(), backed.max_count), (Some("2g.35gb"), Some(1)));
        assert_eq!(backed.framebuffer_mib, 35 << 10);
        let sliced = named("H200X-28C");
        assert_eq!((sliced.mig_profile.as_deref(), sliced.max_count), (None, Some(5)));

        let nvml = Nvml::open(Some(&library())).unwrap();
        let creatable =
            || nvml.creatable_vgpu_types(gpu).unwrap().into_iter().map(|vgpu| vgpu.name).collect::<Vec<_>>();
        assert_eq!(creatable(), ["H200X-2-35C"]);
        let mut state = croft_gpu_sim::state::Nvidia::open(root).unwrap();
        let id = state.gpus[0].shape().vgpu_types.iter().find(|vgpu| vgpu.name == "H200X-2-35C").unwrap().id;
        driver::set_vgpu_type(&mut state.gpus[0], "0000:00:06.3".parse().unwrap(), id).unwrap();
        state.save().unwrap();
        drop(state);
        assert_eq!(creatable(), Vec::<String>::new(), "another process took it");
        let gi = nvml.gpu_instances(gpu).unwrap()[0].id;
        assert_eq!(nvml.set_heterogeneous(gpu, Some(gi), true).unwrap_err().code(), Some(code::IN_USE));
        assert_eq!(nvml.destroy_gpu_instance(gpu, gi).unwrap_err().code(), Some(code::IN_USE));
    });
}
