//! Whatever dies while k3s is installed, joined or upgraded: the next apply makes a whole cluster of it. On the k3s double
//! with Debian's real containerd, or on the k3s that `SELFHEAL_LAB_K3S` names.

use std::time::Duration;

use selfheal_lab::{Pi, release};

use crate::cluster::{homelab, node, with_k3s};
use crate::homelab::Homelab;
use crate::interrupted::named_moments;
use crate::k3s::is_ready;

/// A moment of a run: a line of progress, then a condition on the node that it is about.
#[derive(Debug, Clone, Copy)]
struct Moment {
    /// 0 is the server, 1 the worker.
    node: usize,
    line: &'static str,
    until: &'static str,
    dies: Dies,
}

/// What dies.
#[derive(Debug, Clone, Copy)]
enum Dies {
    Program,
    Network,
    Power,
}

const INSTALL: [Moment; 9] = [
    Moment {
        node: 0,
        line: "jarvis: uploading",
        until: "true",
        dies: Dies::Program,
    },
    Moment {
        node: 1,
        line: "ultron: uploading",
        until: "true",
        dies: Dies::Network,
    },
    Moment {
        node: 0,
        line: "jarvis: k3s: ",
        until: "test -e /etc/systemd/system/k3s.service",
        dies: Dies::Power,
    },
    Moment {
        node: 0,
        line: "jarvis: k3s: ",
        until: "test -e /etc/rancher/k3s/token",
        dies: Dies::Network,
    },
    Moment {
        node: 0,
        line: "jarvis: k3s: ",
        until: "test -e /usr/local/bin/k3s",
        dies: Dies::Program,
    },
    Moment {
        node: 0,
        line: "jarvis: waiting for k3s.service",
        until: "true",
        dies: Dies::Power,
    },
    Moment {
        node: 1,
        line: "ultron: k3s: ",
        until: "test -e /etc/rancher/k3s/token",
        dies: Dies::Program,
    },
    Moment {
        node: 1,
        line: "ultron: k3s: ",
        until: "test -e /usr/local/bin/k3s",
        dies: Dies::Power,
    },
    Moment {
        node: 1,
        line: "ultron: waiting for k3s-agent.service",
        until: "true",
        dies: Dies::Network,
    },
];

const UPGRADE: [Moment; 5] = [
    Moment {
        node: 0,
        line: "jarvis: waiting for its pods to leave",
        until: "true",
        dies: Dies::Program,
    },
    Moment {
        node: 0,
        line: "jarvis: k3s: ",
        until: "ls -d /var/lib/selfheal/datastore-*",
        dies: Dies::Power,
    },
    Moment {
        node: 0,
        line: "jarvis: k3s: ",
        until: "test -e /usr/local/bin/k3s.prev",
        dies: Dies::Network,
    },
    Moment {
        node: 1,
        line: "ultron: waiting for its pods to leave",
        until: "true",
        dies: Dies::Program,
    },
    Moment {
        node: 1,
        line: "ultron: k3s: ",
        until: "test -e /usr/local/bin/k3s.prev",
        dies: Dies::Power,
    },
];

/// All of them, or those that are named, each with its number.
fn chosen(moments: &[Moment]) -> Vec<(usize, Moment)> {
    let numbers = named_moments().unwrap_or_else(|| (0..moments.len()).collect());
    numbers
        .into_iter()
        .map(|number| (number, moments[number]))
        .collect()
}

fn wait_until(pi: &Pi, condition: &str) {
    // The run goes on meanwhile; a moment that has passed already is as good as the next one.
    let script = format!(
        "i=0; until {condition} || [ $i -gt 600 ]; do i=$((i + 1)); sleep 0.05; done >/dev/null 2>&1"
    );
    pi.root(&script).unwrap();
}

fn interrupt(homelab: &Homelab, moment: Moment) {
    eprintln!("{moment:?}");
    let pi = &homelab.pis[moment.node];
    let mut run = homelab.start(&["apply", "--yes"]);
    assert!(run.reaches(moment.line), "the run never came to {moment:?}");
    wait_until(pi, moment.until);
    match moment.dies {
        Dies::Program => run.kill(),
        Dies::Network => {
            pi.network(false).unwrap();
            run.kill();
            pi.network(true).unwrap();
        }
        Dies::Power => {
            pi.power_cut().unwrap();
            run.kill();
            pi.power_on().unwrap();
        }
    }
    pi.wait_for_ssh(Duration::from_secs(180)).unwrap();
}

fn is_whole(homelab: &Homelab, version: &str) {
    for name in ["jarvis", "ultron"] {
        let server = &homelab.pis[0];
        is_ready(server, name);
        let object = node(server, name);
        assert_ne!(object["spec"]["unschedulable"], true);
        assert_eq!(object["status"]["nodeInfo"]["kubeletVersion"], version);
    }
}

#[test]
#[ignore = "half an hour: tests/run.sh --full"]
fn an_interrupted_installation_is_finished_by_the_next_apply() {
    let homelab = homelab(&["jarvis", "ultron"], "");
    for (_, moment) in chosen(&INSTALL) {
        interrupt(&homelab, moment);
        homelab.converge();
        is_whole(&homelab, release::VERSION);
        homelab.ok(&["node", "reset", "ultron", "--yes"]);
        homelab.ok(&["node", "reset", "jarvis", "--yes"]);
    }
}

#[test]
#[ignore = "a quarter of an hour: tests/run.sh --full"]
fn an_interrupted_upgrade_is_finished_by_the_next_apply() {
    let homelab = homelab(&["jarvis", "ultron"], "");
    homelab.converge();
    let section = with_k3s(&homelab.k3s_section());
    for (number, moment) in chosen(&UPGRADE) {
        let version = format!("v1.36.{}+k3s1", number + 4);
        homelab.release(&[&version]);
        homelab.set(&format!("[versions]\nk3s = \"{version}\"\n{section}"));
        interrupt(&homelab, moment);
        homelab.converge();
        is_whole(&homelab, &version);
    }
}
