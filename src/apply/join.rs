//! A node becomes a part of the cluster, or stays one while it is rebooted or upgraded: drained before and ready after
//! (design.md §2).

use std::future::Future;
use std::time::{Duration, Instant};

use tokio::sync::MutexGuard;

use super::cluster::Secrets;
use super::k3s::K3s;
use super::upload::upload;
use super::{Goal, Run, exec, no_prompt, script};
use crate::fleet::{self, NodeError, Reached, nonce};
use crate::inventory::{K3sComponent, K3sVersion, Node, NodeName, Role};
use crate::layer;
use crate::node::cluster::NodeObject;
use crate::node::ledger::Ledger;
use crate::plan::{NodePlan, Step};
use crate::report::{Event, telling};
use crate::resource::change::{Action, Phase};
use crate::resource::k3s::{Asset, Origin, WantedSecret};
use crate::resource::node_object;
use crate::ssh;

impl Run {
    /// The last part of a node's run: k3s, and then the node's object.
    pub(super) async fn join(
        &self,
        reached: &Reached,
        plan: &NodePlan,
        ledger: &mut Ledger,
    ) -> Result<(), NodeError> {
        let steps = plan.steps().into_iter();
        let steps: Vec<Step<'_>> = steps
            .filter(|step| step.phase.is_of_the_cluster())
            .collect();
        if self.goal != Goal::Converge || !reached.node.k3s.install {
            for step in &steps {
                self.go_on()?;
                *ledger = self
                    .step(reached, step, ledger, None, &Secrets::new())
                    .await?;
            }
            return Ok(());
        }
        if steps.is_empty() {
            self.cluster.came_up(&reached.node.name);
            return Ok(());
        }
        can_run_k3s(reached)?;
        self.bring_assets(reached).await?;
        self.while_waiting(
            reached,
            "its server",
            self.cluster.servers_up(&reached.node),
        )
        .await?;
        let _turn = self.turn_in_cluster(reached).await?;
        self.go_on()?;
        let server = self.cluster.server(reached).await?;
        let joined = self
            .join_through(&server.k3s(), reached, &steps, ledger)
            .await;
        server.close().await;
        joined
    }

    async fn join_through(
        &self,
        server: &K3s<'_>,
        reached: &Reached,
        steps: &[Step<'_>],
        ledger: &mut Ledger,
    ) -> Result<(), NodeError> {
        let node = &reached.node;
        let step = |phase| steps.iter().find(|step| step.phase == phase);
        if let Some(step) = step(Phase::Cluster) {
            self.not_newer_than_its_server(server, node).await?;
            self.bring_up(server, reached, step, ledger).await?;
        }
        self.cluster.came_up(&node.name);
        if let Some(step) = step(Phase::Registration) {
            self.while_waiting(reached, "labels and taints", register(server, step))
                .await?;
        }
        if step(Phase::Cluster).is_some() && self.cluster.is_seed(&node.name) {
            let some = node.k3s.disable.len() < K3sComponent::ALL.len();
            let pods = server.await_pods(some, node.k3s.start_timeout.get());
            self.while_waiting(reached, "k3s's own pods", pods).await?;
        }
        Ok(())
    }

    async fn bring_assets(&self, reached: &Reached) -> Result<(), NodeError> {
        let name = &reached.node.name;
        for (path, artifact) in self.cluster.supplies.assets.get(name).into_iter().flatten() {
            self.go_on()?;
            let file = artifact.asset.file_name();
            let mut progress = telling(&self.events, name.as_str(), "uploading", &file);
            let holder = self.claim.on(&reached.snapshot);
            upload(&reached.session, artifact, path, &holder, &mut progress).await?;
        }
        Ok(())
    }

    /// A kubelet may be older than the API server, and never newer (domain.md §4.5).
    async fn not_newer_than_its_server(
        &self,
        server: &K3s<'_>,
        node: &Node,
    ) -> Result<(), NodeError> {
        let Some(seed) = self.cluster.seed.as_ref() else {
            return Ok(());
        };
        if seed.name == node.name {
            return Ok(());
        }
        let object = server.node(seed.name.as_str()).await?;
        let found = object.and_then(|object| object.version.parse::<K3sVersion>().ok());
        let wanted = self.inventory.versions.k3s();
        match found {
            Some(found) if found.numbers() < wanted.numbers() => Err(NodeError::NewerThanServer {
                server: seed.name.to_string(),
                version: found.to_string(),
            }),
            _ => Ok(()),
        }
    }

    /// Further servers one at a time, and so whoever is a part of the cluster already.
    async fn turn_in_cluster(
        &self,
        reached: &Reached,
    ) -> Result<Option<MutexGuard<'_, ()>>, NodeError> {
        let joins = reached.node.role == Role::Worker && reached.snapshot.k3s_version.is_none();
        if joins || self.cluster.is_seed(&reached.node.name) {
            return Ok(None);
        }
        let turn = async { Ok(self.cluster.turn().await) };
        self.while_waiting(reached, "its turn", turn)
            .await
            .map(Some)
    }

