//! Release files (k3s and its images) on the workstation: where they come from, the cache they are kept in, and the
//! proof that they are what the release says (domain.md §4.1, §4.2).
//!
//! A file is downloaded once. It lies in the cache as `<tag>/<file>`, its hash beside it (`<file>.sha256`), and is hashed
//! again each time it is used. A download that fails or turns out wrong never touches a file that was good before.

mod arch;
mod cache;
mod download;
mod error;
mod source;
mod sums;

use camino::{Utf8Path, Utf8PathBuf};

pub use arch::{Arch, UnknownArch};
pub use cache::cache_folder;
pub use download::Patience;
pub use error::ArtifactError;
pub use source::{InvalidSource, Source};
pub use sums::{InvalidSha256, Sha256};

use arch::Machine;
use cache::Cache;
use download::{Client, Kind};

/// A file of a k3s release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Asset {
    /// k3s itself.
    Binary(Arch),
    /// The images of the system's pods, for nodes that cannot reach a registry.
    Images(Arch),
}

impl Asset {
    /// Its name in the release.
    #[must_use]
    pub fn file_name(self) -> String {
        match self {
            Self::Binary(Arch::Amd64) => "k3s".to_owned(),
            Self::Binary(Arch::Arm64) => "k3s-arm64".to_owned(),
            Self::Binary(Arch::Arm) => "k3s-armhf".to_owned(),
            Self::Images(arch) => format!("k3s-airgap-images-{arch}.tar.zst"),
        }
    }

    /// The processor it is for.
    #[must_use]
    pub fn arch(self) -> Arch {
        match self {
            Self::Binary(arch) | Self::Images(arch) => arch,
        }
    }

    /// The file's mode on a node, in octal.
    #[must_use]
    pub fn mode(self) -> u32 {
        match self {
            Self::Binary(_) => 0o755,
            Self::Images(_) => 0o644,
        }
    }

    /// More bytes than this are not this file: a few times what releases have had so far.
    fn limit(self) -> u64 {
        match self {
            Self::Binary(_) => 512 << 20,
            Self::Images(_) => 4 << 30,
        }
    }
}

/// Which file is wanted, from where.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// Where releases come from.
    pub source: &'a Source,
    /// The release, like `v1.36.3+k3s1`.
    pub tag: &'a str,
    /// Its file.
    pub asset: Asset,
    /// The hash that the user insists on.
    pub pin: Option<&'a Sha256>,
    /// The folder of the cache; [`cache_folder`] says the usual one.
    pub cache: &'a Utf8Path,
    /// How long to wait for what.
    pub patience: Patience,
}

/// A verified file on the workstation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifact {
    /// Which file it is.
    pub asset: Asset,
    /// Where it lies.
    pub path: Utf8PathBuf,
    /// Its hash, computed from the file as it is now.
    pub sha256: Sha256,
    /// Its length in bytes.
    pub size: u64,
    /// No byte of it had to be downloaded.
    pub cached: bool,
}

/// Provides a release's file, from the cache if it is there. `progress` gets the bytes downloaded so far and, where the
/// server says so, the bytes in all. With a good copy in the cache there is no request at all.
///
/// Several processes may do this at once: one downloads, the others wait for it.
///
/// # Errors
/// See [`ArtifactError`]. Whatever it is, a good copy in the cache stays.
pub async fn fetch(
    request: &Request<'_>,
    progress: &mut (dyn FnMut(u64, Option<u64>) + Send),
) -> Result<Artifact, ArtifactError> {
    match request.source {
        Source::Folder(folder) => local(request, folder).await,
        Source::Public | Source::Mirror(_) => remote(request, progress).await,
    }
}

