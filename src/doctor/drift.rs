//! Whether the files that selfheal wrote are still as it wrote them.

use std::collections::BTreeMap;

use super::finding::Outcome;
use super::patient::Patient;
use crate::node::ledger::Kind;

pub(super) fn drift(patient: &Patient<'_>) -> Outcome {
    let ledger = &patient.measured.snapshot.ledger;
    let found: BTreeMap<&str, &str> = patient
        .text("hashes")
        .lines()
        .filter_map(|line| line.split_once("  "))
        .map(|(hash, path)| (path, hash))
        .collect();
    let (mut missing, mut changed, mut same) = (Vec::new(), Vec::new(), 0);
    // In an edited file the lines around selfheal's are the user's to change.
    let files = ledger.iter().filter(|(id, _)| id.kind == Kind::File);
    for (id, entry) in files {
        match (found.get(id.name.as_str()), entry.sha256.as_deref()) {
            (None, _) => missing.push(id.name.as_str()),
            (Some(hash), Some(recorded)) if *hash != recorded => changed.push(id.name.as_str()),
            _ => same += 1,
        }
    }
    let hint = "`selfheal plan` shows the difference, `selfheal apply` makes it good";
    if !missing.is_empty() {
        Outcome::fail(format!("missing: {}", missing.join(", ")), hint)
    } else if !changed.is_empty() {
        Outcome::warn(format!("changed: {}", changed.join(", ")), hint)
    } else if same == 0 {
        Outcome::skipped("selfheal manages no file on this node yet")
    } else {
        Outcome::ok(format!("{same} files as selfheal wrote them"))
    }
}
