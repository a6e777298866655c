//! `selfheal kubeconfig`: the cluster's kubeconfig for this computer, beside those that are there.

mod merge;

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};

use camino::{Utf8Path, Utf8PathBuf};
use clap::Args;
use secrecy::ExposeSecret;

use super::exit::Exit;
use super::fleet::{block_on, failures, on_node};
use super::load::{Loaded, load};
use super::options::Options;
use super::output::{Failure, print};
use crate::apply;
use crate::fleet;
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
    let host = server.join_host().unwrap_or_else(|| server.host.clone());
    let address = format!("https://{}:6443", host.in_url());
    let mut no_log = None;
    let fetched = on_node(loaded, &server, options, &mut no_log, async |reached, _| {
        Ok(apply::kubeconfig(&reached.session).await)
    });
    let results = fetched.await?;
    for fetched in results.values().flatten() {
        let name = loaded.inventory.cluster.name.as_str();
        write(file, fetched.expose_secret(), name, &address, asked.replace)?;
        print(&format!("{file} has the context {name}, at {address}\n"));
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
        Ok(existing) => Some(existing),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(failed(error)),
    };
    let before = existing.as_deref().unwrap_or_default();
    let merged = merge::merge(before, fetched, name, address, take_over).map_err(|error| {
        let failure = Failure::new(Exit::Failed, format!("{file} was left as it is: {error}"));
        match error {
            merge::MergeError::Taken { .. } => {
                failure.hint("give your cluster another name ([cluster] name), or take this one over with --replace")
            }
            merge::MergeError::NoKubeconfig(_) => failure.hint("another file can be named with --file"),
        }
    })?;
    if existing.is_none() {
        create(file).map_err(failed)?;
    }
    if merged != before {
        fs::set_permissions(file, fs::Permissions::from_mode(0o600)).map_err(failed)?;
        replace(file, merged.as_bytes()).map_err(failed)?;
    }
    Ok(())
}

/// An empty file that nobody else may read, and its folder.
fn create(file: &Utf8Path) -> io::Result<()> {
    if let Some(folder) = file.parent().filter(|folder| !folder.as_str().is_empty()) {
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(0o700).create(folder)?;
    }
    let mut new = fs::OpenOptions::new();
    new.write(true).create_new(true).mode(0o600).open(file)?;
    Ok(())
}
