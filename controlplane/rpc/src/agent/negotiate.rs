//! Which protocol a session speaks. The plane speaks the newest version and the one before it, so that a fleet can be
//! upgraded host by host, plane first.

use croft_core::{Error, Reason, Result};
use croft_proto::agent::v1::Hello;

pub const PROTOCOL_MAX: i32 = 1;
/// The version before the newest; there was none before the first.
pub const PROTOCOL_MIN: i32 = if PROTOCOL_MAX > 1 { PROTOCOL_MAX - 1 } else { 1 };

/// The newest version that both speak.
pub fn protocol(host: &str, hello: &Hello) -> Result<i32> {
    let newest = hello.protocol_max.min(PROTOCOL_MAX);
    if newest >= hello.protocol_min.max(PROTOCOL_MIN) {
        return Ok(newest);
    }
    let (min, max) = (hello.protocol_min, hello.protocol_max);
    let older = if max < PROTOCOL_MIN { "upgrade the agent" } else { "upgrade the control plane" };
    let message = format!(
        "the agent (version {}) speaks protocol {min} to {max}, this control plane {PROTOCOL_MIN} to {PROTOCOL_MAX}: {older}",
        crate::status::clip(&hello.agent_version, 50)
    );
    Err(Error::precondition(Reason::ProtocolUnsupported, format!("hosts/{host}"), message))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn speaks(protocol_min: i32, protocol_max: i32) -> Result<i32> {
        protocol("h1", &Hello { protocol_min, protocol_max, agent_version: "9.9".into(), ..Default::default() })
    }

    #[test]
    fn the_newest_common_version_is_spoken() {
        assert_eq!((speaks(1, 1), speaks(1, 7), speaks(0, 1)), (Ok(1), Ok(1), Ok(1)));
    }

    #[test]
    fn without_a_common_version_both_ranges_are_named() {
        for (min, max, hint) in [(2, 3, "upgrade the control plane"), (0, 0, "upgrade the agent")] {
            let error = speaks(min, max).unwrap_err();
            assert_eq!(error.reason(), Reason::ProtocolUnsupported);
            let text = error.to_string();
            assert!(
                text.contains(&format!("{min} to {max}")) && text.contains("1 to 1") && text.contains(hint),
                "{text}"
            );
        }
    }
}
