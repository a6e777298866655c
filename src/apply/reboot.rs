//! Reboots: one node at a time, workers first, each proven by a new boot_id.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, MutexGuard, watch};

use super::{Goal, Run, exec, no_prompt, script};
use crate::fleet::{self, NodeError, Reached, nonce};
use crate::inventory::{NodeName, Role};
use crate::layer;
use crate::node::boot::Trial;
use crate::node::ledger::{Kind, LayerName};
use crate::node::snapshot::Snapshot;
use crate::plan::NodePlan;
use crate::report::Event;
use crate::resource::boot;
use crate::resource::change::TriedLine;
use crate::ssh;

/// Pause between two tries to reach a node that boots.
const BETWEEN_TRIES: Duration = Duration::from_secs(1);

/// Who reboots when: one node at a time, control planes once no worker is left that may reboot. After a reboot that went
/// wrong, nobody does.
#[derive(Debug)]
pub struct Reboots {
    turn: Mutex<()>,
    workers: watch::Sender<BTreeSet<NodeName>>,
    failed: watch::Sender<Option<NodeName>>,
}

impl Reboots {
    /// `workers` are those that have to reboot in this run.
    pub fn new(workers: BTreeSet<NodeName>) -> Reboots {
        Reboots {
            turn: Mutex::new(()),
            workers: watch::Sender::new(workers),
            failed: watch::Sender::new(None),
        }
    }

    /// The node's run is over; nobody waits for it any more.
    pub fn done(&self, node: &NodeName) {
        self.workers.send_modify(|workers| {
            workers.remove(node);
        });
    }

    async fn turn(&self, node: &NodeName, role: Role) -> Result<MutexGuard<'_, ()>, NodeError> {
        if role == Role::ControlPlane {
            let mut workers = self.workers.subscribe();
            let _ = workers
                .wait_for(|workers| workers.iter().all(|worker| worker == node))
                .await;
        }
        let turn = self.turn.lock().await;
        match &*self.failed.borrow() {
            Some(failed) => Err(NodeError::RebootsStopped(failed.to_string())),
            None => Ok(turn),
        }
    }
}

impl Run {
    /// Reboots a node in its turn, connects to it again, and looks whether it runs what the plan wants it to.
    pub(super) async fn reboot(
        &self,
        reached: &mut Reached,
        plan: &NodePlan,
        reason: &str,
    ) -> Result<(), NodeError> {
        let node = reached.node.name.clone();
        let turn = self.reboots.turn(&node, reached.node.role);
        let _turn = self
            .while_waiting(reached, "its turn to reboot", turn)
            .await?;
        self.go_on()?;
        let drained = self.drain_for_reboot(reached).await?;
        self.events.send(Event::Rebooting {
            node: node.to_string(),
            reason: reason.to_owned(),
        });
        // Also where the run ends in the middle of it.
        self.reboots.failed.send_replace(Some(node.clone()));
        let began = Instant::now();
        let order = script::reboot(
            &self.claim.on(&reached.snapshot),
            &nonce()?,
            reached.node.boot.force_reboot_after.get(),
            plan.trial(),
        );
        let limit = Duration::from_secs(script::REBOOT_SECONDS);
        let ordered = exec(&reached.session, "reboot", &order, limit).await;
        // A script that says no leaves the node standing; only a lost connection leaves that open.
        if let Err(error) = &ordered
            && !matches!(error, NodeError::Exec(_))
        {
            self.reboots.failed.send_replace(None);
        }
        ordered?;
        let boot_id = reached.snapshot.facts.boot_id.clone();
        let outcome = self.come_back(reached, plan, began).await?;
        self.events.send(Event::Rebooted {
            node: node.to_string(),
            took: began.elapsed(),
        });
        let note = |text: String| {
            self.events.send(Event::Note {
                node: node.to_string(),
                text,
            });
        };
        let forced = reached.snapshot.forced_down.as_ref();
        let forced = forced.filter(|forced| forced.boot_id == boot_id);
        if let Some(forced) = forced {
            note(format!(
                "its shutdown hung for {} s, so `{}` had to end it; `journalctl -b -1` on the node says what hung",
                reached.node.boot.force_reboot_after.as_secs(),
                forced.by
            ));
        }
        match (outcome, plan.trial()) {
            (Outcome::Rejected, Some(trial)) => {
                // A reboot by force may have lost the trial on its way: that says nothing about the line.
                if forced.is_none() {
                    let note = script::note_rejected(
                        trial,
                        &self.claim.on(&reached.snapshot),
                        &nonce()?,
                    );
                    let limit = Duration::from_secs(60);
                    exec(&reached.session, "noting the rejection", &note, limit).await?;
                }
                return Err(NodeError::TrialRejected {
                    current: trial.folder.join("current/cmdline.txt").into_string(),
                });
            }
            (Outcome::Rejected, None) => note(
                "new boot files that somebody else had put there failed their trial; the node is on the old ones"
                    .to_owned(),
            ),
            (Outcome::Back, Some(_)) => {
                note("the trial boot passed: the node keeps the new command line".to_owned());
            }
            (Outcome::Back, None) => {}
        }
        self.in_effect(reached, plan)?;
        if drained {
            self.in_service(reached).await?;
        }
        self.reboots.failed.send_replace(None);
        Ok(())
    }

