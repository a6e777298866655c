//! The user's own SSH configuration, as `ssh -G` resolves it (ssh(1)): no other program knows all of its rules.

use std::collections::BTreeMap;
use std::io;
use std::process::Stdio;
use std::str::FromStr;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use tokio::process::Command;

use super::known_hosts::KnownHosts;
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

/// A jump host as ProxyJump names it: `[user@]host[:port]`, an IPv6 address in brackets, or an `ssh://` URI.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JumpHost {
    /// Login user, if named.
    pub user: Option<String>,
    /// Name (also one of ssh_config's) or address.
    pub host: String,
    /// Port, if named.
    pub port: Option<u16>,
}

/// A text that names no jump host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no jump host: expected [user@]host[:port]")]
pub struct InvalidJumpHost(String);

impl FromStr for JumpHost {
    type Err = InvalidJumpHost;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidJumpHost(text.to_owned());
        let rest = text.strip_prefix("ssh://").unwrap_or(text);
        // A user name may hold an @, a host may not.
        let (user, rest) = match rest.rsplit_once('@') {
            Some((user, rest)) => (Some(user.to_owned()), rest),
            None => (None, rest),
        };
        let (host, port) = match rest.strip_prefix('[') {
            Some(bracketed) => {
                let (host, rest) = bracketed.split_once(']').ok_or_else(invalid)?;
                let port = match rest {
                    "" => None,
                    rest => Some(rest.strip_prefix(':').ok_or_else(invalid)?),
                };
                (host, port)
            }
            None => match rest.split_once(':') {
                // More than one colon: an IPv6 address without brackets.
                Some((_, port)) if port.contains(':') => (rest, None),
                Some((host, port)) => (host, Some(port)),
                None => (rest, None),
            },
        };
        let port = match port.map(str::parse::<u16>) {
            None => None,
            Some(Ok(port @ 1..)) => Some(port),
            Some(_) => return Err(invalid()),
        };
        let odd = |word: &str| {
            word.is_empty() || word.starts_with('-') || word.contains(char::is_whitespace)
        };
        if odd(host) || user.as_deref().is_some_and(odd) {
            return Err(invalid());
        }
        Ok(Self {
            user,
            host: host.to_owned(),
            port,
        })
    }
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

/// The answer of `ssh -G`: lines of a keyword in lower case and its value. A keyword may come several times.
#[derive(Debug, Default, PartialEq, Eq)]
struct Settings(BTreeMap<String, Vec<String>>);

impl Settings {
    fn parse(answer: &str) -> Self {
        let mut settings = Self::default();
        for line in answer.lines() {
            if let Some((keyword, value)) = line.split_once(' ') {
                settings
                    .0
                    .entry(keyword.to_ascii_lowercase())
                    .or_default()
                    .push(value.trim().to_owned());
            }
        }
        settings
    }

    fn all(&self, keyword: &str) -> &[String] {
        self.0.get(keyword).map_or(&[], Vec::as_slice)
    }

    /// The first value, unless it is `none`.
    fn one(&self, keyword: &str) -> Option<&str> {
        self.all(keyword)
            .first()
            .map(String::as_str)
            .filter(|value| !value.eq_ignore_ascii_case("none"))
    }

    fn is_yes(&self, keyword: &str) -> bool {
        matches!(self.one(keyword), Some("yes" | "true"))
    }

