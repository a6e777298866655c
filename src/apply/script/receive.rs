//! A script that receives a file: the functions of templates/session/receive.sh behind those of a step.

use camino::Utf8Path;

use super::body::Body;
use super::{FUNCTIONS, Holder, prelude};

const RECEIVE: &str = include_str!("../../../templates/session/receive.sh");

/// The lease until the first byte: as long as a hash of what is there may take.
const LEASE_SECONDS: u64 = 300;

/// What a node is to receive.
#[derive(Debug, Clone, Copy)]
pub struct Incoming<'a> {
    /// Where it is to be in the end; it arrives beside it, as `<destination>.selfheal-new`.
    pub destination: &'a Utf8Path,
    /// Its length in bytes.
    pub size: u64,
    /// Its hash, in hex.
    pub sha256: &'a str,
    /// Its mode.
    pub mode: u32,
}

/// The line by which the script asks for the bytes. It does not if it has them.
pub fn go(nonce: &str) -> String {
    format!("@{nonce} send")
}

/// The script. It is run by [`Session::upload`](crate::ssh::Session::upload).
pub fn receive(incoming: &Incoming<'_>, holder: &Holder, nonce: &str) -> String {
    let mut body = Body::default();
    body.call(
        "receive",
        &[
            incoming.destination.as_str(),
            &incoming.size.to_string(),
            incoming.sha256,
            &format!("{:04o}", incoming.mode),
        ],
    );
    format!(
        "{prelude}{FUNCTIONS}\n{RECEIVE}\nstep() {{\nframe begin\ntake_lease\n{body}renew_lease 90\nframe end\n}}\n\
         exec 3<&0\nstep </dev/null\nexit 0\n}}\n",
        prelude = prelude(LEASE_SECONDS, holder, nonce),
        body = body.text,
    )
}