    /// What the reboot was for has to be so, before another node goes through the same.
    fn in_effect(&self, reached: &Reached, plan: &NodePlan) -> Result<(), NodeError> {
        let Reached { node, snapshot, .. } = reached;
        let again = self.plan_again(node, snapshot);
        let refused = again.refusals.iter().find(|it| it.layer == LayerName::Boot);
        let memory = self.goal == Goal::Converge
            && self.layers.contains(&LayerName::Boot)
            && node.boot.memory_cgroup
            && !snapshot.facts.cgroup_controllers.contains("memory");
        let missing = match (again.reboot(), refused) {
            (Some(reason), _) => reason,
            (None, Some(refusal)) => refusal.to_string(),
            (None, None) if memory => {
                "the memory controller is still missing from /sys/fs/cgroup/cgroup.controllers, and k3s does not start \
                 without it"
                    .to_owned()
            }
            (None, None) => return Ok(()),
        };
        let way_back = format!("the node takes SSH; {}", way_back(plan));
        Err(NodeError::NotInEffect { missing, way_back })
    }

    /// A reboot is proven by a changed boot_id; a node that still answers with the old one is still going down. A trial
    /// is over when the node has said what came of it, which may take it a second boot (domain.md §1.3).
    async fn come_back(
        &self,
        reached: &mut Reached,
        plan: &NodePlan,
        began: Instant,
    ) -> Result<Outcome, NodeError> {
        let limit = reached.node.boot.reboot_timeout.get();
        let mut questions = layer::questions(&self.inventory, &reached.node, &self.layers);
        questions.files.extend(boot::questions());
        let old_boot = reached.snapshot.facts.boot_id.clone();
        let waited = Trial::of(&boot::facts(&reached.snapshot)) == Trial::Waiting;
        let mut last_try = None;
        while began.elapsed() < limit {
            let attempt = async {
                let session = ssh::connect(&reached.target, &no_prompt()).await?;
                let snapshot = fleet::probe(&session, &questions).await?;
                Ok::<_, NodeError>((session, snapshot))
            };
            match attempt.await {
                Ok((_, snapshot)) if snapshot.facts.boot_id == old_boot => {
                    last_try = Some("it still runs the boot from before".to_owned());
                }
                Ok((session, snapshot)) => {
                    let wants_no_reboot =
                        || self.plan_again(&reached.node, &snapshot).reboot().is_none();
                    if let Some(outcome) = outcome(&snapshot, plan.trial(), waited, wants_no_reboot)
                    {
                        reached.session = session;
                        reached.snapshot = snapshot;
                        return Ok(outcome);
                    }
                    last_try = Some("its trial boot is not over".to_owned());
                }
                Err(error) => last_try = Some(error.chain()),
            }
            tokio::time::sleep(BETWEEN_TRIES).await;
        }
        let way_back = way_back(plan);
        Err(NodeError::NotBack {
            seconds: limit.as_secs(),
            last_try,
            way_back: format!("look at its screen or power-cycle it; {way_back}"),
        })
    }
}

/// How a reboot ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// The node is back; with a trial, it was passed.
    Back,
    /// The node is back on its old boot files.
    Rejected,
}

/// What became of a reboot; `None` while that is open. `waited`: boot files of somebody else's waited for their trial.
fn outcome(
    snapshot: &Snapshot,
    trial: Option<&TriedLine>,
    waited: bool,
    wants_no_reboot: impl Fn() -> bool,
) -> Option<Outcome> {
    let facts = boot::facts(snapshot);
    match Trial::of(&facts) {
        Trial::Rejected if trial.is_some() || waited => Some(Outcome::Rejected),
        Trial::Rejected => Some(Outcome::Back),
        Trial::UnderWay => None,
        // The first boot of two, unless the line is in force: then a kernel upgrade has made new boot files since.
        Trial::Waiting => wants_no_reboot().then_some(Outcome::Back),
        Trial::None if trial.is_some() && !Trial::is_passed(&facts) => None,
        Trial::None => Some(Outcome::Back),
    }
}

/// How a node comes back to its old command line by hand.
fn way_back(plan: &NodePlan) -> String {
    let changed = plan
        .changes
        .iter()
        .find(|change| change.id.kind == Kind::CommandLine);
    match (plan.trial(), changed) {
        (Some(trial), _) => format!(
            "a Pi without power forgets the trial and boots {}/current with the old command line",
            trial.folder
        ),
        (None, Some(change)) => format!(
            "the old command line is in {file}.selfheal-bak beside the new one (with the card in any PC, give it the name \
             of the other), and in /var/lib/selfheal/boot-backup",
            file = change.id.name
        ),
        (None, None) => "its boot files were not changed".to_owned(),
    }
}
