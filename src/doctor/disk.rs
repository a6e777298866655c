//! Disks and file systems (domain.md §9).

use super::finding::{Outcome, Verdict, graded};
use super::kernel::{message, no_log};
use super::patient::Patient;

/// Percent of bytes or inodes in use from which it warns.
const FULL: f64 = 75.0;
/// Percent above which it fails.
const VERY_FULL: f64 = 88.0;
/// Percent of five minutes in which all tasks waited for a disk, from which it warns. SD cards reach 20 when pods start.
const STALLED: f64 = 25.0;
/// Percent above which it fails.
const STALLED_LONG: f64 = 50.0;
/// Percent of an NVMe drive's rated writes from which it warns.
const USED: f64 = 80.0;
/// Percent above which it fails.
const USED_UP: f64 = 95.0;

pub(super) fn root(patient: &Patient<'_>) -> Outcome {
    let Some(log) = patient.lines("log") else {
        return no_log();
    };
    let facts = &patient.measured.snapshot.facts;
    let Some(mount) = facts.mount("/") else {
        return Outcome::unknown("/proc/self/mountinfo has no /", "look at `findmnt /`");
    };
    let hint = "save what matters, run fsck from another system, replace the card or disk";
    let complaint = || {
        let mut lines = log.clone().filter(|line| {
            line.contains("EXT4-fs error") || line.contains("ounting filesystem read-only")
        });
        lines.next_back().map(|line| message(line).to_owned())
    };
    if mount.read_only {
        let why = complaint().unwrap_or_else(|| "no reason in the kernel's log".to_owned());
        return Outcome::fail(format!("/ is mounted read-only; {why}"), hint);
    }
    if let Some(line) = complaint() {
        return Outcome::warn(line, hint);
    }
    // `/sys/fs/ext4/DEVICE/errors_count:COUNT`: it survives reboots, until fsck.
    let counts = patient.text("ext4-errors").lines();
    let mut damaged = counts.filter_map(|line| {
        let (path, count) = line.rsplit_once(':')?;
        let device = path.strip_prefix("/sys/fs/ext4/")?.split('/').next()?;
        (count.trim() != "0").then(|| format!("{device}: errors_count {}", count.trim()))
    });
    match damaged.next() {
        Some(evidence) => Outcome::warn(evidence, hint),
        None => Outcome::ok(format!(
            "{} on {}, writable, no errors",
            mount.kind, mount.source
        )),
    }
}

pub(super) fn nvme(patient: &Patient<'_>) -> Outcome {
    let drives: Vec<&str> = patient.text("nvme").split_whitespace().collect();
    if drives.is_empty() {
        return Outcome::skipped("no NVMe drive");
    }
    let mut worst = Outcome::ok(String::new());
    for drive in drives {
        let outcome = smart(
            drive,
            patient.measured.text(&format!("doctor smart {drive}")),
        );
        if outcome.verdict < worst.verdict || worst.evidence.is_empty() {
            worst = outcome;
        }
    }
    worst
}

/// What `nvme smart-log -o json` says of a drive.
fn smart(drive: &str, text: &str) -> Outcome {
    let log: Option<serde_json::Value> = serde_json::from_str(text).ok();
    let number = |key: &str| log.as_ref()?.get(key)?.as_f64();
    // The names changed with nvme-cli 2.
    let used = number("percent_used").or_else(|| number("percentage_used"));
    let warning = log.as_ref().and_then(|log| {
        let warning = log.get("critical_warning")?;
        warning.as_u64().or_else(|| warning.get("value")?.as_u64())
    });
    let (Some(used), Some(warning)) = (used, warning) else {
        return Outcome::unknown(
            format!("{drive} does not tell its health"),
            "install nvme-cli: packages = [\"nvme-cli\"] under [hardening]",
        );
    };
    let errors = number("media_errors").unwrap_or_default();
    let evidence =
        format!("{drive}: {used:.0} % used, critical_warning {warning}, media errors {errors:.0}");
    let hint = "replace the drive; make sure of its backup first";
    match graded(used, USED, USED_UP) {
        Verdict::Fail => Outcome::fail(evidence, hint),
        _ if warning != 0 => Outcome::fail(evidence, hint),
        Verdict::Warn => Outcome::warn(evidence, hint),
        _ if errors > 0.0 => Outcome::warn(evidence, hint),
        _ => Outcome::ok(evidence),
    }
}

