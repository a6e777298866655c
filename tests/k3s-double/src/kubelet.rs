//! A small kubelet: every pod of this node is a real sandbox with real containers in containerd.
//!
//! It makes the kubelet's decisions where they matter for what a power cut leaves behind: which attempt a sandbox gets
//! (`attempt`), that the dead sandboxes of a pod are stopped before a new one is run, and that a failure of that blocks
//! the pod; and it cleans up as lazily (`garbage`).

mod attempt;
mod garbage;
mod pod;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::api::objects;
use crate::client::Client;
use crate::cri::{Container, Cri, PodSandbox};
use crate::{log, place};

/// How often it looks at its pods, tells that it lives, and collects garbage.
const LOOK: Duration = Duration::from_secs(1);
const TELL: Duration = Duration::from_secs(3);
const COLLECT: Duration = Duration::from_secs(60);
/// The longest that running a sandbox may take, as for the kubelet.
const CRI_LIMIT: Duration = Duration::from_secs(240);
/// A containerd that does not answer counts as down after so long, as for the kubelet.
const RUNTIME_DOWN: Duration = Duration::from_secs(30);

pub const POD_UID: &str = "io.kubernetes.pod.uid";
pub const POD_NAME: &str = "io.kubernetes.pod.name";
pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
pub const CONTAINER_NAME: &str = "io.kubernetes.container.name";

pub struct Kubelet {
    cri: Cri,
    client: Client,
    node: String,
    address: String,
    /// Of the Kubernetes that it is.
    minor: u32,
    workers: RefCell<BTreeMap<String, Worker>>,
}

/// Whoever is at work on a pod, and when it may be tried again after a failure.
#[derive(Debug, Clone, Copy)]
struct Worker {
    busy: bool,
    next: Instant,
    delay: Duration,
}

/// What containerd has.
pub struct Found {
    pub sandboxes: Vec<PodSandbox>,
    pub containers: Vec<Container>,
}

impl Found {
    fn sandboxes_of(&self, uid: &str) -> Vec<PodSandbox> {
        let all = self.sandboxes.iter();
        all.filter(|sandbox| sandbox.pod().uid == uid)
            .cloned()
            .collect()
    }

    fn containers_of(&self, uid: &str) -> Vec<Container> {
        let all = self.containers.iter();
        all.filter(|container| container.labels.get(POD_UID).is_some_and(|of| of == uid))
            .cloned()
            .collect()
    }
}

impl Kubelet {
    pub fn new(cri: Cri, client: Client, node: String, address: String, minor: u32) -> Rc<Self> {
        Rc::new(Self {
            cri: cri.within(CRI_LIMIT),
            client,
            node,
            address,
            minor,
            workers: RefCell::default(),
        })
    }

    /// Starts it in this thread.
    pub fn start(self: &Rc<Self>, info: Value) {
        let (teller, worker) = (Rc::clone(self), Rc::clone(self));
        tokio::task::spawn_local(async move { teller.tell(info).await });
        tokio::task::spawn_local(async move { worker.work().await });
    }

    /// Tells the API again and again that this node lives.
    async fn tell(&self, info: Value) {
        let path = format!("/v1-k3s/alive/{}", self.node);
        let cri = self.cri.within(Duration::from_secs(5));
        let mut answered: Option<Instant> = None;
        loop {
            let missing = match cri.conditions().await {
                Ok(conditions) => {
                    answered = Some(Instant::now());
                    let mut conditions = conditions.into_iter();
                    conditions
                        .find(|condition| !condition.status)
                        .map(|condition| condition.message)
                }
                Err(error) => answered
                    .is_none_or(|at| at.elapsed() > RUNTIME_DOWN)
                    .then(|| format!("container runtime is down: {error}")),
            };
            let message = json!({
                "ready": missing.is_none(),
                "message": missing,
                "info": info,
                "addresses": [
                    { "type": "InternalIP", "address": self.address },
                    { "type": "Hostname", "address": self.node },
                ],
            });
            if let Err(error) = self.client.post(&path, &message).await {
                log::kubelet_error(
                    "kubelet_node_status.go:548",
                    "Error updating node status, will retry",
                    error,
                    "",
                );
            }
            sleep(TELL).await;
        }
    }

    async fn work(self: &Rc<Self>) {
        let mut collected = Instant::now();
        loop {
            if let Err(error) = self.look(&mut collected).await {
                log::kubelet_error("kubelet.go:2593", "Cannot look after pods", error, "");
            }
            sleep(LOOK).await;
        }
    }

