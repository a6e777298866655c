//! Finding and reading the inventory.

use std::sync::Arc;

use camino::Utf8PathBuf;

use super::exit::Exit;
use super::options::{Nodes, Options};
use super::output::Failure;
use crate::inventory::{self, Inventory, Node, PublicKey};

/// Where the inventory is looked for.
pub(super) const PLACES: [&str; 2] = ["inventory/homelab.toml", "homelab.toml"];

/// A valid inventory.
pub(super) struct Loaded {
    pub(super) inventory: Arc<Inventory>,
}

/// Keys in ~/.ssh that ssh tries when it is not told which (ssh_config(5), IdentityFile).
const USUAL_KEYS: [&str; 3] = ["id_ed25519.pub", "id_ecdsa.pub", "id_rsa.pub"];

/// The user's own keys may log in: those the inventory names, or on first contact by password the first usual one. Were
/// they not wanted, switching passwords off would lock the user out.
fn authorize_own_keys(node: &mut Node) {
    let Ok(home) = crate::fleet::home() else {
        return;
    };
    let read = |path: Utf8PathBuf| {
        std::fs::read_to_string(path)
            .ok()?
            .trim()
            .parse::<PublicKey>()
            .ok()
    };
    let mut own: Vec<PublicKey> = node
        .ssh
        .identity
        .iter()
        .filter_map(|path| read(format!("{}.pub", path.expand(&home)).into()))
        .collect();
    if own.is_empty() && node.ssh.identity.is_empty() && node.ssh.login_password.is_some() {
        own.extend(
            USUAL_KEYS
                .iter()
                .find_map(|name| read(crate::ssh::home()?.join(".ssh").join(name))),
        );
    }
    let wanted = &mut node.hardening.authorized_keys;
    for key in own {
        if !wanted.iter().any(|other| other.same_key(&key)) {
            wanted.push(key);
        }
    }
}

/// Finds, reads and validates the inventory. Warnings go to stderr; errors end the command before any node hears of it.
pub(super) fn load(options: &Options) -> Result<Loaded, Failure> {
    let file = find(options)?;
    let loaded = inventory::load(&file).map_err(|invalid| {
        let colour = options.style().colour;
        match invalid.report() {
            Some(report) => {
                let message = format!(
                    "the inventory cannot be used\n\n{}{}",
                    report.render(colour),
                    report.summary()
                );
                Failure::new(Exit::Usage, message).hint("nothing was sent to any node")
            }
            None => unreadable(invalid),
        }
    })?;
    eprint!("{}", loaded.report.render(options.style().colour));
    let mut inventory = loaded.inventory;
    for node in &mut inventory.nodes {
        authorize_own_keys(node);
    }
    Ok(Loaded {
        inventory: Arc::new(inventory),
    })
}

/// An inventory of which not even a report can be made.
pub(super) fn unreadable(invalid: inventory::Invalid) -> Failure {
    let failure = Failure::new(Exit::Usage, format!("{:#}", anyhow::Error::new(invalid)));
    failure.hint("`selfheal init` writes one, and `--inventory FILE` names another")
}

/// The inventory's file: the one named, or the first of the usual places.
pub(super) fn find(options: &Options) -> Result<Utf8PathBuf, Failure> {
    if let Some(file) = &options.inventory {
        return Ok(file.clone());
    }
    let usual = PLACES
        .iter()
        .map(Utf8PathBuf::from)
        .find(|place| place.exists());
    usual.ok_or_else(|| {
        let message = format!("there is no inventory at {}", PLACES.join(" or "));
        Failure::new(Exit::Usage, message)
            .hint("name one with --inventory FILE, or write one with `selfheal init HOST…`")
    })
}

impl Loaded {
    /// The nodes that `--on` chooses.
    pub(super) fn select(&self, nodes: &Nodes) -> Result<Vec<Node>, Failure> {
        match &nodes.on {
            None => Ok(self.inventory.nodes.clone()),
            Some(expression) => {
                let chosen = self.inventory.select(expression);
                let chosen =
                    chosen.map_err(|error| Failure::new(Exit::Usage, error.to_string()))?;
                Ok(chosen.into_iter().cloned().collect())
            }
        }
    }

    /// The node of this name.
    pub(super) fn node(&self, name: &str) -> Result<&Node, Failure> {
        self.inventory.node(name).ok_or_else(|| {
            let names: Vec<&str> = self
                .inventory
                .nodes
                .iter()
                .map(|node| node.name.as_str())
                .collect();
            Failure::new(
                Exit::Usage,
                format!(
                    "the inventory has no node '{name}'; it has {}",
                    names.join(", ")
                ),
            )
        })
    }
}
