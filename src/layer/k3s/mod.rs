//! k3s on a node, and what brings it back after a power cut: the clock before it, the guard at its start, the reaper
//! after it, and the proof that the node still lives (domain.md §4, §5).

mod cluster;

use camino::{Utf8Path, Utf8PathBuf};
use minijinja::context;

use super::template::{Template, file, landing, verbatim};
use crate::inventory::{Inventory, K3sVersion, Node, Role};
use crate::node::facts::Facts;
use crate::node::file::FileState;
use crate::node::ledger::LayerName;
use crate::node::probe::Questions;
use crate::node::snapshot::Snapshot;
use crate::plan::Snapshots;
use crate::resource::change::Refusal;
use crate::resource::k3s::{Asset, Origin, WantedAsset, WantedSecret};
use crate::resource::{Resource, Wanted};
use cluster::Cluster;

pub use cluster::{another_server, consulted, seed};

const PROGRAM: &str = "/usr/local/bin/k3s";
const IMAGES: &str = "/var/lib/rancher/k3s/agent/images";
const TOKEN: &str = "/etc/rancher/k3s/token";
const AGENT_TOKEN: &str = "/etc/rancher/k3s/agent-token";
/// What a server gives to those that join; with the hash of its certificate, so that nobody else can pose as it.
const SERVER_TOKEN_THERE: &str = "/var/lib/rancher/k3s/server/token";
const AGENT_TOKEN_THERE: &str = "/var/lib/rancher/k3s/server/agent-token";
const NODE_PASSWORD: &str = "/etc/rancher/node/password";
/// What a server has once it was one.
const DATASTORE: &str = "/var/lib/rancher/k3s/server/db";

const CONFIG: Template = landing!("/etc/rancher/k3s/config.yaml");
const KUBELET: Template =
    landing!("/var/lib/rancher/k3s/agent/etc/kubelet.conf.d/60-selfheal.conf");
const LOGIND: Template = landing!("/etc/systemd/logind.conf.d/60-selfheal.conf");
const SERVER: Service = Service {
    unit: "k3s.service",
    file: landing!("/etc/systemd/system/k3s.service"),
    guard: landing!("/etc/systemd/system/k3s.service.d/20-selfheal-guard.conf"),
};
const AGENT: Service = Service {
    unit: "k3s-agent.service",
    file: landing!("/etc/systemd/system/k3s-agent.service"),
    guard: landing!("/etc/systemd/system/k3s-agent.service.d/20-selfheal-guard.conf"),
};
const SCRIPTS: [Template; 4] = [
    landing!("/usr/local/libexec/selfheal/guard"),
    landing!("/usr/local/libexec/selfheal/clock"),
    landing!("/usr/local/libexec/selfheal/reap"),
    landing!("/usr/local/libexec/selfheal/alive"),
];
const UNITS: [Template; 5] = [
    landing!("/etc/systemd/system/selfheal-clock.service"),
    landing!("/etc/systemd/system/selfheal-clock-record.service"),
    landing!("/etc/systemd/system/selfheal-clock-record.timer"),
    landing!("/etc/systemd/system/selfheal-reap.service"),
    landing!("/etc/systemd/system/selfheal-alive.timer"),
];
const ALIVE: Template = landing!("/etc/systemd/system/selfheal-alive.service");
const CLOCK_UNIT: &str = "selfheal-clock.service";
const TIMERS: [&str; 2] = ["selfheal-clock-record.timer", "selfheal-alive.timer"];

/// Folders that a system may lack.
const FOLDERS: [&str; 8] = [
    "/etc/rancher",
    "/etc/rancher/k3s",
    "/etc/systemd/logind.conf.d",
    "/etc/systemd/system/k3s.service.d",
    "/etc/systemd/system/k3s-agent.service.d",
    "/usr/local/libexec",
    "/usr/local/libexec/selfheal",
    "/var/lib/rancher/k3s/agent/etc/kubelet.conf.d",
];

/// The kernel's number for SD cards and eMMC (`mmcblk`).
const SD_CARD: u32 = 179;
const MIB: u64 = 1 << 20;

const LAYER: LayerName = LayerName::K3s;

/// k3s as a server or as an agent.
struct Service {
    unit: &'static str,
    file: Template,
    guard: Template,
}

fn service(role: Role) -> &'static Service {
    match role {
        Role::ControlPlane => &SERVER,
        Role::Worker => &AGENT,
    }
}

/// The unit that runs k3s on a node of this role.
pub fn unit(role: Role) -> &'static str {
    service(role).unit
}

