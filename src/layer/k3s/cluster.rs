//! The cluster as a node sees it: whom it joins, under which names it is known, what its object there says.

use std::collections::BTreeSet;

use super::{DATASTORE, NODE_PASSWORD, refuse, want};
use crate::inventory::{Inventory, Node, NodeName, Taint};
use crate::layer::longhorn;
use crate::node::file::FileState;
use crate::node::snapshot::Snapshot;
use crate::plan::Snapshots;
use crate::resource::change::Refusal;
use crate::resource::node_object::{Found, WantedObject};
use crate::resource::{Resource, Wanted};

/// The server that the others join: the first one, unless that was flashed anew while another is still a server.
pub fn seed<'i>(inventory: &'i Inventory, snapshots: &Snapshots) -> Option<&'i Node> {
    let is_server = |node: &&Node| {
        let snapshot = snapshots.get(&node.name);
        snapshot.is_none_or(|it| *it.file(DATASTORE.into()) != FileState::Absent)
    };
    let mut servers = inventory.control_planes().filter(|node| node.k3s.install);
    let first = servers.next()?;
    Some(
        std::iter::once(first)
            .chain(servers)
            .find(is_server)
            .unwrap_or(first),
    )
}

/// The cluster as a node sees it.
pub(super) struct Cluster<'i> {
    pub(super) inventory: &'i Inventory,
    pub(super) node: &'i Node,
    /// The server that the others join.
    pub(super) seed: &'i Node,
    pub(super) seed_snapshot: Option<&'i Snapshot>,
    /// Where this node joins it, if it is not that server itself.
    pub(super) join: Option<String>,
    pub(super) servers: usize,
}

impl<'i> Cluster<'i> {
    pub(super) fn new(
        inventory: &'i Inventory,
        node: &'i Node,
        snapshots: &'i Snapshots,
    ) -> Result<Cluster<'i>, Refusal> {
        let Some(seed) = seed(inventory, snapshots) else {
            return Err(refuse(
                "k3s.install",
                "no control plane of this inventory gets k3s, so there is nothing to join"
                    .to_owned(),
                "set `install = false` in `[k3s]`, or leave it on for a control plane too"
                    .to_owned(),
            ));
        };
        let join = match (seed.name == node.name, seed.join_host()) {
            (true, _) => None,
            (false, Some(host)) => Some(host.in_url()),
            (false, None) => {
                return Err(refuse(
                    &format!("nodes.{}.host", seed.name),
                    "the other nodes cannot reach the control plane at this address".to_owned(),
                    format!("give {} its own `address`", seed.name),
                ));
            }
        };
        let servers = inventory.control_planes().filter(|node| node.k3s.install);
        Ok(Cluster {
            inventory,
            node,
            seed,
            seed_snapshot: snapshots.get(&seed.name),
            join,
            servers: servers.count(),
        })
    }

    /// Every name and address of every server, so that a kubeconfig for one of them works.
    pub(super) fn tls_san(&self) -> Vec<String> {
        let mut names = Vec::new();
        let mut add = |name: String| {
            if !names.contains(&name) {
                names.push(name);
            }
        };
        for server in self.inventory.control_planes() {
            add(server.name.to_string());
            add(server.host.to_string());
            server
                .lan_address()
                .iter()
                .for_each(|ip| add(ip.to_string()));
        }
        self.node
            .k3s
            .tls_san
            .iter()
            .for_each(|name| add(name.to_string()));
        names
    }

    /// Its object in Kubernetes.
    pub(super) fn membership(&self, snapshot: &Snapshot, resources: &mut Vec<Resource>) {
        let name = self.node.name.to_string();
        let objects = self
            .seed_snapshot
            .and_then(|snapshot| snapshot.cluster.as_ref());
        let object = objects.and_then(|nodes| nodes.iter().find(|object| object.name == name));
        let found = match (objects, object) {
            (None, _) => Found::Unknown,
            (Some(_), None) => Found::Absent,
            (Some(_), Some(_)) if snapshot.secret(NODE_PASSWORD.into()).is_none() => {
                resources.push(want(Wanted::NoStaleNode(name.clone())));
                Found::Absent
            }
            (Some(_), Some(object)) => Found::Present(object.clone()),
        };
        // What the inventory says goes before what Longhorn would like.
        let mut labels = longhorn::labels(self.node);
        labels.extend(self.node.labels.clone());
        let labels = labels.iter();
        let taints: BTreeSet<String> = self.node.taints.iter().map(Taint::to_string).collect();
        resources.push(want(Wanted::NodeObject(WantedObject {
            name,
            labels: labels
                .map(|(key, value)| (key.to_string(), value.to_string()))
                .collect(),
            taints,
            found,
        })));
    }
}

/// A server of the cluster that `node` is in, besides itself.
pub fn another_server<'i>(inventory: &'i Inventory, node: &Node) -> Option<&'i Node> {
    let mut servers = inventory.control_planes();
    servers.find(|server| server.k3s.install && server.name != node.name)
}

/// The nodes that have to be looked at besides those that were chosen: without the server that the others join nobody
/// knows what it takes to be a part of its cluster.
pub fn consulted<'i>(inventory: &'i Inventory, chosen: &[Node]) -> Option<&'i Node> {
    let is_chosen = |name: &NodeName| chosen.iter().any(|node| node.name == *name);
    let first = inventory.control_planes().find(|node| node.k3s.install)?;
    let needed = chosen.iter().any(|node| node.k3s.install);
    (needed && !is_chosen(&first.name)).then_some(first)
}
