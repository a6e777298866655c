//! `[nodes.NAME]`: one Raspberry Pi, and its settings as they come out of all sections.

use std::collections::BTreeMap;
use std::net::IpAddr;

use camino::Utf8Path;

use super::address::{HostAddress, NodeAddress, Port};
use super::boot::Boot;
use super::define::{choice, section};
use super::hardening::Hardening;
use super::k3s::{K3s, Taint};
use super::key::PublicKey;
use super::label::{LabelKey, LabelValue};
use super::longhorn::Longhorn;
use super::name::{NodeName, Tag, UserName};
use super::setting::Required;
use super::ssh::Ssh;
use super::watchdog::Watchdog;

/// A node with all that holds for it: defaults, under the inventory's sections, under its own.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Node {
    /// Its name, hostname and name in Kubernetes.
    pub name: NodeName,
    /// Where sshd answers.
    pub host: HostAddress,
    /// The port of sshd.
    pub port: Port,
    /// Who to log in as.
    pub user: UserName,
    /// Its part in the cluster.
    pub role: Role,
    /// The board, if the inventory says it; else it is detected.
    pub model: Option<Model>,
    /// The operating system, if the inventory says it; else it is detected.
    pub os: Option<Os>,
    /// The fixed address in the nodes' network, where it is not `host`; see [`Node::lan_address`].
    pub address: Option<NodeAddress>,
    /// Words that group nodes.
    pub tags: Vec<Tag>,
    /// Labels in Kubernetes.
    pub labels: BTreeMap<LabelKey, LabelValue>,
    /// What keeps pods off it in Kubernetes.
    pub taints: Vec<Taint>,
    /// The host key it has to show.
    pub host_key: Option<PublicKey>,
    /// How it is reached; `user` and `port` are those of the node.
    pub ssh: Ssh,
    /// What the hardening layer does on it.
    pub hardening: Hardening,
    /// What the boot layer does on it.
    pub boot: Boot,
    /// What the watchdog layer does on it.
    pub watchdog: Watchdog,
    /// How it is a part of the cluster.
    pub k3s: K3s,
    /// What Longhorn finds on it.
    pub longhorn: Longhorn,
}

impl Node {
    /// The fixed address the other nodes reach it at: `address`, else `host` where that is an address and not
    /// loopback (the virtual Pis of the lab are behind forwarded ports).
    pub fn lan_address(&self) -> Option<IpAddr> {
        lan_address(self.address, Some(&self.host))
    }
}

impl Node {
    /// What other nodes call it when they join the cluster there; `None` where they cannot reach it.
    pub fn join_host(&self) -> Option<HostAddress> {
        match (self.lan_address(), &self.host) {
            (Some(ip), _) => Some(HostAddress::Ip(ip)),
            (None, HostAddress::Dns(name)) => Some(HostAddress::Dns(name.clone())),
            (None, HostAddress::Ip(_)) => None,
        }
    }
}

pub(crate) fn lan_address(
    address: Option<NodeAddress>,
    host: Option<&HostAddress>,
) -> Option<IpAddr> {
    let host = || {
        host.and_then(HostAddress::ip)
            .filter(|ip| !ip.is_loopback())
    };
    address.map(NodeAddress::get).or_else(host)
}

section! {
    /// One Raspberry Pi. Its own `ssh`, `hardening`, `boot`, `watchdog`, `k3s` and `longhorn` go before the sections of that name.
    pub(crate) struct NodeSection {
        /// Where sshd answers: an IP address or a DNS name.
        host: Required<HostAddress> = Required::default(),
        /// The port of sshd, where it is not the one of `[ssh]`.
        port: Option<Port> = None,
        /// Who to log in as, where it is not the one of `[ssh]`.
        user: Option<UserName> = None,
        /// Its part in the cluster.
        role: Required<Role> = Required::default(),
        /// The board. Detected where it is not said.
        model: Option<Model> = None,
        /// The operating system. Detected where it is not said.
        os: Option<Os> = None,
        /// The fixed IP address the other nodes reach it at, where that is not `host`.
        address: Option<NodeAddress> = None,
        /// Words that group nodes, for `--on @word`.
        tags: Vec<Tag> = Vec::new(),
        /// Labels of the node in Kubernetes.
        labels: BTreeMap<LabelKey, LabelValue> = BTreeMap::new(),
        /// What keeps pods off the node in Kubernetes: `dedicated=storage:NoSchedule`.
        taints: Vec<Taint> = Vec::new(),
        /// The host key it has to show, as `ssh-keyscan` prints it after the name: `ssh-ed25519 AAAA…`.
        host_key: Option<PublicKey> = None,
        /// How this node is reached.
        ssh: Ssh = Ssh::default(),
        /// Hardening of this node.
        hardening: Hardening = Hardening::default(),
        /// Boot parameters of this node.
        boot: Boot = Boot::default(),
        /// Watchdog, panics and safe mode of this node.
        watchdog: Watchdog = Watchdog::default(),
        /// k3s on this node.
        k3s: K3s = K3s::default(),
        /// What Longhorn finds on this node.
        longhorn: Longhorn = Longhorn::default(),
    }
}

