use super::*;
use crate::plan::testing::{HostBuilder, at, function, h100, owners, piece};
use crate::plan::{Plan, plan};

const GPU: &str = "0000:41:00.0";
const AUDIO: &str = "0000:41:00.1";

fn homes(of: &[(&str, Option<&str>)]) -> Wish {
    let home = |driver: Option<&str>| Home { driver: driver.map(str::to_owned), ..Home::default() };
    Wish::Return { homes: of.iter().map(|&(address, driver)| (at(address), home(driver))).collect() }
}

fn given(driver: &str, audio: &str) -> HostBuilder {
    let card = function(GPU).class(0x03_0000).group(7).driver(driver).overridden(driver).resets(&["flr", "bus"]);
    let audio = function(AUDIO).class(0x04_0300).group(7).driver(audio).overridden(audio).resets(&[]);
    HostBuilder::new().function(card).function(audio)
}

fn back(address: &str, to: Option<&str>) -> Vec<Step> {
    let (address, vfio) = (at(address), || "vfio-pci".to_owned());
    let first =
        [Step::Unbind { address, driver: vfio() }, Step::SetDriverOverride { address, from: Some(vfio()), to: None }];
    first.into_iter().chain(to.map(|driver| Step::Bind { address, driver: driver.to_owned() })).collect()
}

#[test]
fn a_group_goes_home_cleaned() {
    let mine = owners("me", &[(GPU, "me"), (AUDIO, "me")]);
    let wish = homes(&[(GPU, Some("amdgpu")), (AUDIO, None)]);
    let reset = Step::Reset { address: at(GPU), methods: vec!["flr".to_owned(), "bus".to_owned()] };
    let expected = [vec![reset], back(GPU, Some("amdgpu")), back(AUDIO, None)].concat();
    assert_eq!(given("vfio-pci", "vfio-pci").plan_for(&mine, wish.clone()).unwrap(), expected);
    // The other is home already, or has only its override left.
    let host =
        HostBuilder::new().function(function(GPU).driver("amdgpu").overridden("vfio-pci")).function(function(AUDIO));
    let cleared = Step::SetDriverOverride { address: at(GPU), from: Some("vfio-pci".to_owned()), to: None };
    assert_eq!(host.plan_for(&mine, wish.clone()).unwrap(), [cleared]);
    let home = HostBuilder::new().function(function(GPU).driver("amdgpu")).function(function(AUDIO));
    assert_eq!(home.plan_for(&mine, wish).unwrap(), []);
}

/// A link that cannot be read just after a guest's end, a table of BARs that is garbage: taken it is not, and given back it is.
#[test]
fn what_only_describes_a_device_does_not_keep_it_from_home() {
    let wish = homes(&[(GPU, Some("amdgpu")), (AUDIO, None)]);
    let whole = given("vfio-pci", "vfio-pci").plan(wish.clone()).unwrap();
    for what in crate::pci::DESCRIPTIVE {
        let host = |driver| given(driver, driver).description_error(GPU, what).description_error(AUDIO, what);
        assert_eq!(host("vfio-pci").plan(wish.clone()).unwrap(), whole, "{what}");
        let taken = host("amdgpu").plan(Wish::Passthrough { address: at(GPU) }).unwrap_err();
        assert_eq!(taken.reason, Reason::DeviceNotSeen, "{what}: {taken}");
    }
    // Whose it is, what it is, how it is cleaned.
    for what in ["driver", "driver override", "serial number", "reset methods"] {
        let refusal = given("vfio-pci", "vfio-pci").description_error(GPU, what).plan(wish.clone()).unwrap_err();
        assert_eq!(refusal.reason, Reason::DeviceNotSeen, "{what}");
    }
}

#[test]
fn nothing_goes_home_under_a_guest_or_for_a_stranger() {
    let wish = || homes(&[(GPU, Some("amdgpu"))]);
    let mine = owners("me", &[(GPU, "me")]);
    let refused = |host: HostBuilder, owners: &Owners| host.plan_for(owners, wish()).unwrap_err();
    let held = refused(given("vfio-pci", "vfio-pci").holder(AUDIO, "qemu"), &mine);
    assert_eq!((held.reason, held.device.as_str()), (Reason::DeviceHeldOpen, GPU));
    assert!(held.message.contains(AUDIO) && held.message.contains("qemu"), "{held}");
    assert_eq!(refused(given("vfio-pci", "vfio-pci"), &owners("me", &[(GPU, "her")])).reason, Reason::DeviceOwned);
    assert_eq!(refused(given("vfio-pci", "vfio-pci"), &owners("me", &[])).reason, Reason::DeviceOwned);
    assert!(given("vfio-pci", "vfio-pci").plan(wish()).is_ok(), "nobody's, and the host itself asks");
    assert_eq!(refused(HostBuilder::new(), &mine).reason, Reason::DeviceNotSeen, "what is missing is not home");
}

#[test]
fn a_gpu_gets_its_persistence_back() {
    let host = || HostBuilder::new().gpu(h100(GPU).persistent(), &[]);
    let wish = Wish::Passthrough { address: at(GPU) };
    let home = Home { driver: Some("nvidia".to_owned()), driver_override: None, persistence: Some(true) };
    let way_back = give_back(&host().build(), &wish).unwrap().unwrap();
    assert_eq!(way_back, Wish::Return { homes: BTreeMap::from([(at(GPU), home)]) });
    let mut taken = host().build();
    taken.pci.devices[0] = taken.pci.devices[0].clone().driver("vfio-pci").overridden("vfio-pci");
    taken.gpus.devices[0].persistence = None;
    let Plan { steps } = plan(&taken, &owners("me", &[(GPU, "me")]), &way_back).unwrap();
    let persist = Step::SetPersistence { gpu: at(GPU), from: false, to: true };
    let reset = Step::Reset { address: at(GPU), methods: vec!["flr".to_owned(), "bus".to_owned()] };
    assert_eq!(steps, [vec![reset], back(GPU, Some("nvidia")), vec![persist.clone()]].concat());
    // Stopped just before the end.
    let mut nearly = host().build();
    nearly.gpus.devices[0].persistence = Some(false);
    let Plan { steps } = plan(&nearly, &owners("me", &[(GPU, "me")]), &way_back).unwrap();
    assert_eq!(steps, [persist]);
}

#[test]
fn each_wish_knows_its_way_back() {
    let host = HostBuilder::new()
        .gpu(h100(GPU), &["0000:41:00.4"])
        .function(function("0000:01:00.0").driver("igb").physical(7, &[]))
        .build();
    let way_back = |wish: Wish| give_back(&host, &wish).unwrap();
    let mode = |mode| Wish::Mode { gpu: at(GPU), mode };
    assert_eq!(way_back(mode(Mode::MigVgpu)), Some(mode(Mode::Vgpu)));
    let nic = |count, autoprobe| Wish::VirtualFunctions { physical: at("0000:01:00.0"), count, autoprobe };
    assert_eq!(way_back(nic(4, false)), Some(nic(0, true)));
    let (function, gpu_instance) = (at("0000:41:00.4"), Some(piece("2g.20gb", 4, 2)));
    let vgpu = Wish::Vgpu { function, type_name: "H100XM-2-20C".to_owned(), gpu_instance: gpu_instance.clone() };
    let none = Wish::NoVgpu { function, gpu_instance };
    assert_eq!(way_back(vgpu), Some(none.clone()));
    assert_eq!(way_back(none), None);
    assert_eq!(
        way_back(Wish::FabricPartition { id: 3, active: true }),
        Some(Wish::FabricPartition { id: 3, active: false })
    );
}
