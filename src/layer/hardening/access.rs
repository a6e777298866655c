//! Who may log in: the dead man's switch, keys and sshd, the firewall (domain.md §3.1, §3.2).

use minijinja::context;

use super::{LAYER, folder, want};
use crate::inventory::{Hardening, Inventory, Node, PortRule, PublicKey, Role, Sshd};
use crate::layer::template::{Template, file, landing, verbatim};
use crate::node::snapshot::Snapshot;
use crate::resource::change::Refusal;
use crate::resource::{FIREWALL_UNIT, Resource, Wanted, edit};

const SSHD: Template = landing!("/etc/ssh/sshd_config.d/00-selfheal.conf");
const DEAD_MAN: Template = landing!("/usr/local/libexec/selfheal/deadman");
const DEAD_MAN_SERVICE: Template = landing!("/etc/systemd/system/selfheal-deadman.service");
const DEAD_MAN_BOOT: Template = landing!("/etc/systemd/system/selfheal-deadman-boot.service");
const DEAD_MAN_TIMER: Template = landing!("/etc/systemd/system/selfheal-deadman.timer");
const FIREWALL: Template = landing!("/etc/selfheal/firewall.nft");
const FIREWALL_SERVICE: Template = landing!("/etc/systemd/system/selfheal-firewall.service");

/// The files of this part.
pub(super) const FILES: [Template; 7] = [
    SSHD,
    DEAD_MAN,
    DEAD_MAN_SERVICE,
    DEAD_MAN_BOOT,
    DEAD_MAN_TIMER,
    FIREWALL,
    FIREWALL_SERVICE,
];

/// Folders of this part that a system may lack.
pub(super) const FOLDERS: [&str; 3] = [
    "/etc/selfheal",
    "/usr/local/libexec",
    "/usr/local/libexec/selfheal",
];

/// The units of this part.
pub(super) const UNITS: [&str; 3] = [
    "selfheal-deadman-boot.service",
    "selfheal-deadman.timer",
    FIREWALL_UNIT,
];

/// k3s's own pod and service networks (domain.md §3.2).
const CLUSTER_NETWORKS: [&str; 2] = ["10.42.0.0/16", "10.43.0.0/16"];

/// The switch that undoes a change that locked everybody out. It is there before the first such change.
pub(super) fn dead_man(resources: &mut Vec<Resource>) {
    resources.push(folder("/usr/local/libexec"));
    resources.push(folder("/usr/local/libexec/selfheal"));
    resources.push(verbatim(LAYER, DEAD_MAN, 0o755));
    resources.extend(
        [DEAD_MAN_SERVICE, DEAD_MAN_BOOT, DEAD_MAN_TIMER].map(|unit| verbatim(LAYER, unit, 0o644)),
    );
    for unit in ["selfheal-deadman-boot.service", "selfheal-deadman.timer"] {
        resources.push(want(Wanted::Enabled(unit.into())));
    }
}

/// Who may log in. Keys first, then sshd, whose first value wins over cloud-init's drop-in (domain.md §3.1).
pub(super) fn login(
    node: &Node,
    snapshot: &Snapshot,
    resources: &mut Vec<Resource>,
) -> Result<(), Refusal> {
    let settings = &node.hardening;
    if let (Some(home), false) = (
        snapshot.home(node.user.as_str()),
        settings.authorized_keys.is_empty(),
    ) {
        let path = home.join(".ssh/authorized_keys");
        let current = edit::undo(snapshot.content(&path).unwrap_or_default());
        let there = String::from_utf8_lossy(&current).into_owned();
        let missing = |key: &&PublicKey| !there.contains(key.base64());
        let block: Vec<String> = settings
            .authorized_keys
            .iter()
            .filter(missing)
            .map(ToString::to_string)
            .collect();
        let content = edit::edit(
            snapshot.content(&path).unwrap_or_default(),
            |_| false,
            &block,
        );
        resources.push(want(Wanted::Edit {
            path,
            content,
            mode: 0o600,
            owner: node.user.to_string(),
        }));
    }
    let sshd = &settings.sshd;
    let yes_no = |on: bool| if on { "yes" } else { "no" };
    let values = context! {
        password_authentication => yes_no(sshd.password_authentication),
        permit_root_login => sshd.permit_root_login.as_str(),
        max_auth_tries => sshd.max_auth_tries.get(),
        login_grace_time => sshd.login_grace_time.as_secs(),
        client_alive_interval => sshd.client_alive_interval.as_secs(),
        client_alive_count_max => sshd.client_alive_count_max.get(),
        x11_forwarding => yes_no(sshd.x11_forwarding),
        settings => settings_lines(sshd),
    };
    let drop_in = file(LAYER, SSHD, 0o600, values)?;
    obeyed(&drop_in, settings, snapshot)?;
    resources.push(drop_in);
    Ok(())
}

