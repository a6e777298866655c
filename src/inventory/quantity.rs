//! Times, sizes and counts, each with the limits of its place.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde_json::json;

use super::define::serialized_as_shown;
use super::diagnostic::Wrong;
use super::name::shown;
use super::schema::{Definitions, Schema};
use super::setting::{Found, Problems, Text, Value, whole_number};

/// A minute, in seconds.
pub(crate) const MINUTE: u64 = 60;
/// An hour, in seconds.
pub(crate) const HOUR: u64 = 60 * MINUTE;
/// A day, in seconds.
pub(crate) const DAY: u64 = 24 * HOUR;
/// A year, in seconds.
pub(crate) const YEAR: u64 = 365 * DAY + 6 * HOUR;

/// A time of whole seconds between `MIN` and `MAX`, written with its unit: `30s`, `10m`, `1month`.
///
/// It is shown in a form that systemd and the inventory both read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Period<const MIN: u64, const MAX: u64>(u64);

impl<const MIN: u64, const MAX: u64> Period<MIN, MAX> {
    /// So many seconds, or the nearest number that is allowed.
    pub const fn clamped(seconds: u64) -> Self {
        Self(if seconds < MIN {
            MIN
        } else if seconds > MAX {
            MAX
        } else {
            seconds
        })
    }

    /// The time.
    pub const fn get(self) -> Duration {
        Duration::from_secs(self.0)
    }

    /// The time in seconds.
    pub const fn as_secs(self) -> u64 {
        self.0
    }
}

impl<const MIN: u64, const MAX: u64> From<Period<MIN, MAX>> for Duration {
    fn from(period: Period<MIN, MAX>) -> Self {
        period.get()
    }
}

impl<const MIN: u64, const MAX: u64> fmt::Display for Period<MIN, MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.get()).fmt(f)
    }
}

serialized_as_shown!(Period<const MIN: u64, const MAX: u64>);

impl<const MIN: u64, const MAX: u64> FromStr for Period<MIN, MAX> {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        let limits = || format!("from {} to {}", Self(MIN), Self(MAX));
        let time = humantime::parse_duration(text).map_err(|_| {
            let wrong = Wrong::new(format!("`{}` is no time", shown(text)));
            match text.trim().parse::<u64>() {
                Ok(number) => wrong.help(format!(
                    "write the unit: `\"{number}s\"`, `\"{number}m\"` or `\"{number}h\"`"
                )),
                Err(_) => wrong.help(format!(
                    "write a number with its unit, {}: `{}`",
                    limits(),
                    Self(MIN)
                )),
            }
        })?;
        if time.subsec_nanos() != 0 {
            return Err(Wrong::new(format!(
                "`{}` is not a whole number of seconds",
                shown(text)
            )));
        }
        if !(MIN..=MAX).contains(&time.as_secs()) {
            return Err(
                Wrong::new(format!("`{}` is out of bounds here", shown(text)))
                    .help(format!("use {}", limits())),
            );
        }
        Ok(Self(time.as_secs()))
    }
}

impl<const MIN: u64, const MAX: u64> Text for Period<MIN, MAX> {
    const EXPECTED: &'static str = "a time with its unit";
    const PATTERN: Option<&'static str> = Some("^([0-9]+ *[A-Za-z]+ *)+$");
}

/// A number of bytes, at least 1 MiB, written as journald does: `64M`, `2G` (powers of 1024).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(u64);

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

impl ByteSize {
    pub(crate) const fn mib(count: u32) -> Self {
        Self(count as u64 * MIB)
    }

    /// The size in bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            bytes if bytes % GIB == 0 => write!(f, "{}G", bytes / GIB),
            bytes => write!(f, "{}M", bytes / MIB),
        }
    }
}

serialized_as_shown!(ByteSize);

impl FromStr for ByteSize {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        let wrong = || {
            Wrong::new(format!("`{}` is no size", shown(text)))
                .help("write whole mebibytes or gibibytes, at most 1024G: `500M`, `2G`")
        };
        let unit = match text.as_bytes().last() {
            Some(b'M') => MIB,
            Some(b'G') => GIB,
            _ => return Err(wrong()),
        };
        let digits = text
            .get(..text.len() - 1)
            .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
        digits
            .and_then(|digits| digits.parse::<u64>().ok()?.checked_mul(unit))
            .filter(|bytes| (MIB..=1024 * GIB).contains(bytes))
            .map(Self)
            .ok_or_else(wrong)
    }
}

impl Text for ByteSize {
    const EXPECTED: &'static str = "a size";
    const PATTERN: Option<&'static str> = Some("^[0-9]+[MG]$");
}

/// A whole number between `MIN` and `MAX`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub struct Count<const MIN: u32, const MAX: u32>(u32);

impl<const MIN: u32, const MAX: u32> Count<MIN, MAX> {
    /// This number, or the nearest that is allowed.
    pub const fn clamped(number: u32) -> Self {
        Self(if number < MIN {
            MIN
        } else if number > MAX {
            MAX
        } else {
            number
        })
    }

    /// The number.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl<const MIN: u32, const MAX: u32> fmt::Display for Count<MIN, MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<const MIN: u32, const MAX: u32> Value for Count<MIN, MAX> {
    fn schema(_: &mut Definitions) -> Schema {
        json!({ "type": "integer", "minimum": MIN, "maximum": MAX })
    }

    fn read(value: &Found<'_>, problems: &mut Problems) -> Option<Self> {
        let read = whole_number(value, MIN.into(), MAX.into(), problems)?;
        u32::try_from(read).ok().map(Self)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    type Time = Period<30, { 2 * HOUR }>;

    #[test]
    fn a_time_has_a_unit_and_limits() {
        for (text, seconds, shown) in [
            ("30s", 30, "30s"),
            ("90s", 90, "1m 30s"),
            ("2h", 7200, "2h"),
            ("1m 30s", 90, "1m 30s"),
        ] {
            let time = text.parse::<Time>().unwrap();
            assert_eq!(
                (time.as_secs(), time.to_string().as_str()),
                (seconds, shown)
            );
            assert_eq!(time.to_string().parse::<Time>().unwrap(), time);
        }
        for text in [
            "",
            "30",
            "29s",
            "2h 1s",
            "-1m",
            "1500ms 30s",
            "1e9s",
            "99999999999999999999h",
            "soon",
            "30 s s",
        ] {
            text.parse::<Time>().unwrap_err();
        }
        assert_eq!(
            "45".parse::<Time>().unwrap_err().help.unwrap(),
            "write the unit: `\"45s\"`, `\"45m\"` or `\"45h\"`"
        );
        assert_eq!(Time::clamped(1).as_secs(), 30);
    }

    #[test]
    fn a_size_is_written_as_journald_does() {
        for (text, bytes, shown) in [
            ("64M", 64 << 20, "64M"),
            ("1024M", 1 << 30, "1G"),
            ("2G", 2 << 30, "2G"),
        ] {
            let size = text.parse::<ByteSize>().unwrap();
            assert_eq!((size.bytes(), size.to_string().as_str()), (bytes, shown));
        }
        for text in [
            "",
            "M",
            "64",
            "64K",
            "64MB",
            "0M",
            "1.5G",
            "-1M",
            "1025G",
            "99999999999999999999G",
            "6\u{e9}M",
        ] {
            text.parse::<ByteSize>().unwrap_err();
        }
    }
}
