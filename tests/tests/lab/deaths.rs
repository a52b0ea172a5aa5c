//! The agent killed (SIGKILL, by itself) at points of a guest's life with devices, on the real kernel: each time systemd starts
//! it again, the guest comes and goes all the same, and the host is as it was.

use croft_tests::lab_host::LabHost;

use crate::fleet::{guest_with, pool};
use crate::site::Site;
use crate::table::{Lap, Row};

/// A handful in the heart of the lane. The card has six steps there and seven back.
const HEART: &[&str] = &["agent.hold.after", "agent.device_step.before#3", "agent.give_back.after"];

/// With `--full`: every step of the card, and the points around them.
const LONG: &[&str] = &[
    "agent.hold.before",
    "agent.hold.after",
    "agent.device_step.before#1",
    "agent.device_step.before#2",
    "agent.device_step.before#3",
    "agent.device_step.before#4",
    "agent.device_step.before#5",
    "agent.device_step.before#6",
    "agent.device_plan.after",
    "agent.device_step.before#7",
    "agent.device_step.before#8",
    "agent.device_step.before#9",
    "agent.device_step.before#10",
    "agent.device_step.before#11",
    "agent.device_step.before#12",
    "agent.device_step.before#13",
    "agent.give_back.before",
    "agent.give_back.after",
];

/// Is this the long form of the lab?
pub fn are_long() -> bool {
    std::env::var_os("CROFT_TEST_FULL").is_some()
}

pub async fn at_steps(lab: &LabHost, site: &Site, row: &mut Row) {
    let points = if are_long() { LONG } else { HEART };
    let before = lab.state();
    let mut lap = Lap::start();
    for point in points {
        // The unit reads it at its next start, and takes it away.
        lab.sh(&format!(
            "echo CROFT_CRASH_AT={point} > /run/croft-crash.env; systemctl restart croft-hostagent; test ! -e /run/croft-crash.env"
        ));
        site.ready(lab).await;
        let mut create = guest_with("frail", &pool("card"));
        let spec = create.instance.as_mut().and_then(|instance| instance.spec.as_mut()).expect("a spec");
        // Nobody waits until it is up and listens: its plug is pulled.
        spec.stop_timeout = Some(prost_types::Duration { seconds: 1, nanos: 0 });
        site.run(create).await;
        site.remove("frail").await;
        let deaths = lab.sh("systemctl show -p NRestarts --value croft-hostagent");
        assert_eq!(deaths, "1", "{point} was not reached, or the agent died again: {}", crate::site::agent_log(lab));
        assert_eq!(lab.state(), before, "{point}");
        println!("lab: killed at {point}, {:.0} s", lap.time().as_secs_f64());
    }
    row.note("deaths", points.len().to_string());
    row.note("back", "yes");
}
