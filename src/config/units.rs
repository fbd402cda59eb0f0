//! Durations and sizes as people write them.

use std::time::Duration;

use super::problem::shown;

/// `"500ms"`, `"10s"`, `"5m"`, `"24h"`, `"30d"`; whole numbers only, so that nothing is rounded in silence.
pub fn duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("must be a number and a unit (ms, s, m, h or d), such as \"10s\" (got {})", shown(text));
    let (number, unit) = split(text).ok_or_else(bad)?;
    let ms_per_unit: u64 = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(bad()),
    };
    number.checked_mul(ms_per_unit).map(Duration::from_millis).ok_or_else(bad)
}

/// A duration between two others.
pub fn duration_within(text: &str, low: Duration, high: Duration) -> Result<Duration, String> {
    let value = duration(text)?;
    if (low..=high).contains(&value) {
        return Ok(value);
    }
    Err(format!("must be from {} to {} (got {})", spell(low), spell(high), shown(text)))
}

/// `"32KiB"`, `"10MiB"`, `"1GiB"`, `"500MB"`, or plain bytes.
pub fn size(text: &str) -> Result<u64, String> {
    let bad = || {
        format!(
            "must be bytes with an optional unit (KB, MB, GB, KiB, MiB, GiB), such as \"10MiB\" (got {})",
            shown(text)
        )
    };
    let (number, unit) = split(text).ok_or_else(bad)?;
    let bytes_per_unit: u64 = match unit {
        "" | "B" => 1,
        "KB" => 1000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(bad()),
    };
    number.checked_mul(bytes_per_unit).ok_or_else(bad)
}

/// A size between two others, in bytes.
pub fn size_within(text: &str, low: u64, high: u64) -> Result<u64, String> {
    let value = size(text)?;
    if (low..=high).contains(&value) {
        return Ok(value);
    }
    Err(format!("must be from {low} to {high} bytes (got {})", shown(text)))
}

/// A duration in the largest unit that is exact.
pub fn spell(d: Duration) -> String {
    let ms = d.as_millis();
    for (per, unit) in [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1000, "s")] {
        if ms >= per && ms.is_multiple_of(per) {
            return format!("{}{unit}", ms / per);
        }
    }
    format!("{ms}ms")
}

fn split(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(end)?;
    Some((number.parse().ok()?, unit.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_read_as_written() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("24h"), Ok(Duration::from_secs(86_400)));
        assert_eq!(size("10MiB"), Ok(10 << 20));
        assert_eq!(size("512"), Ok(512));
        assert_eq!(size("2 GB"), Ok(2_000_000_000));
        for bad in ["", "s", "1.5s", "-1s", "10 parsecs", "99999999999999999999s"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
        for bad in ["", "MiB", "10mb", "18446744073709551615GiB"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_range_is_named_in_the_message() {
        let err = duration_within("2h", Duration::from_secs(1), Duration::from_secs(300)).unwrap_err();
        assert_eq!(err, "must be from 1s to 5m (got `2h`)");
    }
}
