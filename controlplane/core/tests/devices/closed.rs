//! What is not given though it is there: unhealthy, kept, unknown, or beyond quota.

use croft_core::device::{Mode, State};
use croft_core::id::DeviceId;
use croft_core::placement::HostView;
use croft_core::placement::device::{Catalogue, assign};
use croft_core::placement::fit::Predicate;

use super::fixtures::{any_gpu, give, h100, host, mig, vgpu, wishes};

#[test]
fn unhealthy_quarantined_and_missing_devices_are_not_placed_on() {
    for state in [State::Unhealthy, State::Stuck, State::Missing, State::Changed, State::Quarantined, State::Foreign] {
        let mut gpu = h100("0000:41:00.0", "vendor");
        (gpu.state, gpu.reason) = (state, "GpuXid".into());
        gpu.message = "Xid 79 while croft-0198 of another tenant had it".into();
        let refused = give(&mut host(vec![gpu]), &[any_gpu()]).unwrap_err();
        assert_eq!(refused.predicate, Predicate::DeviceHealth);
        assert!(refused.message.contains(&format!("{} (GpuXid)", state.as_str())), "{}", refused.message);
        assert!(!refused.message.contains("croft-0198"), "tenants read this: {}", refused.message);
    }
    let mut kept = host(vec![h100("0000:41:00.0", "vendor")]);
    kept.devices.0.values_mut().for_each(|view| view.quarantined = true);
    assert!(give(&mut kept, &[mig("1g.10gb")]).unwrap_err().message.contains("croft device release"));
}

#[test]
fn a_host_that_started_again_is_asked_before_anything_is_given() {
    let host = HostView { devices_seen: false, ..host(vec![h100("0000:41:00.0", "none")]) };
    assert_eq!(assign(&host, &wishes(&[any_gpu()]), &[]).unwrap_err().predicate, Predicate::DeviceHealth);
}

#[test]
fn a_gpu_that_is_kept_for_one_use_is_given_for_no_other() {
    let kept = |mode| {
        let mut host = host(vec![h100("0000:41:00.0", "vendor")]);
        host.devices.0.values_mut().for_each(|view| view.kept_for = Some(mode));
        host
    };
    for (mode, wanted, given) in [
        (Mode::Idle, any_gpu(), true),
        (Mode::Idle, mig("1g.10gb"), false),
        (Mode::Vgpu, vgpu("H100XM-20C"), true),
        (Mode::Vgpu, mig("1g.10gb"), false),
        (Mode::MigVgpu, any_gpu(), false),
        (Mode::Foreign, any_gpu(), false),
    ] {
        let result = give(&mut kept(mode), std::slice::from_ref(&wanted));
        assert_eq!(result.is_ok(), given, "{mode:?} {wanted:?}");
        if let Err(failure) = result {
            assert_eq!(failure.predicate, Predicate::GpuMode);
            assert!(failure.message.contains(mode.as_str()), "{}", failure.message);
        }
    }
    let (mut gpu, mut peer) = (h100("0000:41:00.0", "none"), h100("0000:42:00.0", "none"));
    (gpu.companions, peer.companions) = (vec![peer.id.clone()], vec![gpu.id.clone()]);
    let mut group = host(vec![gpu, peer]);
    group.devices.0.get_mut(&DeviceId::from("0000:42:00.0")).unwrap().kept_for = Some(Mode::Foreign);
    assert!(give(&mut group, &[any_gpu()]).is_err(), "not along with another one either");
}

#[test]
fn only_models_that_quota_has_room_for() {
    let host = host(vec![h100("0000:41:00.0", "none")]);
    let mut wishes = wishes(&[any_gpu()]);
    wishes.allowed_models = [("d-0".to_owned(), ["l40s_48gb".to_owned()].into())].into();
    let refused = assign(&host, &wishes, &[]).unwrap_err();
    assert!(refused.message.contains("l40s_48gb"), "{}", refused.message);
}

/// An agent's certificate may be stolen.
#[test]
fn what_one_host_makes_up_of_a_model_takes_it_from_nobody() {
    let mut liar = h100("0000:41:00.0", "vendor");
    let gpu = liar.gpu.as_mut().unwrap();
    gpu.memory_mib = 1 << 30;
    gpu.board.as_mut().unwrap().profiles.iter_mut().for_each(|profile| profile.memory_mib = 1 << 30);
    for one in &mut gpu.vgpu_types {
        (one.framebuffer_mib, one.mig_profile) = (1 << 30, "made.up".into());
    }
    let (mut honest, mut with) = (Catalogue::default(), Catalogue::default());
    honest.add(&host(vec![h100("0000:41:00.0", "vendor")]).devices);
    for told in [h100("0000:41:00.0", "vendor"), liar] {
        with.add(&host(vec![told]).devices);
    }
    for wanted in [any_gpu(), mig("2g.20gb"), vgpu("H100XM-2-20C"), vgpu("H100XM-20C")] {
        let (before, after) = (honest.candidates(&wanted), with.candidates(&wanted));
        assert_eq!(before.len(), 1, "{wanted:?}");
        assert!(after.contains(&before[0]), "{wanted:?}: {after:?}");
    }
}
