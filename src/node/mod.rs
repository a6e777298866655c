//! A node as it is: the questions asked of it, the reply, and what the reply says.
//!
//! Pure. [`probe`] turns questions into one script, [`reply`] takes the answer apart, [`snapshot`] is the result.

pub mod boot;
pub mod cluster;
pub mod facts;
pub mod file;
pub mod ledger;
pub mod probe;
pub mod reply;
pub mod snapshot;

/// `text` as one word of a POSIX shell. A NUL byte, which no shell word can hold, is dropped.
pub fn quote(text: &str) -> String {
    let text = text.replace('\0', "");
    shlex::try_quote(&text)
        .map(std::borrow::Cow::into_owned)
        .unwrap_or_default()
}

/// The sha256 of `content` in hex, as sha256sum prints it.
pub fn sha256(content: &[u8]) -> String {
    use sha2::Digest;
    sha2::Sha256::digest(content)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
