//! Every word that a user may be shown as a reason has a page.

use std::path::Path;

#[test]
fn every_reason_has_a_page_and_every_page_a_reason() {
    let pages = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/errors");
    let plane = croft_core::Reason::ALL.iter().map(|reason| reason.as_str());
    let agent = croft_hostagent::reasons::ALL.iter().copied();
    let backend = croft_hostagent::hypervisor::libvirt::reasons::ALL.iter().copied();
    let media = croft_hostagent::media::reasons::ALL.iter().copied();
    let refusals = croft_gpu::plan::Reason::ALL.iter().map(|reason| reason.word());
    let faults = croft_gpu::gpu::faults::ALL.iter().copied();
    let device = refusals.chain(faults).chain([croft_rpc::convert::device::OPERATOR_QUARANTINE]);
    let nodes = croft_core::join::machine::told::ALL.iter().copied();
    let maintenance = [croft_core::maintenance::HOST_MAINTENANCE];
    let all: std::collections::BTreeSet<&str> =
        plane.chain(agent).chain(backend).chain(media).chain(device).chain(nodes).chain(maintenance).collect();
    let missing: Vec<_> = all.iter().filter(|reason| !pages.join(format!("{reason}.md")).is_file()).collect();
    assert!(missing.is_empty(), "no page in docs/errors for {missing:?}");
    for page in std::fs::read_dir(&pages).unwrap() {
        let name = page.unwrap().file_name().into_string().unwrap();
        let reason = name.trim_end_matches(".md");
        assert!(all.contains(reason) || reason == "README", "docs/errors/{name} is about a reason that nothing gives");
    }
}

#[test]
fn every_event_is_explained() {
    let page = include_str!("../../docs/events.md");
    let all = croft_store::event::reason::ALL.iter().copied().chain([croft_engine::INSTANCE_OVERDUE]);
    let missing: Vec<_> = all.filter(|reason| !page.contains(&format!("| {reason} |"))).collect();
    assert!(missing.is_empty(), "not in docs/events.md: {missing:?}");
}
