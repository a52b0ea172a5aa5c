//! `croft device`: what hosts have that a VM can be given. For platform operators; tenants see theirs in `instance get`.

use clap::{Args, Subcommand, ValueEnum};
use croft_proto::v1::{
    self,
    device::{Kind, State},
};

use crate::app::App;
use crate::failure::{Failure, Result};
use crate::flags::{RequestId, all_pages};
use crate::names;
use crate::output::cell::{self, Mood, Text};
use crate::output::{self, Resource, age, named, table::Column};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show the devices of all hosts
    #[command(
        after_help = "Examples:\n  croft device list --host h1 --kind usb\n  croft device list --pool nic-vf -o wide"
    )]
    List(List),
    /// Show one device: who holds it, what goes with it, how it was cleaned last
    #[command(visible_alias = "get", after_help = "Example:\n  croft device show h1/0000:41:00.0")]
    Show { device: String },
    /// Place nothing new on a device; who holds it keeps it
    #[command(after_help = "Example:\n  croft device quarantine h1/0000:41:00.0 --message 'fan is loud, ticket 4711'")]
    Quarantine {
        device: String,
        /// Why; shown with the device
        #[arg(long, default_value = "", hide_default_value = true)]
        message: String,
        #[command(flatten)]
        request: RequestId,
    },
    /// End a quarantine, and take the hardware that is there now for the right one
    Release {
        device: String,
        #[command(flatten)]
        request: RequestId,
    },
}

#[derive(Debug, Default, Args)]
pub struct List {
    /// Only of this host
    #[arg(long)]
    pub host: Option<String>,
    /// Only of this kind; may be given again
    #[arg(long = "kind", value_enum)]
    pub kinds: Vec<KindArg>,
    /// Only what this pool matches
    #[arg(long)]
    pub pool: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum KindArg {
    Gpu,
    /// A PCI function that is neither a GPU nor virtual
    Function,
    /// A virtual function of an SR-IOV card
    #[value(alias = "vf")]
    VirtualFunction,
    Usb,
}

impl KindArg {
    fn kind(self) -> Kind {
        match self {
            Self::Gpu => Kind::Gpu,
            Self::Function => Kind::Function,
            Self::VirtualFunction => Kind::VirtualFunction,
            Self::Usb => Kind::Usb,
        }
    }
}

/// As `--kind` spells it.
pub fn kind_word(kind: Kind) -> &'static str {
    match kind {
        Kind::Unspecified => "",
        Kind::Gpu => "gpu",
        Kind::Function => "function",
        Kind::VirtualFunction => "virtual-function",
        Kind::Usb => "usb",
    }
}

named!(v1::Device => "croft.v1.Device");

impl Resource for v1::Device {
    const COLUMNS: &'static [Column<Self>] = &[
        Column::new("HOST", |device| host(device).into()),
        Column::new("DEVICE", |device| names::id(&device.name).into()),
        Column::new("KIND", |device| kind_word(device.kind()).into()),
        Column::new("STATE", state),
        Column::new("ID", |device| device.id.as_str().into()),
        Column::new("WHAT", |device| what(device).into()),
        Column::new("DRIVER", |device| device.driver.as_str().into()),
        Column::new("HELD BY", holders),
        Column::wide("GROUP", |device| number(device.iommu_group)),
        Column::wide("NUMA", |device| number(device.numa_node)),
        Column::wide("SERIAL", |device| device.serial.as_str().into()),
        Column::wide("SLOT", |device| device.slot_path.as_str().into()),
        Column::wide("OF", |device| match device.physical.as_str() {
            "" => "".into(),
            physical => format!("{physical} #{}", device.function_index).into(),
        }),
        Column::wide("FUNCTIONS", |device| match device.functions_total {
            0 => "".into(),
            total => format!("{}/{total}", device.functions_count).into(),
        }),
        Column::wide("ALONG", |device| cell::few(&device.companions, 2)),
        Column::wide("REASON", |device| device.reason.as_str().into()),
    ];

    fn name(&self) -> &str {
        &self.name
    }
}

pub fn host(device: &v1::Device) -> &str {
    device.name.strip_prefix("hosts/").and_then(|rest| rest.split('/').next()).unwrap_or_default()
}

