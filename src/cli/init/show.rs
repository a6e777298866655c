//! What `selfheal init` found, for people and for programs.

use serde_json::{Value, json};

use crate::fleet::{Met, NodeError};
use crate::inventory::write::Proposal;
use crate::ssh::{ConnectError, HostKey, Method};

/// A table of the nodes, and remarks below it.
pub(super) fn table(proposal: &Proposal, met: &[Met]) -> String {
    let unknown = || "?".to_owned();
    let mut rows =
        vec![["NAME", "HOST", "ROLE", "MODEL", "OS", "MEMORY", "HOST KEY"].map(str::to_owned)];
    for ((host, role), met) in proposal.hosts.iter().zip(proposal.roles()).zip(met) {
        let key = |key: &HostKey| format!("{} {}", key.kind(), key.fingerprint());
        rows.push([
            host.name.to_string(),
            format!("{} port {}", host.host, host.port),
            role.to_string(),
            host.model.map_or_else(unknown, |model| model.to_string()),
            host.os.map_or_else(unknown, |os| os.to_string()),
            host.memory_mib
                .map_or_else(unknown, |memory| format!("{memory} MiB")),
            met.host_key.as_ref().map_or_else(unknown, key),
        ]);
    }
    let mut text = aligned(&rows);
    for (host, met) in proposal.hosts.iter().zip(met) {
        if host.os.is_none() {
            let os = &met.facts.os.name;
            text += &format!("{}: {os:?} is no system that selfheal knows\n", host.name);
        }
        if met.login == Method::Password {
            text += &format!(
                "{}: the login was by password; give `login_password` in [ssh], so that bootstrap can install your key\n",
                host.name
            );
        }
        if let Some(refused) = &met.sudo {
            let hint = refused.hint().unwrap_or_default();
            text += &format!(
                "{}: without sudo nothing can be changed there: {refused}; {hint}\n",
                host.name
            );
        }
    }
    text
}

fn aligned<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: [usize; N] = std::array::from_fn(width);
    let line = |row: &[String; N]| {
        let cells = row
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

/// The nodes as JSON.
pub(super) fn hosts(proposal: &Proposal, met: &[Met]) -> Vec<Value> {
    let all = proposal.hosts.iter().zip(proposal.roles()).zip(met);
    let shown = |key: &HostKey| json!({ "key": key.to_string(), "type": key.kind(), "fingerprint": key.fingerprint() });
    all.map(|((host, role), met)| {
        json!({
            "name": host.name.as_str(),
            "host": host.host.to_string(),
            "port": host.port.get(),
            "user": met.node.user.as_str(),
            "address": host.address.map(|address| address.to_string()),
            "role": role.as_str(),
            "model": host.model.map(|model| model.as_str()),
            "os": host.os.map(|os| os.as_str()),
            "os_name": met.facts.os.name,
            "hostname": met.facts.hostname,
            "memory_mib": host.memory_mib,
            "host_key": met.host_key.as_ref().map(shown),
            "login": match met.login {
                Method::Agent => "agent",
                Method::PublicKey => "key",
                Method::Password => "password",
            },
            "sudo": met.sudo.is_none(),
        })
    })
    .collect()
}

/// What to do about a host that was not met: there is no inventory yet that could be corrected.
pub(super) fn hint(error: &NodeError) -> Option<String> {
    let NodeError::Connect(connect) = error else {
        return error.hint();
    };
    let peer = connect.peer();
    let (user, host, port) = (&peer.user, &peer.host, peer.port);
    match connect {
        ConnectError::HostKeyUnknown { .. } => Some(format!(
            "compare the fingerprint with what `ssh-keygen -lf` prints on {host} itself, then run again at a terminal \
             and confirm it, or with --fingerprint SHA256:…"
        )),
        ConnectError::HostKeyChanged { .. } => {
            let name = if port == 22 {
                host.clone()
            } else {
                format!("[{host}]:{port}")
            };
            Some(format!(
                "if {host} was re-flashed, remove the old key: ssh-keygen -R '{name}'; if not, somebody may be in \
                 between: do not connect"
            ))
        }
        ConnectError::LoginRefused { .. } => Some(format!(
            "try `ssh -v -p {port} {user}@{host}`; name the right user and key with --user and --identity"
        )),
        _ => error.hint(),
    }
}
