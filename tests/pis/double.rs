//! The k3s double is what it takes the place of, where selfheal's tests rely on it (lab.md §4): pods are real sandboxes of
//! a real containerd; they outlive k3s, and a power cut leaves of them what it leaves on a Pi.

use std::time::Duration;

use selfheal_lab::{Lab, Options, Pi};

use crate::k3s::{
    Sandbox, create_pod, install_agent, install_server, is_ready, journal, kubectl, leases,
    restart, sandboxes, wait, wait_for_pod,
};

/// On a busy machine.
const LONG: Duration = Duration::from_secs(300);

fn server(lab: &Lab) -> Pi {
    let pi = lab.boot_with("jarvis", &Options::for_k3s()).unwrap();
    let config = format!("node-name: jarvis\nnode-ip: {}\n", pi.lan_address());
    install_server(&pi, &config);
    wait(&pi, LONG, "the API", "k3s kubectl get --raw /readyz");
    is_ready(&pi, "jarvis");
    pi
}

fn of<'a>(all: &'a [Sandbox], name: &str) -> Vec<&'a Sandbox> {
    all.iter().filter(|sandbox| sandbox.name == name).collect()
}

#[test]
#[ignore = "minutes more: tests/run.sh --full"]
fn pods_outlive_k3s_and_a_power_cut_leaves_ghosts() {
    let lab = Lab::new().unwrap();
    let pi = server(&lab);
    let honest = pi.root("k3s --version; journalctl -b -u k3s").unwrap();
    if selfheal_lab::release::is_real() {
        return; // What is left of this test is about the double.
    }
    assert!(honest.contains("(double)") && honest.contains("this is selfheal's k3s double"));

    create_pod(&pi, "web", "jarvis");
    wait_for_pod(&pi, "web", LONG);
    let system = "k3s kubectl -n kube-system wait --for=condition=Available --timeout=5s deployment/coredns \
                  deployment/local-path-provisioner deployment/metrics-server";
    wait(&pi, LONG, "k3s's own pods", system);
    let before = sandboxes(&pi);
    assert_eq!(before.len(), 4, "{before:?}");
    assert!(
        before
            .iter()
            .all(|sandbox| sandbox.ready && sandbox.attempt == 0)
    );
    // The shims that stay; containerd calls the same program to start and to delete them.
    let shims = "pgrep -a -f '^/var/lib/rancher/k3s/data/[^/]+/bin/containerd-shim' |
        grep -v -e ' start$' -e ' delete$' | cut -d' ' -f1 | sort";
    let lives = pi.root(shims).unwrap();
    assert_eq!(lives.lines().count(), 4, "{lives}");
    assert_eq!(leases(&pi).len(), 4);

    // A restart and a crash of k3s touch no pod.
    let untouched = |after: &str| {
        is_ready(&pi, "jarvis");
        wait(&pi, LONG, "crictl", "k3s crictl --timeout 30s info");
        assert_eq!(sandboxes(&pi), before, "{after}");
        assert_eq!(pi.root(shims).unwrap(), lives, "{after}");
    };
    restart(&pi, "k3s");
    untouched("restart");
    pi.root("kill -9 $(systemctl show --value -p MainPID k3s); sleep 1")
        .unwrap();
    wait(&pi, LONG, "k3s", "systemctl is-active --quiet k3s");
    untouched("crash");

    // Without its pods' processes, containerd has their records, and the network plugins their files.
    pi.root("systemctl disable -q k3s; sync").unwrap();
    let boot = pi.boot_id().unwrap();
    pi.power_cut().unwrap();
    pi.power_on().unwrap();
    pi.wait_for_reboot(&boot, LONG).unwrap();
    assert_eq!(leases(&pi).len(), 4);
    let dead = of(&before, "web")[0].id.clone();
    // What a cut right after a pod's creation leaves, by construction.
    pi.root(&format!(
        "set -e; cd /var/lib/cni; test -s results/cbr0-{dead}-eth0
        : >results/cbr0-{dead}-eth0; : >$(grep -l {dead} networks/cbr0/10.*)"
    ))
    .unwrap();
    pi.root("systemctl start --no-block k3s").unwrap();
    let blocked = "journalctl -b -u k3s | grep -q 'KillPodSandbox.*unexpected end of JSON input'";
    wait(&pi, LONG, "a ghost that blocks its pod", blocked);
    // The objects still say what they said before the cut: the sandboxes are what counts.
    let again = "test \"$(k3s crictl --timeout 30s pods -o json | grep -c SANDBOX_READY)\" = 3";
    wait(&pi, LONG, "k3s's own pods again", again);
    let all = sandboxes(&pi);
    let web = of(&all, "web");
    assert_eq!(web.len(), 1, "{all:?}");
    assert!(!web[0].ready);
    // The pods that are whole run again, under a new attempt; their dead records are still there.
    let whole: Vec<&Sandbox> = all.iter().filter(|sandbox| sandbox.name != "web").collect();
    let count = |ready: bool, attempt: u64| {
        let such = whole.iter();
        such.filter(|sandbox| sandbox.ready == ready && sandbox.attempt == attempt)
            .count()
    };
    assert_eq!((count(true, 1), count(false, 0)), (3, 3), "{all:?}");

    // It cannot be removed, until its empty files are gone.
    let refused = pi.root(&format!("k3s crictl --timeout 40s rmp -f {dead}"));
    let refused = format!("{:#}", refused.unwrap_err());
    assert!(
        refused.contains("unexpected end of JSON input"),
        "{refused}"
    );
    pi.root("find /var/lib/cni/results /var/lib/cni/networks -type f -size 0 ! -name lock -delete")
        .unwrap();
    pi.root(&format!("k3s crictl --timeout 40s rmp -f {dead}"))
        .unwrap();
    wait_for_pod(&pi, "web", LONG);
    let all = sandboxes(&pi);
    assert!(
        of(&all, "web").iter().all(|sandbox| sandbox.ready),
        "{all:?}"
    );
}

