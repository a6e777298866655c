//! The layers of the mission, each a pure function from the inventory and what was seen to a list of resources. The
//! only place that knows *why* a Pi needs a thing.

mod boot;
pub mod hardening;
mod template;

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
    let mut questions = Questions::default();
    for layer in layers {
        questions.extend(match layer {
            LayerName::Hardening => hardening::questions(inventory, node),
            LayerName::Boot => boot::questions(),
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
    }
}

/// What the user should know of a node besides what is done to it.
pub fn note(layer: LayerName, snapshot: &Snapshot) -> Option<String> {
    match layer {
        LayerName::Hardening => None,
        LayerName::Boot => boot::note(snapshot),
    }
}
