//! What an operator wants a host to be like, whoever uses it: GPU modes and virtual functions, set up, kept, taken back.

mod fake;

use croft_gpu_sim::faults::{self, Answer, Fault};
use croft_gpu_sim::kernel::SimHost;
use croft_proto::agent::v1::HostPolicy;
use croft_proto::agent::v1::instance_observation::Phase;
use croft_proto::v1::DeviceLayout;
use croft_proto::v1::device::State;
use croft_proto::v1::gpu::Mode;
use fake::devices::{mig_backed, whole, with};
use fake::eventually;
use fake::host::Host;
use uuid::Uuid;

const GPU: &str = "0000:41:00.0";
const NIC: &str = "0000:81:00.0";

fn layout(generation: i64, entries: &[(&str, Mode, i32)]) -> Option<HostPolicy> {
    let entry = |(device, mode, count): &(&str, Mode, i32)| DeviceLayout {
        device: (*device).to_owned(),
        gpu_mode: (*mode).into(),
        virtual_functions: *count,
    };
    let layout = entries.iter().map(entry).collect();
    Some(HostPolicy { layout_generation: generation, layout, ..HostPolicy::default() })
}

/// The agent says that this layout is tried, and what of it is not so.
async fn laid_out(host: &Host, generation: i64) -> Vec<String> {
    eventually("the layout is tried", async || {
        let host = host.plane.lock().host.clone().unwrap_or_default();
        let tried = host.layout_generation == generation;
        if tried { Ok(host.layout_problems) } else { Err(format!("generation {}", host.layout_generation)) }
    })
    .await
}

async fn is_in(host: &Host, gpu: &str, mode: Mode) {
    host.device_that(gpu, &format!("is {mode:?}"), |device| device.gpu.as_ref().is_some_and(|gpu| gpu.mode() == mode))
        .await;
}

#[tokio::test]
async fn each_mode_of_a_gpu_is_made_kept_over_a_reboot_and_taken_back() {
    for (generation, preset, gpu) in
        [(1, "devbox", GPU), (2, "rtxpro6000x4", "0000:21:00.0"), (3, "a100x4", "0000:21:00.0")]
    {
        let mut host = Host::with_devices(SimHost::preset(preset).expect("preset")).await;
        is_in(&host, gpu, Mode::Idle).await;
        let before = host.tree();
        for (n, mode) in [(0, Mode::Vgpu), (1, Mode::MigVgpu), (2, Mode::Idle), (3, Mode::MigVgpu)] {
            let generation = generation * 10 + n;
            host.policy(layout(generation, &[(gpu, mode, 0)])).await;
            is_in(&host, gpu, mode).await;
            assert_eq!(laid_out(&host, generation).await, Vec::<String>::new(), "{preset}: {mode:?}");
            assert_eq!(host.tree() == before, mode == Mode::Idle, "{preset}: {mode:?}");
        }
        let carved = host.tree();
        host.agent.kill();
        host.simulated.host_reboot().expect("reboot");
        host.plane.lock().host = None;
        host.start_agent().await;
        is_in(&host, gpu, Mode::MigVgpu).await;
        let of_boot = |tree: &str| tree.lines().filter(|line| !line.contains("boot_id")).collect::<Vec<_>>().join("\n");
        assert_eq!(of_boot(&host.tree()), of_boot(&carved), "{preset}: the same after a reboot");
        host.policy(layout(generation * 10 + 9, &[])).await;
        is_in(&host, gpu, Mode::Idle).await;
        let tree = host.tree();
        assert_eq!(of_boot(&tree), of_boot(&before), "{preset}: and nothing of it is left");
    }
}

#[tokio::test]
async fn a_gpu_that_is_left_to_others_is_never_touched() {
    let host = Host::devbox().await;
    host.device_is(GPU, State::Available).await;
    let before = host.tree();
    host.policy(layout(1, &[(GPU, Mode::Foreign, 0)])).await;
    let device = host.device_is(GPU, State::Foreign).await;
    assert!(device.message.contains("leaves it to others"), "{}", device.message);
    let uid = Uuid::now_v7();
    let slice = host.piece("gpu", GPU, mig_backed("H100XM-2-20C", "2g.20gb", (0, 2), 0)).await;
    host.plane.upsert(with(uid, vec![slice]));
    let message = host.lacks(uid, "DeviceForeign").await;
    assert!(message.contains("left to others"), "{message}");
    assert_eq!(host.tree(), before);
    host.policy(layout(2, &[])).await;
    host.device_is(GPU, State::Available).await;
}

/// A mode that was asked for while somebody holds a slice waits; it comes when they have gone.
#[tokio::test]
async fn a_layout_takes_nothing_from_anybody() {
    let host = Host::devbox().await;
    let uid = Uuid::now_v7();
    let slice = host.piece("gpu", GPU, mig_backed("H100XM-2-20C", "2g.20gb", (0, 2), 0)).await;
    host.plane.upsert(with(uid, vec![slice]));
    host.attached(uid).await;
    let carved = host.tree();
    host.policy(layout(1, &[(GPU, Mode::Vgpu, 0)])).await;
    laid_out(&host, 1).await;
    assert_eq!(host.tree(), carved);
    host.plane.bury(uid, true, 0);
    host.until(uid, Phase::Absent).await;
    is_in(&host, GPU, Mode::Vgpu).await;
}

#[tokio::test]
async fn functions_in_use_stay_and_the_problem_is_told() {
    let host = Host::devbox().await;
    host.device(NIC).await;
    host.policy(layout(1, &[(NIC, Mode::Unspecified, 4)])).await;
    let vf = "0000:81:10.2";
    host.device_is(vf, State::Available).await;
    let uid = Uuid::now_v7();
    host.plane.upsert(with(uid, vec![host.piece("nic", vf, whole).await]));
    host.attached(uid).await;
    let before = host.tree();
    for (generation, count) in [(2, 2), (3, 0)] {
        host.policy(layout(generation, &[(NIC, Mode::Unspecified, count)])).await;
        let problems = laid_out(&host, generation).await;
        assert!(problems.len() == 1 && problems[0].contains(NIC) && problems[0].contains(vf), "{problems:?}");
        assert_eq!(host.tree(), before);
    }
    host.plane.bury(uid, true, 0);
    host.until(uid, Phase::Absent).await;
    host.agent_looks().await;
    eventually("the functions are gone", async || {
        if host.reported().iter().any(|device| device.name.ends_with(vf)) { Err("not yet".to_owned()) } else { Ok(()) }
    })
    .await;
}

/// What a driver refuses is told, and the GPU is as it was.
#[tokio::test]
async fn a_mode_that_cannot_be_made_is_told() {
    let host = Host::devbox().await;
    is_in(&host, GPU, Mode::Idle).await;
    let before = host.tree();
    let machine = host.machine.clone().expect("machine");
    faults::set(machine.root(), &[Fault::answer("sriov-manage", Answer::Errno(5))]).expect("fault");
    host.policy(layout(1, &[(GPU, Mode::MigVgpu, 0), (NIC, Mode::Unspecified, 2)])).await;
    let problems = laid_out(&host, 1).await;
    assert!(problems.len() == 1 && problems[0].contains("turn virtual functions of 0000:41:00.0 on"), "{problems:?}");
    host.device_is("0000:81:10.0", State::Available).await;
    assert!(!host.tree().contains("0000:41:00.2") && !before.contains("0000:41:00.2"));
    faults::set(machine.root(), &[]).expect("no fault");
    host.agent_looks().await;
    is_in(&host, GPU, Mode::MigVgpu).await;
}
