//! selfheal makes a cluster, keeps it, and it comes back after a power cut by itself. On the k3s double with Debian's
//! real containerd, or on the k3s that `SELFHEAL_LAB_K3S` names.

use std::time::Duration;

use selfheal_lab::{Options, Pi, release};

use crate::converge::is_hardened;
use crate::homelab::Homelab;
use crate::k3s::{create_pod, is_ready, kubectl, leases, restart, sandboxes, wait, wait_for_pod};

/// On a busy machine.
pub const LONG: Duration = Duration::from_secs(300);

/// Settings that need no reboot, so that a test is about k3s.
const CALM: &str = "[hardening]\nautomatic_upgrades = \"off\"\nhold_kernel = false\n[boot]\npsi = false\npanic_timeout = \"10s\"\n\
    [longhorn]\nprepare = false\n";

pub fn with_k3s(more: &str) -> String {
    format!("{CALM}{more}")
}

/// Pis with what k3s needs, and a folder of releases.
pub fn homelab(names: &[&str], more: &str) -> Homelab {
    let homelab = Homelab::with(names, "", &Options::for_k3s());
    homelab.release(&[release::VERSION]);
    homelab.set(&with_k3s(&format!("{}{more}", homelab.k3s_section())));
    homelab
}

fn nodes(server: &Pi) -> serde_json::Value {
    serde_json::from_str(&kubectl(server, "get nodes -o json")).unwrap()
}

pub fn node(server: &Pi, name: &str) -> serde_json::Value {
    let nodes = nodes(server);
    let mut items = nodes["items"].as_array().unwrap().iter();
    items
        .find(|node| node["metadata"]["name"] == name)
        .unwrap_or_else(|| panic!("no {name} in {nodes:#}"))
        .clone()
}

#[test]
fn two_fresh_pis_become_a_cluster_that_survives_a_power_cut() {
    let fresh = Options {
        memory_mib: Options::for_k3s().memory_mib,
        ..Options::default()
    };
    let homelab = Homelab::with(&["jarvis", "ultron"], "", &fresh);
    homelab.release(&[release::VERSION]);
    homelab.set_after(
        &format!("{}[longhorn]\nprepare = false\n", homelab.k3s_section()),
        "[nodes.ultron.labels]\ndisk = \"ssd\"\n",
    );
    let (jarvis, ultron) = (&homelab.pis[0], &homelab.pis[1]);

    let plan = homelab.selfheal(&["plan"]);
    assert_eq!(plan.code, Some(2), "{plan}");
    assert!(plan.stdout.contains("known after apply"), "{plan}");
    assert!(plan.stdout.contains("2 reboots"), "{plan}");
    let boots = [jarvis, ultron].map(|pi| pi.boot_id().unwrap());
    let run = homelab.ok(&["bootstrap", "--yes"]);
    // Workers first, one at a time.
    let position = |text: &str| {
        let at = run.stderr.find(text);
        at.unwrap_or_else(|| panic!("no '{text}'\n{run}"))
    };
    let (back, rebooting) = ("ultron: back after", "jarvis: rebooting");
    assert!(position(back) < position(rebooting), "{run}");
    for (pi, fresh) in [jarvis, ultron].into_iter().zip(boots) {
        assert_ne!(pi.boot_id().unwrap(), fresh, "no reboot");
        is_hardened(pi);
        is_ready(jarvis, pi.name());
    }
    assert_eq!(node(jarvis, "ultron")["metadata"]["labels"]["disk"], "ssd");
    homelab.is_converged();
    let again = homelab.ok(&["apply"]);
    assert!(again.stdout.contains("Nothing to change."), "{again}");

    // Nothing of a token can be read by others, or is in a unit or in a process's arguments.
    for (pi, files) in [
        (jarvis, "token agent-token config.yaml k3s.yaml"),
        (ultron, "token config.yaml"),
    ] {
        pi.root(&format!(
            "cd /etc/rancher/k3s; for file in {files}; do [ \"$(stat -c '%a %U' $file)\" = '600 root' ] || exit 1; done
             ! grep -rqF \"$(cat token)\" /etc/systemd /proc/[0-9]*/cmdline /var/log 2>/dev/null"
        ))
        .unwrap();
    }

    // A plain restart touches no pod, and the guard says so.
    create_pod(jarvis, "web", "ultron");
    wait_for_pod(jarvis, "web", LONG);
    let before = sandboxes(ultron);
    restart(ultron, "k3s-agent");
    assert_eq!(sandboxes(ultron), before);
    ultron
        .root("journalctl -b -u k3s-agent -o cat | grep -q 'guard: the same boot: nothing to do'")
        .unwrap();

    // The power goes right after a pod was made: its record is there, and the network's files are empty.
    let dead = before
        .iter()
        .find(|it| it.name == "web")
        .unwrap()
        .id
        .clone();
    ultron
        .root(&format!(
            "set -e; systemctl disable -q k3s-agent; cd /var/lib/cni
             : >results/cbr0-{dead}-eth0; : >$(grep -l {dead} networks/cbr0/10.*); sync"
        ))
        .unwrap();
    let boot = ultron.boot_id().unwrap();
    ultron.power_cut().unwrap();
    ultron.power_on().unwrap();
    ultron.wait_for_reboot(&boot, LONG).unwrap();
    assert!(!leases(ultron).is_empty());
    // What would have been: in a world without the guard this pod never runs again (tests/pis/double.rs).
    ultron
        .root("systemctl enable -q k3s-agent; systemctl start --no-block k3s-agent")
        .unwrap();
    wait(
        ultron,
        LONG,
        "the guard",
        "grep -q '^cni set aside' /var/lib/selfheal/last-guard",
    );
    wait(
        ultron,
        LONG,
        "the pod in a new sandbox",
        "k3s crictl --timeout 30s pods -o json | tr -d ' \\n' | grep -q '\"attempt\":1.*SANDBOX_READY\\|SANDBOX_READY.*\"attempt\":1'",
    );
    wait_for_pod(jarvis, "web", LONG);
    wait(
        ultron,
        LONG,
        "the ghost to go",
        &format!(
            "pods=$(k3s crictl --timeout 30s pods -o json) && ! printf '%s' \"$pods\" | grep -q {dead}"
        ),
    );
    let alive = sandboxes(ultron);
    assert!(alive.iter().all(|sandbox| sandbox.ready), "{alive:?}");
    assert_eq!(leases(ultron).len(), alive.len(), "{:?}", leases(ultron));
    ultron
        .root("k3s crictl --timeout 30s images | grep -q pause")
        .unwrap();
    homelab.is_converged();
}

