//! The file:
//! ```yaml
//! version: v1
//! layouts:
//!   all-mig:
//!   - device-filter: [h100_sxm_80gb]   # models, PCI ids, addresses; without: all that the setting is for
//!     devices: all                     # or [0, 1]: which of them, in the order of their addresses
//!     gpu-mode: mig-vgpu               # idle, vgpu, mig-vgpu or foreign
//!   - device-filter: ["8086:1572"]
//!     virtual-functions: 8
//! ```

use std::collections::BTreeMap;

use croft_proto::v1::{self, device::Kind, gpu::Mode};
use serde::{Deserialize, Serialize};

use crate::failure::{Failure, Result};
use crate::keys;
use crate::names;
use crate::noun::gpu::mode_word;

const VERSION: &str = "v1";

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: String,
    layouts: BTreeMap<String, Vec<Entry>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Entry {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    device_filter: Vec<String>,
    #[serde(default)]
    devices: Which,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gpu_mode: Option<ModeWord>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    virtual_functions: Option<i32>,
}

/// Of those that pass the filter, in the order of their addresses.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(untagged, expecting = "`all`, or a list of numbers from 0")]
enum Which {
    Word(All),
    Some(Vec<usize>),
}

impl Default for Which {
    fn default() -> Self {
        Self::Word(All::All)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
enum All {
    All,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
enum ModeWord {
    Idle,
    Vgpu,
    MigVgpu,
    Foreign,
}

impl ModeWord {
    fn mode(self) -> Mode {
        match self {
            Self::Idle => Mode::Idle,
            Self::Vgpu => Mode::Vgpu,
            Self::MigVgpu => Mode::MigVgpu,
            Self::Foreign => Mode::Foreign,
        }
    }

    fn of(mode: Mode) -> Option<Self> {
        [Self::Idle, Self::Vgpu, Self::MigVgpu, Self::Foreign].into_iter().find(|word| word.mode() == mode)
    }
}

/// One layout of a file, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    name: String,
    entries: Vec<Entry>,
}

pub fn read(path: &str, name: Option<&str>) -> Result<Layout> {
    let text = keys::read_text(path, "the layouts")?;
    parse(&text, name).map_err(|why| Failure::usage(format!("{path}: {why}")))
}

fn parse(text: &str, name: Option<&str>) -> Result<Layout, String> {
    let mut file: File = serde_yaml_ng::from_str(text).map_err(|error| error.to_string())?;
    if file.version != VERSION {
        return Err(format!("version `{}` is not {VERSION}", file.version));
    }
    let there = file.layouts.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
    let name = match (name, file.layouts.len()) {
        (Some(name), _) => name.to_owned(),
        (None, 1) => there.clone(),
        (None, 0) => return Err("it has no layout".to_owned()),
        (None, _) => return Err(format!("it has several layouts; choose one with --layout: {there}")),
    };
    let entries = file.layouts.remove(&name).ok_or_else(|| format!("it has no layout `{name}`; there are {there}"))?;
    for (at, entry) in entries.iter().enumerate() {
        if entry.gpu_mode.is_some() == entry.virtual_functions.is_some() {
            return Err(format!("layouts.{name}[{at}]: set either gpu-mode or virtual-functions"));
        }
        if entry.virtual_functions.is_some_and(|functions| functions < 0) {
            return Err(format!("layouts.{name}[{at}].virtual-functions: 0 or more"));
        }
    }
    Ok(Layout { name, entries })
}

impl Layout {
    /// What it means for a host with these devices, and the numbers of the entries that mean nothing there.
    pub fn resolve(&self, devices: &[v1::Device]) -> Result<(Vec<v1::DeviceLayout>, Vec<usize>)> {
        let mut set: BTreeMap<String, v1::DeviceLayout> = BTreeMap::new();
        let mut idle = Vec::new();
        for (at, entry) in self.entries.iter().enumerate() {
            let wrong = |what: String| Failure::usage(format!("layouts.{}[{at}]: {what}", self.name));
            let found = entry.matching(devices);
            if found.is_empty() {
                idle.push(at);
                continue;
            }
            for id in entry.which(&found).map_err(wrong)? {
                let layout = v1::DeviceLayout {
                    device: id.to_owned(),
                    virtual_functions: entry.virtual_functions.unwrap_or_default(),
                    gpu_mode: entry.gpu_mode.map_or(Mode::Unspecified, ModeWord::mode).into(),
                };
                if set.insert(id.to_owned(), layout).is_some() {
                    return Err(wrong(format!("{id} was set by an entry before; a device is set once")));
                }
            }
        }
        Ok((set.into_values().collect(), idle))
    }
}

impl Entry {
    /// Ids of the devices that it is for, in their order.
    fn matching<'a>(&self, devices: &'a [v1::Device]) -> Vec<&'a str> {
        let is_for = |device: &v1::Device| match self.gpu_mode {
            Some(_) => device.kind() == Kind::Gpu,
            None => device.kind() == Kind::Function && device.functions_total > 0,
        };
        let passes = |device: &v1::Device| {
            let model = device.gpu.as_ref().map(|gpu| gpu.model.as_str()).unwrap_or_default();
            let words = [model, device.id.as_str(), names::id(&device.name)];
            self.device_filter.is_empty() || self.device_filter.iter().any(|word| words.contains(&word.as_str()))
        };
        let found = devices.iter().filter(|device| is_for(device) && passes(device));
        let mut ids: Vec<_> = found.map(|device| names::id(&device.name)).collect();
        ids.sort_unstable();
        ids
    }

