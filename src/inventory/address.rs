//! Where a node is, and the ways to it.

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::str::FromStr;

use ipnet::IpNet;
use serde_json::json;

use super::define::serialized_as_shown;
use super::diagnostic::Wrong;
use super::name::{UserName, shown};
use super::schema::{Definitions, Schema};
use super::setting::{Found, Problems, Text, Value, whole_number};

/// A TCP port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub struct Port(NonZeroU16);

impl Port {
    /// The port of SSH.
    pub const SSH: Self = match NonZeroU16::new(22) {
        Some(port) => Self(port),
        None => Self(NonZeroU16::MIN),
    };

    /// The number.
    pub const fn get(self) -> u16 {
        self.0.get()
    }
}

impl From<NonZeroU16> for Port {
    fn from(port: NonZeroU16) -> Self {
        Self(port)
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Port {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        text.parse()
            .map(Self)
            .map_err(|_| Wrong::new(format!("`{}` is no port", shown(text))).help("use 1 to 65535"))
    }
}

impl Value for Port {
    fn schema(_: &mut Definitions) -> Schema {
        json!({ "type": "integer", "minimum": 1, "maximum": u16::MAX })
    }

    fn read(value: &Found<'_>, problems: &mut Problems) -> Option<Self> {
        let read = whole_number(value, 1, u16::MAX.into(), problems)?;
        u16::try_from(read).ok().and_then(NonZeroU16::new).map(Self)
    }
}

/// The host a node answers at.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HostAddress {
    /// An address.
    Ip(IpAddr),
    /// A name, in lower case, for the resolver.
    Dns(String),
}

impl HostAddress {
    /// The address, where it is one.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Ip(ip) => Some(*ip),
            Self::Dns(_) => None,
        }
    }

    /// As it stands in a URL: an IPv6 address in brackets (RFC 3986 §3.2.2).
    pub fn in_url(&self) -> String {
        match self {
            Self::Ip(IpAddr::V6(ip)) => format!("[{ip}]"),
            other => other.to_string(),
        }
    }
}

impl fmt::Display for HostAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(ip) => ip.fmt(f),
            Self::Dns(name) => f.pad(name),
        }
    }
}

serialized_as_shown!(HostAddress);

impl FromStr for HostAddress {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        let wrong = |why: &str| Wrong::new(format!("`{}` is no host address: {why}", shown(text)));
        if let Ok(ip) = text.parse::<IpAddr>() {
            return match ip {
                IpAddr::V4(v4) if v4.is_broadcast() => Err(wrong("it is the broadcast address")),
                ip if ip.is_unspecified() => Err(wrong("it stands for all addresses of a machine")),
                ip if ip.is_multicast() => Err(wrong("it is a multicast address")),
                ip => Ok(Self::Ip(ip)),
            };
        }
        if text.parse::<IpNet>().is_ok() {
            return Err(wrong("it is a network").help("leave out the `/` and what follows"));
        }
        if let Some((_, host)) = text.split_once('@') {
            return Err(wrong("it has a user in it")
                .help(format!("write `user = …` and `host = \"{}\"`", shown(host))));
        }
        if let Some((host, port)) = text
            .rsplit_once(':')
            .filter(|(host, _)| !host.contains(':'))
            && port.parse::<Port>().is_ok()
        {
            let help = format!("write `host = \"{}\"` and `port = {port}`", shown(host));
            return Err(wrong("it has a port in it").help(help));
        }
        let plain = text.strip_suffix('.').unwrap_or(text);
        if !plain.is_empty()
            && plain
                .bytes()
                .all(|byte| byte.is_ascii_digit() || byte == b'.')
        {
            return Err(
                wrong("an IPv4 address is four numbers from 0 to 255").help("like `192.168.1.10`")
            );
        }
        if text.contains(':') {
            return Err(wrong("it is neither an IPv6 address nor a name")
                .help("like `fd00::10`, without brackets"));
        }
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && label
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        if plain.len() <= 253 && plain.split('.').all(label) {
            return Ok(Self::Dns(plain.to_ascii_lowercase()));
        }
        Err(wrong("it is neither an IP address nor a DNS name")
            .help("like `192.168.1.10` or `jarvis.local`"))
    }
}

impl Text for HostAddress {
    const EXPECTED: &'static str = "an IP address or a DNS name";
}

impl Text for NodeAddress {
    const EXPECTED: &'static str = "an IP address";
}

/// The fixed address of a node in its own network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub struct NodeAddress(IpAddr);

impl NodeAddress {
    /// The address.
    pub const fn get(self) -> IpAddr {
        self.0
    }
}

