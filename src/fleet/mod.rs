//! The nodes that one command talks to: connected and observed all at once, each at its own pace.

pub mod detect;
mod error;
mod meet;
mod target;

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::inventory::{Node, NodeName};
use crate::node::probe::Questions;
use crate::node::snapshot::Snapshot;
use crate::report::{Event, Events};
use crate::ssh::{self, Output, Prompt, Session};

pub use error::{Class, NodeError, last_lines};
pub use meet::{Met, meet};
pub use target::{TargetError, home, target, without_password};

/// How long a probe may take: it only reads.
pub(crate) const PROBE_LIMIT: Duration = Duration::from_secs(120);

/// A node with a live connection, and what was seen of it.
pub struct Reached {
    /// The node.
    pub node: Node,
    /// How it was reached, to reach it again.
    pub target: ssh::Target,
    /// The connection.
    pub session: Session,
    /// The node as it was when probed.
    pub snapshot: Snapshot,
}

/// What became of each node.
pub type Outcomes<T> = BTreeMap<NodeName, Result<T, NodeError>>;

/// Connects to every node and probes it: one connection and one exec each, at most `parallel` at a time. A node that is
/// down does not hold back the others.
pub async fn observe(
    nodes: Vec<(Node, Questions)>,
    parallel: NonZeroUsize,
    prompt: Arc<dyn Prompt>,
    events: &Events,
) -> Outcomes<Reached> {
    let reach = |node, questions| reach(node, questions, prompt.clone());
    each(nodes, parallel, events, reach).await
}

/// Visits every node, at most `parallel` at a time, each at its own pace.
pub(crate) async fn each<Q, T, V>(
    nodes: Vec<(Node, Q)>,
    parallel: NonZeroUsize,
    events: &Events,
    visit: impl Fn(Node, Q) -> V,
) -> Outcomes<T>
where
    T: Send + 'static,
    V: Future<Output = Result<T, NodeError>> + Send + 'static,
{
    let turns = Arc::new(Semaphore::new(parallel.get()));
    let mut tasks = JoinSet::new();
    for (node, questions) in nodes {
        let (turns, events) = (turns.clone(), events.clone());
        let name = node.name.clone();
        let visit = visit(node, questions);
        tasks.spawn(async move {
            let _turn = turns.acquire().await;
            events.send(Event::Connecting {
                node: name.to_string(),
            });
            let outcome = visit.await;
            match &outcome {
                Ok(_) => events.send(Event::Observed {
                    node: name.to_string(),
                }),
                Err(error) => events.send(Event::Failed {
                    node: name.to_string(),
                    error: error.chain(),
                }),
            }
            (name, outcome)
        });
    }
    let mut outcomes = BTreeMap::new();
    while let Some(finished) = tasks.join_next().await {
        if let Ok((name, outcome)) = finished {
            outcomes.insert(name, outcome);
        }
    }
    outcomes
}

async fn reach(
    node: Node,
    questions: Questions,
    prompt: Arc<dyn Prompt>,
) -> Result<Reached, NodeError> {
    let target = target(&node).await?;
    let session = ssh::connect(&target, &prompt).await?;
    let snapshot = probe(&session, &questions).await?;
    Ok(Reached {
        node,
        target,
        session,
        snapshot,
    })
}

/// Asks a node everything, in one exec.
///
/// # Errors
/// A [`NodeError`] when the script does not run to its end.
pub async fn probe(session: &Session, questions: &Questions) -> Result<Snapshot, NodeError> {
    let nonce = nonce()?;
    let output = session.run(&questions.script(&nonce), PROBE_LIMIT).await?;
    read(&output, &nonce)
}

fn read(output: &Output, nonce: &str) -> Result<Snapshot, NodeError> {
    Snapshot::parse(&output.stdout, nonce).map_err(|source| NodeError::Reply {
        source,
        stderr: last_lines(&output.stderr),
    })
}

/// A random word of 32 hex digits.
///
/// # Errors
/// When the system has no randomness to give.
pub fn nonce() -> Result<String, NodeError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|_| NodeError::NoRandomness)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
