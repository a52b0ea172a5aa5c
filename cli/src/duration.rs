//! Lengths of time: what options take, and what the wire takes.

use std::time::Duration;

use jiff::SignedDuration;

/// `90s`, `10m`, `1h30m`, or a plain number of seconds.
pub fn parse(text: &str) -> Result<Duration, String> {
    if let Ok(seconds) = text.parse() {
        return Ok(Duration::from_secs(seconds));
    }
    text.parse::<SignedDuration>()
        .ok()
        .and_then(|duration| Duration::try_from(duration).ok())
        .ok_or_else(|| format!("`{text}` is no length of time; write 90s, 10m or 1h30m"))
}

#[must_use]
pub fn to_proto(duration: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(duration.subsec_nanos()).unwrap_or_default(),
    }
}

/// `45s`, `3m20s`, `5h`, `12d`: two units at most, as kubectl does.
#[must_use]
pub fn show(duration: Duration) -> String {
    let s = duration.as_secs();
    let (m, h, d) = (s / 60, s / 3600, s / 86_400);
    let pair = |big: u64, unit: &str, rest: u64, small: &str| {
        if rest == 0 { format!("{big}{unit}") } else { format!("{big}{unit}{rest}{small}") }
    };
    match s {
        0..120 => format!("{s}s"),
        120..600 => pair(m, "m", s % 60, "s"),
        600..10_800 => format!("{m}m"),
        10_800..28_800 => pair(h, "h", m % 60, "m"),
        28_800..172_800 => format!("{h}h"),
        172_800..691_200 => pair(d, "d", h % 24, "h"),
        _ => format!("{d}d"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_take_what_people_write() {
        for (text, seconds) in [("90s", 90), ("10m", 600), ("1h30m", 5400), ("30", 30), ("0s", 0)] {
            assert_eq!(parse(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "soon", "-5s", "1 fortnight"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn ages_are_short() {
        for (seconds, text) in [
            (0, "0s"),
            (119, "119s"),
            (200, "3m20s"),
            (180, "3m"),
            (3600, "60m"),
            (10_800, "3h"),
            (11_100, "3h5m"),
            (86_400, "24h"),
            (180_000, "2d2h"),
            (8_640_000, "100d"),
        ] {
            assert_eq!(show(Duration::from_secs(seconds)), text, "{seconds}");
        }
    }
}
