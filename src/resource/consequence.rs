//! What a change of a file has for consequences, by where the file lies: the same for writing and for removing it.

use std::collections::BTreeSet;

use camino::Utf8Path;

use super::change::Effect;
use crate::node::snapshot::Snapshot;

/// The unit that loads selfheal's firewall.
pub const FIREWALL_UNIT: &str = "selfheal-firewall.service";

/// k3s as a server and as an agent.
const K3S_UNITS: [&str; 2] = ["k3s.service", "k3s-agent.service"];

/// Whether the unit is k3s.
pub fn is_k3s(unit: &str) -> bool {
    K3S_UNITS.contains(&unit)
}

/// Whether k3s reads the file at `path` only when it starts. What is in its drop-ins is for its next start.
fn is_read_by_k3s(path: &str) -> bool {
    path.starts_with("/etc/rancher/k3s/")
        || path.starts_with("/var/lib/rancher/k3s/agent/etc/kubelet.conf.d/")
        || path == "/usr/local/bin/k3s"
}

/// What has to follow a change of the file at `path` for it to take effect. A node is a server or an agent, and only the
/// one that is there can be restarted.
pub fn effects(path: &Utf8Path, snapshot: &Snapshot) -> BTreeSet<Effect> {
    let effect = match path.as_str() {
        path if path.starts_with("/etc/ssh/") => Effect::Reload("ssh.service".into()),
        path if is_read_by_k3s(path) => {
            let there = K3S_UNITS
                .into_iter()
                .filter(|unit| snapshot.unit(unit).loaded);
            return there.map(|unit| Effect::Restart(unit.into())).collect();
        }
        "/etc/systemd/system/k3s.service" | "/etc/systemd/system/k3s-agent.service" => {
            let unit = path.file_name().unwrap_or_default().to_owned();
            return BTreeSet::from([Effect::DaemonReload, Effect::Restart(unit)]);
        }
        path if path.starts_with("/etc/systemd/logind.conf.d/") => {
            Effect::Restart("systemd-logind.service".into())
        }
        path if path.starts_with("/etc/systemd/system/") => Effect::DaemonReload,
        path if path.starts_with("/etc/systemd/system.conf.d/") => Effect::DaemonReexec,
        path if path.starts_with("/etc/systemd/journald.conf.d/") => {
            Effect::Restart("systemd-journald.service".into())
        }
        path if path.starts_with("/etc/systemd/timesyncd.conf.d/") => {
            Effect::Restart("systemd-timesyncd.service".into())
        }
        "/etc/iscsi/initiatorname.iscsi" => Effect::Restart("iscsid.service".into()),
        path if path.starts_with("/etc/multipath/conf.d/") => {
            Effect::Reload("multipathd.service".into())
        }
        "/etc/selfheal/firewall.nft" => Effect::Restart(FIREWALL_UNIT.into()),
        _ => return BTreeSet::new(),
    };
    BTreeSet::from([effect])
}

/// Whether a mistake in the file at `path` can lock the user out: such a change goes behind the dead man's switch.
pub fn locks_out(path: &Utf8Path) -> bool {
    path.starts_with("/etc/ssh")
        || path.starts_with("/etc/sudoers.d")
        || path == "/etc/selfheal/firewall.nft"
        || path.ends_with(".ssh/authorized_keys")
}
