//! Times and spans.

use std::time::Duration;

use croft_core::Timestamp;
use croft_core::validate::Violations;

const MICROS: i64 = 1_000_000;

#[must_use]
pub fn out(time: Timestamp) -> prost_types::Timestamp {
    let nanos = time.0.rem_euclid(MICROS) * 1000;
    prost_types::Timestamp { seconds: time.0.div_euclid(MICROS), nanos: i32::try_from(nanos).unwrap_or(0) }
}

#[must_use]
pub fn into(time: prost_types::Timestamp) -> Timestamp {
    Timestamp(time.seconds.saturating_mul(MICROS).saturating_add(i64::from(time.nanos) / 1000))
}

#[must_use]
pub fn span_out(span: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(span.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(span.subsec_nanos()).unwrap_or(0),
    }
}

/// A span from 0 to `most`; `None` where the field was absent or is wrong, which is noted.
pub fn span_into(
    field: &str,
    span: Option<prost_types::Duration>,
    most: Duration,
    violations: &mut Violations,
) -> Option<Duration> {
    let span = span?;
    // Prost would make sense of nanos that have another sign than the seconds, or are more than a second.
    let canonical = (0..1_000_000_000).contains(&span.nanos);
    match Duration::try_from(span) {
        Ok(span) if canonical && span <= most => Some(span),
        _ => {
            violations.add(field, format!("0 s to {} s", most.as_secs()));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_come_back_as_they_went() {
        for time in [0, 1, 999_999, 1_700_000_000_123_456, -1] {
            assert_eq!(into(out(Timestamp(time))), Timestamp(time));
        }
    }

    #[test]
    fn spans_are_bounded_on_both_sides() {
        let hour = Duration::from_secs(3600);
        let check = |seconds, nanos| {
            let mut violations = Violations::new();
            let got = span_into("t", Some(prost_types::Duration { seconds, nanos }), hour, &mut violations);
            (got, violations.finish().is_ok())
        };
        assert_eq!(check(90, 0), (Some(Duration::from_secs(90)), true));
        assert_eq!(check(0, 0), (Some(Duration::ZERO), true));
        assert_eq!(check(3600, 1), (None, false));
        assert_eq!(check(-1, 0), (None, false));
        assert_eq!(check(1, -5), (None, false));
        assert_eq!(check(1, 1_000_000_000), (None, false));
        assert_eq!(check(i64::MAX, 0), (None, false));
        let there = Duration::new(7, 250);
        assert_eq!(span_into("t", Some(span_out(there)), hour, &mut Violations::new()), Some(there));
    }
}