/// Room on a file system, from a line of `total free available inodes free-inodes path`.
struct Room<'a> {
    path: &'a str,
    used: f64,
    used_inodes: f64,
}

fn room(line: &str) -> Option<Room<'_>> {
    let mut words = line.splitn(6, ' ');
    let mut number = || words.next()?.parse::<f64>().ok();
    let (total, free, available) = (number()?, number()?, number()?);
    let (inodes, free_inodes) = (number()?, number()?);
    // As df counts: what is kept for root is not there for anybody else. btrfs has no inodes to speak of.
    let used = total - free;
    let percent = |used: f64, of: f64| if of > 0.0 { 100.0 * used / of } else { 0.0 };
    Some(Room {
        path: words.next()?,
        used: percent(used, used + available),
        used_inodes: percent(inodes - free_inodes, inodes),
    })
}

pub(super) fn space(patient: &Patient<'_>) -> Outcome {
    let rooms: Vec<Room<'_>> = patient.text("space").lines().filter_map(room).collect();
    let fullest = rooms
        .iter()
        .max_by(|one, other| worse(one).total_cmp(&worse(other)));
    let Some(fullest) = fullest else {
        return Outcome::unknown(
            "no local file system answers",
            "look at `df -h` on the node",
        );
    };
    let shown = |room: &Room<'_>| match room.used >= room.used_inodes {
        true => format!("{} {:.0} % used", room.path, room.used),
        false => format!("{} {:.0} % of inodes used", room.path, room.used_inodes),
    };
    let hint = "`sudo apt-get clean`, `sudo journalctl --vacuum-size=200M`, remove images and snapshots nobody needs";
    match graded(worse(fullest), FULL, VERY_FULL) {
        Verdict::Fail => Outcome::fail(shown(fullest), hint),
        Verdict::Warn => Outcome::warn(shown(fullest), hint),
        _ => Outcome::ok(rooms.iter().map(shown).collect::<Vec<_>>().join(", ")),
    }
}

fn worse(room: &Room<'_>) -> f64 {
    room.used.max(room.used_inodes)
}

pub(super) fn pressure(patient: &Patient<'_>) -> Outcome {
    if !patient.measured.snapshot.facts.psi {
        return Outcome::skipped("the kernel does not account pressure, see psi");
    }
    let Some(percent) = stalled(patient.text("pressure-io")) else {
        return Outcome::unknown("/proc/pressure/io cannot be read", "look at it on the node");
    };
    let evidence = format!("stalled {percent:.1} % of 5 minutes");
    let hint = "see what writes (`iotop`); move /var/lib/rancher to an SSD";
    match graded(percent, STALLED, STALLED_LONG) {
        Verdict::Fail => Outcome::fail(evidence, hint),
        Verdict::Warn => Outcome::warn(evidence, hint),
        _ => Outcome::ok(evidence),
    }
}

/// `avg300` of the line `full avg10=0.00 avg60=0.00 avg300=0.00 total=0` (kernel's accounting/psi.rst).
pub(super) fn stalled(text: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix("full "))?;
    let mut words = line.split_whitespace();
    words
        .find_map(|word| word.strip_prefix("avg300="))?
        .parse()
        .ok()
}
/// Storage errors of a day above which it fails.
const MANY_ERRORS: usize = 5;

pub(super) fn errors(patient: &Patient<'_>) -> Outcome {
    let Some(lines) = patient.lines("storage-log") else {
        return Outcome::unknown(
            "there is no journal to look into",
            "look at `dmesg` on the node",
        );
    };
    let lines: Vec<&str> = lines.filter(|line| !line.trim().is_empty()).collect();
    let Some(last) = lines.last() else {
        return Outcome::ok("none in 24 h");
    };
    let evidence = format!("{} in 24 h, the last: {last}", lines.len());
    let hint = "a loose cable, too little power, or a drive that dies: back it up, change the cable, then the drive; for one \
                that is reset, `selfheal apply` sets a quirk";
    if lines.len() > MANY_ERRORS {
        Outcome::fail(evidence, hint)
    } else {
        Outcome::warn(evidence, hint)
    }
}
