//! The boot files: what the firmware reads, what waits for a reboot, how a trial went (domain.md §1).

use super::finding::Outcome;
use super::patient::Patient;
use crate::node::boot::{BootFile, BootProblem, Layout, Token, Trial, resolve};
use crate::node::facts::Mount;
use crate::node::ledger::Kind;
use crate::resource::boot;

const MEGABYTE: u64 = 1_000_000;
/// Free bytes of the boot partition from which all is well: room for a second kernel and initramfs.
const ROOM: u64 = 100 * MEGABYTE;
/// Free bytes under which it fails.
const LITTLE_ROOM: u64 = 40 * MEGABYTE;
/// Days after which a reboot that waits is a failure.
const LONG: f64 = 30.0;
const DAY: f64 = 86_400.0;

pub(super) fn layout(patient: &Patient<'_>) -> Outcome {
    let hint = "correct it as the message says; the copies beside it and in /var/lib/selfheal are earlier states";
    match resolved(patient) {
        Ok(file) if file.trial == Trial::Waiting => Outcome::warn(
            format!("{} waits for its trial boot", file.path),
            "wait some minutes; a node that is still trying then has lost power in between: reboot it",
        ),
        Ok(file) if file.waits_for().is_none() => Outcome::ok(format!(
            "{} ({}), as booted",
            file.path,
            match file.layout {
                Layout::Plain => "plain layout",
                Layout::UbuntuAb => "Ubuntu's A/B layout",
            }
        )),
        Ok(file) => Outcome::warn(
            format!("{}: {}", file.path, file.waits_for().unwrap_or_default()),
            "reboot the node, or run `selfheal apply`",
        ),
        Err(problem @ BootProblem::TrialUnderWay { .. }) => {
            Outcome::warn(problem.to_string(), "look again in a few minutes")
        }
        Err(problem @ BootProblem::Unclear { .. }) => Outcome::unknown(problem.to_string(), hint),
        Err(problem) => Outcome::fail(problem.to_string(), hint),
    }
}

fn resolved(patient: &Patient<'_>) -> Result<BootFile, BootProblem> {
    let snapshot = &patient.measured.snapshot;
    let owned = snapshot.ledger.iter();
    let ours: Vec<Token> = owned
        .filter(|(id, _)| id.kind == Kind::BootToken)
        .filter_map(|(id, _)| id.name.parse().ok())
        .collect();
    resolve(&boot::facts(snapshot), &ours)
}

pub(super) fn trial(patient: &Patient<'_>) -> Outcome {
    let snapshot = &patient.measured.snapshot;
    let Some(mount) = partition(patient) else {
        return Outcome::skipped("no boot partition is mounted");
    };
    let state = |folder: &str| {
        let content = snapshot.content(&mount.point.join(folder).join("state"))?;
        Some(String::from_utf8_lossy(content).trim().to_owned())
    };
    let (current, new) = (state("current"), state("new"));
    if current.is_none() && new.is_none() {
        return Outcome::skipped("the plain layout has no trial boots");
    }
    let or_none = |state: &Option<String>| state.clone().unwrap_or_else(|| "none".to_owned());
    let evidence = format!(
        "current/state {}, new/state {}",
        or_none(&current),
        or_none(&new)
    );
    match (current.as_deref(), new.as_deref()) {
        (_, Some("bad")) | (Some("bad"), _) => Outcome::fail(
            evidence,
            "the Pi rejected its new boot files and runs on the old ones: look at new/cmdline.txt, then run `flash-kernel`; \
             `piboot-try --restore-old` goes back further",
        ),
        (Some("good") | None, Some("good") | None) => Outcome::ok(evidence),
        _ => Outcome::warn(
            evidence,
            "reboot the node: the trial decides (it boots twice)",
        ),
    }
}

/// The mounted boot partition, as the firmware's files are looked for.
fn partition<'a>(patient: &Patient<'a>) -> Option<&'a Mount> {
    let facts = &patient.measured.snapshot.facts;
    let mounts = ["/boot/firmware", "/boot"].into_iter();
    mounts
        .filter_map(|point| facts.mount(point))
        .find(|mount| mount.kind == "vfat")
}

