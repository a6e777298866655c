//! `selfheal kubeconfig`: the cluster's kubeconfig for this computer, beside those that are there.

mod merge;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::num::NonZeroUsize;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};

use camino::{Utf8Path, Utf8PathBuf};
use clap::Args;
use secrecy::ExposeSecret;

use super::exit::Exit;
use super::fleet::{block_on, failures, observe};
use super::load::{Loaded, load};
use super::options::Options;
use super::output::{Failure, print};
use crate::apply;
use crate::fleet::{self, NodeError, Outcomes};
use crate::inventory::{Inventory, Node};
use crate::replace::replace;

/// Where the kubeconfig goes.
#[derive(Debug, Args)]
pub(super) struct Kubeconfig {
    /// The file to write into [default: the first of $KUBECONFIG, then ~/.kube/config].
    #[arg(long, value_name = "FILE")]
    file: Option<Utf8PathBuf>,
    /// Take over a name under which the file has another cluster.
    #[arg(long)]
    replace: bool,
}

pub(super) fn run(asked: &Kubeconfig, options: &Options) -> Result<Exit, Failure> {
    let loaded = load(options)?;
    let server = server(&loaded.inventory)?.clone();
    let file = place(asked)?;
    block_on(fetch(asked, &loaded, server, &file, options))
}

/// The server that is asked, and whose address stands in the file.
fn server(inventory: &Inventory) -> Result<&Node, Failure> {
    let mut servers = inventory.control_planes().filter(|node| node.k3s.install);
    servers.next().ok_or_else(|| {
        Failure::new(
            Exit::Usage,
            "no control plane of this inventory has k3s (k3s.install = false)",
        )
    })
}

fn place(asked: &Kubeconfig) -> Result<Utf8PathBuf, Failure> {
    if let Some(file) = &asked.file {
        return Ok(file.clone());
    }
    let named = std::env::var("KUBECONFIG").unwrap_or_default();
    if let Some(first) = named.split(':').find(|path| !path.is_empty()) {
        return Ok(first.into());
    }
    let home = fleet::home().map_err(|error| Failure::new(Exit::Failed, error.to_string()))?;
    Ok(home.join(".kube/config"))
}

async fn fetch(
    asked: &Kubeconfig,
    loaded: &Loaded,
    server: Node,
    file: &Utf8Path,
    options: &Options,
) -> Result<Exit, Failure> {
    let host = server
        .join_host()
        .map_or_else(|| server.host.to_string(), |host| host.to_string());
    let host = if host.contains(':') {
        format!("[{host}]")
    } else {
        host
    };
    let address = format!("https://{host}:6443");
    let nodes = [server];
    let outcomes = observe(
        loaded,
        &nodes,
        &BTreeSet::new(),
        NonZeroUsize::MIN,
        options,
        &mut None,
    )
    .await?;
    let mut results: Outcomes<()> = Outcomes::new();
    for (node, reached) in outcomes {
        let fetched = match reached {
            Ok(reached) => {
                let fetched: Result<_, NodeError> = apply::kubeconfig(&reached.session).await;
                reached.session.close().await;
                fetched
            }
            Err(error) => Err(error),
        };
        let result = match fetched {
            Ok(fetched) => {
                let name = loaded.inventory.cluster.name.as_str();
                write(file, fetched.expose_secret(), name, &address, asked.replace)?;
                print(&format!("{file} has the context {name}, at {address}\n"));
                Ok(())
            }
            Err(error) => Err(error),
        };
        results.insert(node, result);
    }
    Ok(failures(&results))
}

/// Writes the merged file as a whole, for nobody else to read.
fn write(
    file: &Utf8Path,
    fetched: &str,
    name: &str,
    address: &str,
    take_over: bool,
) -> Result<(), Failure> {
    let failed =
        |error: io::Error| Failure::new(Exit::Failed, format!("cannot write {file}: {error}"));
    let existing = match fs::read_to_string(file) {
        Ok(existing) => existing,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if let Some(folder) = file.parent().filter(|folder| !folder.as_str().is_empty()) {
                let mut builder = fs::DirBuilder::new();
                builder
                    .recursive(true)
                    .mode(0o700)
                    .create(folder)
                    .map_err(failed)?;
            }
            let mut new = fs::OpenOptions::new();
            new.write(true)
                .create_new(true)
                .mode(0o600)
                .open(file)
                .map_err(failed)?;
            String::new()
        }
        Err(error) => return Err(failed(error)),
    };
    let merged = merge::merge(&existing, fetched, name, address, take_over).map_err(|error| {
        let failure = Failure::new(Exit::Failed, format!("{file} was left as it is: {error}"));
        match error {
            merge::MergeError::Taken { .. } => {
                failure.hint("give your cluster another name ([cluster] name), or take this one over with --replace")
            }
            merge::MergeError::NoKubeconfig(_) => failure.hint("another file can be named with --file"),
        }
    })?;
    if merged != existing {
        fs::set_permissions(file, fs::Permissions::from_mode(0o600)).map_err(failed)?;
        replace(file, merged.as_bytes()).map_err(failed)?;
    }
    Ok(())
}
