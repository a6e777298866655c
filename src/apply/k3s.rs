//! What a run asks of k3s, through a server's API or of a node itself.

use std::time::{Duration, Instant};

use secrecy::SecretString;
use serde::Deserialize;

use super::{exec, script};
use crate::fleet::{NodeError, last_lines, nonce};
use crate::node::cluster::{self, NodeObject};
use crate::node::quote;
use crate::node::reply::{self, Frame};
use crate::resource::node_object::Call;
use crate::ssh::Session;

const FUNCTIONS: &str = include_str!("../../templates/session/k3s.sh");

/// Between two looks at something that is waited for.
const BETWEEN_LOOKS: Duration = Duration::from_secs(2);
/// k3s ends and is started again so often before nobody waits for it any longer.
const RESTARTS: u32 = 6;

/// A node with k3s, and the connection to it.
pub(super) struct K3s<'s> {
    /// The connection.
    pub(super) session: &'s Session,
}

/// How a unit of k3s stands.
#[derive(Debug, Default, Clone, Copy)]
struct Unit {
    active: bool,
    restarts: u32,
    rejected: bool,
}

impl K3s<'_> {
    async fn call(
        &self,
        what: &'static str,
        call: &str,
        limit: Duration,
    ) -> Result<Vec<u8>, NodeError> {
        let nonce = nonce()?;
        let body = format!("frame begin\n{call} || exit\nframe end");
        let script = script::asking(FUNCTIONS, &body, &nonce);
        let stdout = exec(self.session, what, &script, limit).await?;
        let frames = reply::frames(&stdout, &nonce).map_err(|source| NodeError::Reply {
            source,
            stderr: String::new(),
        })?;
        let answer = |frame: &&Frame<'_>| !matches!(frame.name, "begin" | "end");
        Ok(frames
            .iter()
            .find(answer)
            .map(|frame| frame.content.to_vec())
            .unwrap_or_default())
    }

    /// Waits until the unit runs, which for k3s means that it is up, or has joined.
    pub(super) async fn await_unit(&self, unit: &str, limit: Duration) -> Result<(), NodeError> {
        let began = Instant::now();
        let first = self.unit(unit).await?;
        let mut now = first;
        while !now.active {
            let given_up = if now.rejected {
                return Err(NodeError::PasswordRejected);
            } else if now.restarts >= first.restarts + RESTARTS {
                Some(format!("{unit} ends again and again"))
            } else if began.elapsed() >= limit {
                Some(format!(
                    "{unit} is not up after {} s (k3s.start_timeout)",
                    limit.as_secs()
                ))
            } else {
                None
            };
            if let Some(what) = given_up {
                let said = self
                    .call(
                        "its journal",
                        &format!("last_words {}", quote(unit)),
                        Duration::from_secs(60),
                    )
                    .await?;
                return Err(NodeError::NotUp {
                    what,
                    said: last_lines(&said),
                });
            }
            tokio::time::sleep(BETWEEN_LOOKS).await;
            now = self.unit(unit).await?;
        }
        Ok(())
    }

    async fn unit(&self, unit: &str) -> Result<Unit, NodeError> {
        let said = self
            .call(
                "the state of k3s",
                &format!("unit_state {}", quote(unit)),
                Duration::from_secs(90),
            )
            .await?;
        let text = String::from_utf8_lossy(&said);
        let mut state = Unit::default();
        for (key, value) in text.lines().filter_map(|line| line.split_once('=')) {
            match key {
                "ActiveState" => state.active = value == "active",
                "NRestarts" => state.restarts = value.parse().unwrap_or_default(),
                "rejected" => state.rejected = true,
                _ => {}
            }
        }
        Ok(state)
    }

    /// The cluster's nodes; `None` while the API does not answer.
    pub(super) async fn nodes(&self) -> Result<Option<Vec<NodeObject>>, NodeError> {
        let said = self
            .call("the cluster's nodes", "nodes", Duration::from_secs(90))
            .await?;
        Ok(cluster::nodes(&said))
    }

    /// A node's object; `None` while it is none, or the API does not answer.
    pub(super) async fn node(&self, name: &str) -> Result<Option<NodeObject>, NodeError> {
        let nodes = self.nodes().await?.unwrap_or_default();
        Ok(nodes.into_iter().find(|object| object.name == name))
    }

    /// Waits until a node is ready, with this version of k3s if it has to be one.
    pub(super) async fn await_node(
        &self,
        name: &str,
        version: Option<&str>,
        limit: Duration,
    ) -> Result<(), NodeError> {
        let began = Instant::now();
        let as_wanted = |it: &NodeObject| it.ready && version.is_none_or(|tag| it.version == tag);
        loop {
            let found = self.node(name).await?;
            if found.as_ref().is_some_and(as_wanted) {
                return Ok(());
            }
            if began.elapsed() >= limit {
                let what = match found {
                    None => format!("{name} is no node of the cluster"),
                    Some(object) if object.ready => format!("{name} still runs {}", object.version),
                    Some(_) => format!("{name} is not ready"),
                };
                let seconds = limit.as_secs();
                let what = format!("{what} after {seconds} s (k3s.start_timeout)");
                return Err(NodeError::NotUp {
                    what,
                    said: String::new(),
                });
            }
            tokio::time::sleep(BETWEEN_LOOKS).await;
        }
    }

    /// Waits until k3s's own pods run. `some`: whether there have to be any.
    pub(super) async fn await_pods(&self, some: bool, limit: Duration) -> Result<(), NodeError> {
        let began = Instant::now();
        loop {
            let said = self
                .call(
                    "k3s's own pods",
                    "pods kube-system",
                    Duration::from_secs(90),
                )
                .await?;
            let pods = serde_json::from_slice::<Pods>(&said).map(|pods| pods.items);
            let waiting: Option<Vec<String>> =
                pods.ok().map(|pods| match (pods.is_empty(), some) {
                    (true, true) => vec!["the first of them".to_owned()],
                    _ => pods
                        .iter()
                        .filter(|pod| !pod.is_up())
                        .map(|pod| pod.metadata.name.clone())
                        .collect(),
                });
            match waiting {
                Some(waiting) if waiting.is_empty() => return Ok(()),
                waiting if began.elapsed() >= limit => {
                    let waiting = waiting.unwrap_or_default().join(", ");
                    let what = format!(
                        "k3s's own pods do not run after {} s: {waiting}",
                        limit.as_secs()
                    );
                    return Err(NodeError::NotUp {
                        what,
                        said: String::new(),
                    });
                }
                _ => tokio::time::sleep(BETWEEN_LOOKS).await,
            }
        }
    }

    /// What is in a file of this node's that nobody else may read.
    pub(super) async fn secret(
        &self,
        what: &'static str,
        path: &str,
    ) -> Result<SecretString, NodeError> {
        let call = format!("secret {}", quote(path));
        let said = self.call(what, &call, Duration::from_secs(60)).await?;
        Ok(String::from_utf8_lossy(&said).trim().to_owned().into())
    }

    /// Removes a node's object, and with it what the server knows of its password.
    pub(super) async fn forget(&self, name: &str) -> Result<(), NodeError> {
        self.call(
            "removing the old node",
            &format!("forget {}", quote(name)),
            Duration::from_secs(180),
        )
        .await?;
        Ok(())
    }

    /// Changes a node's object.
    pub(super) async fn edit(&self, name: &str, calls: &[Call]) -> Result<(), NodeError> {
        for Call { verb, arguments } in calls {
            let words = [*verb, name]
                .into_iter()
                .chain(arguments.iter().map(String::as_str));
            let words: Vec<String> = words.map(quote).collect();
            let call = format!("object {}", words.join(" "));
            self.call("labels and taints", &call, Duration::from_secs(120))
                .await?;
        }
        Ok(())
    }

    /// Moves a node's pods elsewhere. If they do not go, the node takes new ones again.
    pub(super) async fn drain(&self, name: &str, limit: Duration) -> Result<(), NodeError> {
        let call = format!("drain {} {}", quote(name), limit.as_secs());
        let drained = self
            .call("draining the node", &call, limit + Duration::from_secs(300))
            .await;
        if let Err(source) = drained {
            let _ = self.back_in_service(name).await;
            return Err(NodeError::NotDrained {
                source: Box::new(source),
            });
        }
        Ok(())
    }

    /// Lets a node that was drained have pods again.
    pub(super) async fn back_in_service(&self, name: &str) -> Result<(), NodeError> {
        let call = format!("back_in_service {}", quote(name));
        self.call("uncordoning the node", &call, Duration::from_secs(180))
            .await?;
        Ok(())
    }
}

/// The kubeconfig of a server, with all that it may do.
///
/// # Errors
/// A [`NodeError`] when it is not there, which it is once k3s was up.
pub async fn kubeconfig(session: &Session) -> Result<SecretString, NodeError> {
    K3s { session }
        .secret("reading the kubeconfig", "/etc/rancher/k3s/k3s.yaml")
        .await
}

#[derive(Deserialize)]
struct Pods {
    items: Vec<Pod>,
}

#[derive(Deserialize)]
struct Pod {
    metadata: PodMetadata,
    #[serde(default)]
    status: PodStatus,
}

#[derive(Deserialize)]
struct PodMetadata {
    name: String,
}

#[derive(Default, Deserialize)]
struct PodStatus {
    #[serde(default)]
    phase: String,
    #[serde(default)]
    conditions: Vec<PodCondition>,
}

#[derive(Deserialize)]
struct PodCondition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
}

impl Pod {
    /// It runs and is ready, or it is over: a job that is done, a record of a pod that was evicted.
    fn is_up(&self) -> bool {
        let ready = |it: &PodCondition| it.kind == "Ready" && it.status == "True";
        matches!(self.status.phase.as_str(), "Succeeded" | "Failed")
            || self.status.conditions.iter().any(ready)
    }
}
