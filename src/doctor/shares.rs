//! No NFS and no CIFS: a share that is gone stops everything that touches it, and no watchdog sees it (domain.md §2.2,
//! §8.1).

use super::finding::Outcome;
use super::patient::Patient;
use crate::inventory::Role;
use crate::node::facts::{is_network, network_lines};

/// Packages that nobody needs without them.
const PACKAGES: [&str; 3] = ["nfs-common", "nfs-kernel-server", "cifs-utils"];

pub(super) fn on_the_node(patient: &Patient<'_>) -> Outcome {
    let snapshot = &patient.measured.snapshot;
    let mounts = snapshot.facts.mounts.iter();
    let mut mounts = mounts.filter(|mount| is_network(&mount.kind));
    if let Some(mount) = mounts.next() {
        let evidence = format!(
            "{} from {} is mounted at {}",
            mount.kind, mount.source, mount.point
        );
        let hint = "unmount it and take it out of /etc/fstab: copy by rsync over SSH instead";
        return match patient.node.role {
            Role::ControlPlane => Outcome::fail(evidence, hint),
            Role::Worker => Outcome::warn(evidence, hint),
        };
    }
    if let Some(line) = network_lines(patient.text("fstab")).next() {
        return Outcome::warn(
            format!("/etc/fstab: {line}"),
            "take the line out: at the next boot the node would wait for that server",
        );
    }
    let packages: Vec<&str> = PACKAGES
        .into_iter()
        .filter(|name| snapshot.package(name).is_some())
        .collect();
    if packages.is_empty() {
        Outcome::ok("no mount, no line in /etc/fstab, no package")
    } else {
        Outcome::warn(
            format!("installed: {}", packages.join(", ")),
            format!(
                "`sudo apt-get purge {}`, unless you need it",
                packages.join(" ")
            ),
        )
    }
}

pub(super) fn in_kubernetes(_: &Patient<'_>) -> Outcome {
    Outcome::skipped("this version does not look into Kubernetes")
}
