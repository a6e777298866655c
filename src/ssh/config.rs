//! The user's own SSH configuration, as `ssh -G` resolves it (ssh(1)): no other program knows all of its rules.

mod settings;

use std::io;
use std::process::Stdio;
use std::time::Duration;

use camino::Utf8PathBuf;
use tokio::process::Command;

use settings::Settings;

pub use super::jump_host::{InvalidJumpHost, JumpHost};
use super::{Agent, Hop, Sudo, Target, Timeouts};

/// What is said explicitly about a host, in the inventory or on the command line. It wins over ssh_config.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// Read this file instead of the user's and the system's (`ssh -F`).
    pub config_file: Option<Utf8PathBuf>,
    /// TCP port.
    pub port: Option<u16>,
    /// Login user.
    pub user: Option<String>,
    /// Private keys; when there are any, no others are offered. `~/` is the home folder.
    pub identities: Vec<Utf8PathBuf>,
    /// The agent.
    pub agent: Option<Agent>,
    /// Jump hosts, the nearest first; an empty list means to go straight.
    pub jump: Option<Vec<JumpHost>>,
    /// ProxyCommand.
    pub proxy_command: Option<String>,
}

/// How a host is reached.
#[derive(Debug, Clone)]
pub struct Resolved {
    /// The host itself.
    pub destination: Hop,
    /// Jump hosts, the nearest first.
    pub jump: Vec<Hop>,
    /// What carries the first leg, instead of TCP.
    pub proxy_command: Option<String>,
    /// ConnectTimeout, if configured.
    pub connect_timeout: Option<Duration>,
}

impl Resolved {
    /// The node that is reached that way. ConnectTimeout, where configured, wins over `timeouts.connect`.
    #[must_use]
    pub fn into_target(self, node: impl Into<String>, sudo: Sudo, timeouts: Timeouts) -> Target {
        let connect = self.connect_timeout.unwrap_or(timeouts.connect);
        Target {
            node: node.into(),
            destination: self.destination,
            jump: self.jump,
            proxy_command: self.proxy_command,
            sudo,
            timeouts: Timeouts {
                connect,
                ..timeouts
            },
        }
    }
}

/// Why there is no answer from `ssh -G`.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It says that the configuration is wrong.
    #[error("ssh -G {host} failed: {stderr}")]
    Refused {
        /// The host asked about.
        host: String,
        /// What ssh wrote to stderr.
        stderr: String,
    },
    /// It could not be run, or gave no answer in time (a `Match exec` may hang).
    #[error("cannot run ssh -G {host}")]
    Failed {
        /// The host asked about.
        host: String,
        /// Why.
        source: io::Error,
    },
    /// A ProxyJump that makes no sense.
    #[error("the ProxyJump of {host}")]
    Jump {
        /// The host asked about.
        host: String,
        /// Why.
        source: InvalidJumpHost,
    },
    /// Jump hosts that lead to one another without end.
    #[error(
        "there are more than {MAX_HOPS} jump hosts on the way to {host}: do they lead to one another?"
    )]
    Loop {
        /// The host asked about.
        host: String,
    },
}

const MAX_HOPS: usize = 8;
const PATIENCE: Duration = Duration::from_secs(10);

/// Resolves a host with the user's ssh_config; without a program `ssh`, with OpenSSH's defaults. StrictHostKeyChecking
/// is not looked at: a host key is never taken unseen.
///
/// # Errors
/// See [`ConfigError`].
pub async fn resolve(host: &str, overrides: &Overrides) -> Result<Resolved, ConfigError> {
    let settings = ask(host, overrides).await?;
    let destination = settings.hop(host, overrides);
    let mut proxy_command = None;
    let mut next = match (&overrides.proxy_command, &overrides.jump) {
        (Some(command), _) => {
            proxy_command = Some(command.clone());
            Vec::new()
        }
        (None, Some(jump)) => jump.clone(),
        (None, None) => settings.way(host, &mut proxy_command)?,
    };
    let mut jump = Vec::new();
    // The nearest jump host may have a ProxyJump of its own; those behind it are reached through it, as ssh does.
    while !next.is_empty() {
        if jump.len() + next.len() > MAX_HOPS {
            return Err(ConfigError::Loop {
                host: host.to_owned(),
            });
        }
        let mut nearest = Vec::new();
        for (position, named) in next.iter().enumerate().rev() {
            let overrides = Overrides {
                config_file: overrides.config_file.clone(),
                port: named.port,
                user: named.user.clone(),
                ..Overrides::default()
            };
            let settings = ask(&named.host, &overrides).await?;
            jump.insert(0, settings.hop(&named.host, &overrides));
            if position == 0 {
                nearest = settings.way(&named.host, &mut proxy_command)?;
            }
        }
        next = nearest;
    }
    Ok(Resolved {
        destination,
        jump,
        proxy_command,
        connect_timeout: settings.connect_timeout(),
    })
}

async fn ask(host: &str, overrides: &Overrides) -> Result<Settings, ConfigError> {
    let mut ssh = Command::new("ssh");
    ssh.arg("-G");
    if let Some(file) = &overrides.config_file {
        ssh.args(["-F", file.as_str()]);
    }
    if let Some(port) = overrides.port {
        ssh.args(["-p", &port.to_string()]);
    }
    if let Some(user) = &overrides.user {
        ssh.args(["-l", user]);
    }
    let running = ssh
        .args(["--", host])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let failed = |source| ConfigError::Failed {
        host: host.to_owned(),
        source,
    };
    match tokio::time::timeout(PATIENCE, running).await {
        Err(_) => Err(failed(io::ErrorKind::TimedOut.into())),
        Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => Ok(Settings::default()),
        Ok(Err(error)) => Err(failed(error)),
        Ok(Ok(answer)) if !answer.status.success() => Err(ConfigError::Refused {
            host: host.to_owned(),
            stderr: String::from_utf8_lossy(&answer.stderr).trim().to_owned(),
        }),
        Ok(Ok(answer)) => Ok(Settings::parse(&String::from_utf8_lossy(&answer.stdout))),
    }
}
