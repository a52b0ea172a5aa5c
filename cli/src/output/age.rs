//! Points in time as people read them.

use std::time::Duration;

use jiff::Timestamp;
use prost_types::Timestamp as Proto;

use super::cell::Text;
use crate::duration;

/// How long ago: `3m20s`.
#[must_use]
pub fn since(time: Option<&Proto>) -> Text {
    between(time.and_then(read), Timestamp::now())
}

/// When it will be: `in 23h`, or `past`.
#[must_use]
pub fn until(time: Option<&Proto>) -> Text {
    let Some(time) = time.and_then(read) else { return Text::from("") };
    match Duration::try_from(time.duration_since(Timestamp::now())) {
        Ok(left) => format!("in {}", duration::show(left)).into(),
        Err(_) => "past".into(),
    }
}

/// `2026-11-03T10:20:30Z`: for histories, where the order of two lines matters more than their age.
#[must_use]
pub fn exact(time: Option<&Proto>) -> Text {
    time.and_then(read).map(|time| format!("{time:.0}")).unwrap_or_default().into()
}

#[must_use]
pub fn is_past(time: Option<&Proto>) -> bool {
    time.and_then(read).is_some_and(|time| time < Timestamp::now())
}

fn read(time: &Proto) -> Option<Timestamp> {
    Timestamp::new(time.seconds, time.nanos).ok()
}

/// Two clocks that differ by a little must not show a negative age.
fn between(time: Option<Timestamp>, now: Timestamp) -> Text {
    time.map(|time| duration::show(Duration::try_from(now.duration_since(time)).unwrap_or_default()))
        .unwrap_or_default()
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages() {
        let at = |seconds| Timestamp::from_second(seconds).unwrap();
        assert_eq!(between(Some(at(100)), at(145)), Text::from("45s"));
        assert_eq!(between(Some(at(145)), at(100)), Text::from("0s"), "a clock that runs ahead");
        assert_eq!(between(None, at(0)), Text::from(""));
    }

    #[test]
    fn times() {
        let time = Proto { seconds: 1_793_960_430, nanos: 999_000_000 };
        assert_eq!(exact(Some(&time)), Text::from("2026-11-06T10:20:30Z"));
        assert!(!is_past(None));
        assert!(is_past(Some(&Proto { seconds: 1, nanos: 0 })));
        assert_eq!(until(Some(&Proto { seconds: 1, nanos: 0 })), Text::from("past"));
    }
}
