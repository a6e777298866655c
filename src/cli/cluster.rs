//! What a run has to know of the cluster before it begins: who joins whom, and which files of k3s's release it takes
//! along.

use std::collections::BTreeMap;

use camino::Utf8Path;
use secrecy::SecretString;

use super::exit::Exit;
use super::fleet::{interruptible, watched};
use super::options::Options;
use super::output::Failure;
use crate::apply::{Cluster, Seed, Standing, Supplies};
use crate::artifact::{self, Arch, Artifact, ArtifactError, Patience, Request, Source};
use crate::fleet::{self, Outcomes, Reached};
use crate::inventory::{Inventory, K3sArch, K3sSource, Node, NodeName, ProgramPin};
use crate::plan::{NodePlan, Snapshots};
use crate::report::log::Log;
use crate::report::{Events, telling};
use crate::resource::change::Action;
use crate::resource::k3s::{Asset, Origin, WantedAsset, WantedSecret};

/// Who joins whom, and which servers have to come up first. `server` is the one that the others talk to.
pub(super) fn agreed(
    inventory: &Inventory,
    server: Option<&Node>,
    outcomes: &Outcomes<Reached>,
    plans: &BTreeMap<NodeName, NodePlan>,
    supplies: Supplies,
) -> Cluster {
    let reached = |node: &NodeName| outcomes.get(node).and_then(|outcome| outcome.as_ref().ok());
    let standing = |node: &NodeName| match (reached(node), plans.get(node)) {
        (None, _) => Standing::Failed,
        (Some(_), Some(plan)) if !plan.is_empty() => Standing::Coming,
        (Some(_), _) => Standing::Up,
    };
    let servers = inventory.control_planes().filter(|node| node.k3s.install);
    let servers = servers.filter(|node| outcomes.contains_key(&node.name));
    let servers = servers.map(|node| (node.name.clone(), standing(&node.name)));
    let seed = server.and_then(|node| {
        let target = reached(&node.name)?.target.clone();
        Some(Seed {
            name: node.name.clone(),
            target,
        })
    });
    Cluster::new(seed, servers.collect(), supplies)
}

/// Gets what the plans bring to nodes, the files of k3s's release and the inventory's tokens, before anything is changed
/// anywhere.
pub(super) async fn fetch(
    inventory: &Inventory,
    snapshots: &Snapshots,
    plans: &BTreeMap<NodeName, NodePlan>,
    options: &Options,
    log: &mut Option<Log>,
) -> Result<Supplies, Failure> {
    let mut wanted = Vec::new();
    let mut supplies = Supplies::default();
    for plan in plans.values().filter(|plan| plan.refusals.is_empty()) {
        let node = inventory.node(plan.node.as_str());
        let Some((node, snapshot)) = node.zip(snapshots.get(&plan.node)) else {
            continue;
        };
        for action in plan.changes.iter().flat_map(|change| &change.actions) {
            match action {
                Action::InstallAsset(asset) => {
                    wanted.push((node, snapshot.facts.machine.clone(), asset.clone()));
                }
                Action::PutSecret(WantedSecret {
                    path,
                    origin: Origin::Own,
                }) => {
                    let token = own_token(node, path).await?;
                    let tokens = supplies.tokens.entry(node.name.clone()).or_default();
                    tokens.insert(path.clone(), token);
                }
                _ => {}
            }
        }
    }
    if wanted.is_empty() {
        return Ok(supplies);
    }
    let cache = artifact::cache_folder().map_err(|error| unfetched(&error))?;
    let fetching = watched(options, log, async |events: Events| {
        for (node, machine, asset) in wanted {
            let artifact = one(node, &machine, &asset, &cache, &events).await?;
            let assets = supplies.assets.entry(node.name.clone()).or_default();
            assets.push((asset.path, artifact));
        }
        Ok(supplies)
    });
    interruptible(fetching).await?
}

async fn own_token(node: &Node, path: &Utf8Path) -> Result<Option<SecretString>, Failure> {
    let k3s = &node.k3s;
    let (key, secret) = match path.file_name() {
        Some("agent-token") => ("agent_token", &k3s.agent_token),
        _ => ("token", &k3s.token),
    };
    let Some(secret) = secret else {
        return Ok(None);
    };
    let failed = |error: &dyn std::error::Error| {
        let text = format!(
            "{}: no k3s.{key}, and nothing was changed: {}",
            node.name,
            chain(error)
        );
        Failure::new(Exit::Failed, text)
    };
    let home = fleet::home().map_err(|error| failed(&error))?;
    let token = secret.resolve(&home).await;
    token.map(Some).map_err(|error| failed(&error))
}

async fn one(
    node: &Node,
    machine: &str,
    wanted: &WantedAsset,
    cache: &Utf8Path,
    events: &Events,
) -> Result<Artifact, Failure> {
    let arch = machine.parse::<Arch>().map_err(|error| {
        Failure::new(Exit::Failed, format!("{}: {error}", node.name))
            .hint("flash a 64-bit system, or set `install = false` in the node's `[k3s]`")
    })?;
    let source = match &node.k3s.source {
        K3sSource::Releases => Source::Public,
        K3sSource::Mirror(mirror) => mirror.clone(),
        K3sSource::Folder(path) => {
            let home =
                fleet::home().map_err(|error| Failure::new(Exit::Failed, error.to_string()))?;
            Source::Folder(path.expand(&home))
        }
    };
    let name = match arch {
        Arch::Amd64 => K3sArch::Amd64,
        Arch::Arm64 => K3sArch::Arm64,
        Arch::Arm => K3sArch::Arm,
    };
    let pin = match wanted.asset {
        Asset::Program => node.k3s.sha256.get(&name),
        Asset::Images => None,
    };
    let asset = match wanted.asset {
        Asset::Program => artifact::Asset::Binary(arch),
        Asset::Images => artifact::Asset::Images(arch),
    };
    let request = Request {
        source: &source,
        tag: &wanted.version,
        asset,
        pin: pin.map(ProgramPin::sha256),
        cache,
        patience: Patience::default(),
    };
    let file = format!("{} {}", asset.file_name(), wanted.version);
    let mut tell = telling(events, node.name.as_str(), "downloading", &file);
    let mut progress = |done, total: Option<u64>| tell(done, total.unwrap_or(done));
    let fetched = artifact::fetch(&request, &mut progress).await;
    fetched.map_err(|error| unfetched(&error))
}

fn unfetched(error: &ArtifactError) -> Failure {
    let text = format!("cannot get k3s, and nothing was changed: {}", chain(error));
    let failure = Failure::new(Exit::Failed, text);
    match error.hint() {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

/// An error and its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    let words = std::iter::once(error.to_string()).chain(causes.map(ToString::to_string));
    words.collect::<Vec<_>>().join(": ")
}
