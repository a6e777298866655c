//! Carries a plan out. The only part that can write to a node.

mod cluster;
mod departure;
pub mod heal;
mod join;
mod k3s;
mod lease;
mod reboot;
pub mod script;
pub mod upload;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::fleet::{self, NodeError, Reached, last_lines, nonce};
use crate::inventory::{Inventory, Node, NodeName};
use crate::layer;
use crate::node::ledger::{LayerName, Ledger};
use crate::node::probe::Questions;
use crate::node::snapshot::Snapshot;
use crate::plan::{self, NodePlan, Snapshots, Step};
use crate::report::{Event, Events};
use crate::resource::change::Phase;
use crate::ssh::{self, ErrorClass, Method, Output, Prompt, Session, Status};
use script::Guard;

pub use cluster::{Cluster, Secrets, Seed, Standing, Supplies};
pub use departure::forget;
pub use k3s::kubeconfig;
pub use lease::Claim;
pub use reboot::Reboots;
pub use script::Holder;

/// What a run wants of its nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goal {
    /// The inventory's state.
    Converge,
    /// No trace of selfheal.
    Restore,
    /// Out of the cluster, whose other nodes take its pods.
    Remove,
    /// Without k3s, whatever becomes of the cluster.
    Reset,
}

/// One run over several nodes.
pub struct Run {
    /// The inventory.
    pub inventory: Arc<Inventory>,
    /// What is wanted.
    pub goal: Goal,
    /// The layers in question.
    pub layers: BTreeSet<LayerName>,
    /// All nodes as they were when the plan was made.
    pub snapshots: Mutex<Snapshots>,
    /// Whether nodes may be rebooted.
    pub may_reboot: bool,
    /// This run's claim on its nodes.
    pub claim: Claim,
    /// Who reboots when.
    pub reboots: Reboots,
    /// Who joins when, and whom.
    pub cluster: Cluster,
    /// Where to report.
    pub events: Events,
    /// True when the user asked to stop.
    pub stop: watch::Receiver<bool>,
}

impl Run {
    /// Applies `plan` to a node, reboots it if it has to, and looks whether it now is as wanted.
    ///
    /// # Errors
    /// A [`NodeError`]; whatever it is, the node takes SSH and the next run goes on from there.
    pub async fn converge(&self, mut reached: Reached, plan: NodePlan) -> Result<usize, NodeError> {
        let node = reached.node.name.clone();
        let result = self.carry_out(&mut reached, &plan).await;
        // Only a node that was written to has a lease to give back: not a refused one, and one that was left has lost it.
        let left = self.goal == Goal::Restore && result.is_ok();
        let written = !plan.is_empty() || self.goal == Goal::Remove;
        if written && plan.refusals.is_empty() && !left {
            let release = script::release(&self.claim.on(&reached.snapshot), &nonce()?);
            let _ = reached.session.run(&release, Duration::from_secs(30)).await;
        }
        self.reboots.done(&node);
        self.cluster.over(&node);
        reached.session.close().await;
        result?;
        self.events.send(Event::Converged {
            node: node.to_string(),
            changes: plan.changes.len(),
        });
        Ok(plan.changes.len())
    }

    async fn carry_out(&self, reached: &mut Reached, plan: &NodePlan) -> Result<(), NodeError> {
        if plan.is_empty() && self.goal != Goal::Remove {
            return Ok(());
        }
        if let Some(refusal) = plan.refusals.first() {
            return Err(NodeError::Refused(format!("{refusal} ({})", refusal.hint)));
        }
        if self.goal == Goal::Remove {
            self.leave_cluster(reached).await?;
        }
        let mut ledger = plan.ledger.clone();
        let steps = plan.steps();
        for step in steps.iter().filter(|step| !step.phase.is_of_the_cluster()) {
            self.go_on()?;
            let guard = (step.phase == Phase::Guarded).then(|| self.guard(&reached.node));
            if guard.is_some() {
                self.prove_key_login(reached).await?;
            }
            ledger = self
                .step(reached, step, &ledger, guard.as_ref(), &Secrets::new())
                .await?;
            if guard.is_some() {
                self.prove_new_login(reached).await?;
            }
        }
        if let Some(reason) = plan.reboot() {
            if self.may_reboot {
                self.reboot(reached, plan, &reason).await?;
            } else {
                let text = format!("reboot pending: {reason}; `selfheal plan` goes on saying so");
                self.events.send(Event::Note {
                    node: reached.node.name.to_string(),
                    text,
                });
            }
        }
        // Nobody waits for this node's reboot any more: the servers may go on, and others join them.
        self.reboots.done(&reached.node.name);
        self.join(reached, plan, &mut ledger).await?;
        self.verify(reached, plan).await?;
        if self.goal == Goal::Remove {
            // A kubelet that was started anew meanwhile has made itself known again.
            self.leave_cluster(reached).await?;
        }
        Ok(())
    }

