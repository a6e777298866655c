//! SSH public keys.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::define::serialized_as_shown;
use super::diagnostic::{Wrong, nearest};
use super::name::shown;
use super::setting::Text;

/// A public key as it stands in `authorized_keys` and `*.pub`: algorithm, key, comment.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey {
    algorithm: &'static str,
    base64: String,
    comment: Option<String>,
}

const ALGORITHMS: [&str; 8] = [
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "ssh-rsa",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
    "ssh-dss",
];

impl PublicKey {
    /// The algorithm: `ssh-ed25519`.
    pub fn algorithm(&self) -> &'static str {
        self.algorithm
    }

    /// The key in base64, as OpenSSH writes it.
    pub fn base64(&self) -> &str {
        &self.base64
    }

    /// The comment, which is nobody's business but the reader's.
    pub fn comment(&self) -> Option<&str> {
        self.comment.as_deref()
    }

    /// Whether it is the same key, whatever the comments say.
    pub fn same_key(&self, other: &Self) -> bool {
        self.algorithm == other.algorithm && self.base64 == other.base64
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.algorithm, self.base64)?;
        self.comment
            .iter()
            .try_for_each(|comment| write!(f, " {comment}"))
    }
}

serialized_as_shown!(PublicKey);

impl FromStr for PublicKey {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        const FORM: &str = "write the line of the `.pub` file: `ssh-ed25519 AAAA… comment`";
        if text.contains("PRIVATE KEY") {
            return Err(
                Wrong::new("this is a private key, which must never leave its file").help(FORM),
            );
        }
        if text.chars().any(char::is_control) {
            return Err(
                Wrong::new("the key has a line break or another control character in it")
                    .help(FORM),
            );
        }
        let mut words = text.split_ascii_whitespace();
        let (Some(algorithm), Some(base64)) = (words.next(), words.next()) else {
            return Err(Wrong::new(format!("`{}` is no public key", shown(text))).help(FORM));
        };
        let comment = words.collect::<Vec<_>>().join(" ");
        let Some(known) = ALGORITHMS.into_iter().find(|known| *known == algorithm) else {
            let wrong = Wrong::new(format!(
                "`{}` is no key algorithm of OpenSSH",
                shown(algorithm)
            ));
            return Err(match nearest(algorithm, ALGORITHMS) {
                Some(near) => wrong.help(format!("did you mean `{near}`?")),
                None if algorithm.contains(['=', ',']) || algorithm.contains("restrict") => {
                    wrong.help("options before the key are not taken here")
                }
                None => wrong.help(FORM),
            });
        };
        if known == "ssh-dss" {
            return Err(Wrong::new("OpenSSH no longer accepts `ssh-dss` keys")
                .help("make an ed25519 key: `ssh-keygen`"));
        }
        let blob = STANDARD
            .decode(base64)
            .map_err(|_| damaged("it is no base64"))?;
        let inner = string(&blob).ok_or_else(|| damaged("it is cut short"))?;
        if inner.0 != known.as_bytes() {
            return Err(damaged(&format!(
                "it says to be another kind than `{known}`"
            )));
        }
        if string(inner.1).is_none_or(|(part, _)| part.is_empty()) {
            return Err(damaged("it is cut short"));
        }
        Ok(Self {
            algorithm: known,
            base64: base64.to_owned(),
            comment: (!comment.is_empty()).then_some(comment),
        })
    }
}

fn damaged(why: &str) -> Wrong {
    Wrong::new(format!("the key is damaged: {why}")).help("copy the whole line again")
}

/// The first string of SSH's wire format, and what follows it.
fn string(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)
}

impl Text for PublicKey {
    const EXPECTED: &'static str = "a public key";
    const PATTERN: Option<&'static str> =
        Some("^(sk-)?(ssh|ecdsa)-[a-z0-9@.-]+ [A-Za-z0-9+/]+=*( .*)?$");
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const BLOB: &str = "AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f";

    #[test]
    fn a_key_is_read_with_and_without_comment() {
        let plain: PublicKey = format!("ssh-ed25519 {BLOB}").parse().unwrap();
        let named: PublicKey = format!("  ssh-ed25519  {BLOB} me at home ")
            .parse()
            .unwrap();
        assert!(plain.same_key(&named) && plain != named);
        assert_eq!(
            (plain.comment(), named.comment()),
            (None, Some("me at home"))
        );
        assert_eq!(named.to_string(), format!("ssh-ed25519 {BLOB} me at home"));
    }

    #[test]
    fn what_is_no_public_key_says_why() {
        for (text, why) in [
            ("".to_owned(), "is no public key"),
            ("ssh-ed25519".to_owned(), "is no public key"),
            (format!("ssh-ed2551 {BLOB}"), "is no key algorithm"),
            (
                format!("restrict ssh-ed25519 {BLOB}"),
                "is no key algorithm",
            ),
            (format!("ssh-rsa {BLOB}"), "another kind"),
            (
                format!("ssh-ed25519 {}", BLOB.replace('A', "*")),
                "no base64",
            ),
            ("ssh-ed25519 AAAA".to_owned(), "cut short"),
            ("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5".to_owned(), "cut short"),
            (format!("ssh-ed25519 {BLOB} a\nb"), "line break"),
            (
                "-----BEGIN OPENSSH PRIVATE KEY-----".to_owned(),
                "private key",
            ),
        ] {
            let wrong = text.parse::<PublicKey>().unwrap_err();
            assert!(wrong.message.contains(why), "{text}: {wrong}");
            assert!(wrong.help.is_some(), "{text}");
        }
    }
}