/// A file of a local folder is used where it lies.
async fn local(request: &Request<'_>, folder: &Utf8Path) -> Result<Artifact, ArtifactError> {
    let release = folder.join(request.tag);
    let (asset, name) = (request.asset, request.asset.file_name());
    let path = release.join(&name);
    let list = release.join(sums::list_name(asset.arch()));
    let text = tokio::fs::read(&list)
        .await
        .map_err(|error| missing(request, &list, error))?;
    let listed = sums::find(&String::from_utf8_lossy(&text), &name, list.as_str())?;
    check_pin(request, &listed, path.as_str())?;
    let (sha256, size) = cache::hash(&path)
        .await
        .map_err(|error| missing(request, &path, error))?;
    check(request, &path, path.as_str(), &sha256, &listed).await?;
    Ok(Artifact {
        asset,
        path,
        sha256,
        size,
        cached: true,
    })
}

fn missing(request: &Request<'_>, path: &Utf8Path, error: std::io::Error) -> ArtifactError {
    if error.kind() == std::io::ErrorKind::NotFound {
        ArtifactError::NotFound {
            tag: request.tag.to_owned(),
            at: path.to_string(),
        }
    } else {
        ArtifactError::Local {
            path: path.to_owned(),
            source: error,
        }
    }
}

async fn remote(
    request: &Request<'_>,
    progress: &mut (dyn FnMut(u64, Option<u64>) + Send),
) -> Result<Artifact, ArtifactError> {
    let asset = request.asset;
    let cache = Cache::open(request).await?;
    if let Some((sha256, size)) = cache.good(request.pin).await? {
        return Ok(Artifact {
            asset,
            path: cache.file(),
            sha256,
            size,
            cached: true,
        });
    }
    let client = Client::new(request)?;
    let list_name = sums::list_name(asset.arch());
    let list_url = request.source.url(request.tag, &list_name);
    let text = client.text(&list_url, request.tag).await?;
    let listed = sums::find(&text, &asset.file_name(), &list_url)?;
    let url = request.source.url(request.tag, &asset.file_name());
    // Before 70 MB are on their way for nothing.
    check_pin(request, &listed, &url)?;
    let kind = Kind {
        tag: request.tag,
        limit: asset.limit(),
    };
    let part = cache.part(&url, &listed);
    let mut resumed = client.file(&url, &kind, &part, progress).await?;
    let (sha256, size) = loop {
        let (sha256, size) = part.hash().await?;
        match check(request, part.path(), &url, &sha256, &listed).await {
            Ok(()) => break (sha256, size),
            Err(error) => {
                part.drop_it().await;
                // The two halves may be of two different files: once more, in one piece.
                if !std::mem::take(&mut resumed) {
                    return Err(error);
                }
                client.file(&url, &kind, &part, progress).await?;
            }
        }
    };
    cache.keep(part, &sha256, &list_name, &text).await?;
    Ok(Artifact {
        asset,
        path: cache.file(),
        sha256,
        size,
        cached: false,
    })
}

fn check_pin(request: &Request<'_>, listed: &Sha256, at: &str) -> Result<(), ArtifactError> {
    match request.pin {
        Some(pin) if pin != listed => Err(ArtifactError::WrongPin {
            at: at.to_owned(),
            pin: pin.clone(),
            listed: listed.clone(),
        }),
        _ => Ok(()),
    }
}

/// Whether a file is what was asked for. `at` is where it came from.
async fn check(
    request: &Request<'_>,
    path: &Utf8Path,
    at: &str,
    sha256: &Sha256,
    listed: &Sha256,
) -> Result<(), ArtifactError> {
    let wanted = request.asset.arch();
    let machine = match request.asset {
        Asset::Binary(_) => Machine::of(&cache::head(path).await?, wanted),
        Asset::Images(_) => Machine::Right,
    };
    // A file for another processor has another hash, too, but this says more.
    if let Machine::Other(found) = machine {
        return Err(ArtifactError::WrongArchitecture {
            at: at.to_owned(),
            found,
            wanted,
        });
    }
    if sha256 != listed {
        return Err(ArtifactError::WrongHash {
            at: at.to_owned(),
            got: sha256.clone(),
            expected: listed.clone(),
        });
    }
    if machine == Machine::None {
        return Err(ArtifactError::NoProgram { at: at.to_owned() });
    }
    Ok(())
}
