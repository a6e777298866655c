//! `selfheal doctor` and `selfheal heal` on a cluster: nothing to say of a healthy one, and each sickness found on a node
//! that really has it. On the k3s double with Debian's real containerd.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::cluster::{LONG, homelab, with_k3s};
use crate::homelab::Homelab;
use crate::k3s::{create_pod, kubectl, restart, sandboxes, wait, wait_for_pod};
use crate::recovery::whole;

/// What passes by itself after a change.
const SETTLES: Duration = Duration::from_secs(300);

/// Verdict and evidence by check.
type Findings = BTreeMap<String, (String, String)>;

/// What is neither well nor skipped on each node.
fn troubles(homelab: &Homelab) -> (Option<i32>, BTreeMap<String, Findings>) {
    let run = homelab.selfheal(&["doctor", "--json"]);
    let report: serde_json::Value =
        serde_json::from_str(&run.stdout).unwrap_or_else(|error| panic!("{error}\n{run}"));
    let word = |value: &serde_json::Value, key: &str| value[key].as_str().unwrap().to_owned();
    let nodes = report["nodes"].as_array().unwrap().iter().map(|node| {
        let findings = node["findings"].as_array().unwrap().iter();
        let troubles = findings
            .filter(|it| !matches!(word(it, "verdict").as_str(), "ok" | "skipped"))
            .map(|it| (word(it, "id"), (word(it, "verdict"), word(it, "evidence"))));
        (word(node, "node"), troubles.collect())
    });
    (run.code, nodes.collect())
}

/// Doctor, until it finds just this wrong: node, check, verdict, words of the evidence.
fn finds(homelab: &Homelab, expected: &[(&str, &str, &str, &str)]) {
    let began = Instant::now();
    loop {
        let (code, found) = troubles(homelab);
        let count: usize = found.values().map(BTreeMap::len).sum();
        let is_there = |(node, check, verdict, words): &(&str, &str, &str, &str)| {
            let finding = found.get(*node).and_then(|findings| findings.get(*check));
            finding.is_some_and(|(grade, evidence)| grade == verdict && evidence.contains(words))
        };
        if count == expected.len() && expected.iter().all(is_there) {
            assert_eq!(code == Some(0), expected.is_empty());
            return;
        }
        assert!(
            began.elapsed() < SETTLES,
            "{found:#?}, and expected {expected:#?}"
        );
    }
}