#[test]
#[ignore = "minutes more: tests/run.sh --full"]
fn what_leaves_the_inventory_leaves_the_node_object_and_an_upgrade_is_one_apply() {
    let homelab = homelab(&["jarvis"], "");
    let jarvis = homelab.pi();
    let section = with_k3s(&homelab.k3s_section());
    homelab.set_after(&section, "[nodes.jarvis.labels]\ndisk = \"ssd\"\n");
    homelab.converge();
    kubectl(jarvis, "label node jarvis mine=1");
    homelab.set_after(&section, "");
    homelab.converge();
    let labels = node(jarvis, "jarvis")["metadata"]["labels"].clone();
    assert_eq!(
        (labels["disk"].clone(), labels["mine"].clone()),
        (serde_json::Value::Null, "1".into())
    );

    let shims = "pgrep -f '^/var/lib/rancher/k3s/data/[^/]+/bin/containerd-shim' | wc -l";
    assert_ne!(jarvis.root(shims).unwrap().trim(), "0");
    homelab.release(&["v1.36.4+k3s1", "v1.38.1+k3s1"]);
    homelab.set(&format!("[versions]\nk3s = \"v1.38.1+k3s1\"\n{section}"));
    let refused = homelab.selfheal(&["plan"]);
    assert!(
        refused.stdout.contains("cannot skip a minor version"),
        "{refused}"
    );
    homelab.set(&format!("[versions]\nk3s = \"v1.36.4+k3s1\"\n{section}"));
    homelab.converge();
    let object = node(jarvis, "jarvis");
    assert_eq!(
        object["status"]["nodeInfo"]["kubeletVersion"],
        "v1.36.4+k3s1"
    );
    assert_ne!(object["spec"]["unschedulable"], true);
    jarvis.root("test -x /usr/local/bin/k3s.prev").unwrap();
    jarvis
        .root("cd /var/lib/selfheal/datastore-v1.36.3+k3s1 && test -s token && test -n \"$(ls db)\" && [ \"$(stat -c %a .)\" = 700 ]")
        .unwrap();
}

