//! The words in which layers say what they want of a node. Each kind says what has to be asked, how it compares with
//! what is there, and what undoes it.

pub mod boot;
pub mod boot_config;
pub mod change;
mod compare;
pub mod config_edit;
mod consequence;
pub mod edit;
pub mod k3s;
pub mod node_object;
mod undo;

use std::time::Duration;

use camino::Utf8PathBuf;

use self::k3s::{WantedAsset, WantedSecret};
use self::node_object::WantedObject;
use crate::node::boot::{ConfigLine, Edit};
use crate::node::ledger::{Id, Kind, LayerName};

pub use compare::compare;
pub use consequence::{FIREWALL_UNIT, is_k3s};
pub use undo::undo;

/// A thing that a layer wants of a node.
#[derive(Debug, Clone, PartialEq)]
pub struct Resource {
    /// The layer.
    pub layer: LayerName,
    /// The thing.
    pub wanted: Wanted,
}

/// What can be wanted.
#[derive(Debug, Clone, PartialEq)]
pub enum Wanted {
    /// A whole file that is selfheal's.
    File {
        /// Absolute path.
        path: Utf8PathBuf,
        /// All of it.
        content: Vec<u8>,
        /// Permission bits; owner and group are root.
        mode: u32,
    },
    /// A file of the user's, edited (see [`edit`]); a new one gets this owner and mode, an old one keeps its own.
    Edit {
        /// Absolute path.
        path: Utf8PathBuf,
        /// All of the edited file.
        content: Vec<u8>,
        /// Permission bits of a new file.
        mode: u32,
        /// Owner and group of a new file.
        owner: String,
    },
    /// A folder, root's; what is in it is not selfheal's.
    Directory(Utf8PathBuf),
    /// A sysctl's runtime value, where the kernel has the key.
    Sysctl(String, String),
    /// A time among systemd's own settings (a property of `systemctl show`), as it is in force. A file of another
    /// resource says it; this only sees to it that systemd reads it.
    Systemd(&'static str, Duration),
    /// An installed package.
    Package(String),
    /// A hold on a package, where it is installed.
    Hold(String),
    /// A loaded kernel module.
    Module(String),
    /// A unit that starts at boot and runs.
    Running(String),
    /// A unit that starts at boot, but need not run now.
    Enabled(String),
    /// A unit that neither runs nor starts at boot, where it exists.
    Stopped(String),
    /// The host name.
    Hostname(String),
    /// No swap in use.
    NoSwap,
    /// Tokens on the kernel command line and not on it, and so in /proc/cmdline.
    BootTokens {
        /// The tokens.
        edit: Edit,
        /// Whether a change gets a trial boot before it is kept, where the system can do that.
        try_first: bool,
    },
    /// Lines in config.txt.
    BootConfig(Vec<ConfigLine>),
    /// A file of a release of k3s.
    Asset(WantedAsset),
    /// A file that holds a token.
    Secret(WantedSecret),
    /// The object of this node from before it was flashed anew, gone from the cluster.
    NoStaleNode(String),
    /// The node's object in Kubernetes.
    NodeObject(WantedObject),
    /// Something the node showed, to be remembered: by its name, what it said.
    Evidence(String, String),
}

impl Resource {
    /// A thing that `layer` wants.
    pub fn new(layer: LayerName, wanted: Wanted) -> Resource {
        Resource { layer, wanted }
    }

    /// What it is called in plans and in the ledger.
    pub fn id(&self) -> Id {
        match &self.wanted {
            Wanted::File { path, .. } => Id::new(Kind::File, path.as_str()),
            Wanted::Edit { path, .. } => Id::new(Kind::Edit, path.as_str()),
            Wanted::Directory(path) => Id::new(Kind::Directory, path.as_str()),
            Wanted::Sysctl(key, _) => Id::new(Kind::Sysctl, key),
            Wanted::Systemd(property, _) => Id::new(Kind::Systemd, *property),
            Wanted::Package(name) => Id::new(Kind::Package, name),
            Wanted::Hold(name) => Id::new(Kind::Hold, name),
            Wanted::Module(name) => Id::new(Kind::Module, name),
            Wanted::Running(name) | Wanted::Enabled(name) | Wanted::Stopped(name) => {
                Id::new(Kind::Unit, name)
            }
            Wanted::Hostname(_) => Id::new(Kind::Hostname, "hostname"),
            Wanted::NoSwap => Id::new(Kind::Swap, "swap"),
            Wanted::BootTokens { .. } => Id::new(Kind::CommandLine, "command line"),
            Wanted::Evidence(name, _) => Id::new(Kind::Evidence, name),
            Wanted::Asset(asset) => asset.id(),
            Wanted::Secret(secret) => Id::new(Kind::Secret, secret.path.as_str()),
            Wanted::NoStaleNode(name) => Id::new(Kind::StaleNode, name),
            Wanted::NodeObject(object) => Id::new(Kind::NodeObject, &object.name),
            Wanted::BootConfig(_) => Id::new(Kind::BootConfig, "config.txt"),
        }
    }
}
