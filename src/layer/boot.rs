//! The kernel command line: what k3s and a node that heals itself need of it (domain.md §1.4).

use crate::inventory::Node;
use crate::node::boot::Token;
use crate::node::ledger::{Id, Kind, LayerName};
use crate::node::probe::Questions;
use crate::node::snapshot::Snapshot;
use crate::resource::change::Refusal;
use crate::resource::{Resource, Wanted, boot};

/// The boot files.
pub(super) fn questions() -> Questions {
    Questions {
        files: boot::questions().collect(),
        ..Questions::default()
    }
}

/// Tokens are decided by their effect: one that changes nothing is not added, and one that is there because of selfheal
/// stays.
pub(super) fn desired(node: &Node, snapshot: &Snapshot) -> Result<Vec<Resource>, Refusal> {
    let facts = &snapshot.facts;
    let settings = &node.boot;
    let owned = |token: &str| {
        snapshot
            .ledger
            .get(&Id::new(Kind::BootToken, token))
            .is_some()
    };
    let mut wanted = Vec::new();

    // The firmware passes cgroup_disable=memory; a later cgroup_enable=memory wins. k3s does not start without it.
    let memory = ["cgroup_memory=1", "cgroup_enable=memory"];
    if settings.memory_cgroup
        && (!facts.cgroup_controllers.contains("memory") || memory.iter().any(|t| owned(t)))
    {
        wanted.extend(memory.map(str::to_owned));
    }
    // Pi kernels can account pressure, but do not until told to.
    if settings.psi && (!facts.psi || owned("psi=1")) {
        wanted.push("psi=1".to_owned());
    }
    // A panic before sysctl.d is applied must end in a reboot, too.
    wanted.push(format!("panic={}", settings.panic_timeout.as_secs()));
    wanted.extend(settings.add.iter().map(ToString::to_string));

    let tokens: Result<Vec<Token>, _> = wanted.iter().map(|token| token.parse::<Token>()).collect();
    let tokens = tokens.map_err(|error| Refusal {
        layer: LayerName::Boot,
        what: "kernel command line".to_owned(),
        reason: error.to_string(),
        hint: "correct boot.add in the inventory".to_owned(),
    })?;
    Ok(vec![Resource::new(
        LayerName::Boot,
        Wanted::BootTokens(tokens),
    )])
}
