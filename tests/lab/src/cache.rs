//! The cache folder: what is expensive to make, each thing in a folder named by a hash of all that it is made from.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

/// A folder of finished artefacts. Deleting it, whole or in part, is always safe while no Pi runs.
#[derive(Debug, Clone)]
pub struct Cache {
    folder: PathBuf,
}

impl Cache {
    /// `$SELFHEAL_LAB_CACHE`, else `$XDG_CACHE_HOME/selfheal-lab`, else `~/.cache/selfheal-lab`.
    ///
    /// # Errors
    /// When none of the three variables is set, or the folder cannot be made.
    pub fn open() -> Result<Self> {
        let set = |name| {
            std::env::var_os(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        let folder = set("SELFHEAL_LAB_CACHE")
            .or_else(|| set("XDG_CACHE_HOME").map(|home| home.join("selfheal-lab")))
            .or_else(|| set("HOME").map(|home| home.join(".cache/selfheal-lab")))
            .context("no HOME: say where to keep the lab's images with SELFHEAL_LAB_CACHE")?;
        fs::create_dir_all(&folder)
            .with_context(|| format!("cannot make the cache folder {}", folder.display()))?;
        Ok(Self {
            folder: fs::canonicalize(folder)?,
        })
    }

    /// A folder below the cache, made if it is not there.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn subfolder(&self, name: &str) -> Result<PathBuf> {
        let folder = self.folder.join(name);
        fs::create_dir_all(&folder)?;
        Ok(folder)
    }

    /// The finished artefact `kind` with this recipe; `build` fills an empty folder if there is none yet. Two processes
    /// that want the same thing build it once, and a build that dies leaves nothing that looks finished.
    ///
    /// # Errors
    /// What `build` returns, or that the folder cannot be written.
    pub fn artefact(
        &self,
        kind: &str,
        recipe: &Recipe,
        build: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<PathBuf> {
        let name = format!("{kind}-{}", recipe.hash());
        let finished = self.folder.join(&name);
        if finished.is_dir() {
            return Ok(finished);
        }
        let lock = File::create(self.subfolder("locks")?.join(&name))?;
        lock.lock()?;
        if finished.is_dir() {
            return Ok(finished);
        }
        let staging = self.folder.join(format!("{name}.new"));
        if staging.exists() {
            fs::remove_dir_all(&staging)?;
        }
        fs::create_dir(&staging)?;
        build(&staging).with_context(|| format!("cannot build the lab's {kind}"))?;
        fs::rename(&staging, &finished)?;
        Ok(finished)
    }
}

/// Everything that an artefact is made from, hashed.
#[derive(Debug, Clone, Default)]
pub struct Recipe {
    hasher: Sha256,
}

impl Recipe {
    /// Adds a piece of text or bytes.
    #[must_use]
    pub fn with(mut self, part: impl AsRef<[u8]>) -> Self {
        let part = part.as_ref();
        self.hasher.update((part.len() as u64).to_le_bytes());
        self.hasher.update(part);
        self
    }

    /// Adds a file, or a folder with all that lies in it: names, modes, contents.
    ///
    /// # Errors
    /// When something in it cannot be read.
    pub fn with_path(mut self, path: &Path) -> Result<Self> {
        let context = || format!("cannot read {}", path.display());
        let metadata = fs::symlink_metadata(path).with_context(context)?;
        self = self.with(path.file_name().unwrap_or_default().as_encoded_bytes());
        if metadata.is_symlink() {
            return Ok(self.with(fs::read_link(path)?.into_os_string().as_encoded_bytes()));
        }
        if metadata.is_file() {
            let executable = [u8::from(metadata.permissions().mode() & 0o100 != 0)];
            return Ok(self
                .with(executable)
                .with(fs::read(path).with_context(context)?));
        }
        let mut entries: Vec<PathBuf> = fs::read_dir(path)
            .with_context(context)?
            .map(|entry| Ok(entry?.path()))
            .collect::<Result<_>>()?;
        entries.sort();
        for entry in entries {
            self = self.with_path(&entry)?;
        }
        Ok(self)
    }

    fn hash(&self) -> String {
        self.hasher
            .clone()
            .finalize()
            .iter()
            .take(8)
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }
}
