//! Hashes, and the lists of them that come with a release.

use std::fmt;
use std::str::FromStr;

use super::{Arch, ArtifactError};

/// A SHA-256, in lower-case hex.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sha256(String);

/// A text that is no SHA-256.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no SHA-256: expected 64 hexadecimal digits")]
pub struct InvalidSha256(String);

impl FromStr for Sha256 {
    type Err = InvalidSha256;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            Ok(Self(text.to_ascii_lowercase()))
        } else {
            Err(InvalidSha256(text.to_owned()))
        }
    }
}

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Sha256 {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn of_digest(digest: &[u8]) -> Self {
        use std::fmt::Write;
        let mut text = String::with_capacity(64);
        for byte in digest {
            let _ = write!(text, "{byte:02x}");
        }
        Self(text)
    }
}

/// The name of a release's list.
pub(super) fn list_name(arch: Arch) -> String {
    format!("sha256sum-{arch}.txt")
}

/// The hash that a list gives for a file. The whole name counts: the list has the bundles, too.
pub(super) fn find(list: &str, file: &str, at: &str) -> Result<Sha256, ArtifactError> {
    let mut hashes = list.lines().filter_map(|line| {
        let (hash, name) = line.trim_end().split_once(char::is_whitespace)?;
        // sha256sum marks a file that it read in binary mode with a star.
        let name = name.trim_start();
        (name.strip_prefix('*').unwrap_or(name) == file).then_some(hash)
    });
    hashes
        .find_map(|hash| hash.parse().ok())
        .ok_or_else(|| ArtifactError::NotListed {
            file: file.to_owned(),
            list: at.to_owned(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_name_is_the_file() {
        let hash = |digit: &str| digit.repeat(64);
        let list = format!(
            "{}  k3s-airgap-images-arm64.tar.zst\n{}  old-k3s-arm64\n{}  k3s-arm64\r\n{} *k3s\nrubbish  k3s-armhf\n",
            hash("a"),
            hash("b"),
            hash("C"),
            hash("d")
        );
        let find = |file| {
            find(&list, file, "the list")
                .ok()
                .map(|found| found.to_string())
        };
        assert_eq!(find("k3s-arm64"), Some(hash("c")));
        assert_eq!(find("k3s"), Some(hash("d")));
        assert_eq!(find("k3s-armhf"), None);
        assert_eq!(find("arm64"), None);
    }
}
