//! What brings a dead node back: the hardware watchdog and the panic policy (domain.md §2).

use super::finding::Outcome;
use super::patient::Patient;

/// Seconds that the watchdog has to have at least: a busy Pi with an SD card may need them (domain.md §2.1).
const SHORTEST: u64 = 14;
/// What the Pi's own watchdog calls itself.
const IDENTITY: &str = "Broadcom BCM2835 Watchdog timer";
/// The daemon that must not stand beside systemd: one opener a device (domain.md §2.2).
const DAEMONS: [&str; 2] = ["watchdog.service", "wd_keepalive.service"];
/// What panics, and what comes of it (domain.md §2.3). The first must never be 0: a panic would stop the node for good.
const POLICY: [(&str, &str); 3] = [
    ("kernel.panic", "10"),
    ("kernel.panic_on_oops", "1"),
    ("kernel.softlockup_panic", "1"),
];

pub(super) fn hardware(patient: &Patient<'_>) -> Outcome {
    let lines = patient.text("watchdog");
    let value = |key: &str| {
        lines
            .lines()
            .filter_map(|line| line.split_once(' '))
            .find_map(|(name, value)| (name == key).then_some(value))
    };
    let identity = value("identity").unwrap_or("a watchdog without a name");
    let daemon = DAEMONS
        .iter()
        .find(|unit| patient.measured.snapshot.unit(unit).active);
    let manager = patient.text("manager");
    let effective = manager
        .lines()
        .find_map(|line| line.strip_prefix("RuntimeWatchdogUSec="));
    let drop_in =
        "`selfheal apply` sets RuntimeWatchdogSec in a drop-in of /etc/systemd/system.conf.d";
    if value("device").is_none() {
        return Outcome::fail(
            "no /dev/watchdog0",
            "put dtparam=watchdog=on under [all] of config.txt and reboot",
        )
        .asked_for(!patient.node.watchdog.hardware);
    }
    if let Some(daemon) = daemon {
        return Outcome::fail(
            format!("{daemon} is active: only one can hold the device"),
            format!("`sudo systemctl disable --now {daemon}`: systemd feeds the watchdog"),
        );
    }
    let Some(seconds) = effective.and_then(seconds) else {
        return Outcome::unknown(
            "systemd does not tell its RuntimeWatchdogUSec",
            "ask `systemctl show -p RuntimeWatchdogUSec` on the node",
        );
    };
    if seconds == 0 {
        return Outcome::warn(
            format!("{identity}, but nobody feeds it: RuntimeWatchdogUSec=0"),
            drop_in,
        );
    }
    let evidence = format!("{identity}, fed by systemd, {seconds} s");
    if value("state") == Some("inactive") {
        return Outcome::fail(
            format!("{identity} is inactive, though RuntimeWatchdogUSec is {seconds} s"),
            "a kernel before 6.8 refuses more than 15 s: take 14; then `sudo systemctl daemon-reexec`",
        );
    }
    if seconds < SHORTEST {
        return Outcome::warn(evidence, "take 60 s, or 14 s on a kernel before 6.8");
    }
    if !patient.is_virtual() && value("identity").is_some_and(|identity| identity != IDENTITY) {
        return Outcome::warn(
            evidence,
            "this is not the Pi's own watchdog: one in software dies with the kernel",
        );
    }
    Outcome::ok(evidence)
}

/// Seconds of a time span as systemd shows it: `1min 30s`, `14s`, `0`, `infinity` (systemd.time(7)).
fn seconds(span: &str) -> Option<u64> {
    let units = [
        ("us", 0.000_001),
        ("ms", 0.001),
        ("s", 1.0),
        ("min", 60.0),
        ("h", 3600.0),
        ("d", 86_400.0),
    ];
    if matches!(span, "0" | "infinity") {
        return Some(0);
    }
    let mut total = 0.0;
    for word in span.split_whitespace() {
        let split = word.find(|character: char| character.is_ascii_alphabetic())?;
        let (number, unit) = word.split_at(split);
        let factor = units.iter().find(|(name, _)| *name == unit)?.1;
        total += number.parse::<f64>().ok()? * factor;
    }
    (!span.trim().is_empty()).then_some(total as u64)
}

pub(super) fn panic_policy(patient: &Patient<'_>) -> Outcome {
    let snapshot = &patient.measured.snapshot;
    let mut shown = Vec::new();
    let mut differing = Vec::new();
    let mut stands_still = false;
    // Safe mode switches off what panics, not what comes of it.
    let safe_mode = !patient.text("safe-mode").is_empty();
    let in_force = if safe_mode { &POLICY[..1] } else { &POLICY };
    for (key, wanted) in in_force.iter().copied() {
        // A kernel without the detector has no such key, and nothing to panic about.
        let Some(value) = snapshot.sysctl(key) else {
            continue;
        };
        stands_still |= key == "kernel.panic" && value == "0";
        if value != wanted {
            differing.push(format!("{key} = {value}, not {wanted}"));
        }
        shown.push(format!("{key} = {value}"));
    }
    let hint =
        "`selfheal apply` sets them in /etc/sysctl.d; another file that sorts later may undo it";
    if shown.is_empty() {
        Outcome::unknown(
            "the kernel shows none of its panic settings",
            "is /proc/sys mounted?",
        )
    } else if stands_still {
        Outcome::fail("kernel.panic = 0: a panic stops this node for good", hint)
    } else if differing.is_empty() {
        let remark = if safe_mode {
            " (the others are off in safe mode)"
        } else {
            ""
        };
        Outcome::ok(format!("{}{remark}", shown.join(", ")))
    } else {
        Outcome::warn(differing.join(", "), hint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_spans_are_read_as_systemd_writes_them() {
        for (text, expected) in [
            ("0", Some(0)),
            ("infinity", Some(0)),
            ("14s", Some(14)),
            ("1min", Some(60)),
            ("1min 30s", Some(90)),
            ("2min", Some(120)),
            ("500ms", Some(0)),
            ("1h 1s", Some(3601)),
            ("", None),
            ("soon", None),
        ] {
            assert_eq!(seconds(text), expected, "{text}");
        }
    }
}
