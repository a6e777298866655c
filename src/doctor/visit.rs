//! The visit to all nodes at once: one connection and one exec each.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use super::measure::{Measure, Measured, Order};
use crate::fleet::{self, NodeError, Outcomes, PROBE_LIMIT, last_lines, nonce};
use crate::inventory::{Inventory, Node};
use crate::report::Events;
use crate::ssh::{self, Prompt};

/// Measures every node, at most `parallel` at a time. A node that is down does not hold back the others.
pub async fn visit(
    inventory: &Inventory,
    nodes: &[Node],
    parallel: NonZeroUsize,
    prompt: Arc<dyn Prompt>,
    events: &Events,
) -> Outcomes<Measured> {
    let orders = nodes
        .iter()
        .map(|node| (node.clone(), Order::new(inventory, node, nodes)))
        .collect();
    fleet::each(orders, parallel, events, |node, order| {
        measure(node, order, prompt.clone())
    })
    .await
}

async fn measure(node: Node, order: Order, prompt: Arc<dyn Prompt>) -> Result<Measured, NodeError> {
    let target = fleet::target(&node).await?;
    let session = ssh::connect(&target, &prompt).await?;
    let nonce = nonce()?;
    let clock_line = format!("@{nonce} part {} ", Measure::Clock.as_str());
    let mut answered = None;
    let asked = now();
    let mut on_line = |line: &[u8]| {
        if answered.is_none() && line.starts_with(clock_line.as_bytes()) {
            answered = Some(now());
        }
    };
    let script = order.script(&nonce);
    let output = session
        .run_streaming(&script, PROBE_LIMIT, &mut on_line)
        .await;
    session.close().await;
    let output = output?;
    Measured::parse(&output.stdout, &nonce, asked, answered).map_err(|source| NodeError::Reply {
        source,
        stderr: last_lines(&output.stderr),
    })
}

/// This computer's clock, in seconds since the epoch.
fn now() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64())
}
