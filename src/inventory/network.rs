//! What the firewall lets in: networks and ports.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

use super::address::Port;
use super::define::serialized_as_shown;
use super::diagnostic::Wrong;
use super::name::shown;
use super::setting::Text;

/// A network in CIDR form: `192.168.1.0/24`. A single address is taken as a network of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub struct Cidr(IpNet);

impl Cidr {
    /// The network, its host bits zero.
    pub const fn get(self) -> IpNet {
        self.0
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Cidr {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        if let Ok(ip) = text.parse::<IpAddr>() {
            return Ok(Self(ip.into()));
        }
        let net: IpNet = text.parse().map_err(|_| {
            Wrong::new(format!("`{}` is no network", shown(text)))
                .help("like `192.168.1.0/24` or `fd00::/64`")
        })?;
        if net.addr() != net.network() {
            return Err(Wrong::new(format!("`{net}` has host bits set"))
                .help(format!("did you mean `{}`?", net.trunc())));
        }
        Ok(Self(net))
    }
}

impl Text for Cidr {
    const EXPECTED: &'static str = "a network";
}

/// What the firewall lets in from everywhere: `tcp/80`, `udp/5000-5010`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortRule {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The first port.
    pub first: Port,
    /// The last port; the same as the first for a single one.
    pub last: Port,
}

/// A transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP
    Tcp,
    /// UDP
    Udp,
}

impl Protocol {
    /// The name as nftables writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

impl fmt::Display for PortRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.protocol.as_str(), self.first)?;
        if self.last == self.first {
            Ok(())
        } else {
            write!(f, "-{}", self.last)
        }
    }
}

serialized_as_shown!(PortRule);

impl FromStr for PortRule {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        let wrong = || {
            Wrong::new(format!("`{}` is no port rule", shown(text)))
                .help("like `tcp/80` or `udp/5000-5010`")
        };
        let (protocol, ports) = text.split_once('/').ok_or_else(wrong)?;
        let protocol = match protocol {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            _ => return Err(wrong()),
        };
        let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
        let (first, last): (Port, Port) = (first.parse()?, last.parse()?);
        if last < first {
            return Err(
                Wrong::new(format!("`{}` ends before it starts", shown(text))).help(format!(
                    "did you mean `{}/{last}-{first}`?",
                    protocol.as_str()
                )),
            );
        }
        Ok(Self {
            protocol,
            first,
            last,
        })
    }
}

impl Text for PortRule {
    const EXPECTED: &'static str = "a port rule";
    const PATTERN: Option<&'static str> = Some("^(tcp|udp)/[0-9]{1,5}(-[0-9]{1,5})?$");
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::inventory::diagnostic::refused;

    #[test]
    fn a_network_has_no_host_bits() {
        for (text, shown) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("10.0.0.1", "10.0.0.1/32"),
            ("fd00::/64", "fd00::/64"),
        ] {
            assert_eq!(text.parse::<Cidr>().unwrap().to_string(), shown);
        }
        assert!(refused::<Cidr>("192.168.1.10/24").ends_with("did you mean `192.168.1.0/24`?"));
        for text in ["10.0.0.0/33", "10.0.0/8", "lan", ""] {
            refused::<Cidr>(text);
        }
    }

    #[test]
    fn a_port_rule_names_protocol_and_ports() {
        for text in ["tcp/80", "udp/5000-5010"] {
            assert_eq!(text.parse::<PortRule>().unwrap().to_string(), text);
        }
        for text in [
            "80",
            "tcp/",
            "tcp/0",
            "icmp/1",
            "tcp/1-",
            "tcp/9-1",
            "tcp/65536",
            "",
        ] {
            refused::<PortRule>(text);
        }
    }
}