    /// Everything of k3s on the node itself, until it is ready.
    async fn bring_up(
        &self,
        server: &K3s<'_>,
        reached: &Reached,
        step: &Step<'_>,
        ledger: &mut Ledger,
    ) -> Result<(), NodeError> {
        let began = Instant::now();
        let node = &reached.node;
        let actions = || step.changes.iter().flat_map(|change| &change.actions);
        let secrets = self.secrets(server, node, actions()).await?;
        for action in actions() {
            if let Action::ForgetNode(stale) = action {
                server.forget(stale).await?;
            }
        }
        let upgrades = |action: &Action| matches!(action, Action::InstallAsset(wanted) if wanted.asset == Asset::Program && wanted.found.is_some());
        let drained = actions().any(upgrades) && self.out_of_service(server, reached).await?;
        *ledger = self.step(reached, step, ledger, None, &secrets).await?;
        let unit = layer::k3s::unit(node.role);
        let k3s = K3s {
            session: &reached.session,
        };
        let up = k3s.await_unit(unit, node.k3s.start_timeout.get());
        self.while_waiting(reached, unit, up).await?;
        let version = self.inventory.versions.k3s();
        self.ready(server, reached, Some(&version)).await?;
        if drained {
            server.back_in_service(node.name.as_str()).await?;
        }
        let seconds = began.elapsed().as_secs_f64();
        self.events.send(Event::Note {
            node: node.name.to_string(),
            text: format!("ready after {seconds:.1} s, with k3s {version}"),
        });
        Ok(())
    }

    /// Waits until the server says that the node is ready, with this version of k3s if it has to be one.
    async fn ready(
        &self,
        server: &K3s<'_>,
        reached: &Reached,
        version: Option<&K3sVersion>,
    ) -> Result<(), NodeError> {
        let node = &reached.node;
        let limit = node.k3s.start_timeout.get();
        let version = version.map(K3sVersion::as_str);
        let ready = server.await_node(node.name.as_str(), version, limit);
        self.while_waiting(reached, "the node to be ready", ready)
            .await
    }

