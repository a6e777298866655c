//! Names: of clusters, nodes, users, and of the things on a node.

use super::define::text;
use super::diagnostic::Wrong;

const LABEL: &str = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$";

text! {
    /// The name of the cluster: an RFC 1123 label.
    pub struct ClusterName: "an RFC 1123 label", Some(LABEL), label;
}

text! {
    /// The name of a node, which becomes its hostname and its name in Kubernetes: an RFC 1123 label.
    ///
    /// Unique hostnames are mandatory for k3s (domain.md §3.6).
    pub struct NodeName: "an RFC 1123 label", Some(LABEL), node_name;
}

text! {
    /// A word that groups nodes, for `--on @word`.
    pub struct Tag: "a tag", Some(LABEL), tag;
}

text! {
    /// A login name on a node.
    pub struct UserName: "a login name", Some("^[a-z_][a-z0-9_-]{0,31}$"), user;
}

text! {
    /// A systemd unit with its suffix; `bluetooth` is taken as `bluetooth.service`.
    pub struct UnitName: "a systemd unit", Some("^[A-Za-z0-9:_.@\\\\-]+$"), unit;
}

text! {
    /// A Debian package.
    pub struct PackageName: "a package name", Some("^[a-z0-9][a-z0-9+.-]+$"), package;
}

text! {
    /// A kernel module.
    pub struct ModuleName: "a kernel module", Some("^[A-Za-z0-9_][A-Za-z0-9_-]{0,54}$"), module;
}

/// For the defaults of this crate, which a test proves to be well-formed.
macro_rules! literal {
    ($($name:ident),+) => {$(
        impl $name {
            pub(crate) fn literal(text: &'static str) -> Self {
                Self(text.to_owned())
            }
        }
    )+};
}

literal!(ClusterName, UserName, UnitName, ModuleName);

/// A text as it may be shown in a message: without control characters, and not endless.
pub(crate) fn shown(text: &str) -> String {
    let mut shown: String = text.chars().take(60).flat_map(char::escape_debug).collect();
    if text.chars().nth(60).is_some() {
        shown.push('…');
    }
    shown
}

/// What is wrong with the characters of a name: the first one that may not stand there.
fn stray(text: &str, allowed: impl Fn(char) -> bool) -> Option<char> {
    text.chars().find(|character| !allowed(*character))
}

/// RFC 1123: lower-case letters, digits and hyphens, at most 63, a letter or digit at both ends.
fn label(text: &str) -> Result<String, Wrong> {
    let no_label = |why: &str| {
        let wrong = Wrong::new(format!("`{}` is no RFC 1123 label: {why}", shown(text)));
        match label_like(text) {
            Some(near) => wrong.help(format!("`{near}` would be one")),
            None => wrong.help("use lower-case letters, digits and hyphens, at most 63 of them"),
        }
    };
    if text.is_empty() {
        Err(no_label("it is empty"))
    } else if let Some(stray) = stray(text, |c| {
        c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'
    }) {
        let stray: String = stray.escape_debug().collect();
        Err(no_label(&format!(
            "`{stray}` is not a lower-case letter, a digit or a hyphen"
        )))
    } else if text.len() > 63 {
        Err(no_label(&format!(
            "it has {} characters, and 63 is the most",
            text.len()
        )))
    } else if text.starts_with('-') || text.ends_with('-') {
        Err(no_label("it has a hyphen at one end"))
    } else {
        Ok(text.to_owned())
    }
}

/// The label somebody may have meant.
fn label_like(text: &str) -> Option<String> {
    let plain: String = text
        .to_lowercase()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .take(63)
        .collect();
    let plain = plain.trim_matches('-');
    (!plain.is_empty() && text.is_ascii()).then(|| plain.to_owned())
}

fn node_name(text: &str) -> Result<String, Wrong> {
    if text == "localhost" {
        return Err(Wrong::new("`localhost` is every node's name for itself")
            .help("give the node a name of its own"));
    }
    label(text)
}

fn tag(text: &str) -> Result<String, Wrong> {
    if matches!(text, "control-plane" | "worker") {
        return Err(
            Wrong::new(format!("the tag `{text}` would hide the role of that name")).help(format!(
                "`@{text}` selects by role already; leave the tag out"
            )),
        );
    }
    label(text)
}

