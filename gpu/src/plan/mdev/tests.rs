use super::*;
use crate::gpu::VgpuSupport;
use crate::plan::Wish;
use crate::plan::testing::{HostBuilder, at, function, h100, nobodys, owners, piece};

const PARENT: &str = "0000:05:00.0";
const UUID: &str = "83b8f4f2-509f-382f-3c1e-e6bfe0fa1001";

fn wish(type_name: &str) -> Wish {
    Wish::Mdev { parent: PARENT.to_owned(), type_name: type_name.to_owned(), uuid: UUID.to_owned(), gpu_instance: None }
}

fn none() -> Wish {
    Wish::NoMdev { parent: PARENT.to_owned(), uuid: UUID.to_owned(), gpu_instance: None }
}

fn host() -> HostBuilder {
    HostBuilder::new()
        .function(function(PARENT))
        .mdev_types(PARENT, &[("mtty-1", "Dual", 24), ("nvidia-692", "GRID A100D-4C", 0)])
}

fn create() -> Step {
    Step::CreateMdev { parent: PARENT.to_owned(), type_id: "mtty-1".to_owned(), uuid: UUID.to_owned() }
}

fn remove() -> Step {
    Step::RemoveMdev { parent: PARENT.to_owned(), type_id: "mtty-1".to_owned(), uuid: UUID.to_owned() }
}

#[test]
fn a_type_is_known_by_id_and_name_and_must_be_available() {
    assert_eq!(host().plan(wish("mtty-1")).unwrap(), [create()]);
    assert_eq!(host().plan(wish("Dual")).unwrap(), [create()]);
    let refusal = host().plan(wish("mtty-9")).unwrap_err();
    assert_eq!((refusal.reason, refusal.fix.as_str()), (Reason::UnknownVgpuType, "it may be Dual, GRID A100D-4C"));
    let refusal = host().mdev(PARENT, "mtty-1", "u-2").plan(wish("A100D-4C")).unwrap_err();
    assert_eq!((refusal.reason, refusal.message.contains("u-2 (mtty-1)")), (Reason::VgpuTypeNotCreatable, true));
    let plain = HostBuilder::new().function(function(PARENT)).plan(wish("mtty-1")).unwrap_err();
    assert_eq!(plain.reason, Reason::VgpuFrameworkMissing);
}

#[test]
fn a_uuid_is_made_once() {
    let there = || host().mdev(PARENT, "mtty-1", UUID);
    assert_eq!(there().plan(wish("mtty-1")).unwrap(), []);
    assert_eq!(there().holder(UUID, "qemu").plan(wish("mtty-1")).unwrap_err().reason, Reason::DeviceHeldOpen);
    let mine = owners("me", &[(UUID, "me")]);
    assert_eq!(there().holder(UUID, "qemu").plan_for(&mine, wish("mtty-1")).unwrap(), []);
    let hers = owners("me", &[(UUID, "her")]);
    assert_eq!(there().plan_for(&hers, wish("mtty-1")).unwrap_err().reason, Reason::DeviceOwned);
    let refusal = there().plan(wish("A100D-4C")).unwrap_err();
    assert_eq!((refusal.reason, refusal.message.contains(UUID)), (Reason::MdevUuidTaken, true));
    for bad in ["", "83B8F4F2-509f-382f-3c1e-e6bfe0fa1001", "83b8f4f2509f382f3c1ee6bfe0fa1001xxxx", &UUID[1..]] {
        let wish = Wish::Mdev {
            parent: PARENT.to_owned(),
            type_name: "Dual".to_owned(),
            uuid: bad.to_owned(),
            gpu_instance: None,
        };
        assert_eq!(host().plan(wish).unwrap_err().reason, Reason::MdevUuidInvalid, "{bad:?}");
    }
}

#[test]
fn it_is_taken_away_by_its_owner_when_nobody_has_it_open() {
    let there = || host().mdev(PARENT, "mtty-1", UUID);
    let mine = owners("me", &[(UUID, "me")]);
    assert_eq!(there().plan_for(&mine, none()).unwrap(), [remove()]);
    assert_eq!(host().plan_for(&mine, none()).unwrap(), []);
    assert_eq!(there().holder(UUID, "qemu").plan_for(&mine, none()).unwrap_err().reason, Reason::DeviceHeldOpen);
    assert_eq!(there().plan_for(&owners("her", &[]), none()).unwrap_err().reason, Reason::DeviceOwned);
    assert_eq!(HostBuilder::new().plan_for(&mine, none()).unwrap(), [], "gone with its parent");
    for part in ["mdev", "mdev 0e7b"] {
        assert_eq!(
            host().error(part).plan_for(&mine, none()).unwrap_err().reason,
            Reason::DeviceNotSeen,
            "not seen, not gone"
        );
    }
}