/// `NVIDIA H100`, else what pci.ids calls it.
fn what(device: &v1::Device) -> &str {
    match &device.gpu {
        Some(gpu) if !gpu.product_name.is_empty() => &gpu.product_name,
        _ if !device.device_name.is_empty() => &device.device_name,
        _ => &device.vendor_name,
    }
}

pub fn state(device: &v1::Device) -> Text {
    let mood = match device.state() {
        State::Available => Mood::Good,
        State::InUse => Mood::Busy,
        State::Unhealthy | State::Stuck => Mood::Bad,
        State::Quarantined | State::Changed | State::Missing => Mood::Doubtful,
        State::Unspecified | State::Foreign | State::Unusable => Mood::Plain,
    };
    Text::new(device.state().as_str_name(), mood)
}

/// `acme/train`
pub fn holders(device: &v1::Device) -> Text {
    let names: Vec<_> = device.holders.iter().map(|holder| holder_name(&holder.instance)).collect();
    cell::few(&names, 2)
}

pub fn holder_name(instance: &str) -> String {
    format!("{}/{}", names::tenant_of(instance), names::id(instance))
}

fn number(value: i32) -> Text {
    if value < 0 { "".into() } else { value.into() }
}

/// `h1/0000:41:00.0` is `hosts/h1/devices/0000:41:00.0`.
pub fn name(text: &str) -> Result<String> {
    let whole = |part: &str| !part.is_empty();
    match text.split('/').collect::<Vec<_>>()[..] {
        ["hosts", host, "devices", id] if whole(host) && whole(id) => Ok(text.to_owned()),
        [host, id] if whole(host) && whole(id) && host != "hosts" => Ok(format!("hosts/{host}/devices/{id}")),
        _ => Err(Failure::usage(format!("`{text}` is not HOST/DEVICE, for example h1/0000:41:00.0"))),
    }
}

/// The other way round.
pub fn short(name: &str) -> String {
    match name.split('/').collect::<Vec<_>>()[..] {
        ["hosts", host, "devices", id] => format!("{host}/{id}"),
        _ => name.to_owned(),
    }
}

pub async fn run(app: &App, command: Command) -> Result<()> {
    match command {
        Command::List(filter) => app.out.list("devices", &list(app, &filter).await?),
        Command::Show { device } => show(app, &get(app, &device).await?),
        Command::Quarantine { device, message, request } => {
            let request = v1::QuarantineDeviceRequest { name: name(&device)?, message, request_id: request.get() };
            let device =
                app.plane()?.call(request, async |plane, r| plane.devices().quarantine_device(r).await).await?;
            app.out.did(&device, "quarantined")
        }
        Command::Release { device, request } => {
            let request = v1::ReleaseDeviceRequest { name: name(&device)?, request_id: request.get() };
            let device = app.plane()?.call(request, async |plane, r| plane.devices().release_device(r).await).await?;
            app.out.did(&device, "released")
        }
    }
}

pub async fn get(app: &App, device: &str) -> Result<v1::Device> {
    let request = v1::GetDeviceRequest { name: name(device)? };
    app.plane()?.call(request, async |plane, r| plane.devices().get_device(r).await).await
}

pub async fn list(app: &App, filter: &List) -> Result<Vec<v1::Device>> {
    let parent = filter.host.as_deref().map_or(Ok("hosts/-".to_owned()), |host| names::top("hosts", host))?;
    let pool = filter.pool.as_deref().map(|pool| names::top("pools", pool)).transpose()?.unwrap_or_default();
    let kinds: Vec<i32> = filter.kinds.iter().map(|kind| kind.kind().into()).collect();
    let plane = app.plane()?;
    all_pages(async |page_token| {
        let (parent, pool, kinds) = (parent.clone(), pool.clone(), kinds.clone());
        let request = v1::ListDevicesRequest { parent, page_size: 0, page_token, kinds, pool };
        let page = plane.call(request, async |plane, r| plane.devices().list_devices(r).await).await?;
        Ok((page.devices, page.next_page_token))
    })
    .await
}

