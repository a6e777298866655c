//! What happens during a run.

use std::time::Duration;

use indicatif::HumanBytes;
use serde::Serialize;
use tokio::sync::mpsc;

/// One thing that happened, on one node.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// A connection is being made.
    Connecting {
        /// The node.
        node: String,
    },
    /// The node answered the probe.
    Observed {
        /// The node.
        node: String,
    },
    /// A step begins.
    StepStarted {
        /// The node.
        node: String,
        /// What kind of step.
        step: &'static str,
        /// How many changes it makes.
        changes: usize,
    },
    /// A step is done.
    StepDone {
        /// The node.
        node: String,
        /// What kind of step.
        step: &'static str,
        /// How many changes it made.
        changes: usize,
        /// How long it took.
        #[serde(serialize_with = "seconds")]
        took: Duration,
    },
    /// Something worth a line.
    Note {
        /// The node.
        node: String,
        /// What.
        text: String,
    },
    /// The run waits for something.
    Waiting {
        /// The node.
        node: String,
        /// For what.
        what: String,
    },
    /// Bytes of a file went over the network.
    Transferring {
        /// The node, or a node that it is for.
        node: String,
        /// `uploading` or `downloading`.
        what: &'static str,
        /// The file's name.
        file: String,
        /// Bytes so far.
        done: u64,
        /// Bytes in all.
        total: u64,
    },
    /// A reboot begins.
    Rebooting {
        /// The node.
        node: String,
        /// Why.
        reason: String,
    },
    /// The node is back from a reboot, proven by a new boot_id.
    Rebooted {
        /// The node.
        node: String,
        /// From the order to the answer.
        #[serde(serialize_with = "seconds")]
        took: Duration,
    },
    /// The node is as wanted: probed again after the last change.
    Converged {
        /// The node.
        node: String,
        /// How many changes were made.
        changes: usize,
    },
    /// The node's run ended early.
    Failed {
        /// The node.
        node: String,
        /// What happened, with its causes.
        error: String,
    },
}

fn seconds<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64((duration.as_secs_f64() * 10.0).round() / 10.0)
}

impl Event {
    /// The node it happened on.
    pub fn node(&self) -> &str {
        match self {
            Event::Connecting { node }
            | Event::Observed { node }
            | Event::StepStarted { node, .. }
            | Event::StepDone { node, .. }
            | Event::Note { node, .. }
            | Event::Waiting { node, .. }
            | Event::Transferring { node, .. }
            | Event::Rebooting { node, .. }
            | Event::Rebooted { node, .. }
            | Event::Converged { node, .. }
            | Event::Failed { node, .. } => node,
        }
    }

    /// Whether it only says what is going on, and is of no interest once that is over.
    pub fn is_passing(&self) -> bool {
        matches!(self, Event::Connecting { .. } | Event::Observed { .. })
    }

    /// The event as a line for people, without the node's name.
    pub fn text(&self) -> String {
        let changes = |count: &usize| match count {
            1 => "1 change".to_owned(),
            count => format!("{count} changes"),
        };
        match self {
            Event::Connecting { .. } => "connecting".to_owned(),
            Event::Observed { .. } => "observed".to_owned(),
            Event::StepStarted {
                step, changes: 0, ..
            } => format!("{step}: what an interrupted run left undone"),
            Event::StepStarted {
                step,
                changes: count,
                ..
            } => format!("{step}: {}", changes(count)),
            Event::StepDone {
                step,
                changes: count,
                took,
                ..
            } => {
                format!(
                    "{step}: {} made in {:.1} s",
                    changes(count),
                    took.as_secs_f64()
                )
            }
            Event::Note { text, .. } => text.clone(),
            Event::Waiting { what, .. } => format!("waiting for {what}"),
            Event::Transferring {
                what,
                file,
                done,
                total,
                ..
            } => format!(
                "{what} {file}: {} of {}",
                HumanBytes(*done),
                HumanBytes(*total)
            ),
            Event::Rebooting { reason, .. } => format!("rebooting: {reason}"),
            Event::Rebooted { took, .. } => {
                format!("back after {:.1} s, with a new boot_id", took.as_secs_f64())
            }
            Event::Converged { changes: 0, .. } => "nothing to change".to_owned(),
            Event::Converged { changes: count, .. } => {
                format!("converged: {}, verified", changes(count))
            }
            Event::Failed { error, .. } => format!("failed: {error}"),
        }
    }
}

/// Where a run sends its events. Sending never fails: a report that nobody reads is no reason to stop.
#[derive(Debug, Clone)]
pub struct Events(mpsc::UnboundedSender<Event>);

impl Events {
    /// A stream of events and its reading end.
    pub fn channel() -> (Events, mpsc::UnboundedReceiver<Event>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Events(sender), receiver)
    }

    /// Reports an event.
    pub fn send(&self, event: Event) {
        let _ = self.0.send(event);
    }
}