#[test]
fn on_a_gpu_instance_it_comes_after_and_goes_before() {
    const GPU: &str = "0000:41:00.0";
    const VF: &str = "0000:41:00.4";
    let two = || piece("2g.20gb", 4, 2);
    let host = || {
        let gpu = crate::gpu::Gpu { vgpu: VgpuSupport::Mdev, ..h100(GPU).mig_on() };
        HostBuilder::new().gpu(gpu, &[VF]).mdev_types(VF, &[("nvidia-700", "GRID H100XM-2-20C", 0)])
    };
    let wish = |gpu_instance| Wish::Mdev {
        parent: VF.to_owned(),
        type_name: "H100XM-2-20C".to_owned(),
        uuid: UUID.to_owned(),
        gpu_instance,
    };
    let made = Step::CreateMdev { parent: VF.to_owned(), type_id: "nvidia-700".to_owned(), uuid: UUID.to_owned() };
    let carve = Step::CreateGpuInstance { gpu: at(GPU), profile: "2g.20gb".to_owned(), placement: two().placement };
    assert_eq!(host().plan(wish(Some(two()))).unwrap(), [carve.clone(), made.clone()]);
    assert_eq!(host().plan(wish(None)).unwrap_err().reason, Reason::VgpuTypeNotCreatable);
    assert_eq!(host().plan(wish(Some(piece("1g.20gb", 4, 2)))).unwrap_err().reason, Reason::VgpuTypeMismatch);

    let mut there = host().mdev(VF, "nvidia-700", UUID).build();
    there.gpus.devices[0] = there.gpus.devices[0].clone().instance(3, "2g.20gb", 4, 2);
    let mine = owners("me", &[(UUID, "me")]).instance(GPU, two(), "me");
    let none = Wish::NoMdev { parent: VF.to_owned(), uuid: UUID.to_owned(), gpu_instance: Some(two()) };
    let steps = crate::plan::plan(&there, &mine, &none).unwrap().steps;
    assert_eq!(steps, [made.undo().unwrap(), carve.undo().unwrap()]);
    there.mdevs.clear();
    assert_eq!(
        crate::plan::plan(&there, &mine, &none).unwrap().steps,
        [carve.undo().unwrap()],
        "a crash between the two"
    );
}

#[test]
fn a_maker_without_a_pci_function_is_known_by_its_name() {
    let parent = || "mtty".to_owned();
    let wish =
        |gpu_instance| Wish::Mdev { parent: parent(), type_name: "mtty-1".into(), uuid: UUID.into(), gpu_instance };
    let plan = |host: &crate::host::Host, wish: &Wish| crate::plan::plan(host, &nobodys(), wish).map(|plan| plan.steps);
    let mut host = HostBuilder::new().build();
    assert_eq!(plan(&host, &wish(None)).unwrap_err().reason, Reason::VgpuFrameworkMissing);
    let kind = crate::host::MdevType { id: "mtty-1".into(), name: None, available: 1, device_api: "vfio-pci".into() };
    host.mdev_parents.insert(parent(), vec![kind]);
    let create = Step::CreateMdev { parent: parent(), type_id: "mtty-1".into(), uuid: UUID.into() };
    assert_eq!(plan(&host, &wish(None)).unwrap(), std::slice::from_ref(&create));
    let two = Some(piece("2g.20gb", 4, 2));
    assert_eq!(plan(&host, &wish(two)).unwrap_err().reason, Reason::NotMigCapable);
    host.mdevs.push(crate::host::Mdev {
        uuid: UUID.into(),
        parent: parent(),
        type_id: "mtty-1".into(),
        iommu_group: None,
    });
    assert_eq!(plan(&host, &wish(None)).unwrap(), []);
    let none = Wish::NoMdev { parent: parent(), uuid: UUID.into(), gpu_instance: None };
    assert_eq!(plan(&host, &none).unwrap(), [create.undo().unwrap()]);
}