#[test]
#[ignore = "minutes more: tests/run.sh --full"]
fn a_healthy_cluster_shows_no_warning_and_each_sickness_is_found() {
    let homelab = homelab(&["jarvis", "ultron"], "");
    homelab.converge();
    let (jarvis, ultron) = (&homelab.pis[0], &homelab.pis[1]);
    create_pod(jarvis, "web", "jarvis");
    wait_for_pod(jarvis, "web", LONG);
    finds(&homelab, &[]);

    // An address that a pod left behind.
    let lease = "/var/lib/cni/networks/cbr0/$(ls /var/lib/cni/networks/cbr0 | grep -m 1 '^10' | sed 's/[0-9]*$/251/')";
    jarvis
        .root(&format!(
            "printf '%s\\r\\neth0' $(seq 64 | tr -d '\\n' | cut -c 1-64) >{lease}"
        ))
        .unwrap();
    finds(
        &homelab,
        &[("jarvis", "leases", "warn", "belong to no sandbox")],
    );
    jarvis.root(&format!("rm {lease}")).unwrap();

    // A token that others can read.
    jarvis.root("chmod 0644 /etc/rancher/k3s/token").unwrap();
    finds(
        &homelab,
        &[("jarvis", "k3s-secrets", "fail", "readable by everybody")],
    );
    homelab.converge();
    finds(&homelab, &[]);

    // Half an upgrade. A pod that nobody would start again would rightly stop it.
    kubectl(jarvis, "delete pod web --wait=false");
    let section = with_k3s(&homelab.k3s_section());
    homelab.release(&["v1.36.4+k3s1"]);
    homelab.set(&format!("[versions]\nk3s = \"v1.36.4+k3s1\"\n{section}"));
    homelab.ok(&["apply", "--yes", "--on", "jarvis"]);
    finds(
        &homelab,
        &[
            ("jarvis", "k3s-version", "warn", "v1.36.3+k3s1 on ultron"),
            (
                "ultron",
                "k3s-version",
                "warn",
                "the inventory wants v1.36.4+k3s1",
            ),
        ],
    );
    homelab.converge();
    finds(&homelab, &[]);

    // Certificates that end soon, because k3s was not restarted for most of a year.
    ultron
        .root(
            "echo 20 >/etc/rancher/k3s/double-certificate-days
             systemctl stop k3s-agent && rm -f /var/lib/rancher/k3s/agent/*.crt",
        )
        .unwrap();
    restart(ultron, "k3s-agent");
    ultron
        .root("rm /etc/rancher/k3s/double-certificate-days")
        .unwrap();
    finds(
        &homelab,
        &[(
            "ultron",
            "certificates",
            "fail",
            "5 certificates, the first ends in",
        )],
    );
    ultron
        .root("systemctl stop k3s-agent && rm -f /var/lib/rancher/k3s/agent/*.crt")
        .unwrap();
    restart(ultron, "k3s-agent");
    finds(&homelab, &[]);

    // Another machine under this name.
    ultron
        .root("cp /etc/rancher/node/password /root/password && echo other >/etc/rancher/node/password && systemctl restart --no-block k3s-agent")
        .unwrap();
    wait(
        ultron,
        LONG,
        "the server to refuse it",
        "journalctl -b -u k3s-agent -o cat | grep -q 'Node password rejected'",
    );
    let (code, found) = troubles(&homelab);
    assert_eq!(code, Some(1));
    let (verdict, evidence) = &found["ultron"]["k3s-secrets"];
    assert_eq!(verdict, "fail");
    assert!(evidence.contains("Node password rejected"), "{evidence}");
    ultron
        .root("mv /root/password /etc/rancher/node/password")
        .unwrap();
    restart(ultron, "k3s-agent");
    finds(&homelab, &[]);
}

#[test]
#[ignore = "minutes more: tests/run.sh --full"]
fn without_the_guard_a_power_cut_leaves_ghosts_which_doctor_names_and_heal_removes() {
    let homelab = homelab(&["jarvis"], "");
    homelab.converge();
    let jarvis = homelab.pi();
    create_pod(jarvis, "web", "jarvis");
    wait_for_pod(jarvis, "web", LONG);
    let dead = sandboxes(jarvis)
        .into_iter()
        .find(|sandbox| sandbox.name == "web")
        .unwrap()
        .id;
    jarvis
        .root(&format!(
            "set -e; mv /etc/systemd/system/k3s.service.d/20-selfheal-guard.conf /root; cd /var/lib/cni
             : >results/cbr0-{dead}-eth0; : >$(grep -l {dead} networks/cbr0/10.*); sync"
        ))
        .unwrap();
    let boot = jarvis.boot_id().unwrap();
    jarvis.power_cut().unwrap();
    jarvis.power_on().unwrap();
    jarvis.wait_for_reboot(&boot, LONG).unwrap();
    let again = "k3s crictl --timeout 30s pods -o json | tr -d ' \\n' | grep -q '\"attempt\":1'";
    wait(jarvis, LONG, "other pods in new sandboxes", again);
    let began = Instant::now();
    let found = loop {
        let (_, mut found) = troubles(&homelab);
        let found = found.remove("jarvis").unwrap();
        if ["guard", "leases", "ghosts"]
            .iter()
            .all(|id| found.contains_key(*id))
        {
            break found;
        }
        assert!(began.elapsed() < SETTLES, "{found:#?}");
    };
    assert!(found["guard"].1.contains("starts without it"), "{found:#?}");
    assert!(found["leases"].1.contains("files of 0 bytes"), "{found:#?}");
    let healed = homelab.selfheal(&["heal", "jarvis", "--yes"]);
    eprintln!("{healed}");
    assert!(healed.stdout.contains("Before:"), "{healed}");

    // apply puts the guard back, and at the next boot it does its work.
    homelab.converge();
    let boot = jarvis.boot_id().unwrap();
    jarvis.power_cut().unwrap();
    jarvis.power_on().unwrap();
    jarvis.wait_for_reboot(&boot, LONG).unwrap();
    whole(jarvis, &["web".to_owned()]);
    let clean = homelab.ok(&["heal", "jarvis"]);
    assert!(clean.stdout.contains("has no ghosts"), "{clean}");
}
