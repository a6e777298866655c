//! Whatever dies, and whenever: the node takes SSH in between, and the next apply converges to the same state as an
//! undisturbed run.

use std::sync::OnceLock;
use std::time::Duration;

use selfheal_lab::Pi;

use crate::homelab::{Homelab, NO_PACKAGES};

/// What dies.
#[derive(Debug, Clone, Copy)]
enum Disaster {
    /// The program on the workstation.
    Program,
    /// The network between them.
    Network,
    /// The node's power.
    Power,
}

/// A moment of a run: a line of progress, then a condition on the node (a shell test, seen through the lab's private
/// channel, so that it does not depend on the network).
#[derive(Debug, Clone, Copy)]
struct Moment {
    line: &'static str,
    until: &'static str,
}

/// Every step that a run has, and inside the steps the moments between two of their writes.
const MOMENTS: [Moment; 12] = [
    Moment {
        line: "settings: ",
        until: "true",
    },
    Moment {
        line: "settings: ",
        until: "test -e /run/selfheal/lease",
    },
    Moment {
        line: "settings: ",
        until: "test -e /var/lib/selfheal/pending-restart",
    },
    Moment {
        line: "settings: ",
        until: "test -e /var/lib/selfheal/ledger",
    },
    Moment {
        line: "settings: ",
        until: "ls /etc/sysctl.d/*.selfheal-new /usr/local/libexec/selfheal/*.selfheal-new",
    },
    Moment {
        line: "settings: ",
        until: "test -e /etc/systemd/system/selfheal-deadman.timer",
    },
    Moment {
        line: "settings: ",
        until: "grep -q 10 /proc/sys/kernel/panic",
    },
    Moment {
        line: "guarded settings: ",
        until: "true",
    },
    Moment {
        line: "guarded settings: ",
        until: "test -e /var/lib/selfheal/deadman/armed",
    },
    Moment {
        line: "guarded settings: ",
        until: "test -e /etc/ssh/sshd_config.d/00-selfheal.conf",
    },
    Moment {
        line: "boot files: ",
        until: "true",
    },
    Moment {
        line: "rebooting: ",
        until: "true",
    },
];

fn full() -> bool {
    std::env::var_os("SELFHEAL_FULL").is_some()
}

/// What an undisturbed run leaves, without what differs from boot to boot.
const STATE: &str = r"
    cd / && find etc usr/local root home -xdev ! -name '*.pid' -printf '%M %u %g %p %l\n' -type f -exec sha256sum {} + |
        grep -v -e ssh_host -e machine-id -e /etc/adjtime -e .bash_history | sort
    cut -f 1-3,5- /var/lib/selfheal/ledger
    cat /boot/firmware/cmdline.txt; ls /boot/firmware; hostname; cat /proc/swaps
    sshd -T | sort
    ls -A /var/lib/selfheal | grep -v boot-backup; ls /var/lib/selfheal/deadman
";

fn strike(disaster: Disaster, pi: &Pi) {
    match disaster {
        Disaster::Program => {}
        Disaster::Network => pi.network(false).unwrap(),
        Disaster::Power => pi.power_cut().unwrap(),
    }
}

fn wait_until(pi: &Pi, condition: &str) {
    // The run goes on meanwhile; a moment that has passed already is as good as the next one.
    let script = format!(
        "i=0; until {condition} || [ $i -gt 300 ]; do i=$((i + 1)); sleep 0.05; done >/dev/null 2>&1"
    );
    if condition != "true" {
        pi.root(&script).unwrap();
    }
}

fn interrupt(homelab: &Homelab, disaster: Disaster, moment: Moment) {
    let pi = homelab.pi();
    let mut run = homelab.start(&["apply", "--yes"]);
    assert!(run.reaches(moment.line), "the run never came to {moment:?}");
    wait_until(pi, moment.until);
    strike(disaster, pi);
    run.kill();
    match disaster {
        Disaster::Program => {}
        Disaster::Network => pi.network(true).unwrap(),
        Disaster::Power => pi.power_on().unwrap(),
    }
    // The node takes SSH in between.
    pi.wait_for_ssh(Duration::from_secs(180)).unwrap();
}

