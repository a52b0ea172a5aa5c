//! Truth as an agent tells it. An agent is believed about its own host and no further: what it sends is cut to what the
//! plane is ready to keep, and what it sends for objects we cannot name is dropped.

use croft_core::device::{PER_INSTANCE_MAX, REQUEST_ID_MAX};
use croft_core::id::{HostId, ImageUid, InstanceUid};
use croft_core::image::{Copy, CopyState};
use croft_core::instance::{Address, Exit, ExitKind, Observed, Phase};
use croft_core::validate::is_slug;
use croft_proto::agent::v1 as agent;
use croft_proto::v1;

use super::{meta, time};
use crate::status::clip;

const CONDITIONS_MAX: usize = 32;
const ADDRESSES_MAX: usize = 64;
const TEXT_MAX: usize = 2000;

/// `None`: no uid, or no phase that we know.
#[must_use]
pub fn into(wire: agent::InstanceObservation) -> Option<(InstanceUid, Observed)> {
    let uid = InstanceUid::parse(&wire.uid)?;
    let phase = phase_into(wire.phase())?;
    let observed = Observed {
        generation: wire.generation,
        phase,
        reason: clip(&wire.reason, TEXT_MAX),
        message: clip(&wire.message, TEXT_MAX),
        conditions: conditions_into(wire.conditions),
        addresses: wire.addresses.into_iter().take(ADDRESSES_MAX).map(address_into).collect(),
        exit: wire.exit.and_then(exit_into),
        start_time: wire.start_time.map(time::into),
        restart_count: i64::from(wire.restart_count.max(0)),
        power_generation: wire.power_generation,
        reboot_generation: wire.reboot_generation,
        reset_generation: wire.reset_generation,
        disk_generation: wire.disk_generation,
        attached_devices: requests_into(wire.attached_devices),
        released_devices: requests_into(wire.released_devices),
    };
    Some((uid, observed))
}

/// Ids of device requests: what is no id was never asked for.
fn requests_into(ids: Vec<String>) -> Vec<String> {
    ids.into_iter().filter(|id| is_slug(id, REQUEST_ID_MAX)).take(PER_INSTANCE_MAX).collect()
}

#[must_use]
pub fn conditions_into(conditions: Vec<v1::Condition>) -> Vec<croft_core::condition::Condition> {
    let clipped = conditions.into_iter().take(CONDITIONS_MAX).map(meta::condition_into);
    clipped
        .map(|condition| croft_core::condition::Condition { message: clip(&condition.message, TEXT_MAX), ..condition })
        .collect()
}

/// `None`: no uid, or no state that we know.
#[must_use]
pub fn image_into(host: &HostId, wire: agent::ImageObservation) -> Option<(ImageUid, Copy)> {
    use v1::image::host_copy::State;
    let uid = ImageUid::parse(&wire.uid)?;
    let state = match wire.state() {
        State::Unspecified => return None,
        State::Fetching => CopyState::Fetching,
        State::Ready => CopyState::Ready,
        State::Failed => CopyState::Failed,
    };
    let copy = Copy {
        host: host.clone(),
        state,
        bytes_done: wire.bytes_done.max(0),
        bytes_total: wire.bytes_total.max(0),
        reason: clip(&wire.reason, TEXT_MAX),
        message: clip(&wire.message, TEXT_MAX),
    };
    Some((uid, copy))
}

fn phase_into(phase: agent::instance_observation::Phase) -> Option<Phase> {
    use agent::instance_observation::Phase as Wire;
    Some(match phase {
        Wire::Unspecified => return None,
        Wire::Absent => Phase::Absent,
        Wire::Preparing => Phase::Preparing,
        Wire::Starting => Phase::Starting,
        Wire::Running => Phase::Running,
        Wire::Stopping => Phase::Stopping,
        Wire::Off => Phase::Off,
        Wire::Paused => Phase::Paused,
        Wire::Failed => Phase::Failed,
    })
}

fn address_into(address: v1::Address) -> Address {
    let v1::Address { ip, mac, source, leased } = address;
    Address { ip: clip(&ip, 64), mac: clip(&mac, 64), source: clip(&source, 64), leased }
}

