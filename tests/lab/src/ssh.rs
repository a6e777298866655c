//! The system's ssh client, pointed at one Pi.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

/// How a Pi is reached. Its host key is known beforehand, so nothing is ever trusted on first use.
#[derive(Debug, Clone)]
pub(crate) struct Ssh {
    pub(crate) port: u16,
    pub(crate) key: PathBuf,
    pub(crate) known_hosts: PathBuf,
}

impl Ssh {
    /// `ssh` with its options, waiting for the remote command.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new("ssh");
        self.options(&mut command);
        command
    }

    fn options(&self, command: &mut Command) {
        command
            .args([
                "-F",
                "none",
                "-q",
                "-p",
                &self.port.to_string(),
                "-l",
                "pi",
                "-i",
            ])
            .arg(&self.key);
        command.arg("-o").arg(format!(
            "UserKnownHostsFile=\"{}\"",
            self.known_hosts.display()
        ));
        for option in [
            "IdentitiesOnly=yes",
            "GlobalKnownHostsFile=/dev/null",
            "StrictHostKeyChecking=yes",
            "ConnectTimeout=10",
        ] {
            command.args(["-o", option]);
        }
        command.arg("127.0.0.1");
    }

    /// Runs a command within so many seconds.
    pub(crate) fn run(&self, remote: &str, seconds: u32) -> Result<std::process::Output> {
        let mut command = Command::new("timeout");
        command.args([
            "--kill-after=1",
            &seconds.to_string(),
            "ssh",
            "-o",
            "BatchMode=yes",
        ]);
        self.options(&mut command);
        command
            .arg(remote)
            .stdin(Stdio::null())
            .output()
            .context("cannot run timeout and ssh")
    }
}
