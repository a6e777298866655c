//! What brings k3s back after a power cut, and what it left to be done: guard, ghosts, leases (domain.md §5.4).

use std::collections::BTreeSet;

use super::finding::Outcome;
use super::k3s::{Unit, absent, service};
use super::patient::Patient;

const GUARD: &str = "/usr/local/libexec/selfheal/guard pre";
/// Addresses of a /24 above which it soon runs out of them.
const MANY: usize = 200;

const APPLY: &str = "`selfheal apply` puts it there";

pub(super) fn guard(patient: &Patient<'_>) -> Outcome {
    if let Some(skipped) = absent(patient) {
        return skipped;
    }
    let name = service(patient.node);
    let unit = Unit::of(patient, name);
    if !patient
        .text("scripts")
        .lines()
        .any(|script| script == "guard")
    {
        return Outcome::fail("/usr/local/libexec/selfheal/guard is not there", APPLY);
    }
    if !unit.names("ExecStartPre", GUARD) {
        return Outcome::fail(format!("{name} starts without it (ExecStartPre)"), APPLY);
    }
    if let Some(line) = patient.text("verify").lines().next() {
        return Outcome::warn(
            format!("systemd-analyze verify: {line}"),
            "a unit that systemd cannot read does not act: correct it, or `selfheal apply`",
        );
    }
    let last = patient.text("last-guard");
    let value = |key: &str| {
        let mut pairs = last.lines().filter_map(|line| line.split_once(' '));
        pairs
            .find(|(name, _)| *name == key)
            .map_or("", |(_, value)| value)
    };
    let boot = &patient.measured.snapshot.facts.boot_id;
    if let Some(what) = last.lines().find_map(|line| line.strip_prefix("operator ")) {
        return Outcome::fail(
            what.to_owned(),
            "restore the datastore's node from a backup, or let k3s make it anew",
        );
    }
    if value("boot_id") == boot.as_str() {
        let unclean = match value("unclean") {
            "yes" => "after an unclean end",
            "no" => "after a clean end",
            _ => "first time",
        };
        return Outcome::ok(format!(
            "acted in this boot, {unclean}: /var/lib/cni {}, {} ms",
            value("cni"),
            value("ms")
        ));
    }
    let stale = format!("`sudo journalctl -b -u {name} | grep guard` says why");
    match patient.text("guard-outcome").trim() {
        "same" => Outcome::ok("k3s has run in this boot before"),
        "live" => Outcome::ok(
            "pods lived when it came first: nothing was touched; it acts at the next boot",
        ),
        "" if !unit.is_active() => Outcome::ok("installed; k3s has not started in this boot"),
        "" => Outcome::warn("k3s runs, but it has not acted in this boot", stale),
        outcome => Outcome::warn(format!("in this boot it came to: {outcome}"), stale),
    }
}

pub(super) fn ghosts(patient: &Patient<'_>) -> Outcome {
    if let Some(skipped) = absent(patient) {
        return skipped;
    }
    let heal = format!("`selfheal heal {}` removes them", patient.node.name);
    let log = patient.text("k3s-log").lines();
    let mut wanted =
        log.filter(|line| line.contains("is reserved for") || line.contains("failed to reserve"));
    if let Some(line) = wanted.next_back() {
        return Outcome::fail(format!("in the last 15 minutes: {line}"), heal);
    }
    let said = patient.text("ghosts");
    let (mut shown, mut stuck) = (Vec::new(), Vec::new());
    let (mut total, mut code) = ("", "");
    for line in said.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["before", "sandboxes", count, ..] => total = count,
            ["ghost", id, pod, reason] => shown.push(format!("{pod} ({reason}, {})", short(id))),
            ["stuck", id, ..] => stuck.push(short(id)),
            ["exit", exit] => code = exit,
            _ => {}
        }
    }
    match code {
        "0" | "1" => {}
        "" => {
            return Outcome::unknown(
                "k3s or the reaper is not there to be asked",
                "see the checks `k3s` and `guard`",
            );
        }
        _ => {
            let why = said.lines().next().unwrap_or_default();
            return Outcome::unknown(
                format!("the reaper cannot look: {why}"),
                "see the check `k3s`",
            );
        }
    }
    if !stuck.is_empty() {
        return Outcome::fail(
            format!("names kept in containerd's memory: {}", stuck.join(", ")),
            heal,
        );
    }
    let count = shown.len();
    shown.truncate(5);
    match count {
        0 => Outcome::ok(format!("none among {total} sandboxes")),
        _ => Outcome::warn(format!("{count}: {}", shown.join(", ")), heal),
    }
}

fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

pub(super) fn leases(patient: &Patient<'_>) -> Outcome {
    if let Some(skipped) = absent(patient) {
        return skipped;
    }
    let text = patient.text("leases");
    let of = |key: &'static str| text.lines().filter_map(move |line| line.strip_prefix(key));
    let empty: Vec<&str> = of("empty ").collect();
    let at_boot =
        "the guard clears them when the node boots: reboot it; not by hand while pods run";
    if let Some(first) = empty.first() {
        return Outcome::fail(
            format!("{} files of 0 bytes, such as {first}", empty.len()),
            at_boot,
        );
    }
    let leases: Vec<(&str, &str)> = of("lease ")
        .filter_map(|line| line.split_once(' '))
        .collect();
    if leases.len() > MANY {
        return Outcome::fail(format!("{} addresses taken of 254", leases.len()), at_boot);
    }
    if !text.lines().any(|line| line == "answered") {
        return Outcome::unknown(
            "containerd does not tell its sandboxes",
            "see the check `k3s`",
        );
    }
    let sandboxes: BTreeSet<&str> = of("sandbox ").collect();
    let leaked: Vec<&str> = leases
        .iter()
        .filter(|(_, owner)| !sandboxes.contains(owner))
        .map(|(address, _)| *address)
        .collect();
    if leaked.is_empty() {
        Outcome::ok(format!("{} addresses, each of a sandbox", leases.len()))
    } else {
        let shown: Vec<&str> = leaked.iter().take(5).copied().collect();
        Outcome::warn(
            format!(
                "{} of {} addresses belong to no sandbox: {}",
                leaked.len(),
                leases.len(),
                shown.join(", ")
            ),
            at_boot,
        )
    }
}
