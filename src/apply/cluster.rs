//! What the nodes of a run agree on: servers before those that join them, one at a time whoever is a part of the cluster
//! already (design.md §2).

use std::collections::BTreeMap;

use camino::{Utf8Path, Utf8PathBuf};
use secrecy::SecretString;
use tokio::sync::{Mutex, MutexGuard, watch};

use super::k3s::K3s;
use super::no_prompt;
use crate::artifact::Artifact;
use crate::fleet::{NodeError, Reached};
use crate::inventory::{Node, NodeName, Role};
use crate::ssh::{self, Session};

/// Tokens that a step writes, by the file they go to. `None`: the node makes one up.
pub type Secrets = BTreeMap<Utf8PathBuf, Option<SecretString>>;

/// What a run brings to its nodes, at hand before anything is changed.
#[derive(Debug, Default)]
pub struct Supplies {
    /// The files that a node gets, with the paths they get there.
    pub assets: BTreeMap<NodeName, Vec<(Utf8PathBuf, Artifact)>>,
    /// The inventory's tokens that a node gets.
    pub tokens: BTreeMap<NodeName, Secrets>,
}

/// The server that the others join.
#[derive(Debug, Clone)]
pub struct Seed {
    /// Its name.
    pub name: NodeName,
    /// How it is reached.
    pub target: ssh::Target,
}

/// How a server stands in this run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Something is to be done to it before others may join.
    Coming,
    /// It is up.
    Up,
    /// It could not be brought up.
    Failed,
}

/// What the nodes of a run have to agree on.
pub struct Cluster {
    pub(super) seed: Option<Seed>,
    pub(super) supplies: Supplies,
    servers: watch::Sender<BTreeMap<NodeName, Standing>>,
    turn: Mutex<()>,
}

/// A server to talk to: the node itself, or another one over a connection of its own.
pub(super) enum Server<'s> {
    Itself(&'s Session),
    Other(Box<Session>),
}

impl Server<'_> {
    pub(super) fn k3s(&self) -> K3s<'_> {
        match self {
            Server::Itself(session) => K3s { session },
            Server::Other(session) => K3s { session },
        }
    }

    pub(super) async fn close(self) {
        if let Server::Other(session) = self {
            session.close().await;
        }
    }
}

impl Cluster {
    /// `servers` are those of the run, and the seed wherever it is.
    pub fn new(
        seed: Option<Seed>,
        servers: BTreeMap<NodeName, Standing>,
        supplies: Supplies,
    ) -> Cluster {
        Cluster {
            seed,
            servers: watch::Sender::new(servers),
            turn: Mutex::new(()),
            supplies,
        }
    }

    /// The node's run is over. A server that is not up by now will not be.
    pub fn over(&self, node: &NodeName) {
        self.settle(node, Standing::Failed);
    }

    /// A server is up: those that waited for it may join.
    pub(super) fn came_up(&self, node: &NodeName) {
        self.settle(node, Standing::Up);
    }

    fn settle(&self, node: &NodeName, outcome: Standing) {
        self.servers.send_if_modified(|servers| {
            let standing = servers.get_mut(node);
            let coming = standing.filter(|standing| **standing == Standing::Coming);
            coming.map(|standing| *standing = outcome).is_some()
        });
    }

    /// The inventory's token for this file of a node, if it has one.
    pub(super) fn token(&self, node: &NodeName, path: &Utf8Path) -> Option<SecretString> {
        self.supplies.tokens.get(node)?.get(path)?.clone()
    }

    pub(super) fn is_seed(&self, node: &NodeName) -> bool {
        self.seed.as_ref().is_some_and(|seed| seed.name == *node)
    }

    /// Waits for the servers that have to be up before `node` may join: for another server the seed, for a worker all.
    pub(super) async fn servers_up(&self, node: &Node) -> Result<(), NodeError> {
        if self.is_seed(&node.name) {
            return Ok(());
        }
        let counts = |name: &NodeName| {
            *name != node.name && (node.role == Role::Worker || self.is_seed(name))
        };
        let mut servers = self.servers.subscribe();
        let settled = servers
            .wait_for(|servers| {
                let mut awaited = servers.iter().filter(|(name, _)| counts(name));
                awaited.all(|(_, standing)| *standing != Standing::Coming)
            })
            .await;
        let Ok(settled) = settled else {
            return Err(NodeError::Interrupted);
        };
        let failed = settled
            .iter()
            .find(|(name, standing)| counts(name) && **standing == Standing::Failed);
        match failed {
            Some((name, _)) => Err(NodeError::NoServer(name.to_string())),
            None => Ok(()),
        }
    }

    pub(super) async fn server<'s>(&self, reached: &'s Reached) -> Result<Server<'s>, NodeError> {
        match &self.seed {
            Some(seed) if seed.name != reached.node.name => {
                let session = ssh::connect(&seed.target, &no_prompt()).await;
                let session = session.map_err(|source| NodeError::ServerUnreachable {
                    server: seed.name.to_string(),
                    source,
                })?;
                Ok(Server::Other(Box::new(session)))
            }
            _ => Ok(Server::Itself(&reached.session)),
        }
    }

    /// The turn of a node that is a part of the cluster, or becomes a server: one at a time.
    pub(super) async fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().await
    }
}