    async fn look(self: &Rc<Self>, collected: &mut Instant) -> Result<()> {
        let asked = Instant::now();
        let path = format!("/api/v1/pods?fieldSelector=spec.nodeName={}", self.node);
        let pods = self.client.get(&path).await?;
        let pods = pods["items"].as_array().cloned().unwrap_or_default();
        let found = Rc::new(Found {
            sandboxes: self.cri.sandboxes().await?,
            containers: self.cri.containers().await?,
        });
        for pod in &pods {
            self.give_to_worker(pod.clone(), &found, asked);
        }
        let known: BTreeSet<String> = pods.iter().map(|pod| uid(pod).to_owned()).collect();
        self.workers
            .borrow_mut()
            .retain(|uid, worker| worker.busy || known.contains(uid));
        let kept = |uid: &str| known.contains(uid) || self.workers.borrow().contains_key(uid);
        for sandbox in &found.sandboxes {
            let pod = sandbox.pod();
            if sandbox.is_ready() && !kept(&pod.uid) {
                self.stop(sandbox).await;
            }
        }
        forget_folders(&kept);
        if collected.elapsed() > COLLECT {
            *collected = Instant::now();
            self.collect_garbage(&found, &known).await;
        }
        Ok(())
    }

    /// Each pod has at most one worker, so that one that hangs keeps no other waiting.
    fn give_to_worker(self: &Rc<Self>, pod: Value, found: &Rc<Found>, asked: Instant) {
        let uid = uid(&pod).to_owned();
        let mut workers = self.workers.borrow_mut();
        let worker = workers.entry(uid.clone()).or_insert(Worker {
            busy: false,
            next: asked,
            delay: Duration::from_secs(1),
        });
        if worker.busy || worker.next > asked {
            return;
        }
        worker.busy = true;
        let (kubelet, found) = (Rc::clone(self), Rc::clone(found));
        tokio::task::spawn_local(async move {
            let result = kubelet.sync(&pod, &found).await;
            let title = title(&pod);
            if let Err(error) = &result {
                let file = "pod_workers.go:1324";
                log::kubelet_error(
                    file,
                    "Error syncing pod, skipping",
                    format!("{error:#}"),
                    &title,
                );
            }
            if let Some(worker) = kubelet.workers.borrow_mut().get_mut(&uid) {
                worker.busy = false;
                worker.delay = match result {
                    Ok(()) => Duration::from_secs(1),
                    Err(_) => (worker.delay * 2).min(Duration::from_secs(20)),
                };
                // What was asked for before that is not true any more.
                worker.next = Instant::now() + worker.delay;
            }
        });
    }

    async fn stop(&self, sandbox: &PodSandbox) -> bool {
        let stopped = self.cri.stop_sandbox(&sandbox.id).await;
        if let Err(error) = &stopped {
            let pod = sandbox.pod();
            log::kubelet_error(
                "kuberuntime_manager.go:1679",
                "Failed to stop sandbox",
                format!("podSandboxID={:?} {error:#}", sandbox.id),
                &format!("{}/{}", pod.namespace, pod.name),
            );
        }
        stopped.is_ok()
    }

    async fn event(&self, pod: &Value, reason: &str, message: &str) {
        let namespace = objects::namespace(pod);
        let number = jiff::Timestamp::now().as_nanosecond();
        let event = json!({
            "metadata": { "name": format!("{}.{number:x}", objects::name(pod)) },
            "type": "Warning", "reason": reason, "message": message, "count": 1,
            "lastTimestamp": objects::now(),
            "source": { "component": "kubelet", "host": self.node },
            "involvedObject": {
                "kind": "Pod", "namespace": namespace, "name": objects::name(pod), "uid": uid(pod),
            },
        });
        // Only told, never relied on.
        let _ = self
            .client
            .post(&format!("/api/v1/namespaces/{namespace}/events"), &event)
            .await;
    }
}

pub fn uid(pod: &Value) -> &str {
    pod["metadata"]["uid"].as_str().unwrap_or_default()
}

fn title(pod: &Value) -> String {
    format!("{}/{}", objects::namespace(pod), objects::name(pod))
}

/// Removes the folders of pods that are not this node's any more.
fn forget_folders(kept: &impl Fn(&str) -> bool) {
    for entry in fs::read_dir(place::PODS).into_iter().flatten().flatten() {
        let uid = entry.file_name();
        if !kept(&uid.to_string_lossy()) {
            let _ = fs::remove_dir_all(Path::new(place::PODS).join(uid));
        }
    }
}