fn exit_into(exit: v1::Exit) -> Option<Exit> {
    let kind = match exit.kind() {
        v1::exit::Kind::Unspecified => return None,
        v1::exit::Kind::GuestPoweroff => ExitKind::GuestPoweroff,
        v1::exit::Kind::Stopped => ExitKind::Stopped,
        v1::exit::Kind::Killed => ExitKind::Killed,
        v1::exit::Kind::Crashed => ExitKind::Crashed,
        v1::exit::Kind::HostShutdown => ExitKind::HostShutdown,
    };
    let time = exit.time.map(time::into).unwrap_or_default();
    Some(Exit { kind, message: clip(&exit.message, TEXT_MAX), time })
}

#[cfg(test)]
mod tests {
    use croft_core::Timestamp;

    use super::*;
    use crate::convert::instance::exit_out;

    const UID: &str = "01890000-0000-7000-8000-000000000001";

    #[test]
    fn an_observation_keeps_every_field() {
        let exit = Exit { kind: ExitKind::Crashed, message: "panic".into(), time: Timestamp(9) };
        let wire = agent::InstanceObservation {
            uid: UID.into(),
            generation: 3,
            phase: agent::instance_observation::Phase::Off.into(),
            reason: "GuestCrashed".into(),
            message: "m".into(),
            conditions: vec![v1::Condition { r#type: "GuestReady".into(), ..Default::default() }],
            addresses: vec![v1::Address {
                ip: "10.0.0.2".into(),
                mac: "02:00".into(),
                source: "dhcp-lease".into(),
                leased: true,
            }],
            exit: Some(exit_out(&exit)),
            start_time: Some(time::out(Timestamp(8))),
            restart_count: 2,
            power_generation: 4,
            reboot_generation: 5,
            reset_generation: 6,
            attached_devices: vec!["gpu-0".into(), "no id".into()],
            released_devices: vec!["nic".into()],
            disk_generation: 7,
        };
        let (uid, observed) = into(wire).unwrap();
        assert_eq!(uid.to_string(), UID);
        assert_eq!((observed.phase, observed.exit), (Phase::Off, Some(exit)));
        assert_eq!((observed.generation, observed.restart_count), (3, 2));
        assert_eq!((observed.power_generation, observed.reboot_generation, observed.reset_generation), (4, 5, 6));
        assert_eq!(observed.disk_generation, 7);
        assert_eq!((observed.conditions.len(), observed.addresses[0].ip.as_str()), (1, "10.0.0.2"));
        assert_eq!(observed.start_time, Some(Timestamp(8)));
        assert_eq!((observed.attached_devices, observed.released_devices), (vec!["gpu-0".into()], vec!["nic".into()]));
    }

    #[test]
    fn what_cannot_be_named_is_dropped_and_what_is_too_long_is_cut() {
        assert_eq!(into(agent::InstanceObservation { uid: "me".into(), phase: 4, ..Default::default() }), None);
        assert_eq!(into(agent::InstanceObservation { uid: UID.into(), ..Default::default() }), None);
        let wire = agent::InstanceObservation {
            uid: UID.into(),
            phase: 4,
            message: "x".repeat(100_000),
            addresses: vec![v1::Address::default(); 1000],
            conditions: vec![v1::Condition::default(); 1000],
            ..Default::default()
        };
        let (_, observed) = into(wire).unwrap();
        assert!(observed.message.len() < 2100);
        assert_eq!((observed.addresses.len(), observed.conditions.len()), (64, 32));
    }

    #[test]
    fn every_exit_comes_back_as_it_went() {
        let kinds =
            [ExitKind::GuestPoweroff, ExitKind::Stopped, ExitKind::Killed, ExitKind::Crashed, ExitKind::HostShutdown];
        for kind in kinds {
            let exit = Exit { kind, message: "m".into(), time: Timestamp(1) };
            assert_eq!(exit_into(exit_out(&exit)), Some(exit));
        }
    }

    #[test]
    fn a_copy_of_an_image_belongs_to_the_host_that_tells() {
        let wire = agent::ImageObservation { uid: UID.into(), state: 2, bytes_done: -1, ..Default::default() };
        let (uid, copy) = image_into(&"h1".into(), wire).unwrap();
        assert_eq!((uid.to_string().as_str(), copy.host.as_str(), copy.state), (UID, "h1", CopyState::Ready));
        assert_eq!(copy.bytes_done, 0);
        assert!(image_into(&"h1".into(), agent::ImageObservation { uid: UID.into(), ..Default::default() }).is_none());
    }
}
