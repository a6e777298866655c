//! Memory and swap (domain.md §3.4, §9).

use super::disk::stalled;
use super::finding::Outcome;
use super::patient::Patient;
use crate::inventory::Swap;

/// Percent of the memory that should be available.
const AVAILABLE: f64 = 15.0;
/// Percent under which it fails.
const LITTLE: f64 = 8.0;
/// Percent of five minutes in which all tasks waited for memory, from which it warns.
const STALLED: f64 = 10.0;
/// Percent above which it fails.
const STALLED_LONG: f64 = 30.0;

pub(super) fn available(patient: &Patient<'_>) -> Outcome {
    let text = patient.measured.text("fact memory");
    let kibibytes = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key))?;
        line.split_whitespace().next()?.parse::<f64>().ok()
    };
    let (Some(total), Some(available)) = (kibibytes("MemTotal:"), kibibytes("MemAvailable:"))
    else {
        return Outcome::unknown(
            "/proc/meminfo says nothing",
            "look at `free -m` on the node",
        );
    };
    let percent = 100.0 * available / total.max(1.0);
    let pressure = stalled(patient.text("pressure-memory"));
    let mut evidence = format!("{percent:.0} % of {:.0} MiB available", total / 1024.0);
    if let Some(pressure) = pressure {
        evidence.push_str(&format!(", stalled {pressure:.1} % of 5 minutes"));
    }
    let hint = "see what takes it (`ps aux --sort -rss | head`); give pods limits";
    let pressure = pressure.unwrap_or_default();
    if percent < LITTLE || pressure > STALLED_LONG {
        Outcome::fail(evidence, hint)
    } else if percent <= AVAILABLE || pressure > STALLED {
        Outcome::warn(evidence, hint)
    } else {
        Outcome::ok(evidence)
    }
}

pub(super) fn swap(patient: &Patient<'_>) -> Outcome {
    let swaps = &patient.measured.snapshot.facts.swaps;
    let evidence = format!("/proc/swaps: {}", swaps.join(", "));
    if swaps.is_empty() {
        Outcome::ok("none in /proc/swaps")
    } else if swaps.iter().all(|swap| swap.starts_with("/dev/zram")) {
        Outcome::warn(
            evidence,
            "it puts off evictions: `selfheal apply` switches it off, unless hardening.swap = \"keep\"",
        )
    } else {
        Outcome::fail(
            evidence,
            "it wears out the card and puts off evictions: `selfheal apply` switches it off",
        )
        .asked_for(patient.node.hardening.swap == Swap::Keep)
    }
}
