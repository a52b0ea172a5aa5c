//! Pools.

use croft_core::device::{Pool, PoolMatch};
use croft_core::meta::check_labels;
use croft_core::name;
use croft_core::validate::Violations;
use croft_proto::v1;

use super::device::{kind_into, kind_out};
use super::meta;

const LIST_MAX: usize = 1000;

#[must_use]
pub fn out(pool: &Pool) -> v1::Pool {
    let matches = &pool.matches;
    v1::Pool {
        name: pool.name(),
        metadata: Some(meta::out(&pool.meta)),
        description: pool.description.clone(),
        r#match: Some(v1::pool::Match {
            kind: kind_out(matches.kind).into(),
            ids: matches.ids.clone(),
            classes: matches.classes.clone(),
            devices: matches.devices.iter().map(|(host, id)| format!("hosts/{host}/devices/{id}")).collect(),
            host_selector: matches.host_selector.clone(),
        }),
    }
}

/// Everything that is wrong is noted; what comes back then is of no use.
#[must_use]
pub fn match_into(wire: v1::pool::Match, violations: &mut Violations) -> Option<PoolMatch> {
    let Some(kind) = kind_into(wire.kind()) else {
        violations.add("pool.match.kind", "GPU, FUNCTION, VIRTUAL_FUNCTION or USB");
        return None;
    };
    for (field, length) in [("ids", wire.ids.len()), ("classes", wire.classes.len()), ("devices", wire.devices.len())] {
        violations.check(length <= LIST_MAX, &format!("pool.match.{field}"), format!("at most {LIST_MAX}"));
    }
    let mut devices = Vec::new();
    for (at, device) in wire.devices.iter().enumerate().take(LIST_MAX) {
        let field = format!("pool.match.devices[{at}]");
        match name::device(&field, device) {
            Ok(device) => devices.push(device),
            Err(_) => violations.add(field, format!("`{device}` is not of the form hosts/…/devices/…")),
        }
    }
    check_labels("pool.match.host_selector", &wire.host_selector, violations);
    let wanted = PoolMatch {
        kind,
        ids: wire.ids.iter().map(|id| id.to_ascii_lowercase()).collect(),
        classes: wire.classes.iter().map(|class| class.to_ascii_lowercase()).collect(),
        devices,
        host_selector: wire.host_selector,
    };
    wanted.check(violations);
    Some(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire() -> v1::pool::Match {
        v1::pool::Match {
            kind: v1::device::Kind::VirtualFunction.into(),
            ids: vec!["8086:10CA".into()],
            devices: vec!["hosts/h1/devices/0000:42:10.0".into()],
            ..Default::default()
        }
    }

    #[test]
    fn a_match_is_kept_in_one_spelling() {
        let mut violations = Violations::new();
        let wanted = match_into(wire(), &mut violations).unwrap();
        assert!(violations.finish().is_ok());
        assert_eq!(wanted.ids, ["8086:10ca"]);
        assert_eq!(wanted.devices, [("h1".into(), "0000:42:10.0".into())]);
    }

    #[test]
    fn everything_that_is_wrong_is_named() {
        let fields = |wire| {
            let mut violations = Violations::new();
            let _ = match_into(wire, &mut violations);
            let Err(croft_core::Error::Invalid(found)) = violations.finish() else { panic!("it is wrong") };
            found.into_iter().map(|violation| violation.field).collect::<Vec<_>>()
        };
        assert_eq!(fields(v1::pool::Match::default()), ["pool.match.kind"]);
        let nothing = v1::pool::Match { kind: v1::device::Kind::Usb.into(), ..Default::default() };
        assert_eq!(fields(nothing), ["pool.match"]);
        let wrong = v1::pool::Match {
            kind: v1::device::Kind::Gpu.into(),
            ids: vec!["intel".into()],
            classes: vec!["0".into()],
            devices: vec!["h1".into()],
            ..Default::default()
        };
        let all = ["pool.match.devices[0]", "pool.match.ids[0]", "pool.match.classes[0]"];
        assert_eq!(fields(wrong), all);
    }
}
