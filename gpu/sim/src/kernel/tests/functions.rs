//! SR-IOV.

use super::*;

fn count(host: &Machine, address: &str, count: &str) -> Result<(), Errno> {
    host.set(address, "sriov_numvfs", count)
}

#[test]
fn functions_appear_where_the_kernel_in_the_lab_put_them() {
    let host = preset("devbox");
    assert_eq!(count(&host, NIC, "3"), Ok(()));
    assert_eq!(host.virtual_functions(NIC), ["0000:81:10.0", "0000:81:10.2", "0000:81:10.4"]);
    let groups: Vec<_> = host.virtual_functions(NIC).iter().map(|vf| host.function(vf).iommu_group.unwrap()).collect();
    assert!(groups[0] != groups[1] && groups[1] != groups[2], "a group each: {groups:?}");
    let vf = host.function("0000:81:10.2");
    assert_eq!((vf.device, vf.driver.as_deref()), (0x10ca, Some("igbvf")));
    assert_eq!(vf.sriov, Sriov::Virtual { physical: at(NIC) });
    assert_eq!(vf.reset_methods, ["flr"]);
    assert_eq!(host.get(NIC, "sriov_numvfs"), "3");
}

#[test]
fn a_count_goes_through_zero() {
    let host = preset("devbox");
    assert_eq!(count(&host, NIC, "8"), Err(Errno::RANGE));
    assert_eq!(count(&host, NIC, "seven"), Err(Errno::INVAL));
    assert_eq!(count(&host, NIC, "-1"), Err(Errno::INVAL));
    assert_eq!(count(&host, NIC, "2\n"), Ok(()));
    assert_eq!(count(&host, NIC, "2"), Ok(()), "the same is no change");
    assert_eq!(count(&host, NIC, "3"), Err(Errno::BUSY));
    assert_eq!(count(&host, NIC, "0"), Ok(()));
    assert_eq!(count(&host, NIC, "7"), Ok(()));
    assert_eq!(count(&host, "0000:61:00.1", "1"), Err(Errno::NOENT), "no such file without the capability");
}

#[test]
fn no_driver_that_makes_them_is_enoent() {
    let host = preset("devbox");
    assert_eq!(count(&host, GPU, "4"), Err(Errno::NOENT), "nvidia.ko has no sriov_configure");
    host.set(NIC, "driver/unbind", NIC).unwrap();
    assert_eq!(count(&host, NIC, "1"), Err(Errno::NOENT));
    assert_eq!(count(&host, NIC, "0"), Ok(()), "it is 0 already");
    host.to_vfio(NIC);
    assert_eq!(count(&host, NIC, "1"), Err(Errno::NOENT));
    host.write("/sys/module/vfio_pci/parameters/enable_sriov", "1").unwrap();
    assert_eq!(host.fs.attribute("/sys/module/vfio_pci/parameters/enable_sriov").unwrap(), "Y");
    assert_eq!(count(&host, NIC, "1"), Ok(()));
    assert_eq!(host.write("/sys/module/vfio_pci/parameters/enable_sriov", "perhaps"), Err(Errno::INVAL));
}

#[test]
fn without_autoprobe_only_an_override_opens_them() {
    let host = preset("devbox");
    assert_eq!(host.set(NIC, "sriov_drivers_autoprobe", "maybe"), Err(Errno::INVAL));
    host.set(NIC, "sriov_drivers_autoprobe", "0").unwrap();
    assert!(
        !std::fs::read(host.host.root().join(format!("sys/bus/pci/devices/{NIC}/sriov_drivers_autoprobe")))
            .unwrap()
            .contains(&b'1')
    );
    count(&host, NIC, "2").unwrap();
    let vf = "0000:81:10.0";
    assert_eq!(host.driver(vf), None);
    host.write("/sys/bus/pci/drivers_probe", vf).unwrap();
    assert_eq!(host.driver(vf), None);
    assert_eq!(host.write("/sys/bus/pci/drivers/igbvf/bind", vf), Err(Errno::NODEV));
    host.write("/sys/bus/pci/drivers/vfio-pci/new_id", "8086 10ca").unwrap();
    assert_eq!(host.driver(vf), None, "not even after new_id");
    host.to_vfio(vf);
}

