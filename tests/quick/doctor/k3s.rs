//! The checks of k3s, of what brings it back, and of Longhorn's ground.

use selfheal::doctor::Outcome;
use selfheal::doctor::Verdict::{self, Fail, Ok, Skipped, Unknown, Warn};
use selfheal::doctor::check::Check;
use selfheal::doctor::{Patient, judge};

use super::{
    CLUSTER, Frames, K3S_FILES, NOW, healthy, inventory, leases, measured, outcome, units_of_k3s,
    worker,
};

/// Made on 22 November 2026 for 365 days, 10,000, 100 and 20.
pub const YEAR: &str = include_str!("../../fixtures/certificates/year.pem");
pub const DECADES: &str = include_str!("../../fixtures/certificates/decades.pem");
const SPRING: &str = include_str!("../../fixtures/certificates/spring.pem");
const SOON: &str = include_str!("../../fixtures/certificates/soon.pem");

#[track_caller]
fn is(outcome: &Outcome, verdict: Verdict, evidence: &str) {
    assert_eq!(outcome.verdict, verdict, "{outcome:?}");
    assert!(outcome.evidence.contains(evidence), "{outcome:?}");
    assert_eq!(outcome.hint.is_some(), verdict.is_trouble(), "{outcome:?}");
}

/// Of jarvis, with these frames over healthy ones.
#[track_caller]
fn says(check: Check, frames: &[(&str, &str)], verdict: Verdict, evidence: &str) {
    is(&outcome(check, "", frames), verdict, evidence);
}

/// Of both, as they are given.
fn of_both(check: Check, jarvis: &Frames, ultron: &Frames) -> [Outcome; 2] {
    let inventory = inventory("");
    let (jarvis, ultron) = (measured(jarvis, None), measured(ultron, None));
    let all = [
        (&inventory.nodes[0], &jarvis),
        (&inventory.nodes[1], &ultron),
    ];
    all.map(|(node, measured)| {
        let patient = Patient {
            node,
            versions: &inventory.versions,
            measured,
            all: &all,
        };
        judge(check, &patient)
    })
}

fn with(mut frames: Frames, name: &str, text: &str) -> Frames {
    frames.insert(name.to_owned(), text.to_owned());
    frames
}

const ALL: [Check; 12] = [
    Check::ClockGate,
    Check::K3s,
    Check::K3sVersion,
    Check::Api,
    Check::ClusterNode,
    Check::Certificates,
    Check::K3sSecrets,
    Check::Datastore,
    Check::Guard,
    Check::Ghosts,
    Check::Leases,
    Check::Pods,
];

const UNITS: &str = "doctor k3s-units";

#[test]
fn two_healthy_nodes_have_no_trouble() {
    for check in Check::ALL {
        for outcome in of_both(check, &healthy(), &worker()) {
            assert!(!outcome.verdict.is_trouble(), "{}: {outcome:?}", check.id());
        }
    }
}

#[test]
fn without_k3s_there_is_nothing_to_check_but_that() {
    let off = "[k3s]\ninstall = false\n";
    for check in ALL.into_iter().chain([Check::Iscsi]) {
        is(&outcome(check, off, &[]), Skipped, "inventory");
    }
    let gone = units_of_k3s("none");
    for check in ALL {
        let outcome = outcome(check, "", &[(UNITS, &gone)]);
        match check {
            Check::K3s => is(&outcome, Fail, "there is no k3s.service"),
            _ => is(&outcome, Skipped, "not installed here yet"),
        }
    }
    says(
        Check::K3s,
        &[(UNITS, "")],
        Unknown,
        "systemd does not answer",
    );
}

