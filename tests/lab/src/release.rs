//! A folder laid out like k3s's releases, for tests that install k3s without internet: `k3s.source = "FOLDER"`.
//!
//! What lies in it is the k3s double (`tests/k3s-double`) with Debian's containerd, runc and CNI plugins appended; or a
//! real k3s, which the tester names with `SELFHEAL_LAB_K3S=/path/to/k3s`.

mod pause;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};

use crate::cache::{Cache, Recipe};
use crate::mirror::{self, Apt};
use crate::process;

/// The k3s that the double takes the place of, unless told otherwise.
pub const VERSION: &str = "v1.36.3+k3s1";
/// Names a real k3s to be used in the place of the double.
pub const REAL: &str = "SELFHEAL_LAB_K3S";

/// Debian's packages with what k3s carries.
const PACKAGES: &[&str] = &["containerd", "runc", "containernetworking-plugins"];
/// Where the packages have it.
const TOOLS: &[&str] = &[
    "usr/bin/containerd",
    "usr/bin/containerd-shim-runc-v2",
    "usr/bin/ctr",
    "usr/sbin/runc",
    "usr/lib/cni/bridge",
    "usr/lib/cni/host-local",
    "usr/lib/cni/loopback",
    "usr/lib/cni/portmap",
];

/// Whether releases hold a real k3s.
#[must_use]
pub fn is_real() -> bool {
    std::env::var_os(REAL).is_some_and(|path| !path.is_empty())
}

/// Makes `FOLDER/VERSION/k3s` and its list of hashes for each version; what is there already is replaced.
///
/// # Errors
/// When the double cannot be built, or its tools cannot be fetched.
pub fn make(folder: &Path, versions: &[&str]) -> Result<()> {
    for version in versions {
        let release = folder.join(version);
        fs::create_dir_all(&release)?;
        let program = program(version)?;
        // A copy shares its bytes with the cache, where the file system can.
        process::output(
            Command::new("cp")
                .args(["--reflink=auto", "--remove-destination"])
                .arg(&program)
                .arg(release.join("k3s")),
        )?;
        let hash = sha256(&fs::read(&program)?);
        fs::write(
            release.join("sha256sum-amd64.txt"),
            format!("{hash}  k3s\n"),
        )?;
    }
    Ok(())
}

/// A k3s of this version for amd64: the one that the tester names, else the double, made if the cache has none.
///
/// # Errors
/// When it cannot be built; the text says what to do.
pub fn program(version: &str) -> Result<PathBuf> {
    if is_real() {
        let path = PathBuf::from(std::env::var_os(REAL).unwrap_or_default());
        ensure!(path.is_file(), "{REAL}: there is no {}", path.display());
        return Ok(path);
    }
    let cache = Cache::open()?;
    let tools = tools(&cache)?;
    let bare = build()?;
    let recipe = Recipe::default()
        .with(version)
        .with_path(&tools)?
        .with_path(&bare)?;
    let folder = cache.artefact("k3s", &recipe, |out| {
        process::output(
            Command::new(&bare)
                .args(["pack", version])
                .arg(&tools)
                .arg(out.join("k3s")),
        )?;
        Ok(())
    })?;
    Ok(folder.join("k3s"))
}

/// Builds the double without any tools. It is linked statically: the host's libc may be newer than a Pi's.
fn build() -> Result<PathBuf> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .current_dir(&workspace)
        .args(["rustc", "--quiet", "--locked", "--package", "k3s-double"])
        .args(["--profile", "double"])
        .args(["--message-format", "json-render-diagnostics"])
        .args(["--", "-C", "target-feature=+crt-static"]);
    // Those of a running `cargo test` are about another package.
    for (name, _) in std::env::vars_os() {
        if name.as_encoded_bytes().starts_with(b"CARGO_PKG_") || name == "CARGO_MANIFEST_DIR" {
            command.env_remove(name);
        }
    }
    let messages = process::text(&mut command).context("cannot build tests/k3s-double")?;
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["target"]["name"] == "k3s-double")
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .context("cargo built no k3s-double")
}

/// What the double carries, as a compressed tar with k3s's layout.
fn tools(cache: &Cache) -> Result<PathBuf> {
    let sources = mirror::sources_list()?;
    let recipe = Recipe::default()
        .with(&sources)
        .with(include_str!("release.rs"))
        .with(include_str!("release/pause.rs"))
        .with(pause::SOURCE);
    let folder = cache.artefact("double-tools", &recipe, |out| {
        process::say("fetching Debian's containerd for the k3s double (once, about half a minute)");
        let apt = Apt::new(&out.join("apt"), &sources, b"")?;
        let debian = out.join("debian");
        for package in PACKAGES {
            apt.unpack(package, &debian)?;
        }
        let root = out.join("root");
        fs::create_dir_all(root.join("bin"))?;
        fs::create_dir_all(root.join("images"))?;
        for tool in TOOLS {
            let name = Path::new(tool).file_name().context("a tool has a name")?;
            let to = root.join("bin").join(name);
            fs::rename(debian.join(tool), &to)
                .with_context(|| format!("Debian's packages have no /{tool}"))?;
            fs::set_permissions(&to, fs::Permissions::from_mode(0o755))?;
        }
        pause::build(out, &root.join("images/pause.tar"))?;
        tar(&root, &out.join("tools.tar"))?;
        process::output(
            Command::new("zstd")
                .args(["-q", "-12", "--threads=0", "--rm"])
                .arg(out.join("tools.tar")),
        )?;
        for folder in ["apt", "debian", "root"] {
            fs::remove_dir_all(out.join(folder))?;
        }
        Ok(())
    })?;
    Ok(folder.join("tools.tar.zst"))
}

/// Packs a folder, the same way whenever and by whomever it is done.
fn tar(folder: &Path, out: &Path) -> Result<()> {
    process::output(
        Command::new("tar")
            .args(["--sort=name", "--mtime=@0", "--owner=0", "--group=0"])
            .args(["--numeric-owner", "-cf"])
            .arg(out)
            .arg("-C")
            .arg(folder)
            .arg("."),
    )?;
    Ok(())
}

fn sha256(content: &[u8]) -> String {
    Sha256::digest(content)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
