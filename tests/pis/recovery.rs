//! What brings a node with k3s back, against what it has to stand: a clock that goes back, a disk that does not answer,
//! power cuts at any moment. On the k3s double with Debian's real containerd, or on the k3s that `SELFHEAL_LAB_K3S` names.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use selfheal_lab::Pi;

use crate::cluster::{LONG, homelab};
use crate::homelab::Homelab;
use crate::k3s::{create_pod, leases, sandboxes, wait, wait_for_pod};

const THREE_DAYS: u64 = 3 * 86_400;

/// A converged server. Its power goes more often than the reboot budget has it.
fn server() -> Homelab {
    let homelab = homelab(&["jarvis"], "[watchdog]\nunclean_boots = 50\n");
    homelab.converge();
    homelab
}

/// Takes the power and gives it back; returns once it takes SSH, and k3s may still be on its way.
fn power_cut(pi: &Pi, power_on: impl FnOnce()) {
    let boot = pi.boot_id().unwrap();
    pi.power_cut().unwrap();
    power_on();
    pi.wait_for_reboot(&boot, LONG).unwrap();
}

fn api_answers(pi: &Pi) {
    wait(pi, LONG, "the API", "k3s kubectl get --raw /readyz");
}

/// A line `key value` of one of the scripts' state files.
fn noted(pi: &Pi, file: &str, key: &str) -> String {
    let script = format!("sed -n 's/^{key} //p' /var/lib/selfheal/{file}");
    pi.root(&script).unwrap().trim().to_owned()
}

fn clock(pi: &Pi) -> u64 {
    pi.root("date +%s").unwrap().trim().parse().unwrap()
}

