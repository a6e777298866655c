//! The cache on the workstation: `<tag>/<file>`, its hash beside it, and what has arrived of a download that goes on.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read};
use std::time::{Duration, Instant};

use camino::{Utf8Path, Utf8PathBuf};
use sha2::Digest;

use super::arch::HEAD;
use super::{ArtifactError, Request, Sha256, sums};

/// How long another process's download of the same file is waited for.
const OTHERS: Duration = Duration::from_secs(3600);
/// How often it is looked whether that has ended.
const LOOK: Duration = Duration::from_millis(100);

/// The usual folder of the cache: `$XDG_CACHE_HOME/selfheal`.
///
/// # Errors
/// When the user has no home folder, or its path is not UTF-8.
pub fn cache_folder() -> Result<Utf8PathBuf, ArtifactError> {
    use etcetera::BaseStrategy;
    let strategy = etcetera::choose_base_strategy()
        .map_err(|error| ArtifactError::NoCacheFolder(error.to_string()))?;
    Utf8PathBuf::try_from(strategy.cache_dir().join("selfheal"))
        .map_err(|error| ArtifactError::NoCacheFolder(error.to_string()))
}

/// One file's place in the cache, for this process alone as long as this value lives.
#[derive(Debug)]
pub(super) struct Cache {
    folder: Utf8PathBuf,
    name: String,
    list: Utf8PathBuf,
    _lock: File,
}

impl Cache {
    pub(super) async fn open(request: &Request<'_>) -> Result<Self, ArtifactError> {
        let folder = request.cache.join(request.tag);
        fs::create_dir_all(&folder).map_err(failed(&folder))?;
        let name = request.asset.file_name();
        let path = folder.join(format!("{name}.lock"));
        let lock = File::create(&path).map_err(failed(&path))?;
        let began = Instant::now();
        loop {
            match lock.try_lock() {
                Ok(()) => break,
                Err(TryLockError::Error(error)) => return Err(failed(&path)(error)),
                Err(TryLockError::WouldBlock) if began.elapsed() > OTHERS => {
                    return Err(ArtifactError::Busy {
                        path: folder.join(name),
                        after: OTHERS,
                    });
                }
                Err(TryLockError::WouldBlock) => tokio::time::sleep(LOOK).await,
            }
        }
        let list = folder.join(sums::list_name(request.asset.arch()));
        Ok(Self {
            folder,
            name,
            list,
            _lock: lock,
        })
    }

    pub(super) fn file(&self) -> Utf8PathBuf {
        self.folder.join(&self.name)
    }

    fn recorded(&self) -> Utf8PathBuf {
        self.folder.join(format!("{}.sha256", self.name))
    }

    /// The hash and the length of a copy that still is what it was when it was verified, and what is pinned.
    pub(super) async fn good(
        &self,
        pin: Option<&Sha256>,
    ) -> Result<Option<(Sha256, u64)>, ArtifactError> {
        let file = self.file();
        let (sha256, size) = match hash(&file).await {
            Ok(hashed) => hashed,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(&file)(error)),
        };
        let recorded = fs::read_to_string(self.recorded()).unwrap_or_default();
        // A power cut may have come between the file and its hash: the list says as much.
        let verified = recorded.trim() == sha256.as_str()
            || fs::read_to_string(&self.list)
                .is_ok_and(|list| sums::find(&list, &self.name, "").is_ok_and(|it| it == sha256));
        let wanted = pin.is_none_or(|pin| *pin == sha256);
        Ok((verified && wanted).then_some((sha256, size)))
    }

    /// Where a download lies until it is whole.
    pub(super) fn part(&self, url: &str, expected: &Sha256) -> Part {
        Part {
            path: self.folder.join(format!("{}.part", self.name)),
            what: format!("{expected} {url}"),
        }
    }

    /// Puts a verified download in its place, its hash and the release's list beside it.
    pub(super) async fn keep(
        &self,
        part: Part,
        sha256: &Sha256,
        list_name: &str,
        list: &str,
    ) -> Result<(), ArtifactError> {
        let (file, folder) = (self.file(), self.folder.clone());
        let (recorded, list_path) = (self.recorded(), self.folder.join(list_name));
        let (sha256, list) = (sha256.to_string(), list.to_owned());
        let failed = failed(&file);
        let keep = move || {
            // Gone first: an old hash beside a new file would only cost a download.
            match fs::remove_file(&recorded) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            File::open(&part.path)?.sync_all()?;
            fs::rename(&part.path, &file)?;
            put(&folder, &recorded, &format!("{sha256}\n"))?;
            put(&folder, &list_path, &list)?;
            fs::remove_file(part.note()).or_else(ignore_missing)?;
            File::open(&folder)?.sync_all()
        };
        blocking(keep).await.map_err(failed)
    }
}

