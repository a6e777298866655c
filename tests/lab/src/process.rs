//! Running the host's tools.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// Runs a tool to its end and returns what it wrote to stdout; an error carries the last lines of its stderr.
pub(crate) fn output(command: &mut Command) -> Result<Vec<u8>> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().with_context(|| {
        format!("cannot run {program}; tests/lab/install.sh installs what the lab needs")
    })?;
    if !output.status.success() {
        bail!(
            "{program} ended with {}:\n{}",
            output.status,
            last_lines(&output.stderr, 15)
        );
    }
    Ok(output.stdout)
}

/// The same, as text.
pub(crate) fn text(command: &mut Command) -> Result<String> {
    Ok(String::from_utf8_lossy(&output(command)?).into_owned())
}

/// The last `count` lines, for an error message.
pub(crate) fn last_lines(bytes: &[u8], count: usize) -> String {
    let text = String::from_utf8_lossy(bytes);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

/// Tells whoever waits what takes so long.
pub(crate) fn say(message: &str) {
    eprintln!("lab: {message}");
}
