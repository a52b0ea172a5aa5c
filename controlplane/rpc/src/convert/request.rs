//! What an instance asks for of devices, and what it was given. A request with a count is spread into so many single ones,
//! each with an id of its own: from then on a device is attached, shown and detached by that.

use std::collections::BTreeSet;

use croft_core::device::{Assignment, COUNT_MAX, PER_INSTANCE_MAX, Paths, REQUEST_ID_MAX, Request, Wanted};
use croft_core::id::HostId;
use croft_core::name;
use croft_core::quota::device::{is_model, is_profile};
use croft_core::validate::{Violations, is_slug};
use croft_proto::v1;
use v1::device_request as wire;

/// With where each was written. `field`: where the list stands in the request.
#[must_use]
pub fn list_into(field: &str, requests: Vec<v1::DeviceRequest>, violations: &mut Violations) -> (Vec<Request>, Paths) {
    let said: usize = requests.iter().map(|request| usize::try_from(request.count.max(1)).unwrap_or(1)).sum();
    if said > PER_INSTANCE_MAX {
        violations.add(field, format!("at most {PER_INSTANCE_MAX} devices, counts included, not {said}"));
        return (Vec::new(), Paths::default());
    }
    // Those with a name first, so that none that is made up is in their way.
    let mut taken: BTreeSet<String> = requests.iter().flat_map(named).collect();
    let mut seen = BTreeSet::new();
    let (mut spread, mut paths) = (Vec::new(), Vec::new());
    for (at, request) in requests.into_iter().enumerate() {
        let field = format!("{field}[{at}]");
        for single in into(&field, request, &mut taken, violations) {
            violations.check(
                seen.insert(single.id.clone()),
                &format!("{field}.id"),
                format!("`{}` is there twice; ids are unique in their instance, those of a count included", single.id),
            );
            spread.push(single);
            paths.push(field.clone());
        }
    }
    (spread, Paths::new(paths))
}

/// The ids that a request with a name will have.
fn named(request: &v1::DeviceRequest) -> Vec<String> {
    match request.count {
        _ if request.id.is_empty() => Vec::new(),
        ..=1 => vec![request.id.clone()],
        count => (0..count).map(|n| format!("{}-{n}", request.id)).collect(),
    }
}

/// A single one, without a count. `taken`: ids that one that is made up must not be.
#[must_use]
pub fn one_into(
    field: &str,
    request: v1::DeviceRequest,
    taken: &BTreeSet<String>,
    violations: &mut Violations,
) -> Option<Request> {
    into(field, v1::DeviceRequest { count: 1, ..request }, &mut taken.clone(), violations).pop()
}

/// One request as so many single ones. `taken` grows by the ids that are made up.
fn into(
    field: &str,
    request: v1::DeviceRequest,
    taken: &mut BTreeSet<String>,
    violations: &mut Violations,
) -> Vec<Request> {
    let v1::DeviceRequest { id, count, wanted } = request;
    violations.check(
        (0..=COUNT_MAX).contains(&i64::from(count)),
        &format!("{field}.count"),
        format!("1 to {COUNT_MAX}, not {count}"),
    );
    let Some(wanted) = wanted else {
        violations.add(field, "asks for nothing; set one of gpu, mig, vgpu, pool");
        return Vec::new();
    };
    let wanted = wanted_into(field, wanted, violations);
    let count = count.clamp(1, i32::try_from(COUNT_MAX).unwrap_or(i32::MAX));
    if id.is_empty() {
        return (0..count).map(|_| Request { id: made_up(&wanted, taken), wanted: wanted.clone() }).collect();
    }
    let last = if count > 1 { format!("{id}-{}", count - 1) } else { id.clone() };
    violations.check(
        is_slug(&id, REQUEST_ID_MAX) && last.len() <= REQUEST_ID_MAX,
        &format!("{field}.id"),
        format!(
            "1 to {REQUEST_ID_MAX} of [a-z0-9-], the number that a count adds included; begins with a letter, does not \
             end with -"
        ),
    );
    match count {
        1 => vec![Request { id, wanted }],
        _ => (0..count).map(|n| Request { id: format!("{id}-{n}"), wanted: wanted.clone() }).collect(),
    }
}