fn user(text: &str) -> Result<String, Wrong> {
    let starts = text.starts_with(|c: char| c.is_ascii_lowercase() || c == '_');
    let rest = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-';
    if starts && text.len() <= 32 && stray(text, rest).is_none() {
        return Ok(text.to_owned());
    }
    Err(Wrong::new(format!("`{}` is no login name", shown(text)))
        .help("a letter first, then lower-case letters, digits, `_` and `-`, at most 32: `pi`"))
}

const UNIT_SUFFIXES: [&str; 9] = [
    ".service",
    ".socket",
    ".timer",
    ".path",
    ".mount",
    ".swap",
    ".target",
    ".automount",
    ".slice",
];

fn unit(text: &str) -> Result<String, Wrong> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || ":_.@\\-".contains(c);
    if text.is_empty()
        || text.starts_with(['.', '-', '@'])
        || text.len() > 240
        || stray(text, allowed).is_some()
    {
        return Err(Wrong::new(format!("`{}` is no systemd unit", shown(text)))
            .help("write the name as `systemctl` shows it: `bluetooth.service`, or `bluetooth` for short"));
    }
    let whole = UNIT_SUFFIXES.iter().any(|suffix| text.ends_with(suffix));
    Ok(if whole {
        text.to_owned()
    } else {
        format!("{text}.service")
    })
}

fn package(text: &str) -> Result<String, Wrong> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "+-.".contains(c);
    let starts = text.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
    if starts && (2..=128).contains(&text.len()) && stray(text, allowed).is_none() {
        return Ok(text.to_owned());
    }
    let wrong = Wrong::new(format!("`{}` is no Debian package name", shown(text)));
    Err(if text.contains('=') {
        wrong.help("versions cannot be pinned here; `hold` keeps a package as it is")
    } else {
        wrong.help("lower-case letters, digits, `+`, `-` and `.`, at least two: `nvme-cli`")
    })
}

fn module(text: &str) -> Result<String, Wrong> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if text.is_empty() || text.starts_with('-') || text.len() > 55 || stray(text, allowed).is_some()
    {
        return Err(Wrong::new(format!("`{}` is no kernel module", shown(text)))
            .help("write the name as `lsmod` shows it, without path and `.ko`: `br_netfilter`"));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_node_name_is_an_rfc_1123_label() {
        for text in ["a", "pi-1", "0", &"a".repeat(63)] {
            assert_eq!(text.parse::<NodeName>().unwrap().as_str(), text);
        }
        for (text, near) in [
            ("Jarvis", Some("jarvis")),
            ("my_pi", Some("my-pi")),
            ("-a-", Some("a")),
            ("pi.local", Some("pi-local")),
            ("", None),
            ("ü", None),
            ("--", None),
        ] {
            let help = text.parse::<NodeName>().unwrap_err().help.unwrap();
            assert_eq!(
                help.strip_suffix("` would be one")
                    .and_then(|help| help.strip_prefix('`')),
                near,
                "{text}"
            );
        }
        for text in ["localhost", "a\n", "a b", &"a".repeat(64)] {
            text.parse::<NodeName>().unwrap_err();
        }
        "worker".parse::<Tag>().unwrap_err();
    }

    #[test]
    fn a_unit_gets_its_suffix() {
        for (text, unit) in [
            ("bluetooth", "bluetooth.service"),
            ("cups.socket", "cups.socket"),
            ("getty@tty1", "getty@tty1.service"),
        ] {
            assert_eq!(text.parse::<UnitName>().unwrap().as_str(), unit);
        }
        for text in ["", "a b", "-x", "a/b", "a;b", "a\n"] {
            text.parse::<UnitName>().unwrap_err();
        }
    }

    #[test]
    fn names_that_reach_a_command_line_start_with_no_hyphen() {
        "-o".parse::<UserName>().unwrap_err();
        "-y".parse::<PackageName>().unwrap_err();
        "a;b".parse::<PackageName>().unwrap_err();
        "root".parse::<UserName>().unwrap();
        "libstdc++6".parse::<PackageName>().unwrap();
        "-r".parse::<ModuleName>().unwrap_err();
    }
}
