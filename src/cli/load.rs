//! Finding and reading the inventory.

use std::sync::Arc;

use camino::{Utf8Path, Utf8PathBuf};

use super::exit::Exit;
use super::output::Failure;
use super::Options;
use crate::inventory::{self, Inventory, Node, PublicKey};

/// Where the inventory is looked for.
const PLACES: [&str; 2] = ["inventory/homelab.toml", "homelab.toml"];

/// A valid inventory and where it lies.
pub(super) struct Loaded {
    pub(super) inventory: Arc<Inventory>,
    pub(super) folder: Utf8PathBuf,
}