impl fmt::Display for NodeAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for NodeAddress {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        match text.parse()? {
            HostAddress::Ip(ip) if ip.is_loopback() => Err(Wrong::new(format!(
                "`{ip}` is no address of a node: it is everybody's own"
            ))
            .help("write the address the other nodes reach it at")),
            HostAddress::Ip(ip) => Ok(Self(ip)),
            HostAddress::Dns(name) => {
                Err(Wrong::new(format!("`{}` is no IP address", shown(&name)))
                    .help("like `192.168.1.10`; a name belongs into `host`"))
            }
        }
    }
}

/// One jump host on the way to a node: `[user@]host[:port]`, an IPv6 address in brackets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Jump {
    /// Who to log in as; `None` leaves it to the SSH configuration.
    pub user: Option<UserName>,
    /// The host, also an alias of the user's `~/.ssh/config`.
    pub host: HostAddress,
    /// The port; `None` leaves it to the SSH configuration.
    pub port: Option<Port>,
}

impl fmt::Display for Jump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(user) = &self.user {
            write!(f, "{user}@")?;
        }
        match (&self.host, self.port) {
            (HostAddress::Ip(IpAddr::V6(ip)), Some(port)) => write!(f, "[{ip}]:{port}"),
            (host, Some(port)) => write!(f, "{host}:{port}"),
            (host, None) => host.fmt(f),
        }
    }
}

serialized_as_shown!(Jump);

impl FromStr for Jump {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        if text.contains(',') {
            return Err(
                Wrong::new(format!("`{}` is more than one host", shown(text)))
                    .help("a chain is a list: `[\"first\", \"second\"]`"),
            );
        }
        let (user, place) = match text.rsplit_once('@') {
            Some((user, place)) => (Some(user.parse()?), place),
            None => (None, text),
        };
        let bracketed = place
            .strip_prefix('[')
            .and_then(|rest| rest.split_once(']'));
        let (host, port) = match bracketed {
            Some((host, "")) => (host, None),
            Some((host, rest)) => (host, Some(rest.strip_prefix(':').unwrap_or(rest))),
            None if place.parse::<IpAddr>().is_ok() => (place, None),
            None => match place.rsplit_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (place, None),
            },
        };
        Ok(Self {
            user,
            host: host.parse()?,
            port: port.map(Port::from_str).transpose()?,
        })
    }
}

impl Text for Jump {
    const EXPECTED: &'static str = "a jump host";
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::inventory::diagnostic::refused;

    #[test]
    fn a_host_is_an_address_or_a_name() {
        for (text, shown) in [
            ("192.168.1.10", "192.168.1.10"),
            ("FD00::0:1", "fd00::1"),
            ("jarvis", "jarvis"),
            ("Jarvis.Local.", "jarvis.local"),
            ("127.0.0.1", "127.0.0.1"),
            ("10-0-0-1.example.com", "10-0-0-1.example.com"),
        ] {
            assert_eq!(text.parse::<HostAddress>().unwrap().to_string(), shown);
        }
        for text in [
            "",
            ".",
            "a..b",
            "-a",
            "a b",
            "a\n",
            "300.1.1.1",
            "1.2.3",
            "1.2.3.4.5",
            "[::1]",
            "::g",
            "0.0.0.0",
            "255.255.255.255",
            "224.0.0.1",
            "ff02::1",
            "10.0.0.0/8",
            "pi@a",
            "a:22",
            "ü",
            &"a".repeat(64),
            "\0",
        ] {
            assert!(
                refused::<HostAddress>(text).contains("is no host address"),
                "{text}"
            );
        }
        assert!(
            refused::<HostAddress>("jarvis:2222")
                .ends_with("write `host = \"jarvis\"` and `port = 2222`")
        );
    }

    #[test]
    fn a_node_has_an_address_of_its_own() {
        assert_eq!(
            "10.0.0.1".parse::<NodeAddress>().unwrap().to_string(),
            "10.0.0.1"
        );
        for text in ["127.0.0.1", "::1", "jarvis", "0.0.0.0", ""] {
            refused::<NodeAddress>(text);
        }
    }

    #[test]
    fn a_jump_host_has_the_form_of_ssh() {
        for text in [
            "bastion",
            "me@bastion",
            "me@bastion:2222",
            "10.0.0.1:22",
            "me@[fd00::1]:22",
            "fd00::1",
        ] {
            assert_eq!(text.parse::<Jump>().unwrap().to_string(), text);
        }
        assert_eq!("[fd00::1]".parse::<Jump>().unwrap().to_string(), "fd00::1");
        for text in [
            "",
            "@",
            "me@",
            "Me@bastion",
            "a,b",
            "a:0",
            "a:x",
            "[fd00::1",
            "[fd00::1]22x",
            "a b",
        ] {
            refused::<Jump>(text);
        }
    }
}
