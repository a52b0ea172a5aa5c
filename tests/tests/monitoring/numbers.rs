//! Some numbers that the site makes sure of: an empty panel is caught elsewhere, a wrong one here.

use super::site::{H100, Site};

pub async fn are_true(site: &Site) {
    let of = |name: &str, more: &str| format!(r#"{name}{{model="{H100}"{more}}}"#);
    let slices = |end: &str| of(&format!("croft_gpu_mig_memory_slices{end}"), r#", host="h1""#);
    // Two slices of the one H100 are held.
    for (expression, expected) in [
        (of("croft_gpus", r#", host="h1", use="MIG_VGPU""#), 1.0),
        (slices(""), 8.0),
        (slices("_free"), 6.0),
        (of("croft_gpu_mig_room", r#", profile="1g.10gb""#), 5.0),
        (of("croft_gpu_mig_room", r#", profile="7g.80gb""#), 0.0),
        (r#"croft:quota_used:ratio{tenant="acme", resource="instances"}"#.to_owned(), 8.0 / 20.0),
        (r#"croft:quota_used:ratio{tenant="beta", resource="vcpus"}"#.to_owned(), 1.0),
        (r#"croft_instance_memory_bytes{tenant="acme", instance="desk", host="h1"}"#.to_owned(), f64::from(256 << 20)),
        (r#"sum(max by (host, state) (croft_host_state{host="h3", state="UNREACHABLE"}))"#.to_owned(), 1.0),
    ] {
        let found = site.prometheus.query(&expression).await.expect("an answer");
        let [one] = &found[..] else { panic!("{expression}: one series, not {found:?}") };
        assert!((one.value - expected).abs() < 1e-9, "{expression} is {}, not {expected}", one.value);
    }
    // What fits at most is no more than what is free, and what is stranded is free.
    let odd = format!("{} > on (host, device) {}", slices("_largest"), slices("_free"));
    assert_eq!(site.prometheus.query(&odd).await, Ok(Vec::new()));
    // The instance of a device that nobody holds is nobody, not the plane's address.
    site.has_seen(r#"croft_device_info{tenant=""}"#).await;
    let named = site.prometheus.query(r#"croft_device_info{tenant="", instance!=""}"#).await;
    assert_eq!(named, Ok(Vec::new()));
}