    /// Tokens of a server are fetched when they are written, and forgotten after.
    async fn secrets<'a>(
        &self,
        server: &K3s<'_>,
        node: &Node,
        actions: impl Iterator<Item = &'a Action>,
    ) -> Result<Secrets, NodeError> {
        let mut secrets = Secrets::new();
        for action in actions {
            let Action::PutSecret(WantedSecret { path, origin }) = action else {
                continue;
            };
            let secret = match origin {
                Origin::Own => self.cluster.token(&node.name, path),
                Origin::Server { path, .. } => {
                    let token = server.secret("reading the join token", path.as_str());
                    Some(token.await?)
                }
            };
            secrets.insert(path.clone(), secret);
        }
        Ok(secrets)
    }

    /// Moves the pods of a node elsewhere before it reboots; true if there is something to be put back.
    pub(super) async fn drain_for_reboot(&self, reached: &Reached) -> Result<bool, NodeError> {
        if reached.snapshot.k3s_version.is_none() || !reached.node.k3s.install {
            return Ok(false);
        }
        let server = match self.cluster.server(reached).await {
            Ok(server) => server,
            Err(error) => {
                let why = error.chain();
                self.events.send(Event::Note {
                    node: reached.node.name.to_string(),
                    text: format!("not drained, because nobody can be asked: {why}"),
                });
                return Ok(false);
            }
        };
        let drained = self.out_of_service(&server.k3s(), reached).await;
        server.close().await;
        drained
    }

    /// Waits until a node that was drained is ready again, and lets it have pods.
    pub(super) async fn in_service(&self, reached: &Reached) -> Result<(), NodeError> {
        let server = self.cluster.server(reached).await?;
        let k3s = server.k3s();
        let back = async {
            self.ready(&k3s, reached, None).await?;
            k3s.back_in_service(reached.node.name.as_str()).await
        };
        let back = back.await;
        server.close().await;
        back
    }

    /// Moves the pods of a node that is in service elsewhere; true if there is something to be put back.
    async fn out_of_service(&self, server: &K3s<'_>, reached: &Reached) -> Result<bool, NodeError> {
        let name = reached.node.name.as_str();
        let drained = async {
            let nodes = server.nodes().await?.unwrap_or_default();
            // Nowhere to go: the kubelet ends its pods in order when the node goes down, and an upgrade leaves them alone.
            let elsewhere = |it: &NodeObject| it.name != name && it.ready && !it.cordoned;
            // What the user cordoned stays so; a kubelet that is dead evicts nothing.
            let in_service = |it: &NodeObject| it.name == name && it.ready && !it.cordoned;
            if !(nodes.iter().any(elsewhere) && nodes.iter().any(in_service)) {
                return Ok(false);
            }
            let limit = reached.node.k3s.drain_timeout.get();
            server.drain(name, limit).await?;
            Ok(true)
        };
        self.while_waiting(reached, "its pods to leave", drained)
            .await
    }

    /// What the seed shows of the cluster now, for whoever looks at a node again.
    pub(super) async fn look_at_cluster_again(&self, node: &NodeName) -> Result<(), NodeError> {
        let Some(seed) = self.cluster.seed.as_ref().filter(|seed| seed.name != *node) else {
            return Ok(());
        };
        let Some(server) = self.inventory.node(seed.name.as_str()) else {
            return Ok(());
        };
        let Ok(session) = ssh::connect(&seed.target, &no_prompt()).await else {
            return Ok(());
        };
        let questions = layer::questions(&self.inventory, server, &self.layers);
        let snapshot = fleet::probe(&session, &questions).await?;
        session.close().await;
        self.saw(&seed.name, snapshot);
        Ok(())
    }

    /// Says what is waited for, and keeps the lease alive meanwhile.
    pub(super) async fn while_waiting<T>(
        &self,
        reached: &Reached,
        what: &str,
        work: impl Future<Output = Result<T, NodeError>>,
    ) -> Result<T, NodeError> {
        tokio::pin!(work);
        let mut renewals = tokio::time::interval(Duration::from_secs(script::BETWEEN_STEPS / 3));
        renewals.tick().await;
        let told = tokio::time::sleep(Duration::from_secs(1));
        tokio::pin!(told);
        let mut tell = true;
        loop {
            tokio::select! {
                done = &mut work => return done,
                () = &mut told, if tell => {
                    tell = false;
                    self.events.send(Event::Waiting { node: reached.node.name.to_string(), what: what.to_owned() });
                }
                _ = renewals.tick() => {
                    let renew = script::renew(&self.claim.on(&reached.snapshot), &nonce()?);
                    exec(&reached.session, "renewing the lease", &renew, Duration::from_secs(60)).await?;
                }
            }
        }
    }
}

/// k3s does not start without the memory controller, so there is no point in trying.
fn can_run_k3s(reached: &Reached) -> Result<(), NodeError> {
    if reached.snapshot.facts.cgroup_controllers.contains("memory") {
        return Ok(());
    }
    Err(NodeError::NoMemoryCgroup)
}

/// Labels and taints.
async fn register(server: &K3s<'_>, step: &Step<'_>) -> Result<(), NodeError> {
    for action in step.changes.iter().flat_map(|change| &change.actions) {
        let Action::EditNodeObject(edit) = action else {
            continue;
        };
        let Some(object) = server.node(&edit.name).await? else {
            let what = format!("{} is no node of the cluster", edit.name);
            let said = String::new();
            return Err(NodeError::NotUp { what, said });
        };
        let calls = node_object::calls(edit, &object);
        server.edit(&edit.name, &calls).await?;
    }
    Ok(())
}
