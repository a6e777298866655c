//! What every command that talks to nodes needs: the nodes chosen, the runtime, somebody to ask, a log.

use std::collections::BTreeSet;
use std::future::Future;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use secrecy::SecretString;
use tokio::runtime::Runtime;
use tokio::sync::mpsc::UnboundedReceiver;

use super::exit::Exit;
use super::load::Loaded;
use super::options::{Layers, Options};
use super::output::{Failure, node_failure};
use crate::fleet::{self, NodeError, Outcomes, Reached};
use crate::inventory::{Node, NodeName};
use crate::layer;
use crate::node::ledger::LayerName;
use crate::report::log::Log;
use crate::report::{Event, Events, progress};
use crate::ssh::{NoPrompt, Prompt, Terminal, UnknownHostKey};

/// The layers that `--only` and `--skip` leave.
pub(super) fn layers(chosen: &Layers) -> Result<BTreeSet<LayerName>, Failure> {
    let layers: BTreeSet<LayerName> = LayerName::ALL
        .into_iter()
        .filter(|layer| chosen.only.is_empty() || chosen.only.contains(layer))
        .filter(|layer| !chosen.skip.contains(layer))
        .collect();
    if layers.is_empty() {
        return Err(Failure::new(
            Exit::Usage,
            "--only and --skip leave no layer",
        ));
    }
    Ok(layers)
}

/// The user at the terminal, or nobody.
pub(super) fn prompt() -> Arc<dyn Prompt> {
    match Terminal::open() {
        Some(terminal) => Arc::new(Aside(terminal)),
        None => Arc::new(NoPrompt),
    }
}

/// Questions at the terminal, with the progress out of their way.
struct Aside(Terminal);

impl Prompt for Aside {
    fn confirm_host_key(&self, unknown: &UnknownHostKey) -> bool {
        progress::aside(|| self.0.confirm_host_key(unknown))
    }
    fn passphrase(&self, path: &Utf8Path) -> Option<SecretString> {
        progress::aside(|| self.0.passphrase(path))
    }
    fn password(&self, user: &str, node: &str) -> Option<SecretString> {
        progress::aside(|| self.0.password(user, node))
    }
}

/// For what was given up to let go of its connections and children.
const WIND_UP: Duration = Duration::from_millis(200);

/// Runs a command's async part. A question that is still open at its end, after Ctrl-C, is not waited for.
pub(super) fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = Runtime::new().map_err(|error| {
        Failure::new(Exit::Failed, format!("cannot start the runtime: {error}"))
    })?;
    let result = runtime.block_on(work);
    runtime.shutdown_timeout(WIND_UP);
    result
}

/// The folder of this user's where logs and the marks of living runs lie.
pub(super) fn state_folder() -> Result<Utf8PathBuf, Failure> {
    use etcetera::BaseStrategy;
    let failed = |why: String| {
        Failure::new(
            Exit::Failed,
            format!("cannot find this user's state folder: {why}"),
        )
    };
    let strategy = etcetera::choose_base_strategy().map_err(|error| failed(error.to_string()))?;
    let folder = strategy
        .state_dir()
        .unwrap_or_else(|| strategy.data_dir())
        .join("selfheal");
    Utf8PathBuf::try_from(folder).map_err(|error| failed(error.to_string()))
}

/// Runs `work` while its events are shown and written down.
pub(super) async fn watched<T>(
    options: &Options,
    log: &mut Option<Log>,
    work: impl AsyncFnOnce(Events) -> T,
) -> T {
    let (events, receiver): (Events, UnboundedReceiver<Event>) = Events::channel();
    let shown = progress::show(receiver, options.progress(), log);
    let (result, ()) = tokio::join!(work(events), shown);
    result
}

/// Connects to the nodes and probes them. Until here nothing was written, so Ctrl-C ends it at once.
pub(super) async fn observe(
    loaded: &Loaded,
    nodes: &[Node],
    layers: &BTreeSet<LayerName>,
    parallel: NonZeroUsize,
    options: &Options,
    log: &mut Option<Log>,
) -> Result<Outcomes<Reached>, Failure> {
    let asked = nodes
        .iter()
        .map(|node| {
            (
                node.clone(),
                layer::questions(&loaded.inventory, node, layers),
            )
        })
        .collect();
    let observing = watched(options, log, async |events| {
        fleet::observe(asked, parallel, prompt(), &events).await
    });
    interruptible(observing).await
}

/// Looks at one node, works on it, and takes leave of it. What goes wrong on the node is in the outcome.
pub(super) async fn on_node<T>(
    loaded: &Loaded,
    node: &Node,
    options: &Options,
    log: &mut Option<Log>,
    work: impl AsyncFnOnce(&Reached, &mut Option<Log>) -> Result<Result<T, NodeError>, Failure>,
) -> Result<Outcomes<T>, Failure> {
    let (nodes, layers) = (std::slice::from_ref(node), BTreeSet::new());
    let one = NonZeroUsize::MIN;
    let mut seen = observe(loaded, nodes, &layers, one, options, log).await?;
    let result = match seen.remove(&node.name) {
        Some(Ok(reached)) => {
            let result = work(&reached, log).await;
            reached.session.close().await;
            result?
        }
        Some(Err(error)) => Err(error),
        None => return Ok(Outcomes::new()),
    };
    Ok(Outcomes::from([(node.name.clone(), result)]))
}

/// Asks the user something, off the async threads. Ctrl-C is an answer too: once it was waited for anywhere, it no
/// longer ends the process by itself.
pub(super) async fn ask<T: Send + 'static>(
    question: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Failure> {
    let asked = interruptible(tokio::task::spawn_blocking(question)).await?;
    asked.map_err(|error| Failure::new(Exit::Failed, format!("cannot ask: {error}")))
}

/// Work that writes nothing, so that Ctrl-C ends it at once.
pub(super) async fn interruptible<T>(work: impl Future<Output = T>) -> Result<T, Failure> {
    tokio::select! {
        result = work => Ok(result),
        _ = tokio::signal::ctrl_c() => Err(Failure::new(Exit::Interrupted, "interrupted; nothing was changed")),
    }
}

/// Says which nodes failed, and what that makes of the exit code.
pub(super) fn failures<T>(outcomes: &Outcomes<T>) -> Exit {
    Exit::worst(outcomes.iter().filter_map(|(node, outcome)| {
        let error = outcome.as_ref().err()?;
        node_failure(node.as_str(), error);
        Some(Exit::from(error.class()))
    }))
}

/// The failures for JSON.
pub(super) fn failures_json<T>(outcomes: &Outcomes<T>) -> Vec<serde_json::Value> {
    let failed = outcomes
        .iter()
        .filter_map(|(node, outcome)| Some((node, outcome.as_ref().err()?)));
    failed
        .map(|(node, error)| {
            serde_json::json!({ "node": node.as_str(), "error": error.chain(), "hint": error.hint() })
        })
        .collect()
}

/// What stands behind a node's name in a plan.
pub(super) fn about(loaded: &Loaded, name: &NodeName) -> String {
    loaded
        .inventory
        .node(name.as_str())
        .map_or_else(String::new, |node| format!("{}, {}", node.role, node.host))
}