pub(super) fn space(patient: &Patient<'_>) -> Outcome {
    let facts = &patient.measured.snapshot.facts;
    let Some(mount) = partition(patient) else {
        return Outcome::fail(
            "no vfat is mounted at /boot/firmware or /boot",
            "mount it, see /etc/fstab",
        );
    };
    let Some(free) = facts.free.get(&mount.point).copied() else {
        return Outcome::unknown(
            format!("{} does not say how much is free", mount.point),
            "look at it with `stat -f`",
        );
    };
    let evidence = format!("{}: {} MB free", mount.point, free / MEGABYTE);
    if mount.read_only {
        return Outcome::fail(
            format!("{} is mounted read-only", mount.point),
            "a damaged card does that by itself: look at `dmesg`, run fsck.vfat, mount it again",
        );
    }
    let hint = "remove old kernels with apt, and copies of yours; do not touch current/";
    if free >= ROOM {
        Outcome::ok(evidence)
    } else if free >= LITTLE_ROOM {
        Outcome::warn(evidence, hint)
    } else {
        Outcome::fail(evidence, hint)
    }
}

pub(super) fn pending_reboot(patient: &Patient<'_>) -> Outcome {
    let facts = &patient.measured.snapshot.facts;
    let mut reasons = Vec::new();
    let mut since = f64::MAX;
    if let Ok(asked) = patient.text("reboot-required").trim().parse::<f64>() {
        let packages = patient.text("reboot-packages").split_whitespace();
        let packages: Vec<&str> = packages.take(4).collect();
        reasons.push(match packages.as_slice() {
            [] => "/run/reboot-required is there".to_owned(),
            packages => format!("/run/reboot-required: {}", packages.join(" ")),
        });
        since = since.min(asked);
    }
    if let Some((came, release)) = newer_kernel(&facts.kernel, patient.text("kernels")) {
        reasons.push(format!("{release} is installed, {} runs", facts.kernel));
        since = since.min(came);
    }
    if let Ok(file) = resolved(patient)
        && let Some(waiting) = file.waits_for()
    {
        reasons.push(format!("{}: {waiting}", file.path));
    }
    if reasons.is_empty() {
        return Outcome::ok(format!("none; {} runs", facts.kernel));
    }
    let hint = "reboot it when it suits you, one node at a time; `selfheal apply` does it where it is its own change";
    let days = (patient.clock() - since) / DAY;
    if since < f64::MAX && days > LONG {
        Outcome::fail(format!("{}, for {days:.0} days", reasons.join("; ")), hint)
    } else {
        Outcome::warn(reasons.join("; "), hint)
    }
}

/// The newest kernel of the running one's flavour that is newer, and when it came. `kernels` are lines of a time and a
/// folder of /lib/modules.
fn newer_kernel<'a>(running: &str, kernels: &'a str) -> Option<(f64, &'a str)> {
    let (version, flavour) = release(running);
    let newer = kernels.lines().filter_map(|line| {
        let (came, folder) = line.split_once(' ')?;
        let name = folder.trim_end_matches('/').rsplit('/').next()?;
        let (other_version, other_flavour) = release(name);
        let is_newer = other_flavour == flavour && other_version > version;
        is_newer.then_some((other_version, came.parse().ok()?, name))
    });
    newer
        .max_by(|one, other| one.0.cmp(&other.0))
        .map(|(_, came, name)| (came, name))
}

/// Version numbers and flavour of a kernel release: `6.12.34+rpt-rpi-2712` is `6, 12, 34` and `rpi-2712`.
fn release(text: &str) -> (Vec<u64>, String) {
    let mut words: Vec<&str> = text.split(['.', '-', '+', '~', '_']).collect();
    let mut flavour = words.pop().unwrap_or_default().to_owned();
    if flavour.bytes().all(|byte| byte.is_ascii_digit())
        && let Some(before) = words.pop()
    {
        flavour = format!("{before}-{flavour}");
    }
    let numbers = words.iter().filter_map(|word| word.parse().ok());
    (numbers.collect(), flavour)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_newer_kernel_of_the_same_flavour_counts() {
        let there = "100 /lib/modules/6.12.34+rpt-rpi-2712/\n200 /lib/modules/6.12.47+rpt-rpi-v8/\n\
                     300 /lib/modules/6.6.51+rpt-rpi-2712/\n";
        assert_eq!(newer_kernel("6.12.34+rpt-rpi-2712", there), None);
        assert_eq!(
            newer_kernel("6.6.51+rpt-rpi-2712", there),
            Some((100.0, "6.12.34+rpt-rpi-2712"))
        );
        let ubuntu = "7 /lib/modules/6.8.0-1013-raspi/\n8 /lib/modules/6.8.0-1009-raspi/\n";
        assert_eq!(
            newer_kernel("6.8.0-1009-raspi", ubuntu),
            Some((7.0, "6.8.0-1013-raspi"))
        );
        assert_eq!(newer_kernel("6.8.0-1013-raspi", ubuntu), None);
    }
}