/// Everything this layer may want to know.
pub(super) fn questions(node: &Node) -> Questions {
    if !node.k3s.install {
        return Questions::default();
    }
    let service = service(node.role);
    let files = [CONFIG, KUBELET, LOGIND, ALIVE, service.file, service.guard];
    let paths = files
        .iter()
        .chain(&SCRIPTS)
        .chain(&UNITS)
        .map(|(path, _)| *path);
    let images = Utf8Path::new(IMAGES);
    let units = [service.unit, CLOCK_UNIT].into_iter().chain(TIMERS);
    Questions {
        files: paths
            .chain(FOLDERS)
            .chain([DATASTORE])
            .map(Utf8PathBuf::from)
            .chain([images.to_owned()])
            .collect(),
        units: units.map(str::to_owned).collect(),
        secrets: [
            TOKEN,
            AGENT_TOKEN,
            SERVER_TOKEN_THERE,
            AGENT_TOKEN_THERE,
            NODE_PASSWORD,
        ]
        .map(Utf8PathBuf::from)
        .into(),
        network: true,
        ..standing(node)
    }
}

/// What any run wants to know of a node that is or will be a part of a cluster: a reboot has to be a planned one.
pub(super) fn standing(node: &Node) -> Questions {
    Questions {
        k3s: node.k3s.install,
        cluster: node.k3s.install && node.role == Role::ControlPlane,
        ..Questions::default()
    }
}

/// The recipe.
pub(super) fn desired(
    inventory: &Inventory,
    node: &Node,
    snapshots: &Snapshots,
) -> Result<Vec<Resource>, Refusal> {
    let Some(snapshot) = snapshots.get(&node.name) else {
        return Ok(Vec::new());
    };
    if !node.k3s.install {
        let owned = snapshot
            .ledger
            .iter()
            .any(|(_, entry)| entry.layer == LAYER);
        return match owned {
            false => Ok(Vec::new()),
            true => Err(refuse(
                "k3s.install",
                "k3s is on this node, and taking it off would end its pods".to_owned(),
                format!(
                    "to take it off for good: selfheal node remove {}",
                    node.name
                ),
            )),
        };
    }
    let cluster = Cluster::new(inventory, node, snapshots)?;
    let mut resources = Vec::new();
    program(inventory, node, snapshot, &mut resources)?;
    settings(&cluster, snapshot, &mut resources)?;
    tokens(&cluster, &mut resources);
    healing(&cluster, &mut resources)?;
    cluster.membership(snapshot, &mut resources);
    resources.push(want(Wanted::Running(service(node.role).unit.to_owned())));
    Ok(resources)
}

/// What the user should know of a node that is as wanted.
pub(super) fn notes(node: &Node, snapshot: &Snapshot) -> Vec<String> {
    let mut notes = Vec::new();
    let config = snapshot.content(CONFIG.0.into()).unwrap_or_default();
    let etcd = config.windows(12).any(|words| words == b"cluster-init");
    if node.k3s.install && etcd && on_sd_card(&snapshot.facts) {
        notes.push(
            "etcd is on an SD card, which its writes wear out and which is too slow for it: put the system on an SSD"
                .to_owned(),
        );
    }
    notes
}

fn want(wanted: Wanted) -> Resource {
    Resource::new(LAYER, wanted)
}

fn refuse(what: &str, reason: String, hint: String) -> Refusal {
    Refusal {
        layer: LAYER,
        what: what.to_owned(),
        reason,
        hint,
    }
}

fn on_sd_card(facts: &Facts) -> bool {
    facts.mount("/").is_some_and(|root| root.major == SD_CARD)
}

/// The program itself; never skipping a minor version, never back (domain.md §4.5).
fn program(
    inventory: &Inventory,
    node: &Node,
    snapshot: &Snapshot,
    resources: &mut Vec<Resource>,
) -> Result<(), Refusal> {
    let wanted = inventory.versions.k3s();
    let found = snapshot.k3s_version.clone();
    if let Some(version) = found
        .as_deref()
        .and_then(|text| text.parse::<K3sVersion>().ok())
    {
        may_follow(&version, &wanted)?;
    }
    resources.push(want(Wanted::Asset(WantedAsset {
        asset: Asset::Program,
        path: PROGRAM.into(),
        version: wanted.to_string(),
        found,
    })));
    if node.k3s.airgap_images {
        // The name says the version, so that an old bundle leaves with its version.
        let path = Utf8PathBuf::from(format!("{IMAGES}/selfheal-{wanted}.tar.zst"));
        resources.push(want(Wanted::Directory(IMAGES.into())));
        resources.push(want(Wanted::Asset(WantedAsset {
            asset: Asset::Images,
            found: snapshot
                .ledger
                .iter()
                .any(|(id, _)| id.name == path.as_str())
                .then(|| wanted.to_string())
                .filter(|_| *snapshot.file(&path) != FileState::Absent),
            path,
            version: wanted.to_string(),
        })));
    }
    Ok(())
}

fn may_follow(version: &K3sVersion, wanted: &K3sVersion) -> Result<(), Refusal> {
    let what = format!("versions.k3s {wanted}");
    if version.numbers() > wanted.numbers() {
        return Err(refuse(
            &what,
            format!("the node runs {version}, and the datastore of a newer k3s cannot be read by an older one"),
            "put the version back up; to go back for real, a backup of before the upgrade has to be restored".to_owned(),
        ));
    }
    if wanted.minor() > version.minor() + 1 {
        return Err(refuse(
            &what,
            format!("the node runs {version}, and Kubernetes cannot skip a minor version"),
            format!("go to 1.{} first, then on from there", version.minor() + 1),
        ));
    }
    Ok(())
}

