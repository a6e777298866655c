//! The clock: a Pi without a battery boots into the past (domain.md §3.5, §5).

use super::finding::Outcome;
use super::k3s::{Unit, absent, service};
use super::patient::Patient;

/// Seconds from which a clock is off.
const OFF: f64 = 0.5;
/// Seconds above which it is wrong.
const WRONG: f64 = 5.0;

pub(super) fn clock(patient: &Patient<'_>) -> Outcome {
    let Some((least, most)) = patient.measured.offset else {
        return Outcome::unknown("the node does not tell its time", "run `date` on the node");
    };
    let (middle, margin) = ((least + most) / 2.0, (most - least) / 2.0);
    // What the round trip explains is no fault of the clock.
    let offset = (middle.abs() - margin).max(0.0);
    let synchronised = patient.text("synchronised").trim() == "yes";
    let rtc = match patient.text("rtc") {
        "" => "no RTC",
        _ => "an RTC",
    };
    let evidence = format!(
        "{middle:+.2} s (± {margin:.2} s) against this computer, {}, {rtc}",
        if synchronised {
            "synchronised"
        } else {
            "not synchronised"
        }
    );
    let recorded = patient.text("last-clock").trim().parse::<f64>().ok();
    let now = patient.clock();
    if let Some(recorded) = recorded.filter(|recorded| *recorded > now + WRONG) {
        return Outcome::fail(
            format!(
                "{evidence}; {:.0} s before the last recorded time",
                recorded - now
            ),
            "it boots into the past: give it a time server it can reach, and a Pi 5 a battery",
        );
    }
    if offset > WRONG {
        Outcome::fail(
            evidence,
            "one of the two clocks is wrong: does NTP get through (UDP 123)? `timedatectl timesync-status`",
        )
    } else if !synchronised {
        Outcome::warn(
            evidence,
            "does NTP get through (UDP 123)? `timedatectl timesync-status`; just after a boot, wait a minute",
        )
    } else if offset >= OFF {
        Outcome::warn(evidence, "is this computer's own clock synchronised?")
    } else {
        Outcome::ok(evidence)
    }
}

/// k3s must not start with a clock that stands in the past (domain.md §5.3, L1).
pub(super) fn gate(patient: &Patient<'_>) -> Outcome {
    if let Some(skipped) = absent(patient) {
        return skipped;
    }
    let apply = "`selfheal apply` puts it there";
    let gate = Unit::of(patient, "selfheal-clock.service");
    if !gate.is_loaded() {
        return Outcome::fail("there is no selfheal-clock.service", apply);
    }
    let name = service(patient.node);
    let mut after = Unit::of(patient, name).value("After").split(' ');
    if !after.any(|unit| unit == "selfheal-clock.service") {
        return Outcome::fail(format!("{name} does not wait for it"), apply);
    }
    if !gate.is_enabled() {
        return Outcome::fail("selfheal-clock.service is not enabled", apply);
    }
    let last = patient.text("clock-gate");
    let value = |key: &str| {
        let mut pairs = last.lines().filter_map(|line| line.split_once(' '));
        pairs
            .find(|(name, _)| *name == key)
            .map_or("", |(_, value)| value)
    };
    if value("boot_id") != patient.measured.snapshot.facts.boot_id {
        return Outcome::ok("enabled; it has not acted in this boot yet");
    }
    let evidence = format!(
        "in this boot: {}, after {} s",
        value("outcome"),
        value("waited")
    );
    match value("outcome") {
        "failed" => Outcome::warn(
            format!("{evidence}; the clock stands before a time already seen"),
            "give the node a time server that it can reach, then restart k3s",
        ),
        _ => Outcome::ok(evidence),
    }
}
