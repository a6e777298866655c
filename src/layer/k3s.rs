//! k3s on a node.

use crate::inventory::{Inventory, Node};
use crate::node::probe::Questions;
use crate::node::snapshot::Snapshot;
use crate::plan::Snapshots;
use crate::resource::Resource;
use crate::resource::change::Refusal;

/// Everything this layer may want to know.
pub(super) fn questions(_node: &Node) -> Questions {
    Questions::default()
}

/// The recipe.
pub(super) fn desired(
    _inventory: &Inventory,
    _node: &Node,
    _snapshots: &Snapshots,
) -> Result<Vec<Resource>, Refusal> {
    Ok(Vec::new())
}

/// What the user should know of a node that is as wanted.
pub(super) fn notes(_node: &Node, _snapshot: &Snapshot) -> Vec<String> {
    Vec::new()
}
