//! What Longhorn needs of a node (domain.md §6).

use super::finding::Outcome;
use super::k3s::Unit;
use super::patient::Patient;
use crate::inventory::Multipath;

pub(super) fn iscsi(patient: &Patient<'_>) -> Outcome {
    let node = patient.node;
    if !node.k3s.install || !node.longhorn.prepare {
        return Outcome::skipped("the inventory does not prepare this node for Longhorn");
    }
    let apply = "`selfheal apply` puts it right";
    let active = |name: &str| Unit::of(patient, name).is_active();
    let multipath = ["multipathd.service", "multipathd.socket"]
        .into_iter()
        .find(|name| active(name));
    if let (Some(unit), Multipath::Off) = (multipath, node.longhorn.multipath) {
        return Outcome::fail(
            format!("{unit} is active: it takes Longhorn's disks for its own"),
            apply,
        );
    }
    let name = patient.text("initiator");
    if name.is_empty() {
        return Outcome::fail("no name in /etc/iscsi/initiatorname.iscsi", apply);
    }
    let others = patient
        .all
        .iter()
        .filter(|(other, _)| other.name != node.name);
    let mut same = others.filter(|(_, measured)| measured.text("doctor initiator") == name);
    if let Some((other, _)) = same.next() {
        return Outcome::fail(
            format!(
                "{name} is also the name of {}, as on cloned cards",
                other.name
            ),
            apply,
        );
    }
    if active("iscsid.service") {
        Outcome::ok(format!("iscsid runs as {name}"))
    } else if active("iscsid.socket") {
        Outcome::warn(format!("only its socket is there, as {name}"), apply)
    } else {
        Outcome::fail("iscsid does not run: no volume can be attached", apply)
    }
}
