//! A node becomes a part of the cluster, or stays one while it is rebooted or upgraded: drained before and ready after
//! (design.md §2).

use std::future::Future;
use std::time::{Duration, Instant};

use secrecy::SecretString;
use tokio::sync::MutexGuard;

use super::cluster::Secrets;
use super::k3s::K3s;
use super::upload::{telling, upload};
use super::{Run, exec, no_prompt, script};
use crate::fleet::{self, NodeError, Reached, nonce};
use crate::inventory::{K3sVersion, Node, NodeName, Role};
use crate::layer;
use crate::node::cluster::NodeObject;
use crate::node::ledger::Ledger;
use crate::plan::{NodePlan, Step};
use crate::report::Event;
use crate::resource::change::{Action, Phase};
use crate::resource::k3s::{Asset, Origin, WantedSecret};
use crate::resource::node_object;
use crate::ssh;

impl Run {
    /// The last part of a node's run: k3s, and then the node's object.
    pub(super) async fn join(
        &self,
        reached: &mut Reached,
        plan: &NodePlan,
        ledger: &mut Ledger,
    ) -> Result<(), NodeError> {
        let steps: Vec<Step<'_>> = plan
            .steps()
            .into_iter()
            .filter(|step| step.phase.is_of_the_cluster())
            .collect();
        if steps.is_empty() {
            self.cluster.is_up(&reached.node.name);
            return Ok(());
        }
        self.can_run_k3s(reached)?;
        let name = reached.node.name.clone();
        for (path, artifact) in self.cluster.assets.get(&name).into_iter().flatten() {
            self.go_on()?;
            let file = artifact.asset.file_name();
            let mut progress = telling(&self.events, name.as_str(), &file);
            upload(
                &reached.session,
                artifact,
                path,
                &self.claim.on(&reached.snapshot),
                &mut progress,
            )
            .await?;
        }
        self.while_waiting(
            reached,
            "its server",
            self.cluster.servers_up(&reached.node),
        )
        .await?;
        let _turn = self.turn_in_cluster(reached).await?;
        self.go_on()?;
        let k3s = steps.iter().find(|step| step.phase == Phase::Cluster);
        if let Some(step) = k3s {
            self.not_newer_than_its_server(reached).await?;
            self.bring_up(reached, plan, step, ledger).await?;
        }
        self.cluster.is_up(&name);
        if let Some(step) = steps.iter().find(|step| step.phase == Phase::Registration) {
            self.register(reached, step).await?;
        }
        if k3s.is_some() && self.cluster.is_seed(&name) {
            let node = &reached.node;
            let some = node.k3s.disable.len() < crate::inventory::K3sComponent::ALL.len();
            let k3s = K3s {
                session: &reached.session,
            };
            let pods = k3s.await_pods(some, node.k3s.start_timeout.get());
            self.while_waiting(reached, "k3s's own pods", pods).await?;
        }
        Ok(())
    }

    /// k3s does not start without the memory controller, so there is no point in trying.
    fn can_run_k3s(&self, reached: &Reached) -> Result<(), NodeError> {
        if reached.snapshot.facts.cgroup_controllers.contains("memory") {
            return Ok(());
        }
        Err(NodeError::NoMemoryCgroup)
    }

    /// A kubelet may be older than the API server, and never newer (domain.md §4.5).
    async fn not_newer_than_its_server(&self, reached: &Reached) -> Result<(), NodeError> {
        let Some(seed) = self.cluster.seed.as_ref() else {
            return Ok(());
        };
        if seed.name == reached.node.name {
            return Ok(());
        }
        let server = self.cluster.server(reached).await?;
        let object = server.k3s().node(seed.name.as_str()).await;
        server.close().await;
        let found = object?.and_then(|object| object.version.parse::<K3sVersion>().ok());
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
        reached: &mut Reached,
        plan: &NodePlan,
        step: &Step<'_>,
        ledger: &mut Ledger,
    ) -> Result<(), NodeError> {
        let began = Instant::now();
        let (name, changes) = (reached.node.name.to_string(), step.changes.len());
        self.events.send(Event::StepStarted {
            node: name.clone(),
            step: step.phase.as_str(),
            changes,
        });
        let actions = || step.changes.iter().flat_map(|change| &change.actions);
        let secrets = self.secrets(reached, actions()).await?;
        for action in actions() {
            if let Action::ForgetNode(stale) = action {
                let server = self.cluster.server(reached).await?;
                let forgotten = server.k3s().forget(stale).await;
                server.close().await;
                forgotten?;
            }
        }
        let upgrades = |action: &Action| matches!(action, Action::InstallAsset(wanted) if wanted.asset == Asset::Program && wanted.found.is_some());
        let drained = actions().any(upgrades) && self.out_of_service(reached).await?;
        *ledger = self.step(reached, step, ledger, None, &secrets).await?;
        self.events.send(Event::StepDone {
            node: name.clone(),
            step: step.phase.as_str(),
            changes,
            took: began.elapsed(),
        });
        if !plan.wants_k3s() {
            return Ok(());
        }
        let node = &reached.node;
        let unit = layer::k3s::unit(node.role);
        let limit = node.k3s.start_timeout.get();
        let k3s = K3s {
            session: &reached.session,
        };
        self.while_waiting(reached, unit, k3s.await_unit(unit, limit))
            .await?;
        self.ready(reached).await?;
        if drained {
            self.in_service(reached).await?;
        }
        let took = began.elapsed();
        let text = format!(
            "ready after {:.1} s, with k3s {}",
            took.as_secs_f64(),
            self.inventory.versions.k3s()
        );
        self.events.send(Event::Note { node: name, text });
        Ok(())
    }

