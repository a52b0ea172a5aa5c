//! What `--gpu`, `--device` and `--usb` ask for, and how what was given is shown.

use clap::Args;
use croft_proto::v1::{
    self,
    device_request::{MigSlice, PoolDevice, Vgpu, Wanted, WholeGpu},
};
use tonic::Code;

use crate::app::App;
use crate::failure::{Failure, Result};
use crate::names;
use crate::noun::{device, pool};

#[derive(Debug, Clone, Default, Args)]
pub struct Devices {
    /// A GPU or a piece of one: a number of any, MODEL[:N], mig=[MODEL/]PROFILE[:N] or vgpu=TYPE[:N]; may be given again
    #[arg(long = "gpu", value_name = "WHAT", value_parser = gpu)]
    gpus: Vec<v1::DeviceRequest>,
    /// Something of a pool: pool=POOL[:N]; may be given again
    #[arg(long = "device", value_name = "pool=POOL[:N]", value_parser = of_pool)]
    devices: Vec<v1::DeviceRequest>,
    /// Something of a pool of USB devices: pool=POOL[:N]; may be given again
    #[arg(long = "usb", value_name = "pool=POOL[:N]", value_parser = of_pool)]
    usb: Vec<v1::DeviceRequest>,
}

impl Devices {
    /// All of them, once it is sure that `--usb` means USB.
    pub async fn requests(self, app: &App) -> Result<Vec<v1::DeviceRequest>> {
        for request in &self.usb {
            check_usb(app, request).await?;
        }
        Ok([self.gpus, self.devices, self.usb].concat())
    }
}

/// A pool that is not there, or not to be seen, is the plane's to refuse.
async fn check_usb(app: &App, request: &v1::DeviceRequest) -> Result<()> {
    let Some(Wanted::Pool(of)) = &request.wanted else { return Ok(()) };
    let kind = match pool::get(app, of.pool.clone()).await {
        Ok(pool) => pool.r#match.unwrap_or_default().kind(),
        Err(Failure::Refused(status)) if status.code() == Code::NotFound => return Ok(()),
        Err(failure) => return Err(failure),
    };
    if kind == v1::device::Kind::Usb {
        return Ok(());
    }
    let (name, kind) = (&of.pool, device::kind_word(kind));
    Err(Failure::usage(format!("{name} is a pool of kind {kind}, not of USB devices; use --device")))
}

fn wanted(count: i32, wanted: Wanted) -> v1::DeviceRequest {
    v1::DeviceRequest { id: String::new(), count, wanted: Some(wanted) }
}

