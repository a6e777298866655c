//! The hosts that the user names, and the names that they get.

use std::collections::BTreeSet;
use std::io::{self, BufRead, Write};
use std::str::FromStr;

use crate::inventory::{Jump, NodeName, Wrong};

/// A host as it is typed: `[NAME=][user@]host[:port]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Host {
    /// The name that the node is to have, if it is said.
    pub(super) name: Option<NodeName>,
    /// Where it is.
    pub(super) place: Jump,
}

impl FromStr for Host {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let said = |wrong: Wrong| match wrong.help {
            Some(help) => format!("{} ({help})", wrong.message),
            None => wrong.message,
        };
        let (name, place) = match text.split_once('=') {
            Some((name, place)) => (Some(name.trim().parse().map_err(said)?), place),
            None => (None, text),
        };
        let place = place.trim().parse().map_err(said)?;
        Ok(Self { name, place })
    }
}

/// Names of freshly flashed machines, which tell nothing.
const DEFAULT_NAMES: [&str; 4] = ["raspberrypi", "ubuntu", "debian", "localhost"];

/// A name for each machine: the one it was given, else its hostname, else the next free one of pi1, pi2, …
pub(super) fn names<'a>(
    machines: impl Iterator<Item = (Option<&'a NodeName>, &'a str)> + Clone,
) -> Vec<NodeName> {
    let given = machines.clone().filter_map(|(given, _)| given.cloned());
    let mut taken: BTreeSet<NodeName> = given.collect();
    let mut free = (1..).filter_map(|number| format!("pi{number}").parse::<NodeName>().ok());
    let mut names = Vec::new();
    for (given, hostname) in machines {
        let own = || {
            let first = hostname.split('.').next().unwrap_or_default();
            let name = first.to_ascii_lowercase().parse::<NodeName>().ok()?;
            let telling = !DEFAULT_NAMES.contains(&name.as_str());
            (telling && taken.insert(name.clone())).then_some(name)
        };
        let name = given.cloned().or_else(own);
        let name = name.or_else(|| free.find(|name| taken.insert(name.clone())));
        names.extend(name);
    }
    names
}

/// Asks for hosts, one a line, until an empty one.
pub(super) fn ask(input: &mut dyn BufRead, output: &mut dyn Write) -> io::Result<Vec<Host>> {
    writeln!(
        output,
        "Which hosts? One a line as [NAME=][user@]host[:port], such as jarvis=192.168.1.10; an empty line ends the list."
    )?;
    let mut hosts = Vec::new();
    loop {
        write!(output, "host {}: ", hosts.len() + 1)?;
        output.flush()?;
        let mut line = String::new();
        if input.read_line(&mut line)? == 0 || line.trim().is_empty() {
            return Ok(hosts);
        }
        match line.trim().parse() {
            Ok(host) => hosts.push(host),
            Err(why) => writeln!(output, "{why}")?,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_a_name_a_user_and_a_port_or_not() {
        for (text, name, user, host, port) in [
            ("192.168.1.10", None, None, "192.168.1.10", None),
            ("pi@jarvis.local", None, Some("pi"), "jarvis.local", None),
            ("jarvis=a:2222", Some("jarvis"), None, "a", Some(2222)),
            (
                "ultron = me@[fd00::1]:22",
                Some("ultron"),
                Some("me"),
                "fd00::1",
                Some(22),
            ),
            ("fd00::1", None, None, "fd00::1", None),
        ] {
            let parsed: Host = text.parse().unwrap();
            assert_eq!(parsed.name.as_ref().map(NodeName::as_str), name, "{text}");
            let place = parsed.place;
            assert_eq!(
                place.user.map(|user| user.to_string()).as_deref(),
                user,
                "{text}"
            );
            assert_eq!(place.host.to_string(), host, "{text}");
            assert_eq!(place.port.map(|port| port.get()), port, "{text}");
        }
        for text in [
            "",
            "=a",
            "Jarvis=a",
            "a b=c",
            "a=",
            "a:0",
            "a:b",
            "@a",
            "localhost=a",
            "-oX=y",
        ] {
            assert!(text.parse::<Host>().is_err(), "{text:?}");
        }
        assert!("Jarvis=a".parse::<Host>().unwrap_err().contains("`jarvis`"));
    }

    fn named(machines: &[(&str, &str)]) -> Vec<String> {
        let given: Vec<Option<NodeName>> = machines
            .iter()
            .map(|(given, _)| given.parse().ok())
            .collect();
        let hostnames = machines.iter().map(|(_, hostname)| *hostname);
        let names = names(given.iter().map(Option::as_ref).zip(hostnames));
        names.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_machine_keeps_a_name_that_tells_something() {
        let names = named(&[
            ("jarvis", "raspberrypi"),
            ("", "Ultron.local"),
            ("", "raspberrypi"),
            ("", "ultron"),
            ("", "jarvis"),
            ("", "Ubuntu"),
            ("", "under_score"),
            ("", ""),
        ]);
        assert_eq!(
            names,
            ["jarvis", "ultron", "pi1", "pi2", "pi3", "pi4", "pi5", "pi6"]
        );
    }

    #[test]
    fn a_given_name_goes_before_a_hostname_and_a_number_is_not_used_twice() {
        let names = named(&[
            ("", "ultron"),
            ("ultron", ""),
            ("pi2", ""),
            ("", ""),
            ("", "pi3"),
        ]);
        assert_eq!(names, ["pi1", "ultron", "pi2", "pi3", "pi4"]);
    }

    #[test]
    fn hosts_are_asked_for_until_an_empty_line() {
        let mut output = Vec::new();
        let typed = "jarvis=10.0.0.1\nJarvis=a\n 10.0.0.2:2222 \n\n10.0.0.3\n";
        let hosts = ask(&mut typed.as_bytes(), &mut output).unwrap();
        let expected = ["jarvis=10.0.0.1", "10.0.0.2:2222"].map(|host| host.parse().unwrap());
        assert_eq!(hosts, expected);
        let output = String::from_utf8(output).unwrap();
        assert!(output.contains("no RFC 1123 label"), "{output}");
        assert_eq!(ask(&mut "".as_bytes(), &mut Vec::new()).unwrap(), []);
    }
}