#[test]
#[ignore = "minutes more: tests/run.sh --full"]
fn a_worker_that_was_flashed_anew_joins_again() {
    let homelab = homelab(&["jarvis", "ultron"], "");
    homelab.converge();
    let (jarvis, ultron) = (&homelab.pis[0], &homelab.pis[1]);
    // As flashed: nothing of k3s or of selfheal is left.
    ultron
        .root(
            "systemctl disable -q --now k3s-agent; pkill -9 -f '^/var/lib/rancher/k3s/data/[^/]+/bin/containerd-shim'
             rm -rf /etc/rancher /usr/local/bin/k3s* /var/lib/selfheal /etc/systemd/system/k3s-agent.service* \\
                 /var/lib/rancher/k3s/agent/*.kubeconfig; systemctl daemon-reload; true",
        )
        .unwrap();
    let plan = homelab.selfheal(&["plan"]);
    assert!(plan.stdout.contains("flashed anew"), "{plan}");
    homelab.converge();
    is_ready(jarvis, "ultron");
}

#[test]
#[ignore = "minutes more: tests/run.sh --full"]
fn a_node_leaves_the_cluster_and_joins_again() {
    let homelab = homelab(&["jarvis", "ultron"], "");
    homelab.converge();
    let (jarvis, ultron) = (&homelab.pis[0], &homelab.pis[1]);
    let alone = homelab.selfheal(&["node", "remove", "jarvis", "--yes"]);
    assert_eq!(alone.code, Some(1), "{alone}");
    assert!(alone.stderr.contains("only server"), "{alone}");

    // A pod that nobody would start elsewhere keeps the node where it is.
    create_pod(jarvis, "web", "ultron");
    wait_for_pod(jarvis, "web", LONG);
    let kept = homelab.selfheal(&["node", "remove", "ultron", "--yes"]);
    assert_eq!(kept.code, Some(1), "{kept}");
    assert!(kept.stderr.contains("its pods did not leave"), "{kept}");
    assert_ne!(node(jarvis, "ultron")["spec"]["unschedulable"], true);
    kubectl(jarvis, "delete pod web --wait=false");

    ultron
        .root("mkdir -p /var/lib/rancher/k3s/storage/pvc && echo precious >/var/lib/rancher/k3s/storage/pvc/data")
        .unwrap();
    let removed = homelab.ok(&["node", "remove", "ultron", "--yes"]);
    assert!(
        removed.stdout.contains("ultron is out of the cluster"),
        "{removed}"
    );
    let names = |pi| nodes(pi)["items"].as_array().unwrap().len();
    assert_eq!(names(jarvis), 1);
    ultron
        .root(
            "set -e; cd /var/lib/rancher/k3s; [ \"$(ls -A)\" = aside-1 ]; grep -q precious aside-1/storage/pvc/data
             ! pgrep -f containerd-shim; ! ls /etc/rancher /usr/local/bin/k3s /run/k3s /etc/systemd/system/k3s* 2>/dev/null
             ! grep -P '^k3s\\t' /var/lib/selfheal/ledger; ! ls /sys/class/net/cni0 2>/dev/null",
        )
        .unwrap();
    let again = homelab.ok(&["node", "remove", "ultron", "--yes"]);
    assert!(again.stdout.contains("Nothing to change."), "{again}");
    let status = homelab.selfheal(&["status"]);
    assert_eq!(status.code, Some(2), "{status}");
    assert!(status.stdout.contains("not in it"), "{status}");
    homelab.converge();
    is_ready(jarvis, "ultron");
    let status = homelab.ok(&["status"]);
    assert!(!status.stdout.contains("not in it"), "{status}");

    // Reset asks nobody; the next apply finds the old object and removes it first.
    homelab.ok(&["node", "reset", "ultron", "--yes"]);
    assert_eq!(names(jarvis), 2);
    let plan = homelab.selfheal(&["plan"]);
    assert!(plan.stdout.contains("flashed anew"), "{plan}");
    homelab.converge();
    is_ready(jarvis, "ultron");

    // A node that can be logged in to no more is removed by what the cluster says of it.
    let ready = homelab.selfheal(&["node", "remove", "ultron", "--gone", "--yes"]);
    assert_eq!(ready.code, Some(1), "{ready}");
    assert!(ready.stderr.contains("it is ready"), "{ready}");
}
