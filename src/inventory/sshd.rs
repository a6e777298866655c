//! The user's own keywords of `sshd_config`.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use serde_json::json;
use toml::de::DeValue;

use super::define::serialized_as_shown;
use super::diagnostic::{Diagnostic, Wrong};
use super::name::shown;
use super::schema::{Definitions, Schema};
use super::setting::{Found, Problems, Text, Value};
use super::ssh::line;

/// A keyword of `sshd_config`; sshd does not care about its case, so neither does the comparison.
#[derive(Debug, Clone)]
pub struct SshdKeyword(String);

impl SshdKeyword {
    /// The keyword as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is this keyword, in any case.
    pub fn is(&self, keyword: &str) -> bool {
        self.0.eq_ignore_ascii_case(keyword)
    }
}

impl PartialEq for SshdKeyword {
    fn eq(&self, other: &Self) -> bool {
        self.is(&other.0)
    }
}

impl Eq for SshdKeyword {}

impl PartialOrd for SshdKeyword {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for SshdKeyword {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0
            .to_ascii_lowercase()
            .cmp(&other.0.to_ascii_lowercase())
    }
}

impl fmt::Display for SshdKeyword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

serialized_as_shown!(SshdKeyword);

const WHERE: &str = "it changes where sshd answers, and selfheal and you would no longer find it";
const SCOPE: &str = "it changes what the lines after it mean";
const KEYS: &str = "it changes the key the node is known by";

/// Keywords that are refused, with the reason.
const REFUSED: [(&str, &str); 22] = [
    ("Match", SCOPE),
    ("Include", SCOPE),
    ("Port", WHERE),
    ("ListenAddress", WHERE),
    ("AddressFamily", WHERE),
    ("HostKey", KEYS),
    ("HostKeyAgent", KEYS),
    ("HostCertificate", KEYS),
    ("PidFile", "systemd has to find sshd"),
    ("PubkeyAuthentication", "selfheal logs in with a key"),
    (
        "AuthenticationMethods",
        "selfheal logs in with a key and nothing else",
    ),
    ("ForceCommand", "selfheal has to run its own commands"),
    ("ChrootDirectory", "selfheal has to see the whole system"),
    (
        "PasswordAuthentication",
        "`password_authentication` sets it",
    ),
    (
        "KbdInteractiveAuthentication",
        "`password_authentication` sets it",
    ),
    (
        "ChallengeResponseAuthentication",
        "`password_authentication` sets it",
    ),
    ("PermitRootLogin", "`permit_root_login` sets it"),
    ("MaxAuthTries", "`max_auth_tries` sets it"),
    ("LoginGraceTime", "`login_grace_time` sets it"),
    ("ClientAliveInterval", "`client_alive_interval` sets it"),
    ("ClientAliveCountMax", "`client_alive_count_max` sets it"),
    ("X11Forwarding", "`x11_forwarding` sets it"),
];

impl FromStr for SshdKeyword {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        let first = text
            .bytes()
            .next()
            .is_some_and(|byte| byte.is_ascii_alphabetic());
        if !first || !text.bytes().all(|byte| byte.is_ascii_alphanumeric()) || text.len() > 64 {
            return Err(
                Wrong::new(format!("`{}` is no keyword of sshd_config", shown(text)))
                    .help("letters and digits, as in its manual: `AllowUsers`"),
            );
        }
        match REFUSED
            .iter()
            .find(|(refused, _)| refused.eq_ignore_ascii_case(text))
        {
            Some((keyword, why)) => {
                Err(Wrong::new(format!("`{keyword}` is not taken here: {why}")))
            }
            None => Ok(Self(text.to_owned())),
        }
    }
}

impl Text for SshdKeyword {
    const EXPECTED: &'static str = "a keyword of sshd_config";
    const PATTERN: Option<&'static str> = Some("^[A-Za-z][A-Za-z0-9]*$");
}

/// The values of a keyword: it is written once for each.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct SshdValues(Vec<String>);

impl SshdValues {
    /// The values, at least one, each of one line.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

impl Value for SshdValues {
    fn schema(_: &mut Definitions) -> Schema {
        let one = json!({ "type": ["string", "integer", "boolean"] });
        json!({ "anyOf": [one, { "type": "array", "items": one, "minItems": 1 }] })
    }

    fn read(value: &Found<'_>, problems: &mut Problems) -> Option<Self> {
        let Some(items) = value.get_ref().as_array() else {
            return one(value, problems).map(|value| Self(vec![value]));
        };
        if items.is_empty() {
            problems.push(
                Diagnostic::error(value.span(), "the list is empty").help("leave the keyword out"),
            );
        }
        let values: Vec<String> = items
            .iter()
            .filter_map(|item| one(item, problems))
            .collect();
        (!values.is_empty()).then_some(Self(values))
    }
}

fn one(value: &Found<'_>, problems: &mut Problems) -> Option<String> {
    match value.get_ref() {
        DeValue::String(text) => line(text)
            .map_err(|wrong| problems.wrong(value.span(), wrong))
            .ok(),
        DeValue::Integer(number) => Some(number.to_string()),
        DeValue::Boolean(truth) => Some(if *truth { "yes" } else { "no" }.to_owned()),
        DeValue::Float(_) | DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => {
            problems.wrong_type(value, "a string, or a list of them", None);
            None
        }
    }
}