#[test]
fn to_zero_takes_bound_ones_and_waits_for_open_ones() {
    let host = preset("devbox");
    let before = host.dump();
    count(&host, NIC, "2").unwrap();
    host.to_vfio("0000:81:10.0");
    count(&host, NIC, "0").unwrap();
    assert_eq!(host.dump(), before);

    count(&host, NIC, "2").unwrap();
    host.to_vfio("0000:81:10.0");
    host.host.open_vfio(&guest(7), "0000:81:10.0").unwrap();
    host.waits(&format!("/sys/bus/pci/devices/{NIC}/sriov_numvfs"), "0", || {
        assert_eq!(host.virtual_functions(NIC).len(), 2);
        host.host.end(7).unwrap();
    });
    assert_eq!(host.dump(), before);
}

#[test]
fn igb_takes_its_functions_along_and_nvme_leaves_them() {
    let host = preset("devbox");
    count(&host, NIC, "2").unwrap();
    count(&host, NVME, "2").unwrap();
    host.set(NIC, "driver/unbind", NIC).unwrap();
    host.set(NVME, "driver/unbind", NVME).unwrap();
    assert!(host.virtual_functions(NIC).is_empty());
    assert_eq!(host.virtual_functions(NVME).len(), 2);
    let group = host.function(NVME).iommu_group;
    assert_eq!(host.function(&host.virtual_functions(NVME)[0]).iommu_group, group, "a port without ACS");
}

#[test]
fn sriov_manage_makes_all_of_a_gpus_and_takes_them_away() {
    let host = preset("devbox");
    let before = host.dump();
    host.manage(GPU, true);
    let functions = host.virtual_functions(GPU);
    assert_eq!((functions.len(), functions[0].as_str(), functions[31].as_str()), (32, "0000:41:00.2", "0000:41:04.1"));
    assert_eq!(host.driver(&functions[5]).as_deref(), Some("nvidia"));
    let between = host.dump();
    host.manage(GPU, true);
    assert_eq!(host.dump(), between, "run again it changes nothing");
    assert_eq!(count(&host, GPU, "0"), Err(Errno::NOENT));
    host.manage(GPU, false);
    host.manage(GPU, false);
    assert_eq!(host.dump(), before);
}

#[test]
fn sriov_manage_needs_the_gpu_for_itself() {
    use crate::kernel::SriovManageError as Refused;
    let host = preset("devbox");
    let manage = |gpu: &str| host.host.sriov_manage(at(gpu), true).unwrap();
    host.host.hold(&Process::new(5, "dcgm", "nvidia-dcgm.service"), "/dev/nvidia0").unwrap();
    assert_eq!(manage(GPU), Err(Refused::UnbindLock(at(GPU))));
    host.host.end(5).unwrap();
    let session = crate::clients::Session::open(host.host.root()).unwrap();
    assert_eq!(manage(GPU), Err(Refused::UnbindLock(at(GPU))), "an NVML session is enough");
    drop(session);
    assert_eq!(manage(NIC), Err(Refused::NoGpu(at(NIC))));
    assert_eq!(manage(CARD), Err(Refused::Unsupported(at(CARD))), "a board without SR-IOV");
    host.to_vfio(GPU);
    assert_eq!(manage(GPU), Err(Refused::NoGpu(at(GPU))), "not the driver's now");

    let plain = machine(Hardware { flavour: crate::state::Flavour::Datacenter, ..SimHost::preset("devbox").unwrap() });
    let refused = plain.host.sriov_manage(at(GPU), true).unwrap();
    assert_eq!(refused, Err(Refused::Unsupported(at(GPU))));
}
