//! Whether the journal outlives a reboot (domain.md §3.5).

use super::finding::Outcome;
use super::patient::Patient;
use crate::inventory::Storage;

/// Where the journal lies on the disk.
const ON_DISK: &str = "/var/log/journal";

pub(super) fn persistent(patient: &Patient<'_>) -> Outcome {
    let machine = &patient.measured.snapshot.facts.machine_id;
    let files = patient.text("journal-files");
    let has = |path: String| files.lines().any(|line| line == path);
    let in_memory = has(format!("/run/log/journal/{machine}/system.journal"));
    let on_disk = has(format!("{ON_DISK}/{machine}/system.journal"));
    let folder = has(ON_DISK.to_owned());
    let lines = patient.text("journal-storage").lines();
    let storage = lines
        .filter_map(|line| line.trim().strip_prefix("Storage="))
        .next_back()
        .unwrap_or("auto");
    // A list with a header in systemd 254 and later: what counts are lines with a boot id.
    let boots = patient.text("journal-boots").lines();
    let boots = boots
        .filter(|line| {
            line.split_whitespace().nth(1).is_some_and(|word| {
                word.len() == 32 && word.bytes().all(|byte| byte.is_ascii_hexdigit())
            })
        })
        .count();
    let wanted = patient.node.hardening.journald.storage;
    let hint = "a reboot erases what led to it: `selfheal apply` puts the journal on the disk";
    match storage {
        "volatile" | "none" => {
            Outcome::fail(format!("Storage={storage}: it is lost at a reboot"), hint)
                .asked_for(wanted != Storage::Persistent)
        }
        "auto" if !folder => Outcome::warn(
            format!("Storage=auto, and there is no {ON_DISK}"),
            format!("`sudo mkdir -p {ON_DISK}`, or `selfheal apply`"),
        ),
        _ if on_disk && !in_memory => {
            Outcome::ok(format!("Storage={storage}, boots on record: {boots}"))
        }
        _ if !files.is_empty() => Outcome::fail(
            format!("Storage={storage}, but it is still in memory (/run/log/journal)"),
            "`sudo systemctl restart systemd-journald && sudo journalctl --flush`; is the disk full or read-only?",
        ),
        _ => Outcome::unknown(
            "no journal file in /run/log/journal or /var/log/journal",
            "does systemd-journald run?",
        ),
    }
}
