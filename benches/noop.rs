//! A run with nothing to do against two virtual Pis, side by side with what it costs at least.
#![allow(clippy::unwrap_used, missing_docs)]

mod side;

use std::collections::BTreeSet;

use selfheal::layer;
use selfheal::node::ledger::LayerName;

fn main() {
    let homelab = side::Homelab::new();
    let apply = || homelab.selfheal(&["apply", "--yes"], &[0]);
    apply();
    let layers: BTreeSet<LayerName> = LayerName::ALL.into();
    let inventory = &homelab.inventory;
    let questions = |node| layer::questions(inventory, node, &layers);
    let scripts: Vec<String> = inventory
        .nodes
        .iter()
        .map(|node| questions(node).script("0123456789abcdef"))
        .collect();
    homelab.compare("selfheal apply, nothing to do", apply, &scripts);
}
