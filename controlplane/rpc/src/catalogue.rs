//! What the hosts' GPUs can be cut into, so that a profile that no board has is refused with those that exist. Whether one is
//! free is placement's to say.
//!
//! Read again only for a word that is not known, and not more often than every few seconds: what was once there passes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use croft_core::Result;
use croft_core::device::Record;
use croft_core::validate::Violations;
use croft_proto::v1;
use tokio::sync::Mutex;
use tokio::time::Instant;
use v1::device_request::Wanted;

use crate::api::Api;

const READ_EVERY: Duration = Duration::from_secs(2);

#[derive(Debug, Default)]
pub struct Catalogue(Mutex<Option<(Instant, Arc<Boards>)>>);

/// By model.
#[derive(Debug, Default, PartialEq, Eq)]
struct Boards(BTreeMap<String, Board>);

#[derive(Debug, Default, PartialEq, Eq)]
struct Board {
    profiles: BTreeSet<String>,
    vgpu_types: BTreeSet<String>,
}

/// `field`: where the requests stand; a single request stands at `field` itself.
pub async fn check(api: &Api, field: &str, requests: &[v1::DeviceRequest]) -> Result<()> {
    let wants_a_slice = |request: &v1::DeviceRequest| matches!(request.wanted, Some(Wanted::Mig(_) | Wanted::Vgpu(_)));
    if !requests.iter().any(wants_a_slice) {
        return Ok(());
    }
    let mut cache = api.catalogue.0.lock().await;
    let mut boards = cache.as_ref().map(|(_, boards)| boards.clone()).unwrap_or_default();
    let mut verdict = boards.check(field, requests);
    let is_old = cache.as_ref().is_none_or(|(read, _)| read.elapsed() >= READ_EVERY);
    if is_old && (verdict.is_err() || boards.0.is_empty()) {
        boards = Arc::new(Boards::new(&api.store().device_all().await?));
        *cache = Some((Instant::now(), boards.clone()));
        verdict = boards.check(field, requests);
    }
    verdict
}

impl Boards {
    fn new(devices: &[Record]) -> Self {
        let mut boards: BTreeMap<String, Board> = BTreeMap::new();
        for gpu in devices.iter().filter_map(|record| record.device.gpu.as_ref()).filter(|gpu| !gpu.model.is_empty()) {
            let board = boards.entry(gpu.model.clone()).or_default();
            let profiles = gpu.board.iter().flat_map(|report| &report.profiles);
            board.profiles.extend(profiles.map(|profile| profile.name.clone()));
            board.vgpu_types.extend(gpu.vgpu_types.iter().map(|vgpu| vgpu.name.clone()));
        }
        Self(boards)
    }

