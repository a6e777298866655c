//! Files that are either the old or the new ones, whatever moment the power goes.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result};

/// Writes a file with this mode; folders on the way to it are made.
pub fn write(path: impl AsRef<Path>, content: impl AsRef<[u8]>, mode: u32) -> Result<()> {
    let path = path.as_ref();
    let folder = path.parent().context("a file lies in a folder")?;
    let written = || -> Result<()> {
        fs::create_dir_all(folder)?;
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(content.as_ref())?;
        file.as_file()
            .set_permissions(fs::Permissions::from_mode(mode))?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        fs::File::open(folder)?.sync_all()?;
        Ok(())
    };
    written().with_context(|| format!("cannot write {}", path.display()))
}

/// Points a link at something, in the place of whatever it was.
pub fn link(target: &str, path: impl AsRef<Path>) -> Result<()> {
    let path = path.as_ref();
    let new = path.with_extension("new");
    let _ = fs::remove_file(&new);
    std::os::unix::fs::symlink(target, &new)
        .and_then(|()| fs::rename(&new, path))
        .with_context(|| format!("cannot link {} to {target}", path.display()))
}
