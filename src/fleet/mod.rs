//! The nodes that one command talks to: connected and observed all at once, each at its own pace.

mod error;
mod target;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::inventory::{Node, NodeName};
use crate::node::probe::Questions;
use crate::node::snapshot::Snapshot;
use crate::report::{Event, Events};
use crate::ssh::{self, Prompt, Session};

pub use error::{Class, NodeError, last_lines};
pub use target::{TargetError, home, target, without_password};

/// How long a probe may take: it only reads.
const PROBE_LIMIT: Duration = Duration::from_secs(120);

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
    parallel: usize,
    prompt: Arc<dyn Prompt>,
    events: &Events,
) -> Outcomes<Reached> {
    let turns = Arc::new(Semaphore::new(parallel.max(1)));
    let mut tasks = JoinSet::new();
    for (node, questions) in nodes {
        let (turns, prompt, events) = (turns.clone(), prompt.clone(), events.clone());
        tasks.spawn(async move {
            let _turn = turns.acquire().await;
            let name = node.name.clone();
            events.send(Event::Connecting {
                node: name.to_string(),
            });
            let reached = reach(node, &questions, &prompt).await;
            match &reached {
                Ok(_) => events.send(Event::Observed {
                    node: name.to_string(),
                }),
                Err(error) => events.send(Event::Failed {
                    node: name.to_string(),
                    error: error.chain(),
                }),
            }
            (name, reached)
        });
    }
    let mut outcomes = BTreeMap::new();
    while let Some(finished) = tasks.join_next().await {
        if let Ok((name, reached)) = finished {
            outcomes.insert(name, reached);
        }
    }
    outcomes
}

async fn reach(
    node: Node,
    questions: &Questions,
    prompt: &Arc<dyn Prompt>,
) -> Result<Reached, NodeError> {
    let target = target(&node).await?;
    let session = ssh::connect(&target, prompt).await?;
    let snapshot = probe(&session, questions).await?;
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
    Snapshot::parse(&output.stdout, &nonce).map_err(|source| NodeError::Reply {
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