    fn check(&self, field: &str, requests: &[v1::DeviceRequest]) -> Result<()> {
        // Nobody told of any GPU: that there is no room is for placement to say.
        if self.0.is_empty() {
            return Ok(());
        }
        let mut violations = Violations::new();
        for (at, request) in requests.iter().enumerate() {
            let field = if field.ends_with("devices") { format!("{field}[{at}]") } else { field.to_owned() };
            match &request.wanted {
                Some(Wanted::Mig(mig)) => {
                    if let Err((part, why)) = self.mig(&mig.profile, &mig.model) {
                        violations.add(format!("{field}.mig.{part}"), why);
                    }
                }
                Some(Wanted::Vgpu(vgpu)) if !self.0.values().any(|board| board.vgpu_types.contains(&vgpu.r#type)) => {
                    let there = self.listed(|board| &board.vgpu_types);
                    let why = format!("no host's GPU makes the vGPU type `{}`; there are {there}", vgpu.r#type);
                    violations.add(format!("{field}.vgpu.type"), why);
                }
                _ => {}
            }
        }
        violations.finish()
    }

    fn mig(&self, profile: &str, model: &str) -> Result<(), (&'static str, String)> {
        let having = |profile: &str| -> Vec<&str> {
            let having = self.0.iter().filter(|(_, board)| board.profiles.contains(profile));
            having.map(|(model, _)| model.as_str()).collect()
        };
        let Some(board) = self.0.get(model) else {
            return match (model.is_empty(), having(profile).is_empty()) {
                (true, false) => Ok(()),
                (true, true) => {
                    let there = self.listed(|board| &board.profiles);
                    Err(("profile", format!("no host's GPU has the MIG profile `{profile}`; there are {there}")))
                }
                (false, _) => {
                    let models = self.0.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
                    Err(("model", format!("no host has a `{model}`; there are {models}")))
                }
            };
        };
        if board.profiles.contains(profile) {
            return Ok(());
        }
        let own = board.profiles.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        let own = if own.is_empty() { "it has none".to_owned() } else { format!("it has {own}") };
        let others = having(profile);
        let others = if others.is_empty() { String::new() } else { format!(" ({} has it)", others.join(", ")) };
        Err(("profile", format!("{model} has no MIG profile `{profile}`{others}; {own}")))
    }

    /// `h100_sxm_80gb: 1g.10gb, 2g.20gb; …`
    fn listed(&self, words: fn(&Board) -> &BTreeSet<String>) -> String {
        let boards = self.0.iter().filter(|(_, board)| !words(board).is_empty());
        let lines: Vec<_> = boards
            .map(|(model, board)| {
                let words: Vec<_> = words(board).iter().map(String::as_str).collect();
                format!("{model}: {}", words.join(", "))
            })
            .collect();
        if lines.is_empty() { "none at all".to_owned() } else { lines.join("; ") }
    }
}

#[cfg(test)]
mod tests {
    use v1::device_request::{MigSlice, Vgpu};

    use super::*;

    fn boards() -> Boards {
        let set = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        let a30 = Board { profiles: set(&["1g.6gb", "2g.12gb"]), vgpu_types: BTreeSet::new() };
        let h100 = Board { profiles: set(&["1g.10gb", "2g.20gb"]), vgpu_types: set(&["H100XM-2-20C"]) };
        let l40s = Board { profiles: BTreeSet::new(), vgpu_types: set(&["L40S-8Q"]) };
        let named = [("a30_pcie_24gb", a30), ("h100_sxm_80gb", h100), ("l40s_48gb", l40s)];
        Boards(named.map(|(model, board)| (model.to_owned(), board)).into())
    }

    fn refusal(wanted: Wanted) -> String {
        let request = v1::DeviceRequest { wanted: Some(wanted), ..Default::default() };
        boards().check("instance.spec.devices", &[request]).map_or_else(|error| error.to_string(), |()| String::new())
    }

    fn mig(profile: &str, model: &str) -> String {
        refusal(Wanted::Mig(MigSlice { profile: profile.into(), model: model.into() }))
    }

    #[test]
    fn what_exists_passes() {
        assert_eq!(mig("2g.20gb", ""), "");
        assert_eq!(mig("2g.20gb", "h100_sxm_80gb"), "");
        assert_eq!(refusal(Wanted::Vgpu(Vgpu { r#type: "L40S-8Q".into() })), "");
        assert!(Boards::default().mig("2g.20gb", "").is_err());
        let request = v1::DeviceRequest { wanted: Some(Wanted::Mig(MigSlice::default())), ..Default::default() };
        assert_eq!(Boards::default().check("device", &[request]), Ok(()), "without any GPU it is a matter of room");
    }

    #[test]
    fn what_does_not_is_refused_with_what_does() {
        let field = "instance.spec.devices[0].";
        let text = format!(
            "{field}mig.profile: no host's GPU has the MIG profile `3g.99gb`; there are a30_pcie_24gb: 1g.6gb, 2g.12gb; \
             h100_sxm_80gb: 1g.10gb, 2g.20gb"
        );
        assert_eq!(mig("3g.99gb", ""), text);
        let text = format!(
            "{field}mig.profile: h100_sxm_80gb has no MIG profile `1g.6gb` (a30_pcie_24gb has it); it has 1g.10gb, 2g.20gb"
        );
        assert_eq!(mig("1g.6gb", "h100_sxm_80gb"), text);
        assert!(mig("1g.6gb", "l40s_48gb").ends_with("it has none"));
        let text = format!("{field}mig.model: no host has a `h200`; there are a30_pcie_24gb, h100_sxm_80gb, l40s_48gb");
        assert_eq!(mig("1g.6gb", "h200"), text);
        let text = refusal(Wanted::Vgpu(Vgpu { r#type: "H100-2-20C".into() }));
        assert!(
            text.starts_with(&format!("{field}vgpu.type: no host's GPU makes the vGPU type `H100-2-20C`")),
            "{text}"
        );
        assert!(text.ends_with("h100_sxm_80gb: H100XM-2-20C; l40s_48gb: L40S-8Q"), "{text}");
    }
}