impl NodeSection {
    /// The node, if nothing it needs is missing.
    /// `folder` is where relative paths start.
    pub(crate) fn resolve(self, name: NodeName, folder: &Utf8Path) -> Option<Node> {
        let mut ssh = self.ssh.under(folder);
        ssh.port = self.port.unwrap_or(ssh.port);
        ssh.user = self.user.unwrap_or(ssh.user);
        Some(Node {
            name,
            host: self.host.0?,
            port: ssh.port,
            user: ssh.user.clone(),
            role: self.role.0?,
            model: self.model,
            os: self.os,
            address: self.address,
            tags: self.tags,
            labels: self.labels,
            taints: self.taints,
            host_key: self.host_key,
            ssh,
            hardening: self.hardening,
            boot: self.boot,
            watchdog: self.watchdog,
            k3s: self.k3s.under(folder),
            longhorn: self.longhorn,
        })
    }
}

choice! {
    /// A node's part in the cluster.
    pub enum Role: "a role" {
        /// Runs the Kubernetes control plane (k3s server), and workloads too.
        ControlPlane = "control-plane",
        /// Runs workloads only (k3s agent).
        Worker = "worker",
    }
}

choice! {
    /// A board.
    pub enum Model: "a board selfheal knows" {
        /// Raspberry Pi 5
        Pi5 = "pi5",
        /// Raspberry Pi 500
        Pi500 = "pi500",
        /// Compute Module 5
        Cm5 = "cm5",
        /// Raspberry Pi 4
        Pi4 = "pi4",
        /// Raspberry Pi 400
        Pi400 = "pi400",
        /// Compute Module 4
        Cm4 = "cm4",
        /// Raspberry Pi 3
        Pi3 = "pi3",
        /// A virtual Pi of the lab
        Virtual = "virtual",
        /// Any other machine
        Other = "other",
    }
}

impl Model {
    /// The board that calls itself so in `/proc/device-tree/model`: "Raspberry Pi 4 Model B Rev 1.4".
    pub fn from_device_tree(text: &str) -> Self {
        let text = text.trim_matches(['\0', '\n', ' ']);
        let Some(rest) = text.strip_prefix("Raspberry Pi ") else {
            return Self::Other;
        };
        let words: Vec<&str> = rest.split(' ').collect();
        match words.as_slice() {
            ["5", ..] => Self::Pi5,
            ["500", ..] => Self::Pi500,
            ["Compute", "Module", "5", ..] => Self::Cm5,
            ["4", ..] => Self::Pi4,
            ["400", ..] => Self::Pi400,
            ["Compute", "Module", "4" | "4S", ..] => Self::Cm4,
            ["3", ..] => Self::Pi3,
            _ => Self::Other,
        }
    }
}

choice! {
    /// An operating system.
    pub enum Os: "an operating system selfheal knows" {
        /// Raspberry Pi OS, bookworm
        RaspiosBookworm = "raspios-bookworm",
        /// Raspberry Pi OS, trixie
        RaspiosTrixie = "raspios-trixie",
        /// Ubuntu 24.04 LTS
        Ubuntu2404 = "ubuntu-24.04",
        /// Ubuntu 25.10, out of support since July 2026
        Ubuntu2510 = "ubuntu-25.10",
        /// Ubuntu 26.04 LTS
        Ubuntu2604 = "ubuntu-26.04",
        /// Debian 12, bookworm
        Debian12 = "debian-12",
        /// Debian 13, trixie
        Debian13 = "debian-13",
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn boards_are_told_by_what_they_call_themselves() {
        for (text, model) in [
            ("Raspberry Pi 5 Model B Rev 1.0\0", Model::Pi5),
            ("Raspberry Pi 500 Rev 1.0", Model::Pi500),
            ("Raspberry Pi Compute Module 5 Rev 1.0", Model::Cm5),
            ("Raspberry Pi 4 Model B Rev 1.4", Model::Pi4),
            ("Raspberry Pi 400 Rev 1.0", Model::Pi400),
            ("Raspberry Pi Compute Module 4 Rev 1.1", Model::Cm4),
            ("Raspberry Pi 3 Model B Plus Rev 1.3", Model::Pi3),
            ("Raspberry Pi Zero 2 W Rev 1.0", Model::Other),
            ("linux,dummy-virt", Model::Other),
            ("", Model::Other),
        ] {
            assert_eq!(Model::from_device_tree(text), model, "{text}");
        }
    }
}