    /// Waits until the server says that the node is ready.
    async fn ready(&self, reached: &Reached) -> Result<NodeObject, NodeError> {
        let node = &reached.node;
        let server = self.cluster.server(reached).await?;
        let version = self.inventory.versions.k3s();
        let k3s = server.k3s();
        let ready = k3s.await_node(
            node.name.as_str(),
            version.as_str(),
            node.k3s.start_timeout.get(),
        );
        let object = self
            .while_waiting(reached, "the node to be ready", ready)
            .await;
        server.close().await;
        object
    }

    /// Tokens are fetched when they are written, and forgotten after.
    async fn secrets<'a>(
        &self,
        reached: &Reached,
        actions: impl Iterator<Item = &'a Action>,
    ) -> Result<Secrets, NodeError> {
        let mut secrets = Secrets::new();
        for action in actions {
            let Action::PutSecret(WantedSecret { path, origin }) = action else {
                continue;
            };
            let secret = match origin {
                Origin::Own => self.own_secret(&reached.node, path).await?,
                Origin::Server { path, .. } => {
                    let server = self.cluster.server(reached).await?;
                    let token = server.k3s().token(path.as_str()).await;
                    server.close().await;
                    Some(token?)
                }
            };
            secrets.insert(path.clone(), secret);
        }
        Ok(secrets)
    }

    async fn own_secret(
        &self,
        node: &Node,
        path: &camino::Utf8Path,
    ) -> Result<Option<SecretString>, NodeError> {
        let k3s = &node.k3s;
        let secret = if path.ends_with("agent-token") {
            &k3s.agent_token
        } else {
            &k3s.token
        };
        let Some(secret) = secret else {
            return Ok(None);
        };
        let home = fleet::home()?;
        let value = secret
            .resolve(&home)
            .await
            .map_err(|source| NodeError::Secret { source })?;
        Ok(Some(value))
    }

    /// Labels and taints.
    async fn register(&self, reached: &Reached, step: &Step<'_>) -> Result<(), NodeError> {
        let server = self.cluster.server(reached).await?;
        let registered = async {
            for action in step.changes.iter().flat_map(|change| &change.actions) {
                let Action::EditNodeObject(edit) = action else {
                    continue;
                };
                let k3s = server.k3s();
                let Some(object) = k3s.node(&edit.name).await? else {
                    let what = format!("{} is no node of the cluster", edit.name);
                    return Err(NodeError::NotUp {
                        what,
                        said: String::new(),
                    });
                };
                k3s.edit(&edit.name, &node_object::calls(edit, &object))
                    .await?;
            }
            Ok(())
        };
        let registered = self
            .while_waiting(reached, "labels and taints", registered)
            .await;
        server.close().await;
        registered
    }

    /// Moves the pods of a node that is in service elsewhere; true if there is something to be put back.
    pub(super) async fn out_of_service(&self, reached: &Reached) -> Result<bool, NodeError> {
        let name = reached.node.name.as_str();
        if reached.snapshot.k3s_version.is_none() || !reached.node.k3s.install {
            return Ok(false);
        }
        let server = match self.cluster.server(reached).await {
            Ok(server) => server,
            Err(error) => {
                let text = format!(
                    "not drained, because nobody can be asked: {}",
                    error.chain()
                );
                self.events.send(Event::Note {
                    node: name.to_owned(),
                    text,
                });
                return Ok(false);
            }
        };
        let k3s = server.k3s();
        let drained = async {
            let nodes = k3s.nodes().await?.unwrap_or_default();
            // Nowhere to go: the kubelet ends its pods in order when the node goes down, and an upgrade leaves them alone.
            let elsewhere = |it: &NodeObject| it.name != name && it.ready && !it.cordoned;
            // What the user cordoned stays so; a kubelet that is dead evicts nothing.
            let in_service = |it: &NodeObject| it.name == name && it.ready && !it.cordoned;
            if !(nodes.iter().any(elsewhere) && nodes.iter().any(in_service)) {
                return Ok(false);
            }
            k3s.drain(name, reached.node.k3s.drain_timeout.get())
                .await?;
            Ok(true)
        };
        let drained = self
            .while_waiting(reached, "its pods to leave", drained)
            .await;
        server.close().await;
        drained
    }

    /// Waits until a node that was drained is ready again, and lets it have pods.
    pub(super) async fn in_service(&self, reached: &Reached) -> Result<(), NodeError> {
        let name = reached.node.name.as_str();
        let server = self.cluster.server(reached).await?;
        let k3s = server.k3s();
        let limit = reached.node.k3s.start_timeout.get();
        let back = async {
            let began = Instant::now();
            while !k3s.node(name).await?.is_some_and(|object| object.ready) {
                if began.elapsed() >= limit {
                    let what = format!(
                        "{name} is not ready after {} s (k3s.start_timeout)",
                        limit.as_secs()
                    );
                    return Err(NodeError::NotUp {
                        what,
                        said: String::new(),
                    });
                }
                tokio::time::sleep(Duration::from_secs(2)).await;
            }
            k3s.back_in_service(name).await
        };
        let back = self
            .while_waiting(reached, "the node to be ready", back)
            .await;
        server.close().await;
        back
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
