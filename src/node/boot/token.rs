//! One parameter of a kernel command line.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use super::command_line;
use super::standing::{self, Standing};

/// One token of a kernel command line as it is written there: `quiet`, `panic=10`, `foo="a b"`.
///
/// Two tokens are equal when their text is. Whether they *mean* the same is [`Token::means`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(String);

/// Why a text is not a token that selfheal would write.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Nothing, or only blanks.
    #[error("a boot token is empty")]
    Empty,
    /// More than one token, or an opening quote without its end.
    #[error("`{0}` is not one boot token; put a value that holds blanks in double quotes")]
    NotOne(String),
    /// Characters that the kernel or systemd would read differently than a person does.
    #[error(
        "boot token `{0}`: a name holds only letters, digits, `_`, `-` and `.`, a value only printable ASCII, with quotes only around all of it"
    )]
    Characters(String),
}

/// How the kernel reads a key that occurs more than once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arity {
    /// The last one counts.
    Single,
    /// Each one counts.
    Repeated,
    /// Each one counts, and each is a comma list.
    RepeatedList,
    /// The last one counts, and it is a comma list.
    List,
}

impl Token {
    /// Takes a piece that [`command_line::split`] cut out of a line.
    pub(super) fn from_split(text: String) -> Token {
        Token(text)
    }

    /// The token as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name before the first `=`, as the kernel compares it: `-` and `_` are the same, a leading quote is skipped.
    pub fn key(&self) -> Cow<'_, str> {
        let bare = self.0.strip_prefix('"').unwrap_or(&self.0);
        let key = bare.split_once('=').map_or(bare, |(key, _)| key);
        match key.contains('-') {
            true => key.replace('-', "_").into(),
            false => key.into(),
        }
    }

    /// The value after the first `=` without the quotes around it; `None` for a bare word.
    pub fn value(&self) -> Option<&str> {
        let (_, value) = self.0.split_once('=')?;
        if self.0.starts_with('"') {
            return Some(value.strip_suffix('"').unwrap_or(value));
        }
        let open = value.strip_prefix('"').unwrap_or(value);
        Some(if open.len() < value.len() {
            open.strip_suffix('"').unwrap_or(open)
        } else {
            value
        })
    }

    /// Whether the kernel reads both tokens alike: `foo-bar="1"` means `foo_bar=1`.
    pub fn means(&self, other: &Token) -> bool {
        self.key() == other.key() && self.value() == other.value()
    }

    /// How far selfheal trusts this token.
    pub fn standing(&self) -> Standing {
        standing::standing(self)
    }

    /// Whether it must come out of every edit as it went in.
    pub fn is_untouchable(&self) -> bool {
        matches!(self.standing(), Standing::Untouchable(_))
    }

    /// Whether of several with this key only the last one counts, so that a new one takes its place.
    pub fn replaces(&self) -> bool {
        self.arity() == Arity::Single
    }

    /// The members of a comma list, in order.
    pub(super) fn items(&self) -> Vec<&str> {
        self.value()
            .unwrap_or_default()
            .split(',')
            .filter(|item| !item.is_empty())
            .collect()
    }

    /// Whether both are comma lists and `other` has every member of this one.
    pub fn items_are_in(&self, other: &Token) -> bool {
        let list = matches!(self.arity(), Arity::List | Arity::RepeatedList);
        list && self.key() == other.key()
            && self.items().iter().all(|item| other.items().contains(item))
    }

    /// The same key with another comma list. `None` when nothing is left of it.
    pub(super) fn with_items(&self, items: &[&str]) -> Option<Token> {
        if items.is_empty() {
            return None;
        }
        let list = items.join(",");
        let quote = if list.contains(|c: char| c.is_ascii_whitespace()) {
            "\""
        } else {
            ""
        };
        let bare = self.0.strip_prefix('"').unwrap_or(&self.0);
        let key = bare.split_once('=').map_or(bare, |(key, _)| key);
        Some(Token(format!("{key}={quote}{list}{quote}")))
    }

    pub(super) fn arity(&self) -> Arity {
        match self.key().as_ref() {
            "console" | "earlycon" | "earlyprintk" => Arity::Repeated,
            "cgroup_enable" | "cgroup_disable" => Arity::RepeatedList,
            "module_blacklist" | "usb_storage.quirks" => Arity::List,
            _ => Arity::Single,
        }
    }
}

impl FromStr for Token {
    type Err = TokenError;

    /// Reads a token that somebody wants to write: stricter than what is tolerated in a file that is already there.
    fn from_str(text: &str) -> Result<Token, TokenError> {
        let text = text.trim_matches(|c: char| c.is_ascii_whitespace());
        if text.is_empty() {
            return Err(TokenError::Empty);
        }
        let printable = text
            .bytes()
            .all(|byte| byte == b' ' || byte.is_ascii_graphic());
        let key = text.split_once('=').map_or(text, |(key, _)| key);
        let plain_key = !key.is_empty()
            && key
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b));
        let one = command_line::split(text).map_err(|_| TokenError::NotOne(text.to_owned()))?;
        if printable && one.len() != 1 {
            return Err(TokenError::NotOne(text.to_owned()));
        }
        let quotes = text.bytes().filter(|byte| *byte == b'"').count();
        let plain_quotes =
            quotes == 0 || (quotes == 2 && text.contains("=\"") && text.ends_with('"'));
        if !printable || !plain_key || !plain_quotes {
            return Err(TokenError::Characters(text.to_owned()));
        }
        Ok(Token(text.to_owned()))
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
