//! Reboots: one node at a time, workers first, each proven by a new boot_id.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, MutexGuard, watch};

use super::{Run, exec, no_prompt, script};
use crate::fleet::{self, NodeError, Reached, nonce};
use crate::inventory::{NodeName, Role};
use crate::layer;
use crate::report::Event;
use crate::ssh;

/// Pause between two tries to reach a node that boots.
const BETWEEN_TRIES: Duration = Duration::from_secs(1);

/// Who reboots when: one node at a time, control planes once no worker is left that may reboot. After a node that did
/// not come back, nobody does.
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
    /// Reboots a node in its turn and connects to it again.
    pub(super) async fn reboot(
        &self,
        reached: &mut Reached,
        reason: &str,
    ) -> Result<(), NodeError> {
        let node = reached.node.name.clone();
        let _turn = self.turn(reached).await?;
        self.go_on()?;
        self.events.send(Event::Rebooting {
            node: node.to_string(),
            reason: reason.to_owned(),
        });
        let began = Instant::now();
        let order = script::reboot(&self.claim.on(&reached.snapshot), &nonce()?);
        exec(&reached.session, "reboot", &order, Duration::from_secs(60)).await?;
        let back = self.come_back(reached, began).await;
        if back.is_err() {
            self.reboots.failed.send_replace(Some(node.clone()));
        }
        back?;
        self.events.send(Event::Rebooted {
            node: node.to_string(),
            took: began.elapsed(),
        });
        Ok(())
    }

    /// Waits for the turn, and keeps the lease alive meanwhile.
    async fn turn(&self, reached: &Reached) -> Result<MutexGuard<'_, ()>, NodeError> {
        let turn = self.reboots.turn(&reached.node.name, reached.node.role);
        tokio::pin!(turn);
        let mut renewals = tokio::time::interval(Duration::from_secs(script::BETWEEN_STEPS / 3));
        renewals.tick().await;
        let mut told = false;
        loop {
            tokio::select! {
                turn = &mut turn => return turn,
                _ = renewals.tick() => {
                    if !told {
                        let what = "its turn to reboot".to_owned();
                        self.events.send(Event::Waiting { node: reached.node.name.to_string(), what });
                        told = true;
                    }
                    let renew = script::renew(&self.claim.on(&reached.snapshot), &nonce()?);
                    exec(&reached.session, "renewing the lease", &renew, Duration::from_secs(60)).await?;
                }
            }
        }
    }

    /// A reboot is proven by a changed boot_id; a node that still answers with the old one is still going down.
    async fn come_back(&self, reached: &mut Reached, began: Instant) -> Result<(), NodeError> {
        let limit = reached.node.boot.reboot_timeout.get();
        let questions = layer::questions(&self.inventory, &reached.node, &self.layers);
        let mut last_try = None;
        while began.elapsed() < limit {
            let attempt = async {
                let session = ssh::connect(&reached.target, &no_prompt()).await?;
                let snapshot = fleet::probe(&session, &questions).await?;
                Ok::<_, NodeError>((session, snapshot))
            };
            match attempt.await {
                Ok((session, snapshot))
                    if snapshot.facts.boot_id != reached.snapshot.facts.boot_id =>
                {
                    reached.session = session;
                    reached.snapshot = snapshot;
                    return Ok(());
                }
                Ok(_) => last_try = Some("it still runs the boot from before".to_owned()),
                Err(error) => last_try = Some(error.chain()),
            }
            tokio::time::sleep(BETWEEN_TRIES).await;
        }
        Err(NodeError::NotBack {
            seconds: limit.as_secs(),
            last_try,
        })
    }
}
