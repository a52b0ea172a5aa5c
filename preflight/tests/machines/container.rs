//! In a container nothing of the rest counts, and it is said first.

use croft_preflight::Level;

use crate::root::Root;

#[test]
fn a_container_is_no_host() {
    for (kind, number) in [("pid", 4_026_532_841), ("user", 4_026_532_999)] {
        let root = Root::new();
        root.namespace(kind, number);
        let first = root.report().findings.remove(0);
        assert_eq!((first.id, first.level), ("machine", Level::Fail));
        assert_eq!(first.found, format!("a container: it has a {kind} namespace of its own"));
    }
}

#[test]
fn another_init_is_worth_a_warning() {
    let root = Root::new();
    root.write("proc/1/comm", "tini\n");
    assert_eq!(root.said("machine")[1].2, "process 1 is tini, not systemd");
}
