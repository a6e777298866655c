//! Why a script's result is not known.

use std::io;
use std::time::Duration;

use super::{Cause, ErrorClass, LastLines};
use crate::ssh::SudoRefusal;

/// Why a script's result is not known.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// The line went dead. What the script did by then is not known.
    #[error("{node}: the connection was lost while {during}")]
    ConnectionLost {
        /// The node.
        node: String,
        /// What we were doing.
        during: &'static str,
        /// What is known of the reason.
        source: Cause,
    },
    /// The script took too long and was given up.
    #[error("{node}: the script took longer than {}{}", humantime::format_duration(*after), LastLines(stderr))]
    Timeout {
        /// The node.
        node: String,
        /// How long we waited.
        after: Duration,
        /// What it had written to stderr.
        stderr: String,
    },
    /// Bytes were to flow to the node and did not.
    #[error("{node}: nothing has moved for {}{}", humantime::format_duration(*after), LastLines(stderr))]
    Stalled {
        /// The node.
        node: String,
        /// How long we waited.
        after: Duration,
        /// What the script had written to stderr.
        stderr: String,
    },
    /// What was to be sent cannot be read on this computer.
    #[error("{node}: cannot read what is to be sent")]
    Source {
        /// The node.
        node: String,
        /// Why.
        source: io::Error,
    },
    /// sudo did not let us.
    #[error("{node}: {refusal}{}", LastLines(stderr))]
    SudoRefused {
        /// The node.
        node: String,
        /// Why.
        refusal: SudoRefusal,
        /// What sudo wrote to stderr.
        stderr: String,
    },
    /// The server did not start a shell for us.
    #[error("{node}: no shell was started ({how}){}", LastLines(stderr))]
    NoShell {
        /// The node.
        node: String,
        /// How that showed.
        how: String,
        /// What came on stderr (or on stdout, when there was nothing).
        stderr: String,
    },
    /// More output than we keep.
    #[error("{node}: the script wrote more than {limit} bytes to {stream}")]
    TooMuchOutput {
        /// The node.
        node: String,
        /// stdout or stderr.
        stream: &'static str,
        /// The limit in bytes.
        limit: usize,
    },
}

impl ExecError {
    /// For the exit code.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::ConnectionLost { .. } | Self::Stalled { .. } => ErrorClass::Unreachable,
            Self::SudoRefused { .. } => ErrorClass::Refused,
            Self::Timeout { .. }
            | Self::NoShell { .. }
            | Self::TooMuchOutput { .. }
            | Self::Source { .. } => ErrorClass::Failed,
        }
    }

    /// What to do next.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::ConnectionLost { .. } => Some(
                "run again when the node is back: what is done already is not done twice"
                    .to_owned(),
            ),
            Self::SudoRefused { refusal, .. } => Some(refusal.hint().to_owned()),
            Self::NoShell { .. } => Some(
                "the user needs a login shell, and no forced command in authorized_keys".to_owned(),
            ),
            Self::Stalled { .. } => Some(
                "look at the node's disk and at the network, then run again: nothing half-sent is used"
                    .to_owned(),
            ),
            Self::Timeout { .. } | Self::TooMuchOutput { .. } | Self::Source { .. } => None,
        }
    }
}
