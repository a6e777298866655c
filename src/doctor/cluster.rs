//! What the API says: whether it answers, how it finds the nodes, and which pods do not come up. Only servers are asked;
//! what concerns an agent is taken from the visit to a server in the same run.

use jiff::Timestamp;
use serde_json::Value;

use super::finding::{Outcome, Verdict, graded};
use super::k3s::absent;
use super::patient::Patient;
use crate::inventory::{Node, Role};

/// Seconds from which the API is slow, and above which it is too slow.
const SLOW: f64 = 1.0;
const TOO_SLOW: f64 = 5.0;
/// Seconds that a node may be NotReady.
const NOT_READY: f64 = 300.0;
/// Seconds that a pod may take to start.
const STARTING: f64 = 600.0;
/// The kubelet's complaints.
const PRESSURES: [&str; 4] = [
    "MemoryPressure",
    "DiskPressure",
    "PIDPressure",
    "NetworkUnavailable",
];
/// Why a container waits that will not start by itself.
const STUCK: [&str; 7] = [
    "CrashLoopBackOff",
    "ImagePullBackOff",
    "ErrImagePull",
    "InvalidImageName",
    "CreateContainerError",
    "CreateContainerConfigError",
    "RunContainerError",
];

/// Nodes and pods, as a server told of them.
pub(super) struct View<'a> {
    /// The server.
    server: &'a Node,
    /// Its clock, in seconds since the epoch.
    clock: f64,
    items: Vec<Value>,
}

impl<'a> View<'a> {
    /// This node's own, else that of the first server that has one.
    pub(super) fn of(patient: &Patient<'a>) -> Option<View<'a>> {
        let own = patient
            .all
            .iter()
            .filter(|(node, _)| node.name == patient.node.name);
        let others = patient
            .all
            .iter()
            .filter(|(node, _)| node.name != patient.node.name);
        own.chain(others).find_map(|(server, measured)| {
            let text = measured
                .frame("doctor cluster")
                .filter(|text| !text.is_empty())?;
            let Value::Object(mut list) = serde_json::from_str(text).ok()? else {
                return None;
            };
            let Some(Value::Array(items)) = list.remove("items") else {
                return None;
            };
            let clock = measured
                .snapshot
                .facts
                .clock
                .map_or(0.0, |seconds| seconds as f64);
            Some(View {
                server,
                clock,
                items,
            })
        })
    }

    fn of_kind(&self, kind: &'static str) -> impl Iterator<Item = &Value> {
        self.items
            .iter()
            .filter(move |item| text(item, "/kind") == kind)
    }

    /// The Node of this name.
    pub(super) fn node(&self, node: &Node) -> Option<&Value> {
        self.of_kind("Node")
            .find(|item| text(item, "/metadata/name") == node.name.as_str())
    }

    /// Seconds since a time of the API's.
    fn since(&self, time: &str) -> Option<f64> {
        let time: Timestamp = time.parse().ok()?;
        Some(self.clock - time.as_second() as f64)
    }
}

fn text<'v>(value: &'v Value, pointer: &str) -> &'v str {
    value
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

fn list<'v>(value: &'v Value, pointer: &str) -> impl Iterator<Item = &'v Value> {
    value
        .pointer(pointer)
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
}

/// What stands in for the view when there is none.
fn no_view(patient: &Patient<'_>) -> Outcome {
    let server = |(node, _): &&(&Node, _)| node.role == Role::ControlPlane && node.k3s.install;
    match patient.all.iter().find(server) {
        Some((server, _)) => Outcome::unknown(
            format!("the API on {} does not tell", server.name),
            "see the check `api`; then run again",
        ),
        None => Outcome::skipped("no control plane was examined in this run: examine all nodes"),
    }
}

pub(super) fn api(patient: &Patient<'_>) -> Outcome {
    if let Some(skipped) = absent(patient) {
        return skipped;
    }
    if patient.node.role == Role::Worker {
        return Outcome::skipped("servers answer it");
    }
    let hint = "`sudo journalctl -u k3s.service -n 50`; a slow card and too little memory do this";
    let mut latencies = Vec::new();
    for line in patient.text("api").lines() {
        let mut words = line.splitn(5, ' ');
        let mut word = || words.next().unwrap_or_default();
        let (code, began, ended, milliseconds, said) = (word(), word(), word(), word(), word());
        if code != "0" {
            let why = if code == "124" {
                "no answer in 8 s"
            } else {
                said
            };
            return Outcome::fail(format!("/readyz: {why}"), hint);
        }
        // kubectl's own start is no latency of the API, where it tells the one from the other.
        let own = milliseconds.parse::<f64>().map(|number| number / 1000.0);
        let whole =
            || Ok::<f64, std::num::ParseFloatError>(ended.parse::<f64>()? - began.parse::<f64>()?);
        latencies.extend(own.or_else(|_| whole()));
    }
    let Some(slowest) = latencies.iter().copied().reduce(f64::max) else {
        return Outcome::unknown(
            "no /etc/rancher/k3s/k3s.yaml to ask with",
            "has k3s ever started here?",
        );
    };
    let evidence = format!(
        "/readyz is ok, {} times, {:.0} ms at most",
        latencies.len(),
        slowest * 1000.0
    );
    // An emulated processor takes its time.
    let slow = if patient.is_virtual() { TOO_SLOW } else { SLOW };
    match graded(slowest, slow, TOO_SLOW) {
        Verdict::Fail => Outcome::fail(evidence, hint),
        Verdict::Warn => Outcome::warn(evidence, hint),
        _ => Outcome::ok(evidence),
    }
}