#[test]
#[ignore = "minutes more: tests/run.sh --full"]
fn an_agent_joins_by_its_token_and_its_password() {
    let lab = Lab::new().unwrap();
    let jarvis = server(&lab);
    let ultron = lab.boot_with("ultron", &Options::for_k3s()).unwrap();
    install_agent(&ultron, &jarvis);
    is_ready(&jarvis, "ultron");
    create_pod(&jarvis, "web", "ultron");
    wait_for_pod(&jarvis, "web", LONG);
    assert_eq!(of(&sandboxes(&ultron), "web").len(), 1);
    let refused = ultron.root("k3s kubectl get nodes").unwrap_err();
    assert!(format!("{refused:#}").contains("localhost:8080 was refused"));

    // A drain that cannot succeed ends at its limit; one that can leaves the pod of a daemon set.
    kubectl(&jarvis, "annotate pod web selfheal.test/undrainable=true");
    let drain = "k3s kubectl drain ultron --ignore-daemonsets --delete-emptydir-data --force";
    let failed = jarvis.root(&format!("{drain} --timeout=10s")).unwrap_err();
    assert!(
        format!("{failed:#}").contains("disruption budget"),
        "{failed:#}"
    );
    kubectl(&jarvis, "annotate pod web selfheal.test/undrainable-");
    jarvis.root(&format!("{drain} --timeout=90s")).unwrap();
    assert!(kubectl(&jarvis, "get nodes").contains("SchedulingDisabled"));
    kubectl(&jarvis, "uncordon ultron");

    // A node that was flashed anew has another password: it is refused until its old self is gone.
    ultron
        .root("systemctl stop k3s-agent; rm /etc/rancher/node/password; systemctl start --no-block k3s-agent")
        .unwrap();
    wait(
        &ultron,
        LONG,
        "a refusal",
        "journalctl -b -u k3s-agent | grep -q 'Node password rejected, duplicate hostname'",
    );
    let state = ultron
        .root("systemctl is-active k3s-agent || true")
        .unwrap();
    assert_eq!(state.trim(), "activating", "{}", journal(&ultron));
    kubectl(&jarvis, "delete node ultron");
    wait(&ultron, LONG, "the agent", "systemctl is-active k3s-agent");
    is_ready(&jarvis, "ultron");

    // A token with another CA is refused in k3s's words.
    ultron
        .root(
            "systemctl stop k3s-agent
            sed -i 's/K10......../K1000000000/' /etc/rancher/k3s/config.yaml
            systemctl start --no-block k3s-agent",
        )
        .unwrap();
    wait(
        &ultron,
        LONG,
        "a refusal of the token",
        "journalctl -b -u k3s-agent | grep -q 'token CA hash does not match the Cluster CA certificate hash'",
    );
}
