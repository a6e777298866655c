//! The board and its system: is it a Pi that selfheal knows, has it power, is it cool (domain.md §1.5, §9)?

use super::finding::{Outcome, Verdict, graded};
use super::patient::Patient;
use crate::fleet::detect;
use crate::inventory::{Model, Os};

/// A Pi sold as one of 4 GB shows a little less: the firmware keeps some. In bytes.
const MEMORY: u64 = 3_500 * 1024 * 1024;
/// Throttling bits: what is so now.
const NOW: u32 = 0xf;
/// Throttling bits: what has been so since boot.
const SINCE_BOOT: u32 = 0xf_0000;
/// °C from which it warns; the firmware throttles from 80.
const WARM: f64 = 75.0;
/// °C above which it fails.
const HOT: f64 = 82.0;

const NO_BOARD: &str = "a virtual Pi has no board";

pub(super) fn architecture(patient: &Patient<'_>) -> Outcome {
    if patient.is_virtual() {
        return Outcome::skipped(NO_BOARD);
    }
    let kernel = &patient.measured.snapshot.facts.machine;
    let packages = patient.text("architecture");
    let evidence = format!("kernel {kernel}, packages {packages}");
    if kernel == "aarch64" && packages == "arm64" {
        Outcome::ok(evidence)
    } else {
        Outcome::fail(evidence, "flash the card anew with a 64-bit system")
    }
}

pub(super) fn model(patient: &Patient<'_>) -> Outcome {
    if patient.is_virtual() {
        return Outcome::skipped(NO_BOARD);
    }
    let facts = &patient.measured.snapshot.facts;
    let gib = facts.memory as f64 / (1 << 30) as f64;
    let name = match facts.model.as_str() {
        "" => "no name in the device tree",
        name => name,
    };
    let evidence = format!("{name}, {gib:.1} GiB");
    match Model::from_device_tree(&facts.model) {
        Model::Pi5 | Model::Pi500 | Model::Cm5 | Model::Pi4 | Model::Pi400 | Model::Cm4 => {
            if facts.memory >= MEMORY {
                Outcome::ok(evidence)
            } else {
                Outcome::warn(evidence, "a node of a cluster wants 4 GB; give it little work")
            }
        }
        Model::Pi3 => Outcome::warn(evidence, "give it little work, or take a Pi 4 or 5"),
        Model::Virtual | Model::Other if facts.model.starts_with("Raspberry Pi") => {
            Outcome::warn(evidence, "give it little work, or take a Pi 4 or 5")
        }
        Model::Virtual | Model::Other => Outcome::fail(
            evidence,
            "selfheal is made for Raspberry Pis; a virtual one has `model = \"virtual\"` in the inventory",
        )
        .asked_for(patient.node.model == Some(Model::Other)),
    }
}

pub(super) fn operating_system(patient: &Patient<'_>) -> Outcome {
    let facts = &patient.measured.snapshot.facts;
    let evidence = match facts.os.name.as_str() {
        "" => format!("{} {}", facts.os.id, facts.os.version),
        name => name.to_owned(),
    };
    let release: f64 = facts.os.version.parse().unwrap_or_default();
    match detect::os(facts) {
        Some(Os::Ubuntu2510) => Outcome::warn(
            evidence,
            "out of support since July 2026: move to Ubuntu 26.04 or 24.04",
        ),
        Some(
            Os::RaspiosBookworm
            | Os::RaspiosTrixie
            | Os::Ubuntu2404
            | Os::Ubuntu2604
            | Os::Debian12
            | Os::Debian13,
        ) => Outcome::ok(evidence),
        None => match (facts.os.id.as_str(), release) {
            ("", _) => Outcome::unknown("/etc/os-release says nothing", "look at it on the node"),
            ("debian" | "raspbian", release) if release < 12.0 => too_old(evidence),
            ("ubuntu", release) if release < 24.04 => too_old(evidence),
            _ => Outcome::warn(
                evidence,
                "selfheal is not tested on it: take a system that is",
            ),
        },
    }
}

fn too_old(evidence: String) -> Outcome {
    Outcome::fail(evidence, "flash the card anew with a supported system")
}

pub(super) fn throttling(patient: &Patient<'_>) -> Outcome {
    if patient.is_virtual() {
        return Outcome::skipped(NO_BOARD);
    }
    let text = patient.text("throttled");
    let hint = "use the official power supply (5 V, 5 A for a Pi 5), a short cable and a cooler";
    if let Some(undervoltage) = text.strip_prefix("undervoltage=") {
        return match undervoltage.trim() {
            "0" => Outcome::ok("no undervoltage now (hwmon)"),
            _ => Outcome::fail("undervoltage now (hwmon)", hint),
        };
    }
    let bits = text.trim().strip_prefix("throttled=0x");
    let Some(bits) = bits.and_then(|bits| u32::from_str_radix(bits, 16).ok()) else {
        return Outcome::unknown(
            "neither vcgencmd nor the kernel tells",
            "install libraspberrypi-bin (Ubuntu) or raspi-utils (Raspberry Pi OS)",
        );
    };
    let evidence = format!("throttled=0x{bits:x}{}", meaning(bits));
    if bits & NOW != 0 {
        Outcome::fail(evidence, hint)
    } else if bits & SINCE_BOOT != 0 {
        Outcome::warn(evidence, hint)
    } else {
        Outcome::ok(evidence)
    }
}

/// The bits in words (domain.md §9).
fn meaning(bits: u32) -> String {
    let words = ["undervoltage", "frequency capped", "throttled", "too warm"];
    let mut said = Vec::new();
    for (bit, word) in words.into_iter().enumerate() {
        if bits & (1 << bit) != 0 {
            said.push(format!("{word} now"));
        } else if bits & (1 << (bit + 16)) != 0 {
            said.push(format!("{word} since boot"));
        }
    }
    if said.is_empty() {
        String::new()
    } else {
        format!(" ({})", said.join(", "))
    }
}

pub(super) fn temperature(patient: &Patient<'_>) -> Outcome {
    if patient.is_virtual() {
        return Outcome::skipped(NO_BOARD);
    }
    let Ok(thousandths) = patient.text("temperature").trim().parse::<f64>() else {
        return Outcome::unknown(
            "no /sys/class/thermal/thermal_zone0/temp",
            "measure it with `vcgencmd measure_temp`",
        );
    };
    let degrees = thousandths / 1000.0;
    let evidence = format!("{degrees:.1} °C");
    let hint = "give it a fan or a heat sink, and air";
    match graded(degrees, WARM, HOT) {
        Verdict::Fail => Outcome::fail(evidence, hint),
        Verdict::Warn => Outcome::warn(evidence, hint),
        _ => Outcome::ok(evidence),
    }
}