    fn hop(&self, name: &str, overrides: &Overrides) -> Hop {
        let host = self.one("hostname").unwrap_or(name).to_owned();
        let user = overrides
            .user
            .clone()
            .or_else(|| self.one("user").map(str::to_owned));
        let mut hop = Hop::new(host, user.unwrap_or_else(local_user));
        hop.port = overrides
            .port
            .or_else(|| self.one("port")?.parse().ok())
            .unwrap_or(22);
        hop.agent = overrides.agent.clone().unwrap_or_else(|| self.agent());
        hop.host_key_alias = self.one("hostkeyalias").map(str::to_owned);
        if overrides.identities.is_empty() {
            hop.identities = match self.all("identityfile") {
                // No `ssh` to tell: its defaults, as in ssh_config(5).
                [] => ["id_ed25519", "id_ecdsa", "id_rsa"]
                    .map(|file| expand(&format!("~/.ssh/{file}"), name, &hop))
                    .into(),
                named => {
                    let named = named.iter().filter(|file| *file != "none");
                    named.map(|file| expand(file, name, &hop)).collect()
                }
            };
            hop.identities_only = self.is_yes("identitiesonly");
        } else {
            hop.identities = overrides
                .identities
                .iter()
                .map(|file| expand_home(file.as_str()))
                .collect();
            hop.identities_only = true;
        }
        let files = |keyword| {
            let value: Option<&str> = self.one(keyword);
            value.map(|value| {
                value
                    .split_ascii_whitespace()
                    .map(|file| expand(file, name, &hop))
                    .collect()
            })
        };
        let defaults = KnownHosts::of_user();
        hop.known_hosts = KnownHosts {
            user: files("userknownhostsfile").unwrap_or(defaults.user),
            system: files("globalknownhostsfile").unwrap_or(defaults.system),
            hash: self.is_yes("hashknownhosts"),
        };
        hop
    }

    fn agent(&self) -> Agent {
        match self.all("identityagent").first().map(String::as_str) {
            None | Some("SSH_AUTH_SOCK") => Agent::from_env(),
            Some("none") => Agent::None,
            Some(variable) if variable.starts_with('$') => {
                let name = variable.trim_start_matches('$').trim_matches(['{', '}']);
                std::env::var(name).map_or(Agent::None, |socket| Agent::Socket(socket.into()))
            }
            Some(socket) => Agent::Socket(expand_home(socket)),
        }
    }

    /// The jump hosts, or a ProxyCommand.
    fn way(
        &self,
        host: &str,
        proxy_command: &mut Option<String>,
    ) -> Result<Vec<JumpHost>, ConfigError> {
        if let Some(jump) = self.one("proxyjump") {
            let parsed: Result<Vec<_>, _> =
                jump.split(',').map(|named| named.trim().parse()).collect();
            return parsed.map_err(|source| ConfigError::Jump {
                host: host.to_owned(),
                source,
            });
        }
        // %n, the name as given, is known here only.
        *proxy_command = self
            .one("proxycommand")
            .map(|command| command.replace("%n", host));
        Ok(Vec::new())
    }

    fn connect_timeout(&self) -> Option<Duration> {
        let seconds = self.one("connecttimeout")?.parse().ok()?;
        (seconds > 0).then(|| Duration::from_secs(seconds))
    }
}

fn local_user() -> String {
    let set = |name| std::env::var(name).ok().filter(|user| !user.is_empty());
    set("USER")
        .or_else(|| set("LOGNAME"))
        .unwrap_or_else(|| "root".to_owned())
}

fn expand_home(path: &str) -> Utf8PathBuf {
    let home = || {
        etcetera::home_dir()
            .ok()
            .and_then(|home| Utf8PathBuf::try_from(home).ok())
    };
    match path.strip_prefix("~/") {
        Some(rest) => home().map_or_else(|| path.into(), |home| home.join(rest)),
        None => path.into(),
    }
}