/// What has arrived of a download.
#[derive(Debug)]
pub(super) struct Part {
    path: Utf8PathBuf,
    /// Which file it is of: one with another hash, or from elsewhere, is not gone on with.
    what: String,
}

impl Part {
    pub(super) fn path(&self) -> &Utf8Path {
        &self.path
    }

    fn note(&self) -> Utf8PathBuf {
        self.path.with_extension("part-of")
    }

    /// How much is there, and the server's name for that version of the file (an ETag or a date), if it gave one.
    pub(super) fn begun(&self) -> (u64, Option<String>) {
        let note = fs::read_to_string(self.note()).unwrap_or_default();
        let mut lines = note.lines();
        if lines.next() != Some(self.what.as_str()) {
            return (0, None);
        }
        let length = fs::metadata(&self.path).map_or(0, |file| file.len());
        let version = lines.next().filter(|version| !version.is_empty());
        (length, version.map(str::to_owned))
    }

    /// Begins anew.
    pub(super) fn begin(&self, version: Option<&str>) -> Result<File, ArtifactError> {
        let file = File::create(&self.path).map_err(failed(&self.path))?;
        let note = format!("{}\n{}\n", self.what, version.unwrap_or_default());
        fs::write(self.note(), note).map_err(failed(&self.path))?;
        Ok(file)
    }

    /// Goes on behind what is there.
    pub(super) fn go_on(&self) -> Result<File, ArtifactError> {
        let file = File::options().append(true).open(&self.path);
        file.map_err(failed(&self.path))
    }

    pub(super) async fn hash(&self) -> Result<(Sha256, u64), ArtifactError> {
        hash(&self.path).await.map_err(failed(&self.path))
    }

    /// A bad download goes.
    pub(super) async fn drop_it(&self) {
        for path in [self.path.clone(), self.note()] {
            let _ = tokio::fs::remove_file(path).await;
        }
    }
}

/// Hashes a file while it is read, off the async threads.
pub(super) async fn hash(path: &Utf8Path) -> io::Result<(Sha256, u64)> {
    let path = path.to_owned();
    blocking(move || {
        let mut file = File::open(path)?;
        let (mut hasher, mut size) = (sha2::Sha256::new(), 0);
        let mut buffer = vec![0; 256 * 1024];
        loop {
            let count = match file.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            size += count as u64;
            hasher.update(buffer.get(..count).unwrap_or_default());
        }
        Ok((Sha256::of_digest(&hasher.finalize()), size))
    })
    .await
}

/// A file's first bytes: its ELF header, if it is a program.
pub(super) async fn head(path: &Utf8Path) -> Result<Vec<u8>, ArtifactError> {
    let (from, failed) = (path.to_owned(), failed(path));
    let read = move || {
        let mut head = Vec::new();
        File::open(from)?.take(HEAD as u64).read_to_end(&mut head)?;
        Ok(head)
    };
    blocking(read).await.map_err(failed)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(io::Error::other(error)))
}

/// Writes a small file, whole or not at all.
fn put(folder: &Utf8Path, path: &Utf8Path, content: &str) -> io::Result<()> {
    let mut fresh = tempfile::NamedTempFile::new_in(folder)?;
    io::Write::write_all(&mut fresh, content.as_bytes())?;
    fresh.as_file().sync_all()?;
    fresh.persist(path).map(drop).map_err(|error| error.error)
}

fn ignore_missing(error: io::Error) -> io::Result<()> {
    match error.kind() {
        io::ErrorKind::NotFound => Ok(()),
        _ => Err(error),
    }
}

pub(super) fn failed(path: &Utf8Path) -> impl Fn(io::Error) -> ArtifactError + use<> {
    let path = path.to_owned();
    move |source| ArtifactError::Cache {
        path: path.clone(),
        source,
    }
}
