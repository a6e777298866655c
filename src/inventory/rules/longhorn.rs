//! Settings of Longhorn that lead to nothing, or into each other's way.

use super::Place;
use crate::inventory::diagnostic::Diagnostic;
use crate::inventory::longhorn::Multipath;
use crate::inventory::setting::Problems;

const UUID: [&str; 3] = ["longhorn", "data", "uuid"];

/// `several`: whether there are other nodes.
pub(super) fn check(node: &Place<'_>, several: bool, problems: &mut Problems) {
    let section = &node.draft.section;
    let longhorn = &section.longhorn;
    if several && longhorn.data.uuid.is_some() && node.own(&UUID).is_none() {
        problems.push(
            Diagnostic::error(node.at(&UUID), "this disk would have to be in every node")
                .help("put `data` into `[nodes.NAME.longhorn]`: each node has a disk of its own"),
        );
    }
    if !longhorn.prepare || !section.k3s.install {
        return;
    }
    let stops = |name: &str| {
        section
            .hardening
            .disable_services
            .iter()
            .any(|unit| unit.as_str() == name)
    };
    let stopped = ["multipathd.service", "multipathd.socket"]
        .into_iter()
        .find(|name| stops(name));
    if let (Multipath::Blacklist | Multipath::Keep, Some(unit)) = (longhorn.multipath, stopped) {
        problems.push(
            Diagnostic::warning(
                node.at(&["longhorn", "multipath"]),
                format!("`disable_services` in `[hardening]` stops {unit} all the same"),
            )
            .help("say `disable_services` without it"),
        );
    }
}
