//! Tokens: `K10<sha256 of the CA>::<user>:<secret>` in full, `<secret>` in short (domain.md §4.4).

use anyhow::{Result, bail, ensure};
use sha2::{Digest, Sha256};

use crate::bundle::hex;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Of the full form only.
    pub ca_hash: Option<String>,
    pub user: Option<String>,
    pub secret: String,
}

impl Token {
    pub fn parse(text: &str) -> Result<Self> {
        ensure!(!text.is_empty(), "token must not be empty");
        let Some(rest) = text.strip_prefix("K10") else {
            return Ok(Self {
                ca_hash: None,
                user: None,
                secret: text.to_owned(),
            });
        };
        let (hash, login) = rest.split_once("::").unwrap_or(("", rest));
        ensure!(
            hash.is_empty() || hash.len() == 64,
            "invalid token CA hash length"
        );
        match login.split_once(':') {
            Some((user, secret)) if !secret.is_empty() => Ok(Self {
                ca_hash: (!hash.is_empty()).then(|| hash.to_owned()),
                user: Some(user.to_owned()),
                secret: secret.to_owned(),
            }),
            _ => bail!("invalid token format"),
        }
    }

    /// Refuses a server that has another CA than the token says.
    pub fn check_ca(&self, ca: &[u8]) -> Result<()> {
        let hash = ca_hash(ca);
        match &self.ca_hash {
            Some(expected) if *expected != hash => bail!(
                "token CA hash does not match the Cluster CA certificate hash: {expected} != {hash}"
            ),
            _ => Ok(()),
        }
    }
}

/// The full form, as it lies in the server's files.
pub fn full(ca: &[u8], user: &str, secret: &str) -> String {
    format!("K10{}::{user}:{secret}", ca_hash(ca))
}

fn ca_hash(ca: &[u8]) -> String {
    hex(&Sha256::digest(ca))
}

/// 16 random bytes in hexadecimal: what k3s makes secrets and node passwords of.
pub fn random() -> Result<String> {
    let mut bytes = [0; 16];
    if getrandom::fill(&mut bytes).is_err() {
        bail!("the kernel has no random numbers");
    }
    Ok(hex(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read() {
        let text = full(b"a CA", "node", "se:cret");
        let token = Token::parse(&text).unwrap();
        assert_eq!(
            (token.user.as_deref(), token.secret.as_str()),
            (Some("node"), "se:cret")
        );
        token.check_ca(b"a CA").unwrap();
        let error = token.check_ca(b"another").unwrap_err().to_string();
        assert!(error.starts_with("token CA hash does not match"), "{error}");

        let short = Token::parse("secret").unwrap();
        assert_eq!((short.user.as_ref(), short.ca_hash.as_ref()), (None, None));
        short.check_ca(b"any").unwrap();
    }

    #[test]
    fn half_a_token_is_refused() {
        for text in ["", "K10abc::node:secret", "K10::node", "K10::node:"] {
            assert!(Token::parse(text).is_err(), "{text}");
        }
    }
}
