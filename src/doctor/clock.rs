//! The clock: a Pi without a battery boots into the past (domain.md §3.5, §5).

use super::finding::Outcome;
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