/// Fills in ssh_config's tokens that make sense in a file name. Others stay: such a file does not exist.
fn expand(path: &str, name: &str, hop: &Hop) -> Utf8PathBuf {
    let path = expand_home(path);
    let mut expanded = String::new();
    let mut chars = path.as_str().chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            expanded.push(c);
            continue;
        }
        match chars.next() {
            Some('%') => expanded.push('%'),
            Some('d') => expanded.push_str(expand_home("~/").as_str().trim_end_matches('/')),
            Some('h') => expanded.push_str(&hop.host),
            Some('n') => expanded.push_str(name),
            Some('p') => expanded.push_str(&hop.port.to_string()),
            Some('r') => expanded.push_str(&hop.user),
            Some('u') => expanded.push_str(&local_user()),
            other => {
                expanded.push('%');
                expanded.extend(other);
            }
        }
    }
    Utf8Path::new(&expanded).to_owned()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const ANSWER: &str = "\
host jarvis
user admin
hostname 192.168.1.10
port 2222
identitiesonly yes
hashknownhosts yes
connecttimeout 7
identityagent none
identityfile /keys/%h/%r
identityfile /keys/second
globalknownhostsfile /etc/ssh/ssh_known_hosts /etc/ssh/ssh_known_hosts2
userknownhostsfile /a/known_hosts /b/known_hosts
hostkeyalias jarvis.home
proxyjump me@bastion:2200,[fe80::1]:22
";

    #[test]
    fn an_answer_becomes_a_hop() {
        let settings = Settings::parse(ANSWER);
        let hop = settings.hop("jarvis", &Overrides::default());
        assert_eq!(
            (hop.host.as_str(), hop.port, hop.user.as_str()),
            ("192.168.1.10", 2222, "admin")
        );
        assert_eq!(hop.identities, ["/keys/192.168.1.10/admin", "/keys/second"]);
        assert!(hop.identities_only);
        assert_eq!(hop.agent, Agent::None);
        assert_eq!(hop.host_key_alias.as_deref(), Some("jarvis.home"));
        assert_eq!(hop.known_hosts.user, ["/a/known_hosts", "/b/known_hosts"]);
        assert_eq!(hop.known_hosts.system.len(), 2);
        assert!(hop.known_hosts.hash);
        assert_eq!(settings.connect_timeout(), Some(Duration::from_secs(7)));
        let way = settings.way("jarvis", &mut None).unwrap();
        assert_eq!(
            way,
            [
                "me@bastion:2200".parse().unwrap(),
                "[fe80::1]:22".parse().unwrap()
            ]
        );
    }

    #[test]
    fn what_is_said_explicitly_wins() {
        let overrides = Overrides {
            port: Some(22),
            user: Some("pi".to_owned()),
            identities: vec!["/keys/mine".into()],
            agent: Some(Agent::Socket("/agent".into())),
            ..Overrides::default()
        };
        let hop = Settings::parse(ANSWER).hop("jarvis", &overrides);
        assert_eq!((hop.port, hop.user.as_str()), (22, "pi"));
        assert_eq!(hop.identities, ["/keys/mine"]);
        assert!(hop.identities_only);
        assert_eq!(hop.agent, Agent::Socket("/agent".into()));
    }

    #[test]
    fn any_text_is_an_answer() {
        for answer in [
            "",
            "port",
            "port x\n",
            "proxyjump none\nproxycommand none\nuser \n",
            "\u{0}\n %",
        ] {
            let settings = Settings::parse(answer);
            let hop = settings.hop("jarvis", &Overrides::default());
            assert_eq!((hop.host.as_str(), hop.port), ("jarvis", 22), "{answer:?}");
            let mut command = None;
            assert_eq!(settings.way("jarvis", &mut command).unwrap(), []);
            assert_eq!(command, None);
        }
    }

    #[test]
    fn jump_hosts_are_read_as_ssh_reads_them() {
        let jump = |user: Option<&str>, host: &str, port| JumpHost {
            user: user.map(str::to_owned),
            host: host.to_owned(),
            port,
        };
        for (text, expected) in [
            ("bastion", jump(None, "bastion", None)),
            ("me@bastion:2200", jump(Some("me"), "bastion", Some(2200))),
            (
                "me@corp.example@bastion",
                jump(Some("me@corp.example"), "bastion", None),
            ),
            ("[fe80::1]:2200", jump(None, "fe80::1", Some(2200))),
            ("fe80::1", jump(None, "fe80::1", None)),
            ("ssh://me@bastion:22", jump(Some("me"), "bastion", Some(22))),
        ] {
            assert_eq!(text.parse(), Ok(expected), "{text}");
        }
        for text in [
            "", "a:", "a:0", "a:99999", "[a", "[a]b", "@a", "-oX=y", "a b",
        ] {
            assert!(text.parse::<JumpHost>().is_err(), "{text:?}");
        }
    }
}
