//! A limit may come before what it limits: a model that is still to be delivered, a pool that is defined tomorrow. It may also
//! be a slip of the pen, so whoever sets it is told when nobody knows the word.

use std::collections::BTreeSet;

use croft_proto::v1;
use tonic::Code;

use crate::app::App;
use crate::failure::{Failure, Result};
use crate::noun::{gpu, pool};
use crate::output::note;

/// What cannot be found out (a tenant's admin sees no hosts) is no doubt.
pub async fn tell(app: &App, resource: &str) {
    let doubt = match resource.split('/').collect::<Vec<_>>()[..] {
        ["devices", id] => of_pool(app, id).await,
        ["gpus", model] => of_model(app, model, None).await,
        ["gpu_slices", model, profile] => of_model(app, model, Some(profile)).await,
        _ => return,
    };
    if let Ok(Some(doubt)) = doubt {
        note(&format!("note: {doubt}"));
    }
}

async fn of_pool(app: &App, id: &str) -> Result<Option<String>> {
    match pool::get(app, format!("pools/{id}")).await {
        Err(Failure::Refused(status)) if status.code() == Code::NotFound => {
            let pools = pool::list(app).await?;
            let there = pools.iter().map(|pool| pool.name.strip_prefix("pools/").unwrap_or(&pool.name));
            Ok(Some(format!("there is no pool {id}{}", listed(there))))
        }
        Err(failure) => Err(failure),
        Ok(_) => Ok(None),
    }
}

async fn of_model(app: &App, model: &str, profile: Option<&str>) -> Result<Option<String>> {
    let devices = gpu::all(app, None).await?;
    let gpus: Vec<&v1::Gpu> = devices.iter().filter_map(|device| device.gpu.as_ref()).collect();
    Ok(doubt(&gpus, model, profile))
}

fn doubt(gpus: &[&v1::Gpu], model: &str, profile: Option<&str>) -> Option<String> {
    let of_model: Vec<_> = gpus.iter().filter(|gpu| gpu.model == model).collect();
    if of_model.is_empty() {
        return Some(format!("no host has a {model}{}", listed(gpus.iter().map(|gpu| gpu.model.as_str()))));
    }
    let profile = profile?;
    let words = of_model.iter().flat_map(|gpu| {
        // A MIG-backed vGPU is counted by its profile.
        let sliced = gpu.vgpu_types.iter().filter(|vgpu| vgpu.mig_profile.is_empty()).map(|vgpu| vgpu.name.as_str());
        gpu.mig_profiles.iter().map(|profile| profile.name.as_str()).chain(sliced)
    });
    let words: Vec<_> = words.collect();
    let unknown = !words.contains(&profile);
    unknown.then(|| format!("no {model} is cut into {profile}{}", listed(words.into_iter())))
}

fn listed<'a>(words: impl Iterator<Item = &'a str>) -> String {
    let words: BTreeSet<_> = words.filter(|word| !word.is_empty()).collect();
    if words.is_empty() {
        return String::new();
    }
    format!("; there are {}", words.into_iter().collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_that_nobody_knows_is_told_with_those_that_are() {
        let vgpu =
            |name: &str, mig: &str| v1::VgpuType { name: name.into(), mig_profile: mig.into(), ..Default::default() };
        let h100 = v1::Gpu {
            model: "h100_sxm_80gb".into(),
            mig_profiles: vec![v1::MigProfile { name: "2g.20gb".into(), ..Default::default() }],
            vgpu_types: vec![vgpu("H100XM-20C", ""), vgpu("H100XM-2-20C", "2g.20gb")],
            ..Default::default()
        };
        let gpus = [&h100];
        assert_eq!(doubt(&gpus, "h100_sxm_80gb", None), None);
        assert_eq!(doubt(&gpus, "h100_sxm_80gb", Some("2g.20gb")), None);
        assert_eq!(doubt(&gpus, "h200", None).unwrap(), "no host has a h200; there are h100_sxm_80gb");
        assert_eq!(
            doubt(&gpus, "h100_sxm_80gb", Some("H100XM-2-20C")).unwrap(),
            "no h100_sxm_80gb is cut into H100XM-2-20C; there are 2g.20gb, H100XM-20C"
        );
        assert_eq!(doubt(&[], "h200", None).unwrap(), "no host has a h200");
    }
}