fn settings_lines(sshd: &Sshd) -> Vec<String> {
    let lines = sshd
        .settings
        .iter()
        .flat_map(|(keyword, values)| values.iter().map(move |value| format!("{keyword} {value}")));
    lines.collect()
}

/// A drop-in that is as it should be, but that sshd does not obey, cannot be helped by writing it again.
fn obeyed(drop_in: &Resource, settings: &Hardening, snapshot: &Snapshot) -> Result<(), Refusal> {
    let Wanted::File { path, content, .. } = &drop_in.wanted else {
        return Ok(());
    };
    if snapshot.content(path) != Some(content) || snapshot.sshd.is_empty() {
        return Ok(());
    }
    let says = |line: &String| {
        let (keyword, value) = line.split_once(' ').unwrap_or((line, ""));
        snapshot
            .sshd
            .get(keyword)
            .is_some_and(|values| values.iter().any(|other| other == value))
    };
    match sshd_must_say(settings).iter().find(|line| !says(line)) {
        None => Ok(()),
        Some(line) => Err(Refusal {
            layer: LAYER,
            what: path.to_string(),
            reason: format!("sshd does not obey \"{line}\", though this file says so"),
            hint: "look for a file in /etc/ssh/sshd_config.d that sorts before it, and for settings above the Include \
                   line of /etc/ssh/sshd_config"
                .to_owned(),
        }),
    }
}

/// What `sshd -T` must say once the drop-in is in force.
pub fn sshd_must_say(settings: &Hardening) -> Vec<String> {
    let sshd = &settings.sshd;
    let yes_no = |on: bool| if on { "yes" } else { "no" };
    vec![
        "pubkeyauthentication yes".to_owned(),
        format!(
            "passwordauthentication {}",
            yes_no(sshd.password_authentication)
        ),
        format!(
            "kbdinteractiveauthentication {}",
            yes_no(sshd.password_authentication)
        ),
        format!("maxauthtries {}", sshd.max_auth_tries.get()),
        format!("x11forwarding {}", yes_no(sshd.x11_forwarding)),
    ]
}

/// An own table, never a `flush ruleset`: the chains of kube-proxy and flannel stay (domain.md §3.2).
pub(super) fn firewall(
    inventory: &Inventory,
    node: &Node,
    snapshot: &Snapshot,
    resources: &mut Vec<Resource>,
) -> Result<(), Refusal> {
    let firewall = &node.hardening.firewall;
    if !firewall.enabled {
        return Ok(());
    }
    let nodes: Vec<String> = inventory
        .nodes
        .iter()
        .filter_map(Node::lan_address)
        .map(|ip| ip.to_string())
        .collect();
    let hole = |rule: &PortRule| {
        let port = match (rule.first, rule.last) {
            (first, last) if first == last => first.to_string(),
            (first, last) => format!("{first}-{last}"),
        };
        context! { port, protocol => rule.protocol.as_str(), from => Vec::<String>::new(), why => "inventory" }
    };
    let values = context! {
        admins => firewall.admin.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ssh_ports => snapshot.sshd.get("port").cloned().unwrap_or_else(|| vec!["22".to_owned()]),
        nodes,
        cluster => CLUSTER_NETWORKS,
        server => node.role == Role::ControlPlane,
        etcd => inventory.control_planes().count() > 1,
        wireguard => false,
        allow => firewall.allow.iter().map(hole).collect::<Vec<_>>(),
    };
    resources.push(want(Wanted::Package("nftables".into())));
    resources.push(folder("/etc/selfheal"));
    resources.push(verbatim(LAYER, FIREWALL_SERVICE, 0o644));
    resources.push(file(LAYER, FIREWALL, 0o644, values)?);
    resources.push(want(Wanted::Running(FIREWALL_UNIT.into())));
    Ok(())
}
