//! `selfheal doctor` of two virtual Pis, side by side with what it costs at least.
#![allow(clippy::unwrap_used, missing_docs)]

mod side;

use selfheal::doctor::measure::Order;

fn main() {
    let homelab = side::Homelab::new();
    let inventory = &homelab.inventory;
    let scripts: Vec<String> = inventory
        .nodes
        .iter()
        .map(|node| Order::new(inventory, node, &inventory.nodes).script("0123456789abcdef"))
        .collect();
    // Fresh Pis have warnings and failures; one that was not reached would be 4.
    let doctor = || homelab.selfheal(&["doctor"], &[0, 1, 2]);
    homelab.compare("selfheal doctor", doctor, &scripts);
}
