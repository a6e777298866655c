//! Reading the answer of `ssh -G`.

use std::collections::BTreeMap;
use std::time::Duration;

use camino::Utf8PathBuf;

use super::{ConfigError, JumpHost, Overrides};
use crate::ssh::known_hosts::KnownHosts;
use crate::ssh::{Agent, Hop, home};

/// The answer of `ssh -G`: lines of a keyword in lower case and its value. A keyword may come several times.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Settings(BTreeMap<String, Vec<String>>);

impl Settings {
    pub(super) fn parse(answer: &str) -> Self {
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

    pub(super) fn hop(&self, name: &str, overrides: &Overrides) -> Hop {
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
    pub(super) fn way(
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

    pub(super) fn connect_timeout(&self) -> Option<Duration> {
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
    expanded.into()
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
}
