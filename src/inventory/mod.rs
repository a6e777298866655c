//! The inventory: one TOML file that says which Pis there are and what shall hold on them.
//!
//! Pure but for [`load`], which reads the file, and [`Secret::resolve`], which fetches a secret when it is needed.
//! A new key is a line in the `section!` of its table; its docs, default, merging, checking and schema follow.

mod address;
mod boot;
mod define;
mod diagnostic;
mod document;
mod hardening;
mod k3s;
mod key;
mod label;
mod lines;
mod longhorn;
mod mask;
mod name;
mod network;
mod node;
mod pin;
mod quantity;
mod report;
mod resolve;
mod rules;
mod schema;
mod secret;
mod select;
mod setting;
mod ssh;
mod sshd;
mod syntax;
mod sysctl;
mod version;
mod watchdog;
pub mod write;

pub use address::{HostAddress, Jump, NodeAddress, Port};
pub use boot::{Boot, BootConfig, BootToken};
pub use diagnostic::{Diagnostic, Severity, Wrong};
pub use document::{Cluster, parse, schema};
pub use hardening::{Firewall, Hardening, Journald, RootLogin, Sshd, Storage, Swap, Upgrades};
pub use k3s::{
    InterfaceName, K3s, K3sArch, K3sComponent, K3sSource, ProgramPin, Taint, TaintEffect,
};
pub use key::PublicKey;
pub use label::{LabelKey, LabelValue};
pub use longhorn::{DataDisk, DataFileSystem, FileSystemUuid, Longhorn, MountPoint, Multipath};
pub use name::{ClusterName, ModuleName, NodeName, PackageName, Tag, UnitName, UserName};
pub use network::{Cidr, PortRule, Protocol};
pub use node::{Model, Node, Os, Role};
pub use pin::pin;
pub use quantity::{ByteSize, Count, Period};
pub use report::{Invalid, Loaded, Report, load};
pub use resolve::SecretError;
pub use secret::{Secret, VariableName};
pub use select::NoSuchNode;
pub use ssh::{Line, LocalPath, ProxyCommand, Ssh};
pub use sshd::{SshdKeyword, SshdValues};
pub use sysctl::{SysctlKey, SysctlValue};
pub use version::{ChartVersion, K3sVersion, TagVersion, Versions};
pub use watchdog::Watchdog;

/// A valid inventory: every node with all that holds for it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Inventory {
    /// The cluster.
    pub cluster: Cluster,
    /// What it runs.
    pub versions: Versions,
    /// The nodes, in the order of the file; at least one of them a control plane.
    pub nodes: Vec<Node>,
}

impl Inventory {
    /// The nodes that run the control plane, in the order of the file.
    pub fn control_planes(&self) -> impl Iterator<Item = &Node> {
        self.nodes
            .iter()
            .filter(|node| node.role == Role::ControlPlane)
    }

    /// The nodes that run workloads only, in the order of the file.
    pub fn workers(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|node| node.role == Role::Worker)
    }

    /// The node of this name.
    pub fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.iter().find(|node| node.name.as_str() == name)
    }
}
