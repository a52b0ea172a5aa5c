//! A GPU is cut up and put together again, through the library, beside what is there already.

use croft_gpu::gpu::Span;
use croft_gpu::nvml::{Nvml, code};
use croft_gpu_sim::boards::{A100_SXM_80GB, H100_SXM_80GB, L40S_48GB, RTX_PRO_6000_96GB};
use croft_gpu_sim::state::Flavour;

use crate::{host, library, on_host};

#[test]
fn croft_gpu_carves_and_reads_back() {
    let boards = || host(Flavour::Datacenter, &[&H100_SXM_80GB, &L40S_48GB], |_| {});
    on_host("carving::croft_gpu_carves_and_reads_back", boards, |_, _| {
        let nvml = Nvml::open(Some(&library())).unwrap();
        let (gpu, other) = ("0000:00:06.0".parse().unwrap(), "0000:00:07.0".parse().unwrap());
        assert_eq!(nvml.gpus().unwrap(), [Ok(gpu), Ok(other)]);
        assert_eq!(nvml.mig_mode(other).unwrap_err().code(), Some(code::NOT_SUPPORTED));
        let place = |start, size| Span { start, size };
        let refused = nvml.create_gpu_instance(gpu, "2g.20gb", place(0, 2)).unwrap_err();
        assert_eq!(refused.code(), Some(code::NOT_SUPPORTED), "MIG is off");

        assert_eq!(nvml.set_mig_mode(gpu, true), Ok(0));
        let two = nvml.create_gpu_instance(gpu, "2g.20gb", place(2, 2)).unwrap();
        nvml.create_compute_instance(gpu, two).unwrap();
        nvml.create_compute_instance(gpu, two).unwrap();
        let one = nvml.create_gpu_instance(gpu, "1g.10gb+me", place(0, 1)).unwrap();
        let found = nvml.gpu_instances(gpu).unwrap();
        let told: Vec<_> = found.iter().map(|gi| (gi.id, gi.profile.as_str(), gi.placement.start)).collect();
        assert_eq!(told, [(one, "1g.10gb+me", 0), (two, "2g.20gb", 2)]);
        assert_eq!(found[1].compute_instances.len(), 1);

        for (profile, span) in [("3g.40gb", place(0, 4)), ("1g.10gb+me", place(5, 1)), ("7g.80gb", place(0, 8))] {
            let refused = nvml.create_gpu_instance(gpu, profile, span).unwrap_err();
            assert_eq!(refused.code(), Some(code::INSUFFICIENT_RESOURCES), "{profile}");
        }
        assert_eq!(nvml.destroy_gpu_instance(gpu, two).unwrap_err().code(), Some(code::IN_USE));
        assert_eq!(nvml.set_mig_mode(gpu, false), Ok(code::IN_USE), "accepted, and not in effect");
        let mode = nvml.mig_mode(gpu).unwrap();
        assert!(mode.current && !mode.pending);
        nvml.destroy_compute_instance(gpu, two, found[1].compute_instances[0]).unwrap();
        nvml.destroy_gpu_instance(gpu, two).unwrap();
        nvml.destroy_gpu_instance(gpu, one).unwrap();
        assert_eq!(nvml.destroy_gpu_instance(gpu, one).unwrap_err().code(), Some(code::NOT_FOUND));
        assert_eq!(nvml.set_mig_mode(gpu, false), Ok(0));
    });
}

#[test]
fn every_mig_board_lists_its_profiles_by_their_names() {
    let boards = || host(Flavour::Datacenter, &[&A100_SXM_80GB, &RTX_PRO_6000_96GB], |_| {});
    on_host("carving::every_mig_board_lists_its_profiles_by_their_names", boards, |_, _| {
        let nvml = Nvml::open(Some(&library())).unwrap();
        let names = |gpu: &str| {
            let profiles = nvml.gpu_instance_profiles(gpu.parse().unwrap()).unwrap();
            profiles.into_iter().map(|profile| profile.name).collect::<Vec<_>>()
        };
        let a100 = ["1g.10gb", "2g.20gb", "3g.40gb", "4g.40gb", "7g.80gb", "1g.10gb+me", "1g.20gb"];
        assert_eq!(names("0000:00:06.0"), a100);
        let pro = names("0000:00:07.0");
        assert!(pro.contains(&"1g.24gb+me.all".to_owned()) && pro.contains(&"2g.48gb-me".to_owned()), "{pro:?}");
    });
}

#[test]
fn a_compute_instance_is_a_device_of_its_own() {
    let boards = || host(Flavour::Datacenter, &[&H100_SXM_80GB], |_| {});
    on_host("carving::a_compute_instance_is_a_device_of_its_own", boards, |_, wrapped| {
        let nvml = Nvml::open(Some(&library())).unwrap();
        let gpu = "0000:00:06.0".parse().unwrap();
        let device = wrapped.device_by_index(0).unwrap();
        assert_eq!(device.mig_device_count().unwrap(), 0);
        nvml.set_mig_mode(gpu, true).unwrap();
        let gi = nvml.create_gpu_instance(gpu, "3g.40gb", Span { start: 4, size: 4 }).unwrap();
        assert!(device.mig_device_by_index(0).is_err(), "a GPU instance alone is no device");
        nvml.create_compute_instance(gpu, gi).unwrap();
        assert_eq!(device.mig_device_count().unwrap(), 7);
        let mig = device.mig_device_by_index(0).unwrap();
        assert_eq!(mig.name().unwrap(), "NVIDIA H100 80GB HBM3 MIG 3g.40gb");
        let uuid = mig.uuid().unwrap();
        assert!(uuid.starts_with("MIG-") && uuid.len() == 40, "{uuid}");
        assert_eq!(wrapped.device_by_uuid(uuid).unwrap().name().unwrap(), mig.name().unwrap());
        assert_eq!(mig.memory_info().unwrap().total, 40_448 << 20);
        assert_eq!(mig.mig_parent_device().unwrap().uuid().unwrap(), device.uuid().unwrap());
        let whole = mig.attributes().unwrap();
        assert_eq!((whole.multiprocessor_count, whole.gpu_instance_slice_count), (60, 3));
    });
}
