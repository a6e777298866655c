//! A node leaves its cluster: its pods go elsewhere, then its object, and with a server's object its member of etcd.

use super::Run;
use super::k3s::K3s;
use crate::fleet::{NodeError, Reached};
use crate::report::Event;
use crate::ssh::Session;

impl Run {
    /// What the other nodes have to know before k3s goes from this one. A node that is alone has nobody to tell.
    pub(super) async fn leave_cluster(&self, reached: &Reached) -> Result<(), NodeError> {
        let name = &reached.node.name;
        if self.cluster.seed.is_none() || self.cluster.is_seed(name) {
            return Ok(());
        }
        let server = self.cluster.server(reached).await?;
        let left = self.leave_through(&server.k3s(), reached).await;
        server.close().await;
        left
    }

    async fn leave_through(&self, server: &K3s<'_>, reached: &Reached) -> Result<(), NodeError> {
        let name = reached.node.name.as_str();
        let nodes = server.nodes().await?.ok_or_else(no_answer)?;
        let Some(object) = nodes.into_iter().find(|object| object.name == name) else {
            return Ok(());
        };
        if object.ready {
            let drained = server.drain(name, reached.node.k3s.drain_timeout.get());
            self.while_waiting(reached, "its pods to leave", drained)
                .await?;
        } else {
            // Its kubelet ends nothing any more; the cluster does once the object is gone.
            self.events.send(Event::Note {
                node: name.to_owned(),
                text: "not drained, because it is not ready".to_owned(),
            });
        }
        self.while_waiting(reached, "its object to go", server.forget(name))
            .await
    }
}

/// Removes the object of a node that is gone for good, over a session to a server. A node that is ready is not gone.
///
/// # Errors
/// A [`NodeError`] when the API does not answer, or the node is ready; nothing was changed then.
pub async fn forget(session: &Session, name: &str) -> Result<(), NodeError> {
    let server = K3s { session };
    let nodes = server.nodes().await?.ok_or_else(no_answer)?;
    match nodes.into_iter().find(|object| object.name == name) {
        None => Ok(()),
        Some(object) if object.ready => Err(NodeError::StillThere(name.to_owned())),
        Some(_) => server.forget(name).await,
    }
}

fn no_answer() -> NodeError {
    NodeError::NotUp {
        what: "the cluster's API does not answer".to_owned(),
        said: String::new(),
    }
}
