//! What a machine seen for the first time turns out to be, in the inventory's words.

use std::net::IpAddr;

use crate::inventory::{HostAddress, Model, NodeAddress, Os};
use crate::node::facts::Facts;

/// The operating system, if it is one that selfheal knows.
pub fn os(facts: &Facts) -> Option<Os> {
    let pi = facts.raspberry_pi_os;
    match (facts.os.id.as_str(), facts.os.version.as_str()) {
        ("raspbian", "12") => Some(Os::RaspiosBookworm),
        ("raspbian", "13") => Some(Os::RaspiosTrixie),
        ("debian", "12") if pi => Some(Os::RaspiosBookworm),
        ("debian", "13") if pi => Some(Os::RaspiosTrixie),
        ("debian", "12") => Some(Os::Debian12),
        ("debian", "13") => Some(Os::Debian13),
        ("ubuntu", "24.04") => Some(Os::Ubuntu2404),
        ("ubuntu", "25.10") => Some(Os::Ubuntu2510),
        ("ubuntu", "26.04") => Some(Os::Ubuntu2604),
        _ => None,
    }
}

/// The board.
pub fn model(facts: &Facts) -> Model {
    match Model::from_device_tree(&facts.model) {
        Model::Other if facts.virtual_machine => Model::Virtual,
        model => model,
    }
}

/// The address in the nodes' network, of each machine where that is not the `host` it was reached at: behind a name,
/// or behind a forwarded port. An address that two machines have is that of a network of their own (each lab Pi is
/// 10.0.2.15 to itself).
pub fn lan_addresses(machines: &[(HostAddress, &Facts)]) -> Vec<Option<NodeAddress>> {
    let elsewhere = |at: usize, ip: IpAddr| {
        let others = machines
            .iter()
            .enumerate()
            .filter(|(other, _)| *other != at);
        let mut same = others.map(|(_, (host, facts))| {
            host.ip() == Some(ip) || facts.addresses.iter().any(|address| address.ip == ip)
        });
        same.any(|same| same)
    };
    let lan_address = |(at, (host, facts)): (usize, &(HostAddress, &Facts))| {
        if facts
            .addresses
            .iter()
            .any(|address| Some(address.ip) == host.ip())
        {
            return None;
        }
        let candidates = facts
            .addresses
            .iter()
            .filter(|address| !is_inner(&address.interface) && !elsewhere(at, address.ip));
        let best = candidates.min_by_key(|address| {
            let default = facts.default_interface.as_ref() == Some(&address.interface);
            (!default, address.ip.is_ipv6())
        })?;
        best.ip.to_string().parse().ok()
    };
    machines.iter().enumerate().map(lan_address).collect()
}

/// Whether an interface belongs to containers or to a VPN.
fn is_inner(interface: &str) -> bool {
    const INNER: [&str; 10] = [
        "br-",
        "cali",
        "cni",
        "docker",
        "flannel",
        "kube",
        "tailscale",
        "veth",
        "virbr",
        "wg",
    ];
    INNER.iter().any(|inner| interface.starts_with(inner))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::node::facts::{InterfaceAddress, OsRelease};

    #[test]
    fn raspberry_pi_os_is_told_from_debian() {
        let facts = |id: &str, version: &str, raspberry_pi_os| Facts {
            os: OsRelease {
                id: id.into(),
                version: version.into(),
                ..OsRelease::default()
            },
            raspberry_pi_os,
            ..Facts::default()
        };
        for (id, version, pi, expected) in [
            ("debian", "12", true, Some(Os::RaspiosBookworm)),
            ("debian", "13", false, Some(Os::Debian13)),
            ("raspbian", "13", false, Some(Os::RaspiosTrixie)),
            ("ubuntu", "24.04", false, Some(Os::Ubuntu2404)),
            ("ubuntu", "22.04", false, None),
            ("", "", false, None),
        ] {
            assert_eq!(os(&facts(id, version, pi)), expected, "{id} {version}");
        }
    }

    #[test]
    fn a_machine_without_a_board_is_virtual_or_any_other() {
        let facts = |model: &str, virtual_machine| Facts {
            model: model.into(),
            virtual_machine,
            ..Facts::default()
        };
        assert_eq!(
            model(&facts("Raspberry Pi 5 Model B Rev 1.0", false)),
            Model::Pi5
        );
        assert_eq!(model(&facts("linux,dummy-virt", true)), Model::Virtual);
        assert_eq!(model(&facts("", true)), Model::Virtual);
        assert_eq!(model(&facts("", false)), Model::Other);
    }

    fn at(addresses: &[(&str, &str)]) -> Facts {
        let address = |(interface, ip): &(&str, &str)| InterfaceAddress {
            interface: (*interface).to_owned(),
            ip: ip.parse().unwrap(),
        };
        Facts {
            addresses: addresses.iter().map(address).collect(),
            default_interface: Some("eth0".to_owned()),
            ..Facts::default()
        }
    }

    fn lan(machines: &[(&str, &Facts)]) -> Vec<String> {
        let machines: Vec<(HostAddress, &Facts)> = machines
            .iter()
            .map(|(host, facts)| (host.parse().unwrap(), *facts))
            .collect();
        let shown = |address: Option<NodeAddress>| address.map_or("-".into(), |ip| ip.to_string());
        lan_addresses(&machines).into_iter().map(shown).collect()
    }

    #[test]
    fn only_an_address_that_is_not_the_host_is_said() {
        let jarvis = at(&[
            ("cni0", "10.42.0.1"),
            ("wlan0", "192.168.1.20"),
            ("eth0", "fd00::10"),
            ("eth0", "192.168.1.10"),
        ]);
        assert_eq!(lan(&[("192.168.1.10", &jarvis)]), ["-"]);
        assert_eq!(lan(&[("192.168.1.20", &jarvis)]), ["-"]);
        assert_eq!(lan(&[("jarvis.local", &jarvis)]), ["192.168.1.10"]);
        assert_eq!(lan(&[("203.0.113.1", &jarvis)]), ["192.168.1.10"]);
        assert_eq!(lan(&[("jarvis", &at(&[]))]), ["-"]);
        assert_eq!(lan(&[("jarvis", &at(&[("docker0", "172.17.0.1")]))]), ["-"]);
    }

    #[test]
    fn behind_forwarded_ports_the_network_they_share_counts() {
        let jarvis = at(&[("eth0", "10.0.2.15"), ("eth1", "10.77.0.10")]);
        let ultron = at(&[("eth0", "10.0.2.15"), ("eth1", "10.77.0.11")]);
        let both = lan(&[("127.0.0.1", &jarvis), ("127.0.0.1", &ultron)]);
        assert_eq!(both, ["10.77.0.10", "10.77.0.11"]);
    }
}
