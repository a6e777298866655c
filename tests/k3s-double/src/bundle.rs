//! One file, as k3s is: the program with its tools appended, which it unpacks when it first starts.
//!
//! Behind the program lie a tar of the tools, compressed by zstd; then a description in JSON; then the description's
//! length (8 bytes, little endian) and [`MARK`].

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{durable, log, place};

const MARK: &[u8; 16] = b"selfheal-k3s-dbl";

/// What is appended to the program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bundle {
    /// Which k3s it takes the place of: `v1.36.3+k3s1`.
    pub version: String,
    /// Bytes of the compressed tools.
    length: u64,
    /// Their sha256; k3s names its data folder after it.
    sha256: String,
}

impl Bundle {
    /// What is appended to the program that runs.
    pub fn own() -> Result<Self> {
        read(&mut own_file()?).map(|(bundle, _)| bundle)
    }

    /// The minor version of Kubernetes: 36.
    pub fn minor(&self) -> u32 {
        minor(&self.version)
    }

    /// Unpacks the tools, unless that was done before, and points `data/current` at them.
    pub fn unpack(&self) -> Result<()> {
        let folder = PathBuf::from(place::DATA).join(&self.sha256);
        if !folder.is_dir() {
            log::info(format!("Preparing data dir {}", folder.display()));
            let mut program = own_file()?;
            let (_, start) = read(&mut program)?;
            program.seek(SeekFrom::Start(start))?;
            fs::create_dir_all(place::DATA)?;
            let staging = tempfile::Builder::new()
                .prefix("new-")
                .tempdir_in(place::DATA)?;
            let tools = zstd::Decoder::new(program.take(self.length))?;
            tar::Archive::new(tools)
                .unpack(staging.path())
                .context("cannot unpack the tools: is the disk full?")?;
            let all = File::open(place::DATA)?;
            rustix::fs::syncfs(&all)?;
            fs::rename(staging.keep(), &folder)?;
            rustix::fs::syncfs(&all)?;
        }
        let current = fs::read_link(place::CURRENT).ok();
        if current.as_deref() != Some(&folder) {
            if let Some(previous) = current.as_deref().and_then(Path::to_str) {
                durable::link(previous, PathBuf::from(place::DATA).join("previous"))?;
            }
            durable::link(&folder.to_string_lossy(), place::CURRENT)?;
        }
        Ok(())
    }
}

/// The minor version in `v1.36.3+k3s1`; 0 if there is none.
fn minor(version: &str) -> u32 {
    version
        .split('.')
        .nth(1)
        .and_then(|minor| minor.parse().ok())
        .unwrap_or(0)
}

fn own_file() -> Result<File> {
    File::open("/proc/self/exe").context("cannot open this program")
}

/// The description at the end of a program, and where its tools begin.
fn read(program: &mut File) -> Result<(Bundle, u64)> {
    let size = program.seek(SeekFrom::End(0))?;
    let bare = "this k3s-double has no tools: `cargo lab release` makes one that has";
    let end = size.checked_sub(24).context(bare)?;
    program.seek(SeekFrom::Start(end))?;
    let mut footer = [0; 24];
    program.read_exact(&mut footer)?;
    let (length, mark) = footer.split_at(8);
    ensure!(mark == MARK, bare);
    let length = u64::from_le_bytes(length.try_into()?);
    let start = end.checked_sub(length).context("a damaged k3s-double")?;
    program.seek(SeekFrom::Start(start))?;
    let mut description = vec![0; usize::try_from(length)?];
    program.read_exact(&mut description)?;
    let bundle: Bundle = serde_json::from_slice(&description)?;
    let tools = start
        .checked_sub(bundle.length)
        .context("a damaged k3s-double")?;
    Ok((bundle, tools))
}

/// Makes a k3s of a bare program: `pack VERSION TOOLS.tar.zst OUT`.
pub fn pack(program: &Path, version: &str, tools: &Path, out: &Path) -> Result<()> {
    let mut content = fs::read(program)?;
    if content.ends_with(MARK) {
        bail!("{} has tools already", program.display());
    }
    let tools = fs::read(tools).with_context(|| format!("cannot read {}", tools.display()))?;
    let bundle = Bundle {
        version: version.to_owned(),
        length: tools.len() as u64,
        sha256: hex(&Sha256::digest(&tools)),
    };
    let description = serde_json::to_vec(&bundle)?;
    content.extend(&tools);
    content.extend(&description);
    content.write_all(&(description.len() as u64).to_le_bytes())?;
    content.extend(MARK);
    durable::write(out, content, 0o755)
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_is_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("program"), b"ELF").unwrap();
        fs::write(path("tools"), b"compressed").unwrap();
        assert!(read(&mut File::open(path("program")).unwrap()).is_err());
        pack(
            &path("program"),
            "v1.36.3+k3s1",
            &path("tools"),
            &path("k3s"),
        )
        .unwrap();
        let (bundle, start) = read(&mut File::open(path("k3s")).unwrap()).unwrap();
        assert_eq!((bundle.minor(), bundle.length, start), (36, 10, 3));
        assert!(pack(&path("k3s"), "v1.36.3+k3s1", &path("tools"), &path("again")).is_err());
    }
}