fn show(app: &App, device: &v1::Device) -> Result<()> {
    app.out.one(device)?;
    if app.out.is_table() { details(device).iter().try_for_each(|line| output::line(line)) } else { Ok(()) }
}

/// What does not fit into a row.
pub fn details(device: &v1::Device) -> Vec<String> {
    let mut lines = Vec::new();
    if !device.reason.is_empty() || !device.message.is_empty() {
        let parts = [device.reason.as_str(), device.message.as_str()];
        lines.push(format!("  {}", parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(": ")));
    }
    if !device.companions.is_empty() {
        let along = device.companions.join(", ");
        lines.push(format!("  given along (IOMMU group {}): {along}", device.iommu_group));
    }
    for holder in &device.holders {
        let slices = [holder.mig_profiles.clone(), holder.vgpu_types.clone()].concat().join(", ");
        let slices = if slices.is_empty() { slices } else { format!(" {slices}") };
        lines.push(format!("  held by {}:{slices} ({})", holder.instance, pieces(&holder.atoms)));
    }
    if let Some(reset) = &device.last_reset {
        let clean = if reset.clean { "clean" } else { "NOT clean" };
        let more = if reset.message.is_empty() { String::new() } else { format!(": {}", reset.message) };
        lines.push(format!(
            "  last reset: {}, {clean}, {}{more}",
            reset.method,
            age::exact(reset.time.as_ref()).as_str()
        ));
    }
    lines
}

/// `m2-3 c0-1 vf0`; a device that is held whole is held with all its pieces, and those say nothing more.
fn pieces(atoms: &[String]) -> String {
    if atoms.iter().any(|atom| atom == "whole") {
        return "whole".to_owned();
    }
    let split = |atom: &str| {
        let at = atom.find(|c: char| c.is_ascii_digit())?;
        Some((atom[..at].to_owned(), atom[at..].parse::<u32>().ok()?))
    };
    let mut runs: Vec<(String, u32, u32)> = Vec::new();
    for (word, number) in atoms.iter().filter_map(|atom| split(atom)) {
        match runs.last_mut() {
            Some((last, _, end)) if *last == word && *end + 1 == number => *end = number,
            _ => runs.push((word, number, number)),
        }
    }
    let shown = runs.iter().map(|(word, from, to)| match from == to {
        true => format!("{word}{from}"),
        false => format!("{word}{from}-{to}"),
    });
    shown.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_named_with_its_host() {
        let full = "hosts/h1/devices/usb-0000:00:14.0-2.3";
        assert_eq!(name("h1/usb-0000:00:14.0-2.3").unwrap(), full);
        assert_eq!(name(full).unwrap(), full);
        assert_eq!(short(full), "h1/usb-0000:00:14.0-2.3");
        for text in ["", "0000:41:00.0", "h1/", "hosts/h1", "hosts/h1/devices/", "a/b/c"] {
            assert!(name(text).is_err(), "{text}");
        }
    }

    #[test]
    fn pieces_are_told_in_runs() {
        let told = |atoms: &str| pieces(&atoms.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
        assert_eq!(told("vf0 vf1 m2 m3 c0 me0"), "vf0-1 m2-3 c0 me0");
        assert_eq!(told("m0 m2"), "m0 m2");
        assert_eq!(told("whole vf0 m0"), "whole");
    }

    #[test]
    fn who_holds_what_is_said_below() {
        let device = v1::Device {
            reason: "XidError".into(),
            message: "Xid 79".into(),
            iommu_group: 4,
            companions: vec!["0000:41:00.1".into()],
            holders: vec![v1::Holder {
                instance: "tenants/acme/instances/train".into(),
                atoms: vec!["m0".into(), "vf0".into()],
                mig_profiles: vec!["1g.10gb".into()],
                vgpu_types: Vec::new(),
            }],
            ..v1::Device::default()
        };
        assert_eq!(
            details(&device),
            [
                "  XidError: Xid 79",
                "  given along (IOMMU group 4): 0000:41:00.1",
                "  held by tenants/acme/instances/train: 1g.10gb (m0 vf0)"
            ]
        );
        assert_eq!(holders(&device).as_str(), "acme/train");
    }
}
