//! Times as people type them.
//!
//! Owns: parsing of durations and of a consumer's starting point.
//! Never: reads the clock; "now" is an argument.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Where a consumer begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum From {
    /// The first record.
    Earliest,
    /// After the last one.
    Latest,
    /// This offset.
    Offset(u64),
    /// The first record at or after this time, ms since 1970.
    Time(i64),
    /// The first record of this long ago, ms.
    Ago(u64),
}

impl From {
    /// The time to ask for, if it is one.
    pub(super) fn timestamp(self, now_ms: i64) -> Option<i64> {
        match self {
            From::Time(ms) => Some(ms),
            From::Ago(ms) => Some(now_ms.saturating_sub_unsigned(ms).max(0)),
            _ => None,
        }
    }
}

/// `90s`, `2m`, `500ms`, or a bare number of seconds; in ms.
pub(super) fn duration_ms(text: &str) -> Result<u64, String> {
    let seconds = text.parse::<u64>().map(Duration::from_secs);
    let duration = seconds.or_else(|_| humantime::parse_duration(text));
    let ms = duration.map_err(|e| format!("{e}; write 500ms, 10s, 2m or 1h"))?.as_millis();
    u64::try_from(ms).ok().filter(|ms| *ms > 0).ok_or_else(|| "it must be more than nothing".to_owned())
}

/// `earliest`, `latest`, an offset, `-2h` (ago), `@1700000000000` (ms since 1970) or `2026-11-21T10:00:00` (UTC).
pub(super) fn from(text: &str) -> Result<From, String> {
    let allowed = "allowed: earliest, latest, an OFFSET, -2h (ago), @MS, 2026-11-21T10:00:00";
    match text {
        "earliest" | "start" => return Ok(From::Earliest),
        "latest" | "end" => return Ok(From::Latest),
        _ => {}
    }
    if let Ok(offset) = text.parse() {
        return Ok(From::Offset(offset));
    }
    if let Some(ms) = text.strip_prefix('@') {
        return ms.parse().map(From::Time).map_err(|_| allowed.to_owned());
    }
    if let Some(ago) = text.strip_prefix('-') {
        return duration_ms(ago).map(From::Ago).map_err(|_| allowed.to_owned());
    }
    let text = match text.len() {
        10 => format!("{text}T00:00:00"),
        16 => format!("{text}:00"),
        _ => text.to_owned(),
    };
    let time = humantime::parse_rfc3339_weak(&text).map_err(|_| allowed.to_owned())?;
    Ok(From::Time(ms_of(time)))
}

fn ms_of(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_people_type() {
        assert_eq!(from("earliest"), Ok(From::Earliest));
        assert_eq!(from("17"), Ok(From::Offset(17)));
        assert_eq!(from("@5"), Ok(From::Time(5)));
        assert_eq!(from("-2h"), Ok(From::Ago(7_200_000)));
        assert_eq!(from("1970-01-02"), Ok(From::Time(86_400_000)));
        assert_eq!(from("1970-01-01T00:01"), Ok(From::Time(60_000)));
        assert_eq!(from("1970-01-01T00:00:01Z"), Ok(From::Time(1_000)));
        assert!(from("yesterday").unwrap_err().contains("allowed"));
        assert_eq!(From::Ago(7).timestamp(10), Some(3));
        assert_eq!(duration_ms("3"), Ok(3_000));
        assert_eq!(duration_ms("250ms"), Ok(250));
        assert!(duration_ms("0").is_err());
    }
}