#[test]
fn the_unit() {
    let jarvis = |pairs: &[(&str, &str)]| {
        let units = units_of_k3s("k3s.service");
        let (unit, rest) = units.split_once("\n\n").unwrap();
        let unit = pairs.iter().fold(unit.to_owned(), |unit, (key, value)| {
            let line = unit
                .lines()
                .find(|line| line.starts_with(&format!("{key}=")))
                .unwrap()
                .to_owned();
            unit.replace(&line, &format!("{key}={value}"))
        });
        format!("{unit}\n\n{rest}")
    };
    let now = "86300000000";
    let units = jarvis(&[("NRestarts", "3"), ("ActiveEnterTimestampMonotonic", now)]);
    says(Check::K3s, &[(UNITS, &units)], Warn, "restarts: 3");
    let units = jarvis(&[("NRestarts", "9"), ("ActiveEnterTimestampMonotonic", now)]);
    says(Check::K3s, &[(UNITS, &units)], Fail, "restarts: 9");
    // They are a day old.
    says(
        Check::K3s,
        &[(UNITS, &jarvis(&[("NRestarts", "9")]))],
        Ok,
        "active",
    );
    let units = jarvis(&[
        ("ActiveState", "activating"),
        ("SubState", "auto-restart"),
        ("Result", "exit-code"),
    ]);
    says(Check::K3s, &[(UNITS, &units)], Fail, "auto-restart");
    let units = jarvis(&[("ActiveState", "activating"), ("SubState", "start")]);
    says(Check::K3s, &[(UNITS, &units)], Warn, "activating (start)");
    let units = jarvis(&[("ActiveState", "failed"), ("SubState", "failed")]);
    says(
        Check::K3s,
        &[(UNITS, &units)],
        Fail,
        "k3s.service is failed",
    );
    let units = jarvis(&[("ActiveState", "inactive")]);
    says(
        Check::K3s,
        &[(UNITS, &units), ("doctor safe-mode", "yes\n5 bad ends")],
        Fail,
        "safe mode",
    );
    says(
        Check::K3s,
        &[(UNITS, &jarvis(&[("UnitFileState", "disabled")]))],
        Warn,
        "not enabled",
    );

    says(
        Check::ClockGate,
        &[(UNITS, &jarvis(&[("After", "basic.target")]))],
        Fail,
        "does not wait",
    );
    says(
        Check::Guard,
        &[(UNITS, &jarvis(&[("ExecStartPre", "")]))],
        Fail,
        "without it",
    );
}

#[test]
fn versions() {
    const VERSION: &str = "doctor k3s-version";
    let line = |version: &str| format!("k3s version {version} (abc)\ngo version go1");
    for (version, verdict, evidence) in [
        (
            "v1.36.4+k3s1",
            Warn,
            "v1.36.4+k3s1, the inventory wants v1.36.3+k3s1",
        ),
        ("v1.36.2+k3s1", Warn, "v1.36.2"),
        (
            "v1.37.0+k3s1",
            Fail,
            "v1.37.0+k3s1 here, v1.36.3+k3s1 on ultron",
        ),
        ("v1.34.9+k3s1", Fail, "makes ghosts before 1.35"),
        ("nonsense", Unknown, "says nothing"),
    ] {
        says(
            Check::K3sVersion,
            &[(VERSION, &line(version))],
            verdict,
            evidence,
        );
    }
    says(Check::K3sVersion, &[(VERSION, "")], Unknown, "says nothing");
    // What the inventory asks for is a warning.
    let settings = "[versions]\nk3s = \"v1.34.9+k3s1\"\n";
    is(
        &outcome(
            Check::K3sVersion,
            settings,
            &[(VERSION, &line("v1.34.9+k3s1"))],
        ),
        Warn,
        "as the inventory has it",
    );
    let newer = line("v1.37.1+k3s1");
    let both = of_both(
        Check::K3sVersion,
        &with(healthy(), VERSION, &newer),
        &with(worker(), VERSION, &newer),
    );
    is(&both[1], Fail, "the inventory wants v1.36.3+k3s1");
    let patch = line("v1.36.4+k3s1");
    let [jarvis, ultron] = of_both(
        Check::K3sVersion,
        &healthy(),
        &with(worker(), VERSION, &patch),
    );
    is(&jarvis, Warn, "v1.36.4+k3s1 on ultron");
    is(&ultron, Warn, "the inventory wants");
}

