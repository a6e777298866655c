//! Names, addresses and what stands between the nodes (domain.md §3.2, §3.6).

use super::finding::Outcome;
use super::patient::Patient;

pub(super) fn names(patient: &Patient<'_>) -> Outcome {
    let hostname = |of: &super::Measured| of.snapshot.facts.hostname.clone();
    let own = hostname(patient.measured);
    let same: Vec<&str> = patient
        .all
        .iter()
        .filter(|(node, other)| node.name != patient.node.name && hostname(other) == own)
        .map(|(node, _)| node.name.as_str())
        .collect();
    if !same.is_empty() {
        return Outcome::fail(
            format!("{} is called {own}, too", same.join(", ")),
            "k3s takes two nodes of one name for one: `selfheal apply` gives each its name of the inventory",
        );
    }
    let line = patient
        .text("hosts")
        .lines()
        .find(|line| line.split_whitespace().next() == Some("127.0.1.1"));
    match line {
        Some(line) if !line.split_whitespace().skip(1).any(|name| name == own) => {
            return Outcome::warn(
                format!(
                    "the hostname is {own}, but /etc/hosts says: {}",
                    line.trim()
                ),
                "`selfheal apply` corrects the line",
            );
        }
        _ => {}
    }
    match leased(patient) {
        Some(lease) => Outcome::warn(
            format!("{own}; {lease} comes by DHCP"),
            "k3s does not survive another address: reserve it in the router, or set it on the node; then name it as \
             `address` in the inventory",
        ),
        None => Outcome::ok(format!("{own}, unique, with a fixed address")),
    }
}

/// The node's address in the cluster, if the node has it by DHCP. One that the inventory fixes is taken to be reserved
/// in the router; else it is the one that leads to everywhere.
fn leased(patient: &Patient<'_>) -> Option<String> {
    if patient.node.lan_address().is_some() {
        return None;
    }
    let interface = patient.measured.snapshot.facts.default_interface.as_ref()?;
    let lines = patient.measured.text("fact addresses").lines();
    let mut leased = lines.filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, name, "inet", address, ..] = words[..] else {
            return None;
        };
        (name == interface && words.contains(&"dynamic")).then(|| address.to_owned())
    });
    leased.next()
}

pub(super) fn firewall(patient: &Patient<'_>) -> Outcome {
    let (mut blocked, mut answering, mut unclear) = (Vec::new(), 0, Vec::new());
    for line in patient.text("peers").lines() {
        let [address, port, outcome] = line.split_whitespace().collect::<Vec<_>>()[..] else {
            continue;
        };
        // Only nodes that were reached are asked about: silence is a firewall's, not that of a node that is down.
        let up = patient.all.iter().any(|(node, _)| {
            node.lan_address()
                .is_some_and(|ip| ip.to_string() == address)
        });
        match outcome {
            "open" | "refused" => answering += 1,
            "silent" | "unreachable" if up => {
                blocked.push(format!("{address} port {port} ({outcome})"));
            }
            _ => unclear.push(format!("{address} port {port}")),
        }
    }
    if !blocked.is_empty() {
        return Outcome::fail(
            format!("does not get through to {}", blocked.join(", ")),
            "let TCP 6443 and 10250 and UDP 8472 pass between the nodes; do they share a network?",
        );
    }
    let snapshot = &patient.measured.snapshot;
    if patient.text("ufw").contains("yes") {
        return Outcome::warn(
            "ufw is enabled (/etc/ufw/ufw.conf)",
            "its forward policy drops pod traffic: `sudo ufw disable`, and use [hardening.firewall]",
        );
    }
    if snapshot.unit("firewalld.service").active {
        return Outcome::warn(
            "firewalld is active",
            "`sudo systemctl disable --now firewalld`, and use [hardening.firewall]",
        );
    }
    let nftables = snapshot.unit("nftables.service");
    let flush = patient.text("flush").lines().next();
    if let Some(line) = flush.filter(|_| nftables.enabled() || nftables.active) {
        return Outcome::warn(
            format!("nftables.service loads {line}"),
            "it wipes out k3s's rules whenever it loads: delete only tables of your own there, or use [hardening.firewall]",
        );
    }
    let reached = match (answering, unclear.is_empty()) {
        (0, true) => "no other node to reach".to_owned(),
        (count, true) => format!("ports of other nodes that answer: {count}"),
        (count, false) => format!(
            "ports of other nodes that answer: {count}; not known: {}",
            unclear.join(", ")
        ),
    };
    Outcome::ok(format!("no ufw, firewalld or `flush ruleset`; {reached}"))
}
