//! What the hosts' GPUs are and can be cut into, model by model: for refusals that say what there is, and for the models that
//! a tenant's quota leaves.

use std::collections::{BTreeMap, BTreeSet};

use super::DeviceViews;
use crate::device::{Gpu, Paths, Request, Wanted};
use crate::error::Result;
use crate::quota::device::Candidate;
use crate::validate::Violations;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Catalogue {
    models: BTreeMap<String, Model>,
}

/// Memory is the least that any GPU of the model tells of: what a request is charged at the least. One host's word, however
/// wrong, keeps nobody from the GPUs of the others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Model {
    memory_mib: i64,
    /// Profile to memory.
    profiles: BTreeMap<String, i64>,
    /// Type, and the profile below it or nothing, to memory.
    types: BTreeMap<String, BTreeMap<String, i64>>,
}

/// None is no amount.
fn least(known: &mut i64, told: i64) {
    if told > 0 && (*known == 0 || told < *known) {
        *known = told;
    }
}

impl Catalogue {
    pub fn add(&mut self, views: &DeviceViews) {
        for gpu in views.0.values().filter_map(|view| view.gpu()).filter(|gpu| !gpu.model.is_empty()) {
            self.add_gpu(gpu);
        }
    }

    fn add_gpu(&mut self, gpu: &Gpu) {
        let model = self.models.entry(gpu.model.clone()).or_default();
        least(&mut model.memory_mib, gpu.memory_mib);
        let mut nominal: BTreeMap<&str, i64> = BTreeMap::new();
        for profile in gpu.board.iter().flat_map(|board| &board.profiles) {
            let backed = gpu.vgpu_types.iter().filter(|one| one.mig_profile == profile.name);
            let memory_mib = backed.map(|one| one.framebuffer_mib).max().unwrap_or(0).max(profile.memory_mib);
            least(model.profiles.entry(profile.name.clone()).or_default(), memory_mib);
            nominal.insert(&profile.name, profile.memory_mib);
        }
        for one in &gpu.vgpu_types {
            let below = model.types.entry(one.name.clone()).or_default();
            let memory_mib = nominal.get(one.mig_profile.as_str()).copied().unwrap_or(0).max(one.framebuffer_mib);
            least(below.entry(one.mig_profile.clone()).or_default(), memory_mib);
        }
    }

    /// What `wanted` may turn out to be, and what that would be charged to. Nothing for pools.
    #[must_use]
    pub fn candidates(&self, wanted: &Wanted) -> Vec<Candidate> {
        let of = |(name, model): (&String, &Model)| -> Vec<Candidate> {
            let candidate = |slice: Option<&String>, memory_mib: i64| Candidate {
                model: name.clone(),
                slice: slice.cloned(),
                memory_mib,
            };
            match wanted {
                Wanted::Gpu { model: asked } if named(asked, name) => vec![candidate(None, model.memory_mib)],
                Wanted::Mig { profile, model: asked } if named(asked, name) => {
                    let memory_mib = model.profiles.get(profile).copied();
                    memory_mib.map(|memory_mib| candidate(Some(profile), memory_mib)).into_iter().collect()
                }
                Wanted::Vgpu { type_name } => {
                    let below = model.types.get(type_name).into_iter().flatten();
                    let slice =
                        |profile: &'_ String| if profile.is_empty() { type_name.clone() } else { profile.clone() };
                    below.map(|(profile, memory_mib)| candidate(Some(&slice(profile)), *memory_mib)).collect()
                }
                Wanted::Gpu { .. } | Wanted::Mig { .. } | Wanted::Pool { .. } => Vec::new(),
            }
        };
        self.models.iter().flat_map(of).collect()
    }

    /// Refuses what no host has, with what there is.
    pub fn check(&self, paths: &Paths, requests: &[Request]) -> Result<()> {
        let mut violations = Violations::new();
        for (at, request) in requests.iter().enumerate() {
            if let Some((part, why)) = self.unknown(&request.wanted) {
                violations.add(format!("{}.{part}", paths.of(at)), why);
            }
        }
        violations.finish()
    }

    fn unknown(&self, wanted: &Wanted) -> Option<(&'static str, String)> {
        let no_model = |model: &str| {
            let models: Vec<&str> = self.models.keys().map(String::as_str).collect();
            format!("no host has a GPU of model {model}; {}", there_are(&models))
        };
        let words = |of: fn(&Model) -> Vec<&String>, only: Option<&String>| -> Vec<String> {
            let models = self.models.iter().filter(|(name, _)| only.is_none_or(|only| only == *name));
            let shown = models.map(|(name, model)| (name, of(model))).filter(|(_, words)| !words.is_empty());
            shown.map(|(name, words)| format!("{name}: {}", join(&words))).collect()
        };
        match wanted {
            Wanted::Gpu { model: Some(model) } | Wanted::Mig { model: Some(model), .. }
                if !self.models.contains_key(model) =>
            {
                let part = if matches!(wanted, Wanted::Gpu { .. }) { "gpu.model" } else { "mig.model" };
                Some((part, no_model(model)))
            }
            Wanted::Mig { profile, model } if self.candidates(wanted).is_empty() => {
                let there = there_are(&words(|model| model.profiles.keys().collect(), model.as_ref()));
                let of = model.as_ref().map_or_else(|| "no GPU".to_owned(), |model| format!("{model} does not"));
                let verb = if model.is_some() { "have" } else { "has" };
                Some(("mig.profile", format!("{of} {verb} the MIG profile {profile}; {there}")))
            }
            Wanted::Vgpu { type_name } if self.candidates(wanted).is_empty() => {
                let there = there_are(&words(|model| model.types.keys().collect(), None));
                Some(("vgpu.type", format!("no GPU makes the vGPU type {type_name}; {there}")))
            }
            Wanted::Gpu { .. } | Wanted::Mig { .. } | Wanted::Vgpu { .. } | Wanted::Pool { .. } => None,
        }
    }

    #[must_use]
    pub fn models(&self) -> BTreeSet<String> {
        self.models.keys().cloned().collect()
    }
}

fn named(asked: &Option<String>, model: &String) -> bool {
    asked.as_ref().is_none_or(|asked| asked == model)
}

fn there_are<T: AsRef<str>>(words: &[T]) -> String {
    if words.is_empty() {
        return "no host reports any".to_owned();
    }
    format!("there are {}", words.iter().map(AsRef::as_ref).collect::<Vec<_>>().join("; "))
}

fn join(words: &[&String]) -> String {
    words.iter().map(|word| word.as_str()).collect::<Vec<_>>().join(", ")
}
