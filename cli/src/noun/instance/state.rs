//! An instance's state in words and colours.

use croft_proto::v1::{self, instance_status::State};

use crate::names;
use crate::output::cell::{Mood, Text};

#[must_use]
pub fn name(status: &v1::InstanceStatus) -> &'static str {
    match status.state() {
        State::Unspecified => "-",
        state => state.as_str_name(),
    }
}

#[must_use]
pub fn cell(status: &v1::InstanceStatus) -> Text {
    let mood = match status.state() {
        State::Running => Mood::Good,
        State::Failed => Mood::Bad,
        State::Unknown => Mood::Doubtful,
        State::Pending | State::Placing | State::Preparing | State::Starting | State::Stopping | State::Deleting => {
            Mood::Busy
        }
        State::Unspecified | State::Stopped => Mood::Plain,
    };
    Text::new(name(status), mood)
}

/// `RUNNING on h1, 10.200.0.12`
#[must_use]
pub fn sentence(instance: &v1::Instance) -> String {
    let Some(status) = &instance.status else { return "no status yet".to_owned() };
    let mut text = name(status).to_owned();
    if !status.host.is_empty() {
        text.push_str(" on ");
        text.push_str(names::id(&status.host));
    }
    if let Some(address) = status.addresses.first() {
        text.push_str(", ");
        text.push_str(&address.ip);
    }
    text
}
