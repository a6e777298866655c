//! A node before the doctor: what the inventory wants of it, and what was measured on it and the others.

use super::measure::Measured;
use crate::inventory::{Model, Node, Versions};

/// One node with all that a check may look at.
#[derive(Clone, Copy)]
pub struct Patient<'a> {
    /// The node as the inventory has it.
    pub node: &'a Node,
    /// What the cluster is to run.
    pub versions: &'a Versions,
    /// What was measured on it.
    pub measured: &'a Measured,
    /// All nodes that were measured, this one too.
    pub all: &'a [(&'a Node, &'a Measured)],
}

impl<'a> Patient<'a> {
    /// The content of a frame of doctor's script; empty when there is none.
    pub fn text(&self, frame: &str) -> &'a str {
        self.measured.text(&format!("doctor {frame}"))
    }

    /// The lines of a frame; `None` when the node did not send it.
    pub fn lines(&self, frame: &str) -> Option<std::str::Lines<'_>> {
        self.measured
            .frame(&format!("doctor {frame}"))
            .map(str::lines)
    }

    /// A virtual Pi of the lab, which has no board to check.
    pub fn is_virtual(&self) -> bool {
        self.node.model == Some(Model::Virtual)
    }

    /// The node's clock, in seconds since the epoch.
    pub fn clock(&self) -> f64 {
        self.measured
            .snapshot
            .facts
            .clock
            .map_or(0.0, |seconds| seconds as f64)
    }
}
