//! Machines that are seen for the first time, by `selfheal init`.

use std::num::NonZeroUsize;
use std::sync::Arc;

use crate::inventory::Node;
use crate::node::facts::Facts;
use crate::node::probe::Questions;
use crate::report::Events;
use crate::ssh::{self, ExecError, HostKey, Method, Prompt};

use super::{NodeError, Outcomes, PROBE_LIMIT, each, nonce, read, target};

/// A machine, and what was seen of it. Nobody is connected to it any more.
#[derive(Debug)]
pub struct Met {
    /// How it was reached.
    pub node: Node,
    /// What it is.
    pub facts: Facts,
    /// The host key it showed, which was accepted.
    pub host_key: Option<HostKey>,
    /// How it let us in.
    pub login: Method,
    /// Why sudo refused us, if it did. The facts can be had without.
    pub sudo: Option<ExecError>,
}

/// Connects to every machine and asks it what it is.
pub async fn meet(
    nodes: Vec<Node>,
    parallel: NonZeroUsize,
    prompt: Arc<dyn Prompt>,
    events: &Events,
) -> Outcomes<Met> {
    let nodes = nodes.into_iter().map(|node| (node, ())).collect();
    each(nodes, parallel, events, |node, ()| {
        greet(node, prompt.clone())
    })
    .await
}

async fn greet(node: Node, prompt: Arc<dyn Prompt>) -> Result<Met, NodeError> {
    let target = target(&node).await?;
    let session = ssh::connect(&target, &prompt).await?;
    let questions = Questions {
        stranger: true,
        ..Questions::default()
    };
    let nonce = nonce()?;
    let script = questions.script(&nonce);
    let (output, sudo) = match session.run(&script, PROBE_LIMIT).await {
        Err(refused @ ExecError::SudoRefused { .. }) => {
            let output = session.run_as_user(&script, PROBE_LIMIT).await?;
            (output, Some(refused))
        }
        output => (output?, None),
    };
    let facts = read(&output, &nonce)?.facts;
    let (host_key, login) = (session.host_key(), session.authenticated_with());
    session.close().await;
    Ok(Met {
        node,
        facts,
        host_key,
        login,
        sudo,
    })
}
