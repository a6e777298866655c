//! The inventory: one TOML file that says which Pis there are and what shall hold on them.
//!
//! Pure but for [`load`], which reads the file, and [`Secret::resolve`], which fetches a secret when it is needed.
//! A new key is a line in the `section!` of its table; its docs, default, merging, checking and schema follow.

mod address;
mod boot;
mod diagnostic;
mod hardening;
mod key;
mod label;
mod name;
mod node;
mod quantity;
mod schema;
mod secret;
mod setting;
mod ssh;
mod sshd;
mod sysctl;
mod version;

use std::ops::Range;

use serde_json::Value as Json;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

pub use address::{Cidr, HostAddress, Jump, NodeAddress, Port, PortRule, Protocol};
pub use boot::{Boot, BootToken};
pub use diagnostic::{Diagnostic, Severity, Wrong};
pub use hardening::{Firewall, Hardening, Journald, RootLogin, Sshd, Storage, Swap, Upgrades};
pub use key::PublicKey;
pub use label::{LabelKey, LabelValue};
pub use name::{ClusterName, ModuleName, NodeName, PackageName, Tag, UnitName, UserName};
pub use node::{Model, Node, Os, Role};
pub use quantity::{ByteSize, Count, Period};
pub use secret::{Secret, VariableName};
pub use ssh::{Line, LocalPath, ProxyCommand, Ssh};
pub use sshd::{SshdKeyword, SshdValues};
pub use sysctl::{SysctlKey, SysctlValue};
pub use version::{ChartVersion, K3sVersion, TagVersion, Versions};

use node::NodeSection;
use schema::{Definitions, Schema};
use setting::{Found, Problems, Setting, entries, section, table};

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

section! {
    /// The cluster.
    pub struct Cluster {
        /// Its name, also in kubeconfig.
        name: ClusterName = ClusterName::literal("homelab"),
    }
}

section! {
    /// The Raspberry Pis of a homelab, and what selfheal shall make hold on them.
    pub(crate) struct Root {
        /// The cluster.
        cluster: Cluster = Cluster::default(),
        /// What it runs.
        versions: Versions = Versions::default(),
        /// How the nodes are reached.
        ssh: Ssh = Ssh::default(),
        /// Hardening of all nodes.
        hardening: Hardening = Hardening::default(),
        /// Boot parameters of all nodes.
        boot: Boot = Boot::default(),
        /// The nodes by name.
        nodes: Nodes = Nodes,
    }
}

/// `[nodes.*]`, which are read after everything that goes under them.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Nodes;

impl Setting for Nodes {
    const REQUIRED: bool = true;

    fn schema(definitions: &mut Definitions) -> Schema {
        let node = NodeSection::schema(definitions);
        serde_json::json!({ "type": "object", "additionalProperties": node })
    }

    fn over(self, _: &Found<'_>, _: &mut Problems) -> Self {
        self
    }
}

/// The JSON schema of the inventory, for editors.
pub fn schema() -> Json {
    let mut definitions = Definitions::default();
    let root = Root::schema(&mut definitions);
    definitions.document("selfheal inventory", &root)
}

/// Parses an inventory: all that is wrong with it, and the inventory itself if nothing of it is an error.
pub fn parse(source: &str) -> (Option<Inventory>, Vec<Diagnostic>) {
    let mut problems = Problems::default();
    let (document, errors) = DeTable::parse_recoverable(source);
    for error in errors {
        problems.push(Diagnostic::error(
            within(source, error.span()),
            error.message(),
        ));
    }
    let span = document.span();
    let document = Spanned::new(span, DeValue::Table(document.into_inner()));
    let root = Root::default().over(&document, &mut problems);
    let found = document
        .get_ref()
        .as_table()
        .and_then(|root| root.get("nodes"));
    let mut nodes = Vec::new();
    for (key, value) in entries(found.and_then(|found| table(found, &mut problems))) {
        let name = key
            .get_ref()
            .parse::<NodeName>()
            .map_err(|wrong| problems.wrong(key.span(), wrong))
            .ok();
        let section = NodeSection {
            ssh: root.ssh.clone(),
            hardening: root.hardening.clone(),
            boot: root.boot.clone(),
            ..NodeSection::default()
        };
        let section = section.over(value, &mut problems);
        nodes.extend(name.and_then(|name| section.resolve(name)));
    }
    let valid = !problems.found.iter().any(Diagnostic::is_error);
    let inventory = valid.then_some(Inventory {
        cluster: root.cluster,
        versions: root.versions,
        nodes,
    });
    (inventory, problems.found)
}