/// `1`, `h100_sxm_80gb:2`, `mig=2g.20gb`, `mig=h100_sxm_80gb/2g.20gb:3`, `vgpu=H100XM-2-20C`
pub fn gpu(text: &str) -> Result<v1::DeviceRequest, String> {
    if let Ok(count) = text.parse::<u32>() {
        let any = Wanted::Gpu(WholeGpu::default());
        return Ok(wanted(count_of(count)?, any));
    }
    let (what, count) = counted(text)?;
    let what = match what.split_once('=') {
        None => Wanted::Gpu(WholeGpu { model: what.to_owned() }),
        Some(("mig", slice)) => {
            let (model, profile) = slice.split_once('/').unwrap_or(("", slice));
            Wanted::Mig(MigSlice { profile: full(profile, text)?, model: model.to_owned() })
        }
        Some(("vgpu", of_type)) => Wanted::Vgpu(Vgpu { r#type: full(of_type, text)? }),
        Some((word, _)) => return Err(format!("`{word}=` is none of mig=PROFILE, vgpu=TYPE")),
    };
    Ok(wanted(count, what))
}

/// `pool=nic-vf:2`
pub fn of_pool(text: &str) -> Result<v1::DeviceRequest, String> {
    let (what, count) = counted(text)?;
    let Some(("pool", id)) = what.split_once('=') else { return Err(format!("`{text}` is not pool=POOL[:N]")) };
    let pool = names::top("pools", id).map_err(|failure| failure.to_string())?;
    Ok(wanted(count, Wanted::Pool(PoolDevice { pool })))
}

fn full(word: &str, text: &str) -> Result<String, String> {
    if word.is_empty() { Err(format!("`{text}` does not say which")) } else { Ok(word.to_owned()) }
}

/// What stands before `:N`, and the N.
fn counted(text: &str) -> Result<(&str, i32), String> {
    match text.rsplit_once(':') {
        None => Ok((text, 1)),
        Some((what, count)) => {
            let count = count.parse().map_err(|_| format!("`{count}` in `{text}` is no number"))?;
            Ok((what, count_of(count)?))
        }
    }
}

fn count_of(count: u32) -> Result<i32, String> {
    match i32::try_from(count) {
        Ok(0) | Err(_) => Err(format!("{count} is no number of devices")),
        Ok(count) => Ok(count),
    }
}

/// For a cell: `2g.20gb`, `H100XM-2-20C`, `h100_sxm_80gb`, `nic-vf`.
#[must_use]
pub fn word(given: &v1::DeviceAssignment) -> &str {
    let words = [given.vgpu_type.as_str(), given.mig_profile.as_str(), names::id(&given.pool), given.model.as_str()];
    words.into_iter().find(|word| !word.is_empty()).unwrap_or_else(|| names::id(&given.device))
}

/// `gpu-0: h1/0000:41:00.0, 2g.20gb of h100_sxm_80gb as H100XM-2-20C, slices 2-3, function 5`
#[must_use]
pub fn sentence(given: &v1::DeviceAssignment) -> String {
    let mut parts = vec![device::short(&given.device)];
    match (given.mig_profile.as_str(), given.vgpu_type.as_str(), given.model.as_str()) {
        ("", "", "") => {}
        ("", "", model) => parts.push(format!("all of a {model}")),
        ("", vgpu, model) => parts.push(format!("{vgpu} of {model}")),
        (profile, "", model) => parts.push(format!("{profile} of {model}")),
        (profile, vgpu, model) => parts.push(format!("{profile} of {model} as {vgpu}")),
    }
    if !given.pool.is_empty() {
        parts.push(format!("from {}", given.pool));
    }
    match given.mig_size {
        0 => {}
        1 => parts.push(format!("slice {}", given.mig_start)),
        size => parts.push(format!("slices {}-{}", given.mig_start, given.mig_start + size - 1)),
    }
    if !given.vgpu_type.is_empty() && given.function_index >= 0 {
        parts.push(format!("function {}", given.function_index));
    }
    if given.fabric_partition >= 0 && given.vgpu_type.is_empty() && !given.model.is_empty() {
        parts.push(format!("NVSwitch partition {}", given.fabric_partition));
    }
    format!("{}: {}", given.id, parts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_can_be_asked_for() {
        let whole = |model: &str| Wanted::Gpu(WholeGpu { model: model.into() });
        let mig = |model: &str| Wanted::Mig(MigSlice { profile: "2g.20gb".into(), model: model.into() });
        for (text, count, what) in [
            ("1", 1, whole("")),
            ("2", 2, whole("")),
            ("h100_sxm_80gb", 1, whole("h100_sxm_80gb")),
            ("h100_sxm_80gb:2", 2, whole("h100_sxm_80gb")),
            ("mig=2g.20gb", 1, mig("")),
            ("mig=2g.20gb:3", 3, mig("")),
            ("mig=h100_sxm_80gb/2g.20gb:3", 3, mig("h100_sxm_80gb")),
            ("vgpu=H100XM-2-20C", 1, Wanted::Vgpu(Vgpu { r#type: "H100XM-2-20C".into() })),
        ] {
            assert_eq!(gpu(text), Ok(wanted(count, what)), "{text}");
        }
        let nic = wanted(2, Wanted::Pool(PoolDevice { pool: "pools/nic-vf".into() }));
        assert_eq!((of_pool("pool=nic-vf:2"), of_pool("pool=pools/nic-vf:2")), (Ok(nic.clone()), Ok(nic)));
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_what_can() {
        for (text, part) in [
            ("0", "no number of devices"),
            ("h100:x", "`x` in `h100:x` is no number"),
            ("h100:0", "no number of devices"),
            ("mig=", "does not say which"),
            ("slice=1g", "none of mig=PROFILE, vgpu=TYPE"),
        ] {
            let error = gpu(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
        assert!(of_pool("nic-vf").unwrap_err().contains("pool=POOL[:N]"));
        assert!(of_pool("pool=").is_err());
    }

    #[test]
    fn an_assignment_says_where_and_what() {
        let given = v1::DeviceAssignment {
            id: "gpu-0".into(),
            device: "hosts/h1/devices/0000:41:00.0".into(),
            model: "h100_sxm_80gb".into(),
            function_index: -1,
            fabric_partition: -1,
            ..Default::default()
        };
        assert_eq!(sentence(&given), "gpu-0: h1/0000:41:00.0, all of a h100_sxm_80gb");
        assert_eq!(word(&given), "h100_sxm_80gb");
        let slice = v1::DeviceAssignment {
            mig_profile: "2g.20gb".into(),
            mig_start: 2,
            mig_size: 2,
            vgpu_type: "H100XM-2-20C".into(),
            function_index: 5,
            ..given.clone()
        };
        let text = "gpu-0: h1/0000:41:00.0, 2g.20gb of h100_sxm_80gb as H100XM-2-20C, slices 2-3, function 5";
        assert_eq!((sentence(&slice).as_str(), word(&slice)), (text, "H100XM-2-20C"));
        let pool = v1::DeviceAssignment { pool: "pools/nic-vf".into(), model: String::new(), ..given };
        assert_eq!((sentence(&pool).as_str(), word(&pool)), ("gpu-0: h1/0000:41:00.0, from pools/nic-vf", "nic-vf"));
    }
}
