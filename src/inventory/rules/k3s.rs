//! A cluster whose parts do not fit together.

use super::Place;
use crate::inventory::address::HostAddress;
use crate::inventory::diagnostic::Diagnostic;
use crate::inventory::node::{Role, lan_address};
use crate::inventory::setting::Problems;

/// `several`: whether there are other nodes that have to reach this one.
pub(super) fn check(node: &Place<'_>, several: bool, problems: &mut Problems) {
    let section = &node.draft.section;
    if !section.k3s.install {
        return;
    }
    let host = section.host.0.as_ref();
    let has_name = matches!(host, Some(HostAddress::Dns(_)) | None);
    let reachable = has_name || lan_address(section.address, host).is_some();
    if several && !reachable && section.role.0 == Some(Role::ControlPlane) {
        problems.push(
            Diagnostic::warning(
                node.at(&["host"]),
                "the other nodes cannot join the cluster at this address",
            )
            .help("behind a forwarded port, give the node its own `address`")
            .note("with `install = false` in `[k3s]` selfheal makes no cluster"),
        );
    }
}
