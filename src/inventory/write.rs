//! Writes an inventory for hosts that were found, for `selfheal init`.
//!
//! Its comments are those of `inventory/homelab.toml`: what is explained there is explained here.

use toml::Value;

use super::address::{HostAddress, Jump, NodeAddress, Port};
use super::key::PublicKey;
use super::name::{ClusterName, NodeName, UserName};
use super::node::{Model, Os, Role};
use super::secret::Secret;
use super::ssh::LocalPath;

const HOMELAB: &str = include_str!("../../inventory/homelab.toml");

/// What an inventory is written from.
#[derive(Debug, Clone)]
pub struct Proposal {
    /// The name of the cluster.
    pub cluster: ClusterName,
    /// Where the JSON schema lies, seen from the inventory, for editors.
    pub schema: Option<String>,
    /// Who to log in as.
    pub user: UserName,
    /// The private keys to offer; none leaves it to `~/.ssh/config`.
    pub identity: Vec<LocalPath>,
    /// The jump hosts.
    pub jump: Vec<Jump>,
    /// Where the password for sudo comes from.
    pub sudo_password: Option<Secret>,
    /// Where the login password for the first contact comes from.
    pub login_password: Option<Secret>,
    /// The hosts, at least one.
    pub hosts: Vec<FoundHost>,
}

/// A host, and what was seen of it.
#[derive(Debug, Clone)]
pub struct FoundHost {
    /// The name it is to have.
    pub name: NodeName,
    /// Where it answers.
    pub host: HostAddress,
    /// On which port.
    pub port: Port,
    /// Its address in the nodes' network, where that is not `host`.
    pub address: Option<NodeAddress>,
    /// Its role, if that is decided; else one is proposed.
    pub role: Option<Role>,
    /// Its board.
    pub model: Option<Model>,
    /// Its operating system.
    pub os: Option<Os>,
    /// Its memory in MiB.
    pub memory_mib: Option<u64>,
    /// The host key it showed, confirmed by the user.
    pub host_key: Option<PublicKey>,
}

impl Proposal {
    /// The roles of the hosts, in their order. Where nobody is a control plane yet, the strongest undecided Pi becomes
    /// it: the newest board, then the most memory, then the first. All others are workers.
    pub fn roles(&self) -> Vec<Role> {
        let decided = self
            .hosts
            .iter()
            .any(|host| host.role == Some(Role::ControlPlane));
        let undecided = self
            .hosts
            .iter()
            .enumerate()
            .filter(|(_, host)| host.role.is_none() && !decided);
        let strongest = undecided
            .min_by_key(|(_, host)| std::cmp::Reverse(strength(host)))
            .map(|(at, _)| at);
        let role = |(at, host): (usize, &FoundHost)| match host.role {
            Some(role) => role,
            None if Some(at) == strongest => Role::ControlPlane,
            None => Role::Worker,
        };
        self.hosts.iter().enumerate().map(role).collect()
    }

    /// The text of the inventory.
    pub fn render(&self) -> String {
        let mut text = String::new();
        for line in HOMELAB
            .lines()
            .take_while(|line| !line.starts_with("[nodes."))
        {
            if line.starts_with("#:schema") {
                if let Some(schema) = &self.schema {
                    text += &format!("#:schema {schema}\n");
                }
            } else if line.starts_with("name = ") {
                text += &pair("name", self.cluster.as_str());
            } else if line.starts_with("user = ") {
                text += &pair("user", self.user.as_str());
                text += &self.access();
            } else {
                text += line;
                text += "\n";
            }
        }
        let nodes: Vec<String> = self
            .hosts
            .iter()
            .zip(self.roles())
            .map(|(host, role)| node(host, role))
            .collect();
        text + &nodes.join("\n")
    }

    /// The keys of `[ssh]` that are given, after the user.
    fn access(&self) -> String {
        let mut text = String::new();
        let mut list = |key: &str, items: Vec<String>| {
            if !items.is_empty() {
                text += &format!("{key} = {}\n", Value::from(items));
            }
        };
        list(
            "identity",
            self.identity.iter().map(ToString::to_string).collect(),
        );
        list("jump", self.jump.iter().map(ToString::to_string).collect());
        for (key, secret) in [
            ("sudo_password", &self.sudo_password),
            ("login_password", &self.login_password),
        ] {
            if let Some(secret) = secret {
                text += &format!("{key} = {}\n", reference(secret));
            }
        }
        text
    }
}

/// How a secret is referred to.
fn reference(secret: &Secret) -> String {
    let (source, value) = match secret {
        Secret::Env(name) => ("env", Value::from(name.as_str())),
        Secret::File(path) => ("file", Value::from(path.as_str())),
        Secret::Command(words) => (
            "command",
            Value::from(words.iter().map(|word| word.as_str()).collect::<Vec<_>>()),
        ),
    };
    format!("{{ {source} = {value} }}")
}

fn node(host: &FoundHost, role: Role) -> String {
    let mut text = format!("[nodes.{}]\n", host.name);
    text += &pair("host", &host.host.to_string());
    if host.port != Port::SSH {
        text += &format!("port = {}\n", host.port);
    }
    if let Some(address) = host
        .address
        .filter(|address| Some(address.get()) != host.host.ip())
    {
        text += &pair("address", &address.to_string());
    }
    text += &pair("role", role.as_str());
    if let Some(model) = host.model {
        text += &pair("model", model.as_str());
    }
    if let Some(os) = host.os {
        text += &pair("os", os.as_str());
    }
    if let Some(key) = &host.host_key {
        text += &pair("host_key", &key.to_string());
    }
    text
}

fn pair(key: &str, value: &str) -> String {
    format!("{key} = {}\n", Value::from(value))
}

/// Boards in the order of their strength, then memory.
fn strength(host: &FoundHost) -> (u8, u64) {
    let board = match host.model {
        Some(Model::Pi5 | Model::Pi500 | Model::Cm5) => 3,
        Some(Model::Pi4 | Model::Pi400 | Model::Cm4) => 2,
        Some(Model::Pi3) => 0,
        Some(Model::Virtual | Model::Other) | None => 1,
    };
    (board, host.memory_mib.unwrap_or_default())
}
