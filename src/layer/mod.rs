//! The layers of the mission, each a pure function from the inventory and what was seen to a list of resources. The
//! only place that knows *why* a Pi needs a thing.

mod boot;
pub mod hardening;
pub mod k3s;
pub mod longhorn;
mod template;
mod watchdog;

use std::collections::BTreeSet;

use crate::inventory::{Inventory, Node};
use crate::node::ledger::LayerName;
use crate::node::probe::Questions;
use crate::node::snapshot::Snapshot;
use crate::plan::Snapshots;
use crate::resource::Resource;
use crate::resource::change::Refusal;

/// What has to be asked of a node so that these layers can say what they want: it depends on the inventory alone.
pub fn questions(inventory: &Inventory, node: &Node, layers: &BTreeSet<LayerName>) -> Questions {
    let mut questions = k3s::standing(node);
    for layer in layers {
        questions.extend(match layer {
            LayerName::Hardening => hardening::questions(inventory, node),
            LayerName::Boot => boot::questions(),
            LayerName::Watchdog => watchdog::questions(),
            LayerName::K3s => k3s::questions(node),
            LayerName::Longhorn => longhorn::questions(node),
        });
    }
    questions
}

/// What a layer wants of a node.
///
/// # Errors
/// A [`Refusal`] when the layer cannot work on this node at all.
pub fn desired(
    layer: LayerName,
    inventory: &Inventory,
    node: &Node,
    snapshots: &Snapshots,
) -> Result<Vec<Resource>, Refusal> {
    let Some(snapshot) = snapshots.get(&node.name) else {
        return Ok(Vec::new());
    };
    match layer {
        LayerName::Hardening => hardening::desired(inventory, node, snapshot),
        LayerName::Boot => boot::desired(node, snapshot),
        LayerName::Watchdog => watchdog::desired(node, snapshot),
        LayerName::K3s => k3s::desired(inventory, node, snapshots),
        LayerName::Longhorn => longhorn::desired(inventory, node, snapshots),
    }
}

/// What a layer has to say of a node that is neither a change nor a reason to stop: what a plan shows beside it.
pub fn notes(layer: LayerName, node: &Node, snapshot: &Snapshot) -> Vec<String> {
    match layer {
        LayerName::Hardening => Vec::new(),
        LayerName::Boot => boot::note(snapshot).into_iter().collect(),
        LayerName::Watchdog => watchdog::notes(node, snapshot),
        LayerName::K3s => k3s::notes(node, snapshot),
        LayerName::Longhorn => longhorn::notes(node, snapshot),
    }
}
