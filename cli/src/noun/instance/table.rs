//! The columns of an instance.

use croft_proto::v1::{self, instance_spec::BootSource};

use super::{devices, node, state};
use crate::output::cell::{self, Text};
use crate::output::{Resource, age, named, table::Column};
use crate::{names, size};

named!(
    v1::Instance => "croft.v1.Instance",
    v1::WatchInstancesResponse => "croft.v1.WatchInstancesResponse",
    v1::ExplainInstanceResponse => "croft.v1.ExplainInstanceResponse",
);

impl Resource for v1::Instance {
    const COLUMNS: &'static [Column<Self>] = &[
        Column::new("TENANT", |instance| names::tenant_of(&instance.name).into()),
        Column::new("NAME", |instance| names::id(&instance.name).into()),
        Column::new("STATE", |instance| of_status(instance, state::cell)),
        Column::new("HOST", |instance| of_status(instance, |status| names::id(&status.host).into())),
        Column::new("VCPUS", |instance| of_spec(instance, |spec| spec.vcpus.into())),
        Column::new("MEMORY", |instance| of_spec(instance, |spec| size::show_mib(spec.memory_mib).into())),
        Column::new("ADDRESS", |instance| of_status(instance, addresses)),
        Column::new("AGE", |instance| age::since(instance.metadata.as_ref().and_then(|m| m.create_time.as_ref()))),
        Column::wide("DISK", |instance| {
            of_spec(instance, |spec| {
                let gib: i64 = spec.disks.iter().map(|disk| disk.size_gib).sum();
                format!("{gib}GiB").into()
            })
        }),
        Column::wide("IMAGE", |instance| {
            of_spec(instance, |spec| {
                spec.boot_source.as_ref().map(|BootSource::Image(image)| names::id(image)).unwrap_or_default().into()
            })
        }),
        Column::wide("DEVICES", |instance| {
            of_status(instance, |status| cell::few(&status.devices.iter().map(devices::word).collect::<Vec<_>>(), 4))
        }),
        Column::wide("NODE", |instance| of_status(instance, |status| node::word(status).into())),
        Column::wide("RESTARTS", |instance| of_status(instance, |status| status.restart_count.into())),
        Column::wide("REASON", |instance| of_status(instance, |status| status.reason.as_str().into())),
        Column::wide("UID", |instance| cell::uid(instance.metadata.as_ref())),
        Column::wide("LABELS", |instance| cell::labels(instance.metadata.as_ref())),
    ];

    fn name(&self) -> &str {
        &self.name
    }
}

fn of_status(instance: &v1::Instance, show: fn(&v1::InstanceStatus) -> Text) -> Text {
    instance.status.as_ref().map_or_else(|| "".into(), show)
}

fn of_spec(instance: &v1::Instance, show: fn(&v1::InstanceSpec) -> Text) -> Text {
    instance.spec.as_ref().map_or_else(|| "".into(), show)
}

fn addresses(status: &v1::InstanceStatus) -> Text {
    let ips: Vec<_> = status.addresses.iter().map(|address| address.ip.as_str()).collect();
    cell::few(&ips, 1)
}

#[cfg(test)]
mod tests {
    use croft_proto::v1::instance_status::State;

    use super::*;
    use crate::output::Format;
    use crate::output::table::{Style, render};

    fn web() -> v1::Instance {
        let address = |ip: &str| v1::Address { ip: ip.into(), ..v1::Address::default() };
        v1::Instance {
            name: "tenants/acme/instances/web".into(),
            metadata: None,
            spec: Some(v1::InstanceSpec { vcpus: 2, memory_mib: 2048, ..v1::InstanceSpec::default() }),
            status: Some(v1::InstanceStatus {
                state: State::Running.into(),
                host: "hosts/h1".into(),
                addresses: vec![address("10.200.0.12"), address("fe80::1")],
                ..v1::InstanceStatus::default()
            }),
        }
    }

    #[test]
    fn a_row_says_what_people_ask_first() {
        assert_eq!(
            render(&[&web()], Format::Table, Style::Plain),
            "TENANT   NAME   STATE     HOST   VCPUS   MEMORY   ADDRESS          AGE\n\
             acme     web    RUNNING   h1     2       2GiB     10.200.0.12,+1   -\n"
        );
    }

    #[test]
    fn colour_is_beside_the_text_and_never_in_plain_output() {
        let coloured = render(&[&web()], Format::Table, Style::Colour);
        assert!(coloured.contains("\u{1b}["), "{coloured:?}");
        assert!(!render(&[&web()], Format::Wide, Style::Plain).contains('\u{1b}'));
    }
}