/// What k3s, its kubelet and systemd-logind are told.
fn settings(
    cluster: &Cluster<'_>,
    snapshot: &Snapshot,
    resources: &mut Vec<Resource>,
) -> Result<(), Refusal> {
    let node = cluster.node;
    let server = node.role == Role::ControlPlane;
    let service = service(node.role);
    let drop_in = Utf8Path::new(service.guard.0).parent();
    let folders = FOLDERS.iter().map(Utf8Path::new);
    let folders =
        folders.filter(|path| !path.as_str().ends_with(".service.d") || Some(*path) == drop_in);
    resources.extend(folders.map(|path| want(Wanted::Directory(path.to_owned()))));
    let values = context! {
        name => node.name.as_str(),
        address => node.lan_address().map(|ip| ip.to_string()),
        interface => interface(node, &snapshot.facts),
        join => cluster.join.clone(),
        server,
        etcd => server && cluster.servers > 1 && cluster.join.is_none(),
        tls_san => cluster.tls_san(),
        disable => node.k3s.disable.iter().map(|part| part.as_str()).collect::<Vec<_>>(),
    };
    resources.push(file(LAYER, CONFIG, 0o600, values)?);
    resources.push(file(LAYER, KUBELET, 0o644, kubelet(node, &snapshot.facts))?);
    resources.push(verbatim(LAYER, LOGIND, 0o644));
    resources.push(verbatim(LAYER, service.file, 0o644));
    Ok(())
}

/// The interface that has the node's address, where that is not the one that k3s would take: the one that leads to
/// everywhere else.
fn interface(node: &Node, facts: &Facts) -> Option<String> {
    if let Some(interface) = &node.k3s.interface {
        return Some(interface.to_string());
    }
    let address = node.lan_address()?;
    let mut addresses = facts.addresses.iter();
    let interface = &addresses.find(|it| it.ip == address)?.interface;
    (facts.default_interface.as_ref() != Some(interface)).then(|| interface.clone())
}

/// A Pi of 4 GiB and more keeps 1 GiB back as a server and 512 MiB as a worker (domain.md §4.3); a smaller machine its
/// share of that.
fn kubelet(node: &Node, facts: &Facts) -> minijinja::Value {
    let usual = match node.role {
        Role::ControlPlane => 1024,
        Role::Worker => 512,
    };
    // Where nobody knows, as if there were enough.
    let memory = match facts.memory / MIB {
        0 => u64::MAX,
        memory => memory,
    };
    context! {
        system_memory => usual.min(memory / 8),
        eviction_memory => 200.min(memory / 16),
        serial_pulls => on_sd_card(facts),
    }
}

fn tokens(cluster: &Cluster<'_>, resources: &mut Vec<Resource>) {
    let secret = |path: &str, origin| {
        want(Wanted::Secret(WantedSecret {
            path: path.into(),
            origin,
        }))
    };
    let from = |path: &str| Origin::Server {
        server: cluster.seed.name.to_string(),
        path: path.into(),
        sha256: cluster
            .seed_snapshot
            .and_then(|snapshot| Some(snapshot.secret(path.into())?.sha256.clone())),
    };
    match (cluster.node.role, cluster.join.is_some()) {
        (Role::ControlPlane, false) => {
            resources.push(secret(TOKEN, Origin::Own));
            resources.push(secret(AGENT_TOKEN, Origin::Own));
        }
        // All servers have to have the same two.
        (Role::ControlPlane, true) => {
            resources.push(secret(TOKEN, from(SERVER_TOKEN_THERE)));
            resources.push(secret(AGENT_TOKEN, from(AGENT_TOKEN)));
        }
        (Role::Worker, _) => resources.push(secret(TOKEN, from(AGENT_TOKEN_THERE))),
    }
}

/// The clock gate, the guard, the reaper, and the proof of life.
fn healing(cluster: &Cluster<'_>, resources: &mut Vec<Resource>) -> Result<(), Refusal> {
    let node = cluster.node;
    resources.extend(SCRIPTS.map(|script| verbatim(LAYER, script, 0o755)));
    resources.extend(UNITS.map(|unit| verbatim(LAYER, unit, 0o644)));
    // Without a quorum a reboot helps nobody.
    let alone = node.role == Role::ControlPlane && cluster.servers == 1;
    let readyz = if alone { "yes" } else { "no" };
    resources.push(file(LAYER, ALIVE, 0o644, context! { readyz })?);
    resources.push(verbatim(LAYER, service(node.role).guard, 0o644));
    resources.push(want(Wanted::Enabled(CLOCK_UNIT.to_owned())));
    resources.extend(TIMERS.map(|timer| want(Wanted::Running(timer.to_owned()))));
    Ok(())
}