/// As many sandboxes as leases, all of them ready, and these pods among them.
pub fn whole(pi: &Pi, pods: &[String]) {
    for pod in pods {
        wait_for_pod(pi, pod, LONG);
    }
    // A record of before the cut may outlive its pod's return by one round of the reaper.
    let settled = "pods=$(k3s crictl --timeout 30s pods -o json) && ! printf '%s' \"$pods\" | grep -q SANDBOX_NOTREADY &&
        [ \"$(printf '%s' \"$pods\" | grep -c SANDBOX_READY)\" = \"$(ls /var/lib/cni/networks/cbr0 | grep -c '^[0-9]')\" ]";
    wait(
        pi,
        LONG,
        "as many leases as sandboxes, and no ghost",
        settled,
    );
    let all = sandboxes(pi);
    for pod in pods {
        assert!(all.iter().any(|it| it.name == *pod), "{pod}: {all:?}");
    }
    assert_eq!(all.len(), leases(pi).len());
    pi.root("k3s crictl --timeout 30s images | grep -q pause")
        .unwrap();
}

#[test]
#[ignore = "minutes more: tests/run.sh --full"]
fn a_clock_that_stands_three_days_back_is_put_right_before_k3s_starts() {
    let homelab = server();
    let jarvis = homelab.pi();
    for (network_time, outcome) in [(true, "synchronised"), (false, "forward")] {
        // timesyncd has a note of its own, which would do for the clock; not every system has it.
        jarvis
            .root(
                "/usr/local/libexec/selfheal/clock record && systemctl stop systemd-timesyncd &&
                 rm -f /var/lib/systemd/timesync/clock && sync",
            )
            .unwrap();
        let before = clock(jarvis);
        jarvis.serve_time(network_time);
        power_cut(jarvis, || {
            jarvis.power_on_at(before - THREE_DAYS).unwrap();
        });
        api_answers(jarvis);
        assert_eq!(noted(jarvis, "last-clock", "outcome"), outcome);
        let waited: u64 = noted(jarvis, "last-clock", "waited").parse().unwrap();
        assert!(waited <= 200, "waited {waited} s");
        eprintln!("clock: {outcome} after {waited} s");
        let after = clock(jarvis);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        assert!(
            (before..now.as_secs() + 60).contains(&after),
            "{before} {after}"
        );
        // In this order, and not only at the end.
        jarvis
            .root(
                "at() { systemctl show --value -p \"$2\" \"$1\"; }
                 [ \"$(at selfheal-clock ExecMainExitTimestampMonotonic)\" -le \"$(at k3s ExecMainStartTimestampMonotonic)\" ]",
            )
            .unwrap();
        whole(jarvis, &[]);
    }
}

#[test]
#[ignore = "minutes more: tests/run.sh --full"]
fn a_disk_that_does_not_answer_the_guard_keeps_k3s_from_nothing() {
    let homelab = server();
    let jarvis = homelab.pi();
    create_pod(jarvis, "web", "jarvis");
    wait_for_pod(jarvis, "web", LONG);

    // Much to set aside: a rename, however much there is.
    jarvis
        .root("mkdir -p /var/lib/cni/many && cd /var/lib/cni/many && seq 100000 | xargs -n 5000 touch && sync")
        .unwrap();
    power_cut(jarvis, || jarvis.power_on().unwrap());
    api_answers(jarvis);
    assert!(noted(jarvis, "last-guard", "cni").starts_with("set aside"));
    let took = noted(jarvis, "last-guard", "ms");
    eprintln!("guard with 100,000 files: {took} ms");
    assert!(took.parse::<u64>().unwrap() < 10_000, "{took} ms");
    whole(jarvis, &["web".to_owned()]);

    // What it reads first never answers: k3s starts after the guard's minute, and the guard touches nothing any more,
    // also when the disk is back.
    jarvis
        .root("cd /var/lib/selfheal && rm last-guard && mkfifo last-guard && sync")
        .unwrap();
    power_cut(jarvis, || jarvis.power_on().unwrap());
    api_answers(jarvis);
    let late = jarvis.root("cat /run/selfheal/guard").unwrap();
    assert_eq!(late.trim(), "late");
    jarvis
        .root("journalctl -b -u k3s -o cat | grep 'guard: the disk does not answer within 60 s'")
        .unwrap();
    let network = "ls -di /var/lib/cni; ls /var/lib/cni";
    let before = jarvis.root(network).unwrap();
    jarvis
        .root("timeout 20 sh -c 'echo boot_id back >/var/lib/selfheal/last-guard'")
        .unwrap();
    wait(
        jarvis,
        LONG,
        "the late guard to notice",
        "journalctl -b -o cat | grep -q 'guard: too late'",
    );
    assert_eq!(jarvis.root(network).unwrap(), before);
    jarvis.root("rm /var/lib/selfheal/last-guard").unwrap();

    // The next boot is one like any other.
    power_cut(jarvis, || jarvis.power_on().unwrap());
    api_answers(jarvis);
    assert!(noted(jarvis, "last-guard", "cni").starts_with("set aside"));
    whole(jarvis, &["web".to_owned()]);
}

#[test]
#[ignore = "minutes more: tests/run.sh --full"]
fn a_crash_of_k3s_touches_no_pod() {
    let homelab = server();
    let jarvis = homelab.pi();
    create_pod(jarvis, "web", "jarvis");
    wait_for_pod(jarvis, "web", LONG);
    let before = sandboxes(jarvis);
    jarvis
        .root("kill -9 $(systemctl show --value -p MainPID k3s); sleep 1")
        .unwrap();
    wait(jarvis, LONG, "k3s", "systemctl is-active --quiet k3s");
    wait(jarvis, LONG, "crictl", "k3s crictl --timeout 30s info");
    assert_eq!(sandboxes(jarvis), before);
    jarvis
        .root("journalctl -b -u k3s -o cat | grep -q 'guard: the same boot: nothing to do'")
        .unwrap();
}

#[test]
#[ignore = "half an hour: tests/run.sh --full"]
fn twenty_power_cuts_at_random_moments_are_survived() {
    let homelab = server();
    let jarvis = homelab.pi();
    let mut pods = Vec::new();
    for cut in 1..=20 {
        let pod = format!("web-{cut}");
        create_pod(jarvis, &pod, "jarvis");
        pods.push(pod);
        let moment = rand_below(8_000);
        eprintln!("cut {cut}: {moment} ms after a pod was created");
        std::thread::sleep(Duration::from_millis(moment));
        power_cut(jarvis, || jarvis.power_on().unwrap());
        api_answers(jarvis);
        // A pod that the datastore never heard of, because the power went first, is nobody's.
        let known = jarvis
            .root("k3s kubectl get pods -o json | sed -n 's/^ *\"name\": \"\\(web-[0-9]*\\)\".*/\\1/p' | sort -u")
            .unwrap();
        pods.retain(|pod| known.lines().any(|name| name == pod));
        whole(jarvis, &pods);
        // A Pi has room for so many; the oldest makes place.
        if pods.len() > 6 {
            let oldest = pods.remove(0);
            crate::k3s::kubectl(jarvis, &format!("delete pod {oldest} --wait=false"));
        }
    }
    homelab.is_converged();
}

fn rand_below(limit: u64) -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::from(now.subsec_nanos()) / 1_000 % limit
}
