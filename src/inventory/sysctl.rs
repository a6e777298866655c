//! Kernel parameters.

use serde_json::json;

use super::define::{shown_as_str, text};
use super::diagnostic::{Diagnostic, Wrong};
use super::name::shown;
use super::schema::{Definitions, Schema};
use super::setting::{Found, Problems, Value};

text! {
    /// A kernel parameter in the form with dots: `net.ipv4.ip_forward`. The form with slashes is understood too.
    pub struct SysctlKey: "a kernel parameter", Some("^[A-Za-z0-9_-]+([./][A-Za-z0-9_-]+)+$"), key;
}

impl SysctlKey {
    /// The file under `/proc/sys` that holds it, relative to that folder.
    pub fn path(&self) -> String {
        swapped(&self.0)
    }
}

/// Dots and slashes change places: so `sysctl` writes the other form (`eth0/100` is the VLAN `eth0.100`).
fn swapped(text: &str) -> String {
    let swap = |c| match c {
        '.' => '/',
        '/' => '.',
        other => other,
    };
    text.chars().map(swap).collect()
}

fn key(text: &str) -> Result<String, Wrong> {
    let wrong = |why: &str| {
        Wrong::new(format!("`{}` is no kernel parameter: {why}", shown(text)))
            .help("like `vm.swappiness`")
    };
    if text.contains('*') {
        return Err(wrong("a pattern cannot be read back").help("name each parameter"));
    }
    if text.starts_with('-') {
        return Err(wrong("it starts with a hyphen")
            .help("leave it out; a parameter this kernel lacks is reported"));
    }
    let slashes = text
        .find(['.', '/'])
        .and_then(|at| text.get(at..))
        .is_some_and(|rest| rest.starts_with('/'));
    let dots = if slashes {
        swapped(text)
    } else {
        text.to_owned()
    };
    let part = |part: &str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b))
    };
    if !dots.split(['.', '/']).all(part) || text.len() > 255 {
        return Err(wrong("it is made of words with dots between them"));
    }
    if !dots.contains('.') {
        return Err(wrong("it names a folder only"));
    }
    Ok(dots)
}

/// The value of a kernel parameter, as the kernel shows it, with single spaces.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SysctlValue(String);

impl SysctlValue {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

shown_as_str!(SysctlValue, |this| this.0.as_str());

impl Value for SysctlValue {
    fn schema(_: &mut Definitions) -> Schema {
        json!({ "type": ["string", "integer"] })
    }

    fn read(value: &Found<'_>, problems: &mut Problems) -> Option<Self> {
        if let Some(number) = value.get_ref().as_integer() {
            let read = i64::from_str_radix(number.as_str(), number.radix()).ok();
            if read.is_none() {
                problems.push(Diagnostic::error(
                    value.span(),
                    format!("{number} is too big a number"),
                ));
            }
            return read.map(|number| Self(number.to_string()));
        }
        let Some(text) = value.get_ref().as_str() else {
            let help = value
                .get_ref()
                .as_bool()
                .map(|truth| format!("write `{}`", u8::from(truth)));
            problems.wrong_type(value, "a string or a whole number", help);
            return None;
        };
        let words = text.split_ascii_whitespace().collect::<Vec<_>>().join(" ");
        if words.is_empty() || words.chars().any(char::is_control) || text.contains(['\n', '\r']) {
            problems.push(Diagnostic::error(
                value.span(),
                "this is empty, or has a control character in it",
            ));
            return None;
        }
        Some(Self(words))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_are_one_parameter() {
        for (text, dots, path) in [
            ("vm.swappiness", "vm.swappiness", "vm/swappiness"),
            (
                "net/ipv4/ip_forward",
                "net.ipv4.ip_forward",
                "net/ipv4/ip_forward",
            ),
            (
                "net.ipv4.conf.eth0/5.rp_filter",
                "net.ipv4.conf.eth0/5.rp_filter",
                "net/ipv4/conf/eth0.5/rp_filter",
            ),
            (
                "net/ipv4/conf/eth0.5/rp_filter",
                "net.ipv4.conf.eth0/5.rp_filter",
                "net/ipv4/conf/eth0.5/rp_filter",
            ),
        ] {
            let key = text.parse::<SysctlKey>().unwrap();
            assert_eq!((key.as_str(), key.path().as_str()), (dots, path));
        }
        for text in [
            "",
            "vm",
            ".",
            "vm.",
            ".vm",
            "vm..x",
            "/etc/passwd",
            "../../etc/passwd",
            "net.*.x",
            "-vm.x",
            "a b.c",
            "a.b\n",
        ] {
            text.parse::<SysctlKey>().unwrap_err();
        }
    }
}
