//! How a command that writes begins: its log, its claim on the nodes, and somebody who says yes.

use std::io::{IsTerminal, Write};

use super::exit::Exit;
use super::fleet::state_folder;
use super::output::Failure;
use crate::apply::Claim;
use crate::fleet::nonce;
use crate::report::log::Log;

/// The log of a command of this name, and its claim.
pub(super) fn begin(name: &str) -> Result<(Log, Claim), Failure> {
    let folder = state_folder()?;
    let cannot = |error: std::io::Error| {
        Failure::new(Exit::Failed, format!("cannot write {folder}: {error}"))
    };
    let log = Log::create(&folder.join("logs"), name).map_err(cannot)?;
    let token = nonce().map_err(|error| Failure::new(Exit::Failed, error.to_string()))?;
    let claim = Claim::new(&folder.join("runs"), token, holder()).map_err(cannot)?;
    Ok((log, claim))
}

/// Who holds a node, for whoever is kept waiting.
fn holder() -> String {
    let name = |variable| {
        std::env::var(variable)
            .ok()
            .filter(|value| !value.is_empty())
    };
    let user = name("USER")
        .or_else(|| name("LOGNAME"))
        .unwrap_or_else(|| "somebody".to_owned());
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let now = jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M:%SZ");
    format!(
        "{user}@{} (process {}) since {now}",
        host.trim(),
        std::process::id()
    )
}

/// What writes asks first.
pub(super) fn confirmed(question: &str) -> Result<(), Failure> {
    if !std::io::stdin().is_terminal() {
        let failure = Failure::new(
            Exit::Usage,
            "nobody is at a terminal to confirm the plan; nothing was changed",
        );
        return Err(failure.hint("look at the plan above, then run again with --yes"));
    }
    eprint!("{question} Type yes: ");
    let _ = std::io::stderr().flush();
    let mut answer = String::new();
    let read = std::io::stdin().read_line(&mut answer);
    if read.is_ok() && answer.trim() == "yes" {
        return Ok(());
    }
    Err(Failure::new(
        Exit::Interrupted,
        "not confirmed; nothing was changed",
    ))
}
