//! selfheal turns freshly flashed Raspberry Pis into a k3s homelab that heals itself.
//!
//! The functional core (`inventory`, `node`, `resource`, `layer`, `plan`, `doctor`) decides; the thin shell (`ssh`,
//! `artifact`, `fleet`, `apply`, `cli`, `report`) talks to nodes and to the user. Imports run one way: cli → (apply, doctor) →
//! plan → layer → resource → (inventory, node). `ssh` and `artifact` know nothing above them.

pub mod apply;
pub mod artifact;
pub mod cli;
pub mod doctor;
pub mod fleet;
pub mod inventory;
pub mod layer;
pub mod node;
pub mod plan;
mod replace;
pub mod report;
pub mod resource;
pub mod ssh;
