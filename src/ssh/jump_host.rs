//! ProxyJump's way to name a host.

use std::str::FromStr;

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

#[cfg(test)]
mod tests {
    use super::*;

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