/// The span of a syntax error, inside the source and on character boundaries.
fn within(source: &str, span: Option<Range<usize>>) -> Range<usize> {
    let span = span.unwrap_or_default();
    let boundary = |at: usize| {
        (0..=at.min(source.len()))
            .rev()
            .find(|at| source.is_char_boundary(*at))
            .unwrap_or(0)
    };
    let start = boundary(span.start);
    start..boundary(span.end).max(start)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const TWO: &str = r#"
        [ssh]
        user = "admin"
        [hardening]
        packages = ["nvme-cli"]
        sysctls = { "vm.swappiness" = 10, "net/ipv4/conf/eth0.5/rp_filter" = "2" }
        [hardening.sshd]
        max_auth_tries = 4
        settings = { AllowUsers = ["admin", "pi"] }
        [nodes.jarvis]
        host = "192.168.1.10"
        role = "control-plane"
        [nodes.ultron]
        host = "Ultron.local"
        role = "worker"
        user = "pi"
        [nodes.ultron.hardening]
        sysctls = { "vm.swappiness" = 20 }
        sshd.login_grace_time = "1m"
        swap = "keep"
    "#;

    #[test]
    fn a_node_goes_before_its_section_and_a_section_before_the_default() {
        let (inventory, found) = parse(TWO);
        assert_eq!(found, []);
        let inventory = inventory.unwrap();
        let (jarvis, ultron) = (
            inventory.node("jarvis").unwrap(),
            inventory.node("ultron").unwrap(),
        );
        assert_eq!(
            (jarvis.user.as_str(), ultron.user.as_str()),
            ("admin", "pi")
        );
        assert_eq!(
            (jarvis.hardening.swap, ultron.hardening.swap),
            (Swap::Off, Swap::Keep)
        );
        assert_eq!(ultron.hardening.packages, jarvis.hardening.packages);
        assert_eq!(ultron.hardening.sshd.max_auth_tries.get(), 4);
        assert_eq!(ultron.hardening.sshd.login_grace_time.as_secs(), 60);
        assert_eq!(jarvis.hardening.sshd.login_grace_time.as_secs(), 30);
        let sysctls = |node: &Node| -> Vec<String> {
            node.hardening
                .sysctls
                .iter()
                .map(|(key, value)| format!("{key}={value}"))
                .collect()
        };
        assert_eq!(
            sysctls(jarvis),
            ["net.ipv4.conf.eth0/5.rp_filter=2", "vm.swappiness=10"]
        );
        assert_eq!(
            sysctls(ultron),
            ["net.ipv4.conf.eth0/5.rp_filter=2", "vm.swappiness=20"]
        );
        assert_eq!(ultron.host.to_string(), "ultron.local");
        assert_eq!(
            (
                jarvis.lan_address().unwrap().to_string(),
                ultron.lan_address()
            ),
            ("192.168.1.10".into(), None)
        );
    }

    #[test]
    fn all_that_is_wrong_is_found_at_once() {
        let source = "[ssh]\nprot = 22\nuser = 1\n[nodes.Jarvis]\nhost = \"300.1.1.1\"\n[nodes.a]\nrole = \"boss\"";
        let (inventory, found) = parse(source);
        assert_eq!(inventory, None);
        let blamed: Vec<_> = found
            .iter()
            .map(|found| &source[found.span.clone()])
            .collect();
        assert_eq!(
            blamed,
            [
                "prot",
                "1",
                "Jarvis",
                "[nodes.Jarvis]",
                "\"300.1.1.1\"",
                "[nodes.a]",
                "\"boss\""
            ]
        );
    }
}