#[test]
fn the_api() {
    const API: &str = "doctor api";
    says(Check::Api, &[], Ok, "5 times, 14 ms at most");
    says(
        Check::Api,
        &[(API, "0 10.00 10.50 14 ok\n0 20.00 23.50 - ok")],
        Warn,
        "3500 ms",
    );
    says(
        Check::Api,
        &[(API, "0 10.00 10.50 6100 ok")],
        Fail,
        "6100 ms",
    );
    says(
        Check::Api,
        &[(
            API,
            "0 10.00 10.50 6 ok\n1 11.00 11.90 - The connection was refused",
        )],
        Fail,
        "was refused",
    );
    says(
        Check::Api,
        &[(API, "124 10.00 18.00 - ")],
        Fail,
        "no answer in 8 s",
    );
    says(Check::Api, &[(API, "")], Unknown, "k3s.yaml");
    is(
        &of_both(Check::Api, &healthy(), &worker())[1],
        Skipped,
        "servers",
    );
}

fn time(seconds: u64) -> String {
    jiff::Timestamp::from_second((NOW - seconds).try_into().unwrap())
        .unwrap()
        .to_string()
}

#[test]
fn nodes_as_the_cluster_sees_them() {
    const FRAME: &str = "doctor cluster";
    let ready = r#"{"type": "Ready", "status": "True"}]}},
    {"kind": "Pod""#;
    assert!(CLUSTER.contains(ready));
    let ultron_is = |condition: &str| {
        let text = CLUSTER.replace(
            ready,
            &format!("{condition}]}}}},\n    {{\"kind\": \"Pod\""),
        );
        of_both(
            Check::ClusterNode,
            &with(healthy(), FRAME, &text),
            &worker(),
        )
    };
    let not_ready = |seconds| {
        let since = time(seconds);
        format!(
            r#"{{"type": "Ready", "status": "Unknown", "message": "no word", "lastTransitionTime": "{since}"}}"#
        )
    };
    let [jarvis, ultron] = ultron_is(&not_ready(120));
    is(&jarvis, Ok, "Ready");
    is(&ultron, Warn, "NotReady for 2 min: no word");
    is(&ultron_is(&not_ready(3600))[1], Fail, "NotReady for 60 min");
    let pressure = r#"{"type": "Ready", "status": "True"}, {"type": "DiskPressure", "status": "True", "message": "full"}"#;
    is(&ultron_is(pressure)[1], Warn, "DiskPressure: full");
    let cordoned = CLUSTER.replacen("\"spec\": {}", "\"spec\": {\"unschedulable\": true}", 1);
    says(Check::ClusterNode, &[(FRAME, &cordoned)], Warn, "cordoned");
    let unknown = CLUSTER.replace("\"name\": \"ultron\"", "\"name\": \"other\"");
    let both = of_both(
        Check::ClusterNode,
        &with(healthy(), FRAME, &unknown),
        &worker(),
    );
    is(&both[1], Fail, "jarvis knows no node ultron");
    for text in ["", "{", "{\"items\": 7}"] {
        says(
            Check::ClusterNode,
            &[(FRAME, text)],
            Unknown,
            "jarvis does not tell",
        );
    }
    // Alone, a worker has nobody to tell of it.
    let inventory = inventory("");
    let ultron = measured(&worker(), None);
    let all = [(&inventory.nodes[1], &ultron)];
    let patient = Patient {
        node: all[0].0,
        versions: &inventory.versions,
        measured: &ultron,
        all: &all,
    };
    for check in [Check::ClusterNode, Check::Pods] {
        is(
            &judge(check, &patient),
            Skipped,
            "no control plane was examined",
        );
    }
}

#[test]
fn pods_that_do_not_come_up() {
    const FRAME: &str = "doctor cluster";
    let with_pod = |namespace: &str, node: &str, created: u64, status: &str| {
        let pod = format!(
            r#"{{"kind": "Pod", "metadata": {{"name": "web", "namespace": "{namespace}", "creationTimestamp": "{}"}},
            "spec": {{"nodeName": "{node}"}}, "status": {status}}}, {{"kind": "Pod""#,
            time(created)
        );
        CLUSTER.replacen("{\"kind\": \"Pod\"", &pod, 1)
    };
    let creating = r#"{"phase": "Pending", "containerStatuses": [{"state": {"waiting": {"reason": "ContainerCreating"}}}]}"#;
    let crashing = r#"{"phase": "Running", "containerStatuses": [{"state": {"waiting": {"reason": "CrashLoopBackOff"}}}]}"#;
    for (text, verdict, evidence) in [
        (
            with_pod("default", "jarvis", 1200, creating),
            Warn,
            "default/web: ContainerCreating for 20 min",
        ),
        (
            with_pod("default", "jarvis", 60, creating),
            Ok,
            "2 pods, none in trouble",
        ),
        (
            with_pod("default", "jarvis", 60, crashing),
            Warn,
            "default/web: CrashLoopBackOff",
        ),
        (
            with_pod("kube-system", "jarvis", 60, crashing),
            Fail,
            "kube-system/web",
        ),
        (
            with_pod(
                "default",
                "jarvis",
                9,
                r#"{"phase": "Failed", "reason": "Evicted"}"#,
            ),
            Warn,
            "Evicted",
        ),
        (
            with_pod("default", "", 1200, r#"{"phase": "Pending"}"#),
            Warn,
            "Pending for 20 min",
        ),
        (
            with_pod("default", "ultron", 1200, creating),
            Ok,
            "1 pods, none in trouble",
        ),
    ] {
        says(Check::Pods, &[(FRAME, &text)], verdict, evidence);
    }
    let text = with_pod("default", "ultron", 1200, creating);
    let both = of_both(Check::Pods, &with(healthy(), FRAME, &text), &worker());
    is(&both[1], Warn, "default/web");
    // After a reboot what counts is since when it is not ready, not when it was made.
    let recent = creating.replace("\"phase\"", &format!(r#""conditions": [{{"type": "Ready", "status": "False", "lastTransitionTime": "{}"}}], "phase""#, time(60)));
    says(
        Check::Pods,
        &[(FRAME, &with_pod("default", "jarvis", 90_000, &recent))],
        Ok,
        "none in trouble",
    );
}

#[test]
fn certificates() {
    const PATH: &str = "doctor certificate /var/lib/rancher/k3s/agent/client-kubelet.crt";
    says(
        Check::Certificates,
        &[],
        Ok,
        "2 certificates, the first ends in 3",
    );
    says(
        Check::Certificates,
        &[(PATH, SPRING)],
        Warn,
        "agent/client-kubelet.crt",
    );
    says(Check::Certificates, &[(PATH, SOON)], Fail, "3 certificates");
    let late = NOW + 60 * 86_400;
    says(
        Check::Certificates,
        &[(PATH, SOON), ("fact clock", &late.to_string())],
        Fail,
        "ended 3",
    );
    for broken in [
        "",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----",
        "MIIB",
    ] {
        says(
            Check::Certificates,
            &[(PATH, broken)],
            Unknown,
            "no certificate that can be read",
        );
    }
    let mut none = healthy();
    none.retain(|name, _| !name.starts_with("doctor certificate"));
    is(
        &of_both(Check::Certificates, &none, &worker())[0],
        Unknown,
        "no certificate",
    );
}

#[test]
fn secrets_and_the_node_password() {
    const FILES: &str = "doctor k3s-files";
    let token = |mode: &str| K3S_FILES.replace("600 root 110", &format!("{mode} root 110"));
    says(
        Check::K3sSecrets,
        &[(FILES, &token("644"))],
        Fail,
        "readable by everybody: /var/lib/rancher/k3s/server/token (0644)",
    );
    says(
        Check::K3sSecrets,
        &[(FILES, &token("640"))],
        Warn,
        "by a group",
    );
    let without = |path: &str| {
        K3S_FILES
            .lines()
            .filter(|line| !line.ends_with(path))
            .collect::<Vec<_>>()
            .join("\n")
    };
    says(
        Check::K3sSecrets,
        &[(FILES, &without("server/token"))],
        Warn,
        "there is no /var/lib/rancher/k3s/server/token",
    );
    says(
        Check::K3sSecrets,
        &[(FILES, &without("node/password"))],
        Fail,
        "the cluster knows jarvis, but",
    );
    let [_, ultron] = of_both(Check::K3sSecrets, &healthy(), &with(worker(), FILES, ""));
    is(&ultron, Fail, "the cluster knows ultron");
    let line = "1795000000.1 ultron k3s[9]: Node password rejected, duplicate hostname or contents";
    let [_, ultron] = of_both(
        Check::K3sSecrets,
        &healthy(),
        &with(worker(), "doctor k3s-log", line),
    );
    is(&ultron, Fail, "Node password rejected");
}

#[test]
fn the_datastore() {
    const FILES: &str = "doctor k3s-files";
    let grown = |from: &str, to: &str| K3S_FILES.replace(from, to);
    says(
        Check::Datastore,
        &[],
        Ok,
        "state.db: 9.0 MB, its log: 4.0 MB",
    );
    says(
        Check::Datastore,
        &[(FILES, &grown("9000000", "1500000000"))],
        Warn,
        "1500.0 MB",
    );
    says(
        Check::Datastore,
        &[(FILES, &grown("9000000", "3000000000"))],
        Fail,
        "3000.0 MB",
    );
    says(
        Check::Datastore,
        &[(FILES, &grown("4000000", "900000000"))],
        Warn,
        "its log: 900.0 MB",
    );
    let etcd = "600 root 20480000 /var/lib/rancher/k3s/server/db/etcd/member/snap/db";
    says(Check::Datastore, &[(FILES, etcd)], Ok, "snap/db: 20.5 MB");
    says(
        Check::Datastore,
        &[(FILES, "")],
        Unknown,
        "neither state.db nor etcd",
    );
    is(
        &of_both(Check::Datastore, &healthy(), &worker())[1],
        Skipped,
        "worker",
    );
}

#[test]
fn the_guard_and_the_clock_gate() {
    const LAST: &str = "doctor last-guard";
    says(
        Check::Guard,
        &[],
        Ok,
        "after an unclean end: /var/lib/cni set aside as /var/lib/cni.stale-1, 40 ms",
    );
    says(
        Check::Guard,
        &[("doctor scripts", "clock\nreap")],
        Fail,
        "guard is not there",
    );
    says(
        Check::Guard,
        &[("doctor verify", "k3s.service:9: Unknown key")],
        Warn,
        "Unknown key",
    );
    says(
        Check::Guard,
        &[
            (LAST, "boot_id b4\nunclean no\ncni x\nms 9"),
            ("doctor guard-outcome", "late"),
        ],
        Warn,
        "came to: late",
    );
    says(
        Check::Guard,
        &[(LAST, "boot_id b4"), ("doctor guard-outcome", "")],
        Warn,
        "has not acted in this boot",
    );
    says(
        Check::Guard,
        &[(LAST, ""), ("doctor guard-outcome", "live")],
        Ok,
        "pods lived",
    );
    says(
        Check::Guard,
        &[(LAST, "boot_id b5\noperator meta.db is damaged or empty")],
        Fail,
        "meta.db is damaged",
    );

    const GATE: &str = "doctor clock-gate";
    says(Check::ClockGate, &[], Ok, "synchronised, after 4 s");
    says(
        Check::ClockGate,
        &[(GATE, "boot_id b5\noutcome failed\nwaited 180")],
        Warn,
        "before a time already seen",
    );
    says(
        Check::ClockGate,
        &[(GATE, "boot_id b4\noutcome failed")],
        Ok,
        "not acted in this boot",
    );
    let units = units_of_k3s("k3s.service").replace(
        "Id=selfheal-clock.service\nLoadState=loaded",
        "Id=selfheal-clock.service\nLoadState=not-found",
    );
    says(
        Check::ClockGate,
        &[(UNITS, &units)],
        Fail,
        "no selfheal-clock.service",
    );
}

#[test]
fn ghosts_and_leases() {
    const GHOSTS: &str = "doctor ghosts";
    let id = "f".repeat(64);
    let one = format!("before sandboxes 4 ready 3 ghosts 1\nghost {id} default/web gone\nexit 1");
    says(
        Check::Ghosts,
        &[(GHOSTS, &one)],
        Warn,
        "1: default/web (gone, ffffffffffff)",
    );
    let stuck = format!("stuck {id}\nbefore sandboxes 3 ready 3 ghosts 0\nexit 1");
    says(
        Check::Ghosts,
        &[(GHOSTS, &stuck)],
        Fail,
        "kept in containerd's memory: ffffffffffff",
    );
    let wanted = "1795000000.2 jarvis k3s[1]: failed to reserve sandbox name \"web_default\": name is reserved for \"ff\"";
    says(
        Check::Ghosts,
        &[("doctor k3s-log", wanted)],
        Fail,
        "is reserved for",
    );
    says(
        Check::Ghosts,
        &[(
            GHOSTS,
            "containerd does not answer: is k3s running?\nexit 3",
        )],
        Unknown,
        "containerd does not answer",
    );
    says(
        Check::Ghosts,
        &[(GHOSTS, "")],
        Unknown,
        "not there to be asked",
    );

    const LEASES: &str = "doctor leases";
    says(Check::Leases, &[], Ok, "2 addresses, each of a sandbox");
    let leaked = format!("lease 10.42.0.9 {id}\n{}", leases());
    says(
        Check::Leases,
        &[(LEASES, &leaked)],
        Warn,
        "1 of 3 addresses belong to no sandbox: 10.42.0.9",
    );
    let empty = format!("empty /var/lib/cni/results/cbr0-x-eth0\n{}", leases());
    says(
        Check::Leases,
        &[(LEASES, &empty)],
        Fail,
        "1 files of 0 bytes, such as /var/lib/cni/results",
    );
    let many: String = (0..201)
        .map(|number| format!("lease 10.42.0.{number} {id}\n"))
        .collect();
    says(
        Check::Leases,
        &[(LEASES, &format!("{many}answered"))],
        Fail,
        "201 addresses",
    );
    says(
        Check::Leases,
        &[(LEASES, "")],
        Unknown,
        "does not tell its sandboxes",
    );
}

#[test]
fn storage_errors_and_iscsi() {
    const LOG: &str = "doctor storage-log";
    let line = "1794999000.5 jarvis kernel: mmc0: card 0001: error -110 transferring data";
    says(
        Check::StorageErrors,
        &[(LOG, line)],
        Warn,
        "1 in 24 h, the last: 1794999000.5",
    );
    says(
        Check::StorageErrors,
        &[(LOG, &[line; 6].join("\n"))],
        Fail,
        "6 in 24 h",
    );
    let mut none = healthy();
    none.remove(LOG);
    is(
        &of_both(Check::StorageErrors, &none, &worker())[0],
        Unknown,
        "no journal",
    );

    const NAME: &str = "doctor initiator";
    says(
        Check::Iscsi,
        &[],
        Ok,
        "iscsid runs as iqn.1993-08.org.debian:01:jarvis",
    );
    says(
        Check::Iscsi,
        &[(NAME, "iqn.1993-08.org.debian:01:ultron")],
        Fail,
        "also the name of ultron",
    );
    says(Check::Iscsi, &[(NAME, "")], Fail, "no name");
    is(
        &outcome(Check::Iscsi, "[longhorn]\nprepare = false\n", &[]),
        Skipped,
        "inventory",
    );
    let active = |names: &[&str], other: &[&str]| {
        let mut units = units_of_k3s("k3s.service");
        for (name, from, to) in names
            .iter()
            .map(|name| (name, "inactive", "active"))
            .chain(other.iter().map(|name| (name, "active", "inactive")))
        {
            let at = units.find(&format!("Id={name}\n")).unwrap();
            let (before, block) = units.split_at(at);
            units = format!(
                "{before}{}",
                block.replacen(
                    &format!("ActiveState={from}"),
                    &format!("ActiveState={to}"),
                    1
                )
            );
        }
        units
    };
    says(
        Check::Iscsi,
        &[(UNITS, &active(&["multipathd.socket"], &[]))],
        Fail,
        "multipathd.socket is active",
    );
    let kept = outcome(
        Check::Iscsi,
        "[hardening]\ndisable_services = []\n[longhorn]\nmultipath = \"keep\"\n",
        &[(UNITS, &active(&["multipathd.service"], &[]))],
    );
    is(&kept, Ok, "iscsid runs");
    says(
        Check::Iscsi,
        &[(UNITS, &active(&["iscsid.socket"], &["iscsid.service"]))],
        Warn,
        "only its socket",
    );
    says(
        Check::Iscsi,
        &[(UNITS, &active(&[], &["iscsid.service"]))],
        Fail,
        "iscsid does not run",
    );
}
