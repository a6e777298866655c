//! What can go wrong with a release's file, and what to do about it.

use std::io;
use std::time::Duration;

use camino::Utf8PathBuf;
use thiserror::Error;

use super::{Arch, Sha256};

/// Why there is no verified file. A good copy in the cache is never lost by it.
#[derive(Debug, Error)]
pub enum ArtifactError {
    /// The source does not have it.
    #[error("there is no {tag} at {at}")]
    NotFound {
        /// The version.
        tag: String,
        /// The URL or the path.
        at: String,
    },
    /// No connection, or it broke again and again.
    #[error("cannot download {url}: {why}")]
    Unreachable {
        /// The URL.
        url: String,
        /// The last failure, with its causes.
        why: String,
    },
    /// The server refuses.
    #[error("cannot download {url}: the server answers {status}")]
    Status {
        /// The URL.
        url: String,
        /// The HTTP status.
        status: u16,
    },
    /// A web page came instead of a file: a login, a portal, a wrong address.
    #[error("{url} is a web page (HTML) and not a file")]
    WebPage {
        /// The URL.
        url: String,
    },
    /// More bytes than such a file has.
    #[error("{url} is longer than {limit} bytes: this cannot be the file")]
    TooLong {
        /// The URL.
        url: String,
        /// What was allowed.
        limit: u64,
    },
    /// The download ended too early, again and again.
    #[error("{url} broke off after {got} of {total} bytes")]
    TooShort {
        /// The URL.
        url: String,
        /// How many bytes there are.
        got: u64,
        /// How many there should be.
        total: u64,
    },
    /// The release's list of hashes does not know the file.
    #[error("{list} has no hash for {file}")]
    NotListed {
        /// The file.
        file: String,
        /// The list's URL or path.
        list: String,
    },
    /// The file is not what its list says.
    #[error("{at} has the sha256 {got}, but its release says {expected}; it was not used")]
    WrongHash {
        /// The URL or the path.
        at: String,
        /// What it has.
        got: Sha256,
        /// What it should have.
        expected: Sha256,
    },
    /// The inventory insists on another file.
    #[error(
        "the release has the sha256 {listed} for {at}, but the inventory pins {pin}; it was not used"
    )]
    WrongPin {
        /// The URL or the path.
        at: String,
        /// The inventory's.
        pin: Sha256,
        /// The release's.
        listed: Sha256,
    },
    /// The program is for another processor.
    #[error("{at} is a program for {found}, but the node needs {wanted}; it was not used")]
    WrongArchitecture {
        /// The URL or the path.
        at: String,
        /// What it runs on.
        found: String,
        /// What the node is.
        wanted: Arch,
    },
    /// The hash is right and still this is no program.
    #[error("{at} is no program (it has no ELF header); it was not used")]
    NoProgram {
        /// The URL or the path.
        at: String,
    },
    /// A file of the local folder cannot be read.
    #[error("cannot read {path}")]
    Local {
        /// The file.
        path: Utf8PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The cache cannot be used.
    #[error("cannot use {path} in the cache")]
    Cache {
        /// The file or the folder.
        path: Utf8PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is no place for a cache.
    #[error("cannot find this user's cache folder: {0}")]
    NoCacheFolder(String),
    /// Another process downloads the same file and does not come to an end.
    #[error("another process has been downloading {path} for {}", humantime::format_duration(*after))]
    Busy {
        /// The file in the cache.
        path: Utf8PathBuf,
        /// How long was waited.
        after: Duration,
    },
    /// TLS could not be set up.
    #[error("cannot set up HTTPS: {0}")]
    Tls(String),
}

impl ArtifactError {
    /// What to do next.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::NotFound { .. } => {
                "check versions.k3s and k3s.source in the inventory; a mirror or a folder holds <tag>/<file>, the tag with its +k3s1"
            }
            Self::Unreachable { .. } | Self::TooShort { .. } => {
                "check the network (HTTPS_PROXY is honoured) and run again: what has arrived is kept; or put the release's \
                 files into a folder and name it in k3s.source"
            }
            Self::Status {
                status: 401 | 403 | 407,
                ..
            } => {
                "the server or a proxy wants a login: name a mirror without one in k3s.source, or a folder"
            }
            Self::Status { .. } => "try again later, or name a mirror or a folder in k3s.source",
            Self::WebPage { .. } => {
                "open the address in a browser: a login page or a hotel's portal does this; check k3s.source"
            }
            Self::TooLong { .. } => "check k3s.source in the inventory",
            Self::NotListed { .. } => {
                "this release is not built for the node's processor, or the mirror is not whole"
            }
            Self::WrongHash { .. } => {
                "somebody on the way changed it, or the mirror is not whole: compare with the public release, and do not \
                 use it until you know"
            }
            Self::WrongPin { .. } => {
                "if you changed the version, change the pin with it; otherwise the release is not what you pinned: do not use it"
            }
            Self::WrongArchitecture { .. } | Self::NoProgram { .. } => {
                "the mirror or the folder has a wrong file under this name: put the release's own there"
            }
            Self::Local { .. } => "check the folder that k3s.source names, and its permissions",
            Self::Cache { .. } => {
                "check its permissions and the free space; everything in the cache may be deleted"
            }
            Self::NoCacheFolder(_) => "set HOME or XDG_CACHE_HOME",
            Self::Busy { .. } => "wait for it to end, or end it",
            Self::Tls(_) => {
                "install the system's certificates (the package ca-certificates), or name them in SSL_CERT_FILE"
            }
        };
        Some(hint.to_owned())
    }
}