/// The state after a run that nothing disturbed.
fn undisturbed() -> &'static str {
    static STATE_AFTER: OnceLock<String> = OnceLock::new();
    STATE_AFTER.get_or_init(|| {
        let homelab = Homelab::new(&["jarvis"], NO_PACKAGES);
        homelab.converge();
        homelab.pi().root(STATE).unwrap()
    })
}

fn same_as_undisturbed(disaster: Disaster, moments: &[usize]) {
    let wanted = undisturbed();
    for moment in moments {
        let moment = MOMENTS[*moment];
        eprintln!("{disaster:?} dies at {moment:?}");
        let homelab = Homelab::new(&["jarvis"], NO_PACKAGES);
        interrupt(&homelab, disaster, moment);
        homelab.converge();
        let state = homelab.pi().root(STATE).unwrap();
        let differing: Vec<&str> = wanted
            .lines()
            .filter(|line| !state.contains(line))
            .chain(state.lines().filter(|line| !wanted.contains(line)))
            .collect();
        assert!(
            differing.is_empty(),
            "{disaster:?} died at {moment:?}: {differing:#?}"
        );
    }
}

/// The moments that `SELFHEAL_MOMENTS=10,11` names, counted from 0.
pub fn named_moments() -> Option<Vec<usize>> {
    let named = std::env::var("SELFHEAL_MOMENTS").ok()?;
    let numbers = named.split(',').map(|number| number.parse().unwrap());
    Some(numbers.collect())
}

/// All moments in a full run, those that are named, else the one that a short run takes.
fn moments(one: usize) -> Vec<usize> {
    if let Some(named) = named_moments() {
        named
    } else if full() {
        (0..MOMENTS.len()).collect()
    } else {
        vec![one]
    }
}

#[test]
#[ignore = "minutes more: tests/run.sh --full"]
fn the_program_dies_and_the_next_run_converges() {
    same_as_undisturbed(Disaster::Program, &moments(4));
}

#[test]
#[ignore = "minutes more: tests/run.sh --full"]
fn the_network_dies_and_the_next_run_converges() {
    same_as_undisturbed(Disaster::Network, &moments(6));
}

#[test]
fn the_power_dies_and_the_next_run_converges() {
    same_as_undisturbed(Disaster::Power, &moments(9));
}

#[test]
#[ignore = "minutes more: tests/run.sh --full"]
fn two_runs_at_once_take_turns() {
    let homelab = Homelab::new(&["jarvis"], NO_PACKAGES);
    let mut first = homelab.start(&["apply", "--yes"]);
    assert!(first.reaches("settings: "), "the first run never wrote");
    wait_until(homelab.pi(), "test -e /run/selfheal/lease");
    let second = homelab.selfheal(&["apply", "--yes"]);
    assert_eq!(second.code, Some(6), "{second}");
    assert!(second.stderr.contains("another run is at work"), "{second}");
    let (code, progress) = first.end();
    assert_eq!(code, Some(0), "{progress}");
    homelab.is_converged();
}

#[test]
#[ignore = "minutes more: tests/run.sh --full"]
fn ctrl_c_stops_after_the_current_step_and_the_next_run_goes_on() {
    let homelab = Homelab::new(&["jarvis"], NO_PACKAGES);
    let mut run = homelab.start(&["apply", "--yes"]);
    assert!(run.reaches("settings: "), "the run never wrote");
    run.interrupt();
    let (code, progress) = run.end();
    assert_eq!(code, Some(130), "{progress}");
    assert!(
        progress.contains("settings: ") && !progress.contains("rebooting"),
        "{progress}"
    );
    // What was begun was finished, and the lease was given back.
    homelab.pi().ok("sudo test ! -e /var/lib/selfheal/pending-restart && test -e /etc/sysctl.d/90-selfheal.conf").unwrap();
    homelab.converge();
}