    fn which<'a>(&self, found: &[&'a str]) -> Result<Vec<&'a str>, String> {
        let Which::Some(numbers) = &self.devices else { return Ok(found.to_vec()) };
        let one = |number: &usize| {
            let beyond = || format!("devices: there is no {number}; {} match, from 0", found.len());
            found.get(*number).copied().ok_or_else(beyond)
        };
        numbers.iter().map(one).collect()
    }
}

/// A host's own, by addresses: good for that host, and a start for a file for others.
pub fn write(name: &str, layout: &v1::HostLayout) -> Result<String> {
    let entry = |device: &v1::DeviceLayout| Entry {
        device_filter: vec![device.device.clone()],
        devices: Which::Word(All::All),
        gpu_mode: ModeWord::of(device.gpu_mode()),
        virtual_functions: (device.gpu_mode() == Mode::Unspecified).then_some(device.virtual_functions),
    };
    let entries = layout.devices.iter().map(entry).collect();
    let file = File { version: VERSION.to_owned(), layouts: [(name.to_owned(), entries)].into() };
    serde_yaml_ng::to_string(&file).map_err(|error| Failure::local(format!("cannot write this as YAML: {error}")))
}

/// `mig-vgpu`, `8 virtual functions`
pub fn shown(layout: &v1::DeviceLayout) -> String {
    match layout.gpu_mode() {
        Mode::Unspecified => format!("{} virtual functions", layout.virtual_functions),
        mode => mode_word(mode).to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "
version: v1
layouts:
  mixed:
  - device-filter: [h100_sxm_80gb]
    devices: [0, 2]
    gpu-mode: mig-vgpu
  - device-filter: ['8086:1572', a30_pcie_24gb]
    virtual-functions: 8
  empty: []
";

    fn device(id: &str, kind: Kind, pci: &str, model: &str) -> v1::Device {
        v1::Device {
            name: format!("hosts/h1/devices/{id}"),
            kind: kind.into(),
            id: pci.into(),
            functions_total: 64,
            gpu: (kind == Kind::Gpu).then(|| v1::Gpu { model: model.into(), ..Default::default() }),
            ..Default::default()
        }
    }

    fn devices() -> Vec<v1::Device> {
        let gpu = |id| device(id, Kind::Gpu, "10de:2330", "h100_sxm_80gb");
        let nic = device("0000:01:00.0", Kind::Function, "8086:1572", "");
        let vf = device("0000:01:02.0", Kind::VirtualFunction, "8086:1572", "");
        vec![gpu("0000:43:00.0"), gpu("0000:41:00.0"), nic, vf, gpu("0000:42:00.0")]
    }

    fn says(layouts: &[v1::DeviceLayout]) -> Vec<(&str, String)> {
        layouts.iter().map(|layout| (layout.device.as_str(), shown(layout))).collect()
    }

    #[test]
    fn a_layout_means_something_else_on_each_host() {
        let layout = parse(FILE, Some("mixed")).unwrap();
        let (set, idle) = layout.resolve(&devices()).unwrap();
        assert_eq!(
            says(&set),
            [
                ("0000:01:00.0", "8 virtual functions".to_owned()),
                ("0000:41:00.0", "mig-vgpu".to_owned()),
                ("0000:43:00.0", "mig-vgpu".to_owned()),
            ]
        );
        assert!(idle.is_empty());
        let (set, idle) = layout.resolve(&[]).unwrap();
        assert_eq!((set.len(), idle), (0, vec![0, 1]), "a file for a fleet names what one host lacks");
        assert_eq!(
            layout.resolve(&devices()[1..3]).unwrap_err().to_string(),
            "layouts.mixed[0]: devices: there is no 2; 1 match, from 0"
        );
    }

    #[test]
    fn what_is_written_is_read_again() {
        let (devices, _) = parse(FILE, Some("mixed")).unwrap().resolve(&devices()).unwrap();
        let layout = v1::HostLayout { devices, ..Default::default() };
        let text = write("current", &layout).unwrap();
        let again = parse(&text, None).unwrap();
        assert_eq!(again.resolve(&self::devices()).unwrap().0, layout.devices, "{text}");
    }

    #[test]
    fn the_example_in_the_documentation_is_one() {
        let page = include_str!("../../../../../docs/devices.md");
        let example = page.split("```yaml\n").nth(1).unwrap().split("```").next().unwrap();
        let layout = parse(example, None).unwrap();
        assert_eq!((layout.name.as_str(), layout.entries.len()), ("inference", 3));
    }

    #[test]
    fn mistakes_are_named() {
        let error = |text: &str, name| parse(text, name).unwrap_err();
        assert!(error(FILE, None).contains("choose one with --layout: empty, mixed"));
        assert!(error(FILE, Some("x")).contains("no layout `x`; there are empty, mixed"));
        assert!(error("version: v2\nlayouts: {}", None).contains("version `v2` is not v1"));
        let entry = |entry: &str| error(&format!("version: v1\nlayouts: {{a: [{entry}]}}"), None);
        assert!(entry("{devices: all}").contains("layouts.a[0]: set either gpu-mode or virtual-functions"));
        assert!(entry("{gpu-mode: idle, virtual-functions: 1}").contains("set either"));
        assert!(entry("{virtual-functions: -1}").contains("0 or more"));
        assert!(entry("{gpu-mode: warp}").contains("mig-vgpu"));
        assert!(entry("{gpu-mode: idle, devices: some}").contains("`all`, or a list of numbers"));
        assert!(entry("{gpu-mode: idle, device: x}").contains("device-filter"));
        let twice = "version: v1\nlayouts: {a: [{gpu-mode: idle}, {gpu-mode: vgpu, devices: [0]}]}";
        let refused = parse(twice, None).unwrap().resolve(&devices()).unwrap_err().to_string();
        assert!(refused.starts_with("layouts.a[1]: 0000:41:00.0 was set by an entry before"), "{refused}");
    }
}