    /// The user may stop a run between two steps.
    fn go_on(&self) -> Result<(), NodeError> {
        if *self.stop.borrow() {
            Err(NodeError::Interrupted)
        } else {
            Ok(())
        }
    }

    fn guard(&self, node: &Node) -> Guard {
        let sshd = match self.goal {
            Goal::Converge => layer::hardening::sshd_must_say(&node.hardening),
            Goal::Restore | Goal::Remove | Goal::Reset => Vec::new(),
        };
        Guard {
            seconds: node.hardening.dead_man.as_secs(),
            sshd,
        }
    }

    /// Carries a step out, and says so; what the ledger is after it.
    async fn step(
        &self,
        reached: &Reached,
        step: &Step<'_>,
        ledger: &Ledger,
        guard: Option<&Guard>,
        secrets: &Secrets,
    ) -> Result<Ledger, NodeError> {
        let began = Instant::now();
        let (name, changes) = (reached.node.name.to_string(), step.changes.len());
        let phase = step.phase.as_str();
        self.events.send(Event::StepStarted {
            node: name.clone(),
            step: phase,
            changes,
        });
        let (text, left) = script::step(
            step,
            ledger,
            guard,
            secrets,
            &self.claim.on(&reached.snapshot),
            &nonce()?,
        );
        let limit = reached.node.ssh.exec_timeout.get();
        let limit = match step.phase {
            // apt and flash-kernel take what they take; the script bounds them.
            Phase::Packages | Phase::Boot => limit.max(Duration::from_secs(script::STEP_SECONDS)),
            _ => limit,
        };
        exec(&reached.session, phase, &text, limit).await?;
        self.events.send(Event::StepDone {
            node: name,
            step: phase,
            changes,
            took: began.elapsed(),
        });
        Ok(left)
    }

    /// Before passwords go, a key must have opened the door (domain.md §3.1).
    async fn prove_key_login(&self, reached: &mut Reached) -> Result<(), NodeError> {
        if reached.session.authenticated_with() != Method::Password {
            return Ok(());
        }
        let target = fleet::without_password(&reached.target);
        let session = ssh::connect(&target, &no_prompt())
            .await
            .map_err(|source| NodeError::NoKeyLogin { source })?;
        reached.session = session;
        reached.target = target;
        Ok(())
    }

    /// The dead man's switch is disarmed only over a new connection that passes login and sudo. If there is none, the
    /// old connection puts the originals back at once; if that is gone too, the node does it by itself.
    async fn prove_new_login(&self, reached: &mut Reached) -> Result<(), NodeError> {
        let target = fleet::without_password(&reached.target);
        let proof = async {
            let session = connect_anew(&target, reached.node.hardening.dead_man.get() / 2).await?;
            let disarm = script::disarm(&self.claim.on(&reached.snapshot), &nonce()?);
            exec(
                &session,
                "disarming the dead man's switch",
                &disarm,
                Duration::from_secs(120),
            )
            .await?;
            Ok::<Session, NodeError>(session)
        };
        match proof.await {
            Ok(session) => {
                reached.session = session;
                Ok(())
            }
            Err(source) => {
                let settle = script::settle(&self.claim.on(&reached.snapshot), &nonce()?);
                let back = exec(
                    &reached.session,
                    "putting the originals back",
                    &settle,
                    Duration::from_secs(120),
                );
                let outcome = match back.await {
                    Ok(_) => "the old settings are back".to_owned(),
                    Err(_) => format!(
                        "the node puts the old settings back by itself within {} s",
                        reached.node.hardening.dead_man.as_secs()
                    ),
                };
                Err(NodeError::LockedOut {
                    source: Box::new(source),
                    outcome,
                })
            }
        }
    }

    /// Looks again: what still differs is an error that names it.
    async fn verify(&self, reached: &mut Reached, plan: &NodePlan) -> Result<(), NodeError> {
        let questions = layer::questions(&self.inventory, &reached.node, &self.layers);
        reached.snapshot = fleet::probe(&reached.session, &questions).await?;
        self.saw(&reached.node.name, reached.snapshot.clone());
        let joined = |step: &Step<'_>| step.phase.is_of_the_cluster();
        if self.goal == Goal::Converge && plan.steps().iter().any(joined) {
            self.look_at_cluster_again(&reached.node.name).await?;
        }
        let again = self.plan_again(&reached.node, &reached.snapshot);
        let mut differing: Vec<String> = again
            .changes
            .iter()
            .filter(|change| change.has_work())
            .map(|change| change.id.to_string())
            .collect();
        differing.extend(again.refusals.iter().map(ToString::to_string));
        differing.extend(
            again
                .unfinished
                .iter()
                .map(|effect| format!("unfinished {effect}")),
        );
        if self.may_reboot {
            differing.extend(again.reboot());
        }
        if !differing.is_empty() {
            return Err(NodeError::NotConverged(differing.join(", ")));
        }
        if self.goal == Goal::Restore {
            let leave = script::leave(&self.claim.on(&reached.snapshot), &nonce()?);
            exec(
                &reached.session,
                "removing selfheal's state",
                &leave,
                Duration::from_secs(120),
            )
            .await?;
        }
        Ok(())
    }