pub(super) fn node(patient: &Patient<'_>) -> Outcome {
    if let Some(skipped) = absent(patient) {
        return skipped;
    }
    let Some(view) = View::of(patient) else {
        return no_view(patient);
    };
    let name = &patient.node.name;
    let Some(node) = view.node(patient.node) else {
        return Outcome::fail(
            format!("{} knows no node {name}", view.server.name),
            "it has not joined: see the check `k3s`, then `selfheal apply`",
        );
    };
    let condition =
        |kind: &str| list(node, "/status/conditions").find(|item| text(item, "/type") == kind);
    let ready = condition("Ready").map_or("", |ready| text(ready, "/status"));
    if ready != "True" {
        let since =
            condition("Ready").and_then(|ready| view.since(text(ready, "/lastTransitionTime")));
        let why = condition("Ready").map_or("", |ready| text(ready, "/message"));
        let evidence = match since {
            Some(seconds) => format!("NotReady for {:.0} min: {why}", seconds / 60.0),
            None => format!("NotReady: {why}"),
        };
        let hint = "see the checks `k3s` and `network`; its pods move away after 5 minutes";
        return match since {
            Some(seconds) if seconds <= NOT_READY => Outcome::warn(evidence, hint),
            _ => Outcome::fail(evidence, hint),
        };
    }
    let pressure = PRESSURES
        .into_iter()
        .find(|kind| condition(kind).is_some_and(|item| text(item, "/status") == "True"));
    if let Some(kind) = pressure {
        let why = condition(kind).map_or("", |item| text(item, "/message"));
        return Outcome::warn(
            format!("Ready, but {kind}: {why}"),
            "pods are evicted: give it less work, or more room",
        );
    }
    if node.pointer("/spec/unschedulable") == Some(&Value::Bool(true)) {
        return Outcome::warn(
            "Ready, but cordoned: no new pod comes",
            format!("`sudo k3s kubectl uncordon {name}`, unless somebody works on it"),
        );
    }
    Outcome::ok(format!(
        "Ready, without pressure (says {})",
        view.server.name
    ))
}

pub(super) fn pods(patient: &Patient<'_>) -> Outcome {
    if let Some(skipped) = absent(patient) {
        return skipped;
    }
    let Some(view) = View::of(patient) else {
        return no_view(patient);
    };
    // What no node has taken yet is said of the server that was asked.
    let is_here = |pod: &&Value| match text(pod, "/spec/nodeName") {
        "" => view.server.name == patient.node.name,
        name => name == patient.node.name.as_str(),
    };
    let (mut count, mut found) = (0, Vec::new());
    for pod in view.of_kind("Pod").filter(is_here) {
        count += 1;
        if let Some(why) = trouble(&view, pod) {
            let namespace = text(pod, "/metadata/namespace");
            found.push((
                namespace != "kube-system",
                format!("{namespace}/{}: {why}", text(pod, "/metadata/name")),
            ));
        }
    }
    found.sort();
    let Some((first, _)) = found.first() else {
        return Outcome::ok(format!("{count} pods, none in trouble"));
    };
    let shown: Vec<&str> = found
        .iter()
        .take(5)
        .map(|(_, shown)| shown.as_str())
        .collect();
    let more = found.len() - shown.len();
    let more = if more > 0 {
        format!(", and {more} more")
    } else {
        String::new()
    };
    let evidence = format!("{}{more}", shown.join(", "));
    let hint = "`sudo k3s kubectl describe pod -n NAMESPACE NAME` on the control plane; of ghosts, the check `ghosts`";
    if *first {
        Outcome::warn(evidence, hint)
    } else {
        Outcome::fail(evidence, hint)
    }
}

/// Why a pod does not run, if it should.
fn trouble(view: &View<'_>, pod: &Value) -> Option<String> {
    let phase = text(pod, "/status/phase");
    if matches!(phase, "Failed" | "Succeeded") {
        let evicted = text(pod, "/status/reason") == "Evicted";
        return evicted.then(|| "Evicted".to_owned());
    }
    let statuses =
        list(pod, "/status/initContainerStatuses").chain(list(pod, "/status/containerStatuses"));
    let waiting: Vec<&str> = statuses
        .map(|status| text(status, "/state/waiting/reason"))
        .collect();
    if let Some(reason) = waiting.iter().find(|reason| STUCK.contains(*reason)) {
        return Some((*reason).to_owned());
    }
    let starts = waiting.iter().find(|reason| !reason.is_empty());
    if phase != "Pending" && starts.is_none() {
        return None;
    }
    let ready = list(pod, "/status/conditions").find(|item| text(item, "/type") == "Ready");
    let since = ready.map_or("", |ready| text(ready, "/lastTransitionTime"));
    let since = view
        .since(since)
        .or_else(|| view.since(text(pod, "/metadata/creationTimestamp")))?;
    let what = starts.copied().unwrap_or(phase);
    (since > STARTING).then(|| format!("{what} for {:.0} min", since / 60.0))
}
