//! Replaces a file of this computer as a whole.

use std::fs::{self, File};
use std::io::{self, Write};

use camino::Utf8Path;

/// Gives an existing file a new content: whoever reads it meanwhile, or after a power cut, sees all of the old one or
/// all of the new one. The mode stays. A symbolic link stays one, as the file may live in a repository of dotfiles.
///
/// # Errors
/// When the file is not there, or its folder cannot be written.
pub(crate) fn replace(file: &Utf8Path, content: &[u8]) -> io::Result<()> {
    let file = file.canonicalize_utf8()?;
    let folder = file.parent().unwrap_or(Utf8Path::new("/"));
    let mut fresh = tempfile::NamedTempFile::new_in(folder)?;
    fresh.write_all(content)?;
    fresh
        .as_file()
        .set_permissions(fs::metadata(&file)?.permissions())?;
    fresh.as_file().sync_all()?;
    fresh.persist(&file).map_err(|error| error.error)?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn mode_and_link_stay_and_nothing_is_left_behind() {
        let folder = tempfile::tempdir().unwrap();
        let folder = Utf8Path::from_path(folder.path()).unwrap();
        let (file, link) = (folder.join("file"), folder.join("link"));
        fs::write(&file, "old").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        symlink("file", &link).unwrap();
        replace(&link, b"new").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "new");
        assert_eq!(
            fs::metadata(&file).unwrap().permissions().mode() & 0o7777,
            0o640
        );
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_dir(folder).unwrap().count(), 2);
    }

    #[test]
    fn a_file_that_is_not_there_is_not_made() {
        let folder = tempfile::tempdir().unwrap();
        let file = Utf8Path::from_path(folder.path()).unwrap().join("file");
        assert!(replace(&file, b"new").is_err());
        assert!(!file.exists());
    }
}