    fn seen(&self) -> MutexGuard<'_, Snapshots> {
        self.snapshots
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// A node as it is now.
    fn saw(&self, node: &NodeName, snapshot: Snapshot) {
        self.seen().insert(node.clone(), snapshot);
    }

    fn plan_again(&self, node: &Node, snapshot: &Snapshot) -> NodePlan {
        match self.goal {
            Goal::Converge => {
                let mut snapshots = self.seen().clone();
                snapshots.insert(node.name.clone(), snapshot.clone());
                plan::plan(&self.inventory, node, &snapshots, &self.layers)
            }
            Goal::Restore => plan::restore(node, snapshot),
            Goal::Remove | Goal::Reset => plan::leave_cluster(node, snapshot),
        }
    }
}

/// Waits for the end of a step that an interrupted run of this computer left under way, and takes its lease away.
///
/// # Errors
/// A [`NodeError`] when the step does not end, or somebody else is at work there.
pub async fn await_step(session: &Session, holder: &Holder) -> Result<(), NodeError> {
    let wait = script::release(holder, &nonce()?);
    let limit = Duration::from_secs(700);
    exec(session, "waiting for an interrupted step", &wait, limit).await?;
    Ok(())
}

/// Waits for the end of a trial boot that is under way: until then nobody can say what the node boots with.
///
/// # Errors
/// A [`NodeError`] when the node went away meanwhile, as it does when it reboots.
pub async fn await_trial(session: &Session, holder: &Holder) -> Result<(), NodeError> {
    let wait = script::await_trial(holder, &nonce()?);
    let limit = Duration::from_secs(400);
    exec(session, "waiting for the trial boot", &wait, limit).await?;
    Ok(())
}

/// Lets the dead man's switch of an interrupted run act now: a later run starts from settled ground.
///
/// # Errors
/// A [`NodeError`] when the originals could not be put back.
pub async fn settle(session: &Session, holder: &Holder) -> Result<(), NodeError> {
    exec(
        session,
        "settling the dead man's switch",
        &script::settle(holder, &nonce()?),
        Duration::from_secs(300),
    )
    .await?;
    Ok(())
}

/// Lets a node leave safe mode, and makes sure that it did.
///
/// # Errors
/// A [`NodeError`] when it is still in safe mode, or somebody else is at work there.
pub async fn resume(session: &Session, holder: &Holder) -> Result<(), NodeError> {
    let limit = Duration::from_secs(300);
    let script = script::resume(holder, &nonce()?);
    exec(session, "leaving safe mode", &script, limit).await?;
    let snapshot = fleet::probe(session, &Questions::default()).await?;
    match snapshot.safe_mode {
        None => Ok(()),
        Some(reason) => Err(NodeError::NotConverged(format!("safe mode ({reason})"))),
    }
}

/// A new connection that nobody helps along. sshd may be just about to start again, so a silent door is knocked at for
/// a while; a refusal is final.
async fn connect_anew(target: &ssh::Target, patience: Duration) -> Result<Session, NodeError> {
    let deadline = Instant::now() + patience.min(Duration::from_secs(30));
    loop {
        match ssh::connect(target, &no_prompt()).await {
            Ok(session) => return Ok(session),
            Err(error) if error.class() == ErrorClass::Refused || Instant::now() > deadline => {
                return Err(error.into());
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(300)).await,
        }
    }
}

/// A login that must work without anybody to ask.
fn no_prompt() -> Arc<dyn Prompt> {
    Arc::new(ssh::NoPrompt)
}

/// Runs a script and reads its exit code.
async fn exec(
    session: &Session,
    step: &'static str,
    text: &str,
    limit: Duration,
) -> Result<Vec<u8>, NodeError> {
    checked(step, session.run(text, limit).await?)
}

/// What a script said, if it came to a good end.
fn checked(step: &'static str, output: Output) -> Result<Vec<u8>, NodeError> {
    let stderr = last_lines(&output.stderr);
    match output.status {
        Status::Exited(0) => Ok(output.stdout),
        Status::Exited(script::exit::HELD) => Err(NodeError::Held { holder: stderr }),
        Status::Exited(script::exit::STALE) => Err(NodeError::Stale { stderr }),
        Status::Exited(script::exit::REJECTED) => Err(NodeError::SshdRejected { stderr }),
        Status::Exited(script::exit::FULL) => Err(NodeError::Full { stderr }),
        Status::Exited(script::exit::UNSAFE) => Err(NodeError::BootUnsafe { stderr }),
        Status::Exited(script::exit::BROKEN) => Err(NodeError::BootBroken { stderr }),
        status => Err(NodeError::Step {
            step,
            status,
            stderr,
        }),
    }
}
