//! Which boots ended without being asked to, and why (domain.md §2.4, §9).

use super::finding::Outcome;
use super::kernel::{message, written};
use super::patient::Patient;

/// How far back unclean boots and panics count, in seconds.
const WEEK: f64 = 7.0 * 86_400.0;
/// Unclean boots from which it warns.
const SOME: usize = 2;
/// Unclean boots from which it fails.
const MANY: usize = 4;
/// The watchdog's `bootstatus`: it reset the machine (WDIOF_CARDRESET of linux/watchdog.h).
const RESET_BY_WATCHDOG: u32 = 0x20;

/// How a boot ended: the third word of a line of boots.log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    Running,
    Clean,
    Unclean,
}

/// A line of /var/lib/selfheal/boots.log: `BOOT_ID SECONDS STATE CAUSE`.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Boot<'a> {
    id: &'a str,
    /// How long it ran, where that is known.
    seconds: Option<f64>,
    ended: Ended,
    cause: &'a str,
}

fn boot(line: &str) -> Option<Boot<'_>> {
    let mut words = line.split_whitespace();
    let (id, seconds) = (words.next()?, words.next()?);
    let ended = match words.next()? {
        "running" => Ended::Running,
        "clean" => Ended::Clean,
        "unclean" => Ended::Unclean,
        _ => return None,
    };
    Some(Boot {
        id,
        seconds: seconds.parse().ok(),
        ended,
        cause: words.next().unwrap_or("-"),
    })
}

pub(super) fn unclean(patient: &Patient<'_>) -> Outcome {
    let mut safe_mode = patient.text("safe-mode").lines();
    if safe_mode.next().is_some() {
        let reason: Vec<&str> = safe_mode.collect();
        let reason = match reason.join(" ") {
            reason if reason.is_empty() => "no reason given".to_owned(),
            reason => reason,
        };
        return Outcome::fail(
            format!("the node is in safe mode: {reason}"),
            format!(
                "k3s stays down: find out why it kept rebooting, then run `selfheal node resume {}`",
                patient.node.name
            ),
        );
    }
    match patient.text("boots") {
        "" => from_journal(patient),
        log => from_log(patient, log),
    }
}

/// The clock of a Pi lies, so a week is counted in seconds of running, backwards from now.
fn from_log(patient: &Patient<'_>, log: &str) -> Outcome {
    let facts = &patient.measured.snapshot.facts;
    let mut ago = facts.uptime.as_secs_f64();
    let mut unclean = Vec::new();
    let mut known = 0;
    for boot in log.lines().rev().filter_map(boot) {
        if ago > WEEK {
            break;
        }
        known += 1;
        if boot.id == facts.boot_id {
            continue;
        }
        // A boot that nobody closed, and which runs no more, has not ended as it should.
        if boot.ended != Ended::Clean {
            unclean.push(boot);
        }
        ago += boot.seconds.unwrap_or_default();
    }
    let Some(last) = unclean.first() else {
        return Outcome::ok(format!("none of the last {known} boots"));
    };
    let ran = last.seconds.map_or_else(
        || "some time".to_owned(),
        |seconds| format!("{seconds:.0} s"),
    );
    let evidence = format!(
        "{} in 7 days; the last ran for {ran} and ended by {}",
        unclean.len(),
        cause(patient, last.cause)
    );
    let hint = "look at the end of the journal before it (`journalctl -b -1 -e`), at the power supply and the disk";
    match unclean.len() {
        count if count >= MANY => Outcome::fail(evidence, hint),
        count if count >= SOME => Outcome::warn(evidence, hint),
        _ => Outcome::ok(evidence).as_news(),
    }
}