/// Made up from what is asked for, with the lowest number that is free: `gpu-0`.
fn made_up(wanted: &Wanted, taken: &mut BTreeSet<String>) -> String {
    let word = match wanted {
        Wanted::Gpu { .. } | Wanted::Mig { .. } | Wanted::Vgpu { .. } => "gpu",
        Wanted::Pool { .. } => "device",
    };
    let free = (0..).map(|n| format!("{word}-{n}")).find(|id| taken.insert(id.clone()));
    free.unwrap_or_else(|| word.to_owned())
}

/// What is wrong is noted, and what comes back then is of no use.
fn wanted_into(field: &str, wanted: wire::Wanted, violations: &mut Violations) -> Wanted {
    let mut model = |of: &str, model: String| {
        violations.check(
            model.is_empty() || is_model(&model),
            &format!("{field}.{of}.model"),
            format!("a GPU's model as `croft gpu list` shows it (h100_sxm_80gb), or empty for any; not `{model}`"),
        );
        Some(model).filter(|model| !model.is_empty())
    };
    match wanted {
        wire::Wanted::Gpu(gpu) => Wanted::Gpu { model: model("gpu", gpu.model) },
        wire::Wanted::Mig(mig) => {
            let model = model("mig", mig.model);
            violations.check(
                is_profile(&mig.profile),
                &format!("{field}.mig.profile"),
                format!("a MIG profile, for example 2g.20gb; not `{}`", mig.profile),
            );
            Wanted::Mig { profile: mig.profile, model }
        }
        wire::Wanted::Vgpu(vgpu) => {
            violations.check(
                is_profile(&vgpu.r#type),
                &format!("{field}.vgpu.type"),
                format!("a vGPU type, for example H100XM-2-20C; not `{}`", vgpu.r#type),
            );
            Wanted::Vgpu { type_name: vgpu.r#type }
        }
        wire::Wanted::Pool(of) => {
            let field = format!("{field}.pool.pool");
            let pool = name::pool(&field, &of.pool);
            violations.check(pool.is_ok(), &field, format!("`{}` is not of the form pools/…", of.pool));
            Wanted::Pool { pool: pool.unwrap_or_else(|_| of.pool.as_str().into()) }
        }
    }
}

#[must_use]
pub fn out(request: &Request) -> v1::DeviceRequest {
    let wanted = match &request.wanted {
        Wanted::Gpu { model } => wire::Wanted::Gpu(wire::WholeGpu { model: model.clone().unwrap_or_default() }),
        Wanted::Mig { profile, model } => {
            wire::Wanted::Mig(wire::MigSlice { profile: profile.clone(), model: model.clone().unwrap_or_default() })
        }
        Wanted::Vgpu { type_name } => wire::Wanted::Vgpu(wire::Vgpu { r#type: type_name.clone() }),
        Wanted::Pool { pool } => wire::Wanted::Pool(wire::PoolDevice { pool: format!("pools/{pool}") }),
    };
    v1::DeviceRequest { id: request.id.clone(), count: 1, wanted: Some(wanted) }
}

/// The exact piece, on its host.
#[must_use]
pub fn assignment_out(host: &HostId, assignment: &Assignment) -> v1::DeviceAssignment {
    v1::DeviceAssignment {
        id: assignment.id.clone(),
        device: format!("hosts/{host}/devices/{}", assignment.device),
        pool: assignment.pool.as_ref().map(|pool| format!("pools/{pool}")).unwrap_or_default(),
        model: assignment.model.clone(),
        mig_profile: assignment.mig_profile.clone(),
        mig_start: i32::from(assignment.mig_start),
        mig_size: i32::from(assignment.mig_size),
        vgpu_type: assignment.vgpu_type.clone(),
        function_index: assignment.function_index.map_or(-1, i32::from),
        atoms: assignment.atoms.iter().map(ToString::to_string).collect(),
        fabric_partition: assignment.fabric_partition.and_then(|id| i32::try_from(id).ok()).unwrap_or(-1),
    }
}

#[cfg(test)]
mod tests {
    use croft_core::Error;

    use super::*;

    fn gpu(id: &str, count: i32) -> v1::DeviceRequest {
        v1::DeviceRequest { id: id.into(), count, wanted: Some(wire::Wanted::Gpu(wire::WholeGpu::default())) }
    }

    fn pool(id: &str, name: &str) -> v1::DeviceRequest {
        let wanted = wire::Wanted::Pool(wire::PoolDevice { pool: name.into() });
        v1::DeviceRequest { id: id.into(), count: 0, wanted: Some(wanted) }
    }

    fn spread(requests: Vec<v1::DeviceRequest>) -> Result<Vec<Request>, Error> {
        let mut violations = Violations::new();
        let (list, _) = list_into("instance.spec.devices", requests, &mut violations);
        violations.finish().map(|()| list)
    }

    fn ids(requests: Vec<v1::DeviceRequest>) -> Vec<String> {
        spread(requests).unwrap().into_iter().map(|request| request.id).collect()
    }

    fn fields(requests: Vec<v1::DeviceRequest>) -> Vec<String> {
        let Err(Error::Invalid(found)) = spread(requests) else { panic!("it is wrong") };
        found.into_iter().map(|violation| violation.field).collect()
    }

    #[test]
    fn a_count_is_spread_and_each_has_an_id() {
        assert_eq!(ids(vec![gpu("train", 2), gpu("", 0)]), ["train-0", "train-1", "gpu-0"]);
        assert_eq!(
            ids(vec![gpu("", 2), gpu("gpu-0", 1), pool("", "pools/nic")]),
            ["gpu-1", "gpu-2", "gpu-0", "device-0"]
        );
        let more = one_into("device", gpu("", 0), &BTreeSet::from(["gpu-0".to_owned()]), &mut Violations::new());
        assert_eq!(more.unwrap().id, "gpu-1", "what the instance has already is not taken twice");
    }

    #[test]
    fn each_of_a_count_remembers_where_it_was_written() {
        let (list, paths) = list_into("d", vec![gpu("a", 2), gpu("b", 1)], &mut Violations::new());
        let paths: Vec<_> = (0..list.len()).map(|at| paths.of(at)).collect();
        assert_eq!(paths, ["d[0]", "d[0]", "d[1]"]);
        assert_eq!(Paths::default().of(3), "instance.spec.devices[3]");
    }

    #[test]
    fn what_is_asked_for_comes_back() {
        let mig = wire::Wanted::Mig(wire::MigSlice { profile: "1g.10gb+me".into(), model: "h100_sxm_80gb".into() });
        let vgpu = wire::Wanted::Vgpu(wire::Vgpu { r#type: "H100XM-2-20C".into() });
        let said: Vec<_> = [mig, vgpu]
            .into_iter()
            .enumerate()
            .map(|(at, wanted)| v1::DeviceRequest { id: format!("d{at}"), count: 1, wanted: Some(wanted) })
            .chain([v1::DeviceRequest { count: 1, ..pool("nic", "pools/nic-vf") }])
            .collect();
        assert_eq!(spread(said.clone()).unwrap().iter().map(out).collect::<Vec<_>>(), said);
    }

    #[test]
    fn everything_that_is_wrong_has_its_path() {
        let nothing = v1::DeviceRequest::default();
        let mig = wire::Wanted::Mig(wire::MigSlice { profile: "2g 20gb".into(), model: "H100".into() });
        let mig = v1::DeviceRequest { id: "Up".into(), count: 17, wanted: Some(mig) };
        let of = |at: usize, field: &str| format!("instance.spec.devices[{at}]{field}");
        assert_eq!(
            fields(vec![nothing, mig, pool("x", "nic"), gpu("x", 1)]),
            [
                of(0, ""),
                of(1, ".count"),
                of(1, ".mig.model"),
                of(1, ".mig.profile"),
                of(1, ".id"),
                of(2, ".pool.pool"),
                of(3, ".id"),
            ]
        );
        assert_eq!(fields(vec![gpu("a", 2), gpu("a-1", 1)]), [of(1, ".id")]);
        assert_eq!(fields(vec![gpu(&"x".repeat(31), 2)]), [of(0, ".id")], "31 and `-1` are 33");
        assert_eq!(fields(vec![gpu("a", 16), gpu("b", 16), gpu("c", 1)]), ["instance.spec.devices"]);
        assert_eq!(fields(vec![gpu("a", i32::MAX), gpu("b", i32::MAX)]), ["instance.spec.devices"]);
        assert_eq!(fields(vec![gpu("a", -1)]), [of(0, ".count")]);
    }
}
