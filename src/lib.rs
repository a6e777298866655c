//! selfheal turns freshly flashed Raspberry Pis into a k3s homelab that heals itself.
//!
//! The functional core (`inventory`, `node`, `resource`, `layer`, `plan`) decides; the thin shell (`ssh`, `apply`,
//! `cli`, `report`) talks to nodes and to the user. Imports run one way: cli → apply → plan → layer → resource →
//! (inventory, node). `ssh` knows nothing above it.

pub mod apply;
pub mod cli;
pub mod fleet;
pub mod inventory;
pub mod layer;
pub mod node;
pub mod plan;
pub mod report;
pub mod resource;
pub mod ssh;