/// The cause in words. What boots.log does not know may still be on record.
fn cause(patient: &Patient<'_>, word: &str) -> String {
    let panic = || match last_panic(patient) {
        Some(words) => format!("a panic ({words})"),
        None => "a panic".to_owned(),
    };
    match word {
        "watchdog" => "the watchdog: the kernel or PID 1 stood still".to_owned(),
        "panic" => panic(),
        "power" => "the loss of power".to_owned(),
        "reboot" => "a reboot that was cut short".to_owned(),
        _ => inferred(patient).unwrap_or_else(|| "a cause that left no trace".to_owned()),
    }
}

/// What the kernel and the journal tell of the boot before this one.
fn inferred(patient: &Patient<'_>) -> Option<String> {
    let panicked = patient.text("log-before").lines().rev();
    let mut panicked = panicked.filter(|line| line.contains("Kernel panic"));
    if let Some(line) = panicked.next() {
        return Some(format!("a panic ({})", message(line)));
    }
    let words = || patient.text("last-words").lines();
    // systemd writes this when it has crashed itself (crash handler of systemd(1)); nobody feeds the watchdog then.
    if words().any(|line| line.contains("systemd[1]: Freezing execution")) {
        return Some("a crash of systemd, PID 1, which stood still until the watchdog".to_owned());
    }
    let end = words().last().map(written)?;
    if newest_panic(patient).is_some_and(|panic| panic >= end) {
        return Some(match last_panic(patient) {
            Some(words) => format!("a panic ({words})"),
            None => "a panic (pstore)".to_owned(),
        });
    }
    let status = patient
        .text("watchdog")
        .lines()
        .find_map(|line| line.strip_prefix("bootstatus "));
    let status = status.and_then(|status| status.trim().parse::<u32>().ok());
    (status? & RESET_BY_WATCHDOG != 0).then(|| "the watchdog (its bootstatus)".to_owned())
}

/// Without boots.log only the boot before this one can be judged: a clean one says that it goes down.
fn from_journal(patient: &Patient<'_>) -> Outcome {
    let words = patient.text("last-words");
    if words.is_empty() {
        return Outcome::unknown(
            "neither /var/lib/selfheal/boots.log nor the journal of an earlier boot",
            "`selfheal apply` makes the journal persistent and keeps the log of boots",
        );
    }
    let clean = words.lines().any(|line| {
        line.contains("Journal stopped")
            || ["reboot", "poweroff", "halt", "kexec", "shutdown"]
                .iter()
                .any(|target| line.contains(&format!("Reached target {target}.target")))
    });
    if clean {
        Outcome::ok("the boot before this one ended in good order (journal)")
    } else {
        let cause =
            inferred(patient).unwrap_or_else(|| "the watchdog or a loss of power".to_owned());
        let last = words.lines().last().map(message).unwrap_or_default();
        Outcome::ok(format!(
            "the boot before this one ended by {cause}; its last words: {last}"
        ))
        .as_news()
    }
}

/// What the newest record says of its panic, without the kernel's level and time.
fn last_panic<'a>(patient: &Patient<'a>) -> Option<&'a str> {
    let line = patient.text("panics").lines().last()?;
    let begins = line.find("Kernel panic").unwrap_or_default();
    line.get(begins..).map(str::trim)
}

/// When the newest record of a panic was written.
fn newest_panic(patient: &Patient<'_>) -> Option<f64> {
    let records = patient.text("pstore").lines();
    records.map(written).max_by(f64::total_cmp)
}

pub(super) fn panic_records(patient: &Patient<'_>) -> Outcome {
    let Some(newest) = newest_panic(patient) else {
        return Outcome::ok("no record in /sys/fs/pstore or /var/lib/systemd/pstore");
    };
    let count = patient.text("pstore").lines().count();
    let line = last_panic(patient).unwrap_or("no line of a panic in them");
    let age = (patient.clock() - newest).max(0.0);
    let evidence = format!(
        "{count} records, the newest {:.1} days old: {}",
        age / 86_400.0,
        line
    );
    let hint = "read them in /var/lib/systemd/pstore, and move them away when you are done";
    if age > WEEK {
        Outcome::warn(evidence, hint)
    } else {
        Outcome::fail(evidence, hint)
    }
}
