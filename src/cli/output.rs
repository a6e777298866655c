//! How commands talk: results on stdout, everything else on stderr, readable without colour.

use std::io::{IsTerminal, Write};

use super::exit::Exit;
use super::options::{Colour, Options};
use crate::fleet::NodeError;
use crate::plan::text::Style;
use crate::report::progress::Mode;

/// A command that could not do its work: what happened, and what to do.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) exit: Exit,
    pub(super) message: String,
    pub(super) hint: Option<String>,
}

impl Failure {
    pub(super) fn new(exit: Exit, message: impl Into<String>) -> Failure {
        Failure {
            exit,
            message: message.into(),
            hint: None,
        }
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Failure {
        self.hint = Some(hint.into());
        self
    }
}

pub(super) fn failure(failure: &Failure) {
    if !failure.message.is_empty() {
        eprintln!("error: {}", failure.message);
    }
    if let Some(hint) = &failure.hint {
        eprintln!("hint: {hint}");
    }
}

/// One node's failure: which node, what was tried, why it failed, what to do.
pub(super) fn node_failure(node: &str, error: &NodeError) {
    node_failure_with(node, error, error.hint());
}

/// As [`node_failure`], with a hint of the command's own.
pub(super) fn node_failure_with(node: &str, error: &NodeError, hint: Option<String>) {
    eprintln!("error: {node}: {}", error.chain());
    if let Some(hint) = hint {
        eprintln!("hint: {hint}");
    }
}

/// Writes a result. A reader that went away is no error.
pub(super) fn print(text: &str) {
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
}

pub(super) fn print_json(value: &serde_json::Value) {
    print(&format!("{value:#}\n"));
}

impl Options {
    pub(super) fn style(&self) -> Style {
        let colour = match self.color {
            Colour::Always => true,
            Colour::Never => false,
            Colour::Auto => {
                let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
                std::io::stdout().is_terminal() && !unwanted
            }
        };
        Style { colour }
    }

    pub(super) fn progress(&self) -> Mode {
        if self.quiet {
            Mode::Quiet
        } else if std::io::stderr().is_terminal() && !self.verbose {
            Mode::Bars
        } else {
            Mode::Lines { all: self.verbose }
        }
    }
}
