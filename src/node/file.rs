//! What is at a path of a node.

/// What a file's content is known by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// All of it.
    Whole(Vec<u8>),
    /// Only its sha256, because it is large (see [`super::probe::CONTENT_LIMIT`]).
    Hash(String),
}

/// A regular file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegularFile {
    /// Permission bits.
    pub mode: u32,
    /// Owner's name.
    pub owner: String,
    /// Group's name.
    pub group: String,
    /// Bytes.
    pub size: u64,
    /// Its content.
    pub content: Content,
}

impl RegularFile {
    /// The sha256 of the content, in hex.
    pub fn sha256(&self) -> String {
        match &self.content {
            Content::Whole(content) => super::sha256(content),
            Content::Hash(hash) => hash.clone(),
        }
    }
}

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileState {
    /// Nothing.
    Absent,
    /// A regular file.
    Regular(RegularFile),
    /// A symbolic link and where it points.
    Link(String),
    /// A folder.
    Directory,
    /// A device, socket or pipe.
    Special,
}

impl FileState {
    /// Reads a probe's words: a line with what it is, then the content.
    pub fn parse(content: &[u8]) -> FileState {
        let (line, rest) = match content.iter().position(|&byte| byte == b'\n') {
            Some(end) => (&content[..end], &content[end + 1..]),
            None => (content, &[][..]),
        };
        let line = String::from_utf8_lossy(line);
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["file", mode, owner, group, size, ref known @ ..] => FileState::Regular(RegularFile {
                mode: u32::from_str_radix(mode, 16).unwrap_or_default() & 0o7777,
                owner: owner.to_owned(),
                group: group.to_owned(),
                size: size.parse().unwrap_or_default(),
                content: match known {
                    ["sha256", hash] => Content::Hash((*hash).to_owned()),
                    _ => Content::Whole(rest.to_vec()),
                },
            }),
            ["link", ref target @ ..] => FileState::Link(target.join(" ")),
            ["directory"] => FileState::Directory,
            ["special"] => FileState::Special,
            _ => FileState::Absent,
        }
    }
}

/// A file whose content stays on the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretFile {
    /// Permission bits.
    pub mode: u32,
    /// Owner's name.
    pub owner: String,
    /// The sha256 of the content, without the newline at its end.
    pub sha256: String,
}

impl SecretFile {
    /// Reads `MODE OWNER SHA256`.
    pub fn parse(text: &str) -> Option<SecretFile> {
        let mut words = text.split_whitespace();
        Some(SecretFile {
            mode: u32::from_str_radix(words.next()?, 8).ok()?,
            owner: words.next()?.to_owned(),
            sha256: words.next()?.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_with_odd_bytes_comes_back_as_it_is() {
        let state = FileState::parse(b"file 81a4 root root 3 content\n\xff\n\n");
        let FileState::Regular(file) = state else {
            panic!("{state:?}")
        };
        assert_eq!(
            (file.mode, file.content),
            (0o644, Content::Whole(b"\xff\n\n".to_vec()))
        );
    }
}
