//! Where the guests' packages come from: the host's own Debian mirror, with the guest's suites.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::process;

/// The Debian release in the virtual Pis.
pub const SUITE: &str = "bookworm";
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// One package index as apt lists it: the repository's address and the name of its release.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Index {
    repository: String,
    release: String,
}

/// The lines of a sources.list for the guest's suite, from the indexes the host's apt knows; the host may run another
/// Debian release than the guest.
fn sources(listing: &str, host_suite: &str) -> Option<String> {
    let indexes: Vec<Index> = listing
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(repository, release)| Index {
            repository: repository.to_owned(),
            release: release.to_owned(),
        })
        .collect();
    let of = |release: &str| {
        indexes
            .iter()
            .find(|index| index.release == release)
            .map(|index| &index.repository)
    };
    let line = |repository: &str, suite: &str| {
        format!("deb [signed-by={KEYRING}] {repository} {suite} main\n")
    };

    let archive = of(host_suite)?;
    let mut lines = line(archive, SUITE) + &line(archive, &format!("{SUITE}-updates"));
    if let Some(security) = of(&format!("{host_suite}-security")) {
        lines += &line(security, &format!("{SUITE}-security"));
    }
    Some(lines)
}

/// The sources.list for the guest's suite, derived from this host's apt configuration.
///
/// # Errors
/// When the host is no Debian, or its apt knows no Debian mirror.
pub fn sources_list() -> Result<String> {
    let release = fs::read_to_string("/etc/os-release").context("cannot read /etc/os-release")?;
    let suite = release
        .lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="))
        .context("/etc/os-release names no VERSION_CODENAME: the lab's images are built on Debian 12 or 13")?;
    let listing = process::text(Command::new("apt-get").args([
        "indextargets",
        "--format",
        "$(REPO_URI) $(RELEASE)",
        "Created-By: Packages",
        "Component: main",
    ]))?;
    sources(&listing, suite.trim_matches('"'))
        .with_context(|| format!("the host's apt configuration has no Debian mirror for {suite}"))
}

/// The host's proxies for apt, as lines of an apt.conf.
///
/// # Errors
/// When apt-config cannot be run.
pub fn proxies() -> Result<String> {
    let dump = process::text(Command::new("apt-config").args(["dump", "Acquire"]))?;
    Ok(dump
        .lines()
        .filter(|line| line.to_ascii_lowercase().contains("proxy"))
        .map(|line| format!("{line}\n"))
        .collect())
}

/// apt on the host, looking at the guest's sources and packages instead of the host's.
#[derive(Debug)]
pub struct Apt {
    folder: PathBuf,
}

impl Apt {
    /// Sets up an apt in `folder` for a guest with these installed packages (a dpkg status file) and fetches the
    /// package lists.
    ///
    /// # Errors
    /// When the mirror does not answer.
    pub fn new(folder: &Path, sources: &str, status: &[u8]) -> Result<Self> {
        for part in ["lists/partial", "archives/partial"] {
            fs::create_dir_all(folder.join(part))?;
        }
        fs::write(folder.join("sources.list"), sources)?;
        fs::write(folder.join("status"), status)?;
        let apt = Self {
            folder: folder.to_owned(),
        };
        process::output(apt.get().arg("update"))?;
        Ok(apt)
    }

    /// `apt-get`, to be given its arguments.
    #[must_use]
    pub fn get(&self) -> Command {
        let mut command = Command::new("apt-get");
        let at = |key: &str, name: &str| format!("{key}={}", self.folder.join(name).display());
        command.current_dir(&self.folder).args(["-q", "-y"]);
        for option in [
            at("Dir::Etc::SourceList", "sources.list"),
            "Dir::Etc::SourceParts=/dev/null".to_owned(),
            "Dir::Etc::Preferences=/dev/null".to_owned(),
            "Dir::Etc::PreferencesParts=/dev/null".to_owned(),
            at("Dir::State::Lists", "lists"),
            at("Dir::State::Status", "status"),
            at("Dir::State::extended_states", "extended_states"),
            at("Dir::Cache::Archives", "archives"),
            "Dir::Cache::pkgcache=".to_owned(),
            "Dir::Cache::srcpkgcache=".to_owned(),
            "APT::Architecture=amd64".to_owned(),
            "APT::Architectures::=amd64".to_owned(),
            "APT::Install-Recommends=false".to_owned(),
            "APT::Sandbox::User=root".to_owned(),
            "APT::Get::List-Cleanup=true".to_owned(),
            "Acquire::Retries=3".to_owned(),
            "Acquire::Languages=none".to_owned(),
            "Debug::NoLocking=true".to_owned(),
        ] {
            command.arg("-o").arg(option);
        }
        command
    }

    /// Downloads the one package into the folder and unpacks it to `to`.
    ///
    /// # Errors
    /// When there is no such package, or it cannot be fetched or unpacked.
    pub fn unpack(&self, package: &str, to: &Path) -> Result<()> {
        let folder = self.folder.join(format!("unpack-{package}"));
        fs::create_dir_all(&folder)?;
        process::output(self.get().current_dir(&folder).arg("download").arg(package))?;
        for deb in fs::read_dir(&folder)? {
            process::output(Command::new("dpkg-deb").arg("-x").arg(deb?.path()).arg(to))?;
        }
        Ok(())
    }

    /// The package that the meta package `name` stands for: its first dependency.
    ///
    /// # Errors
    /// When there is no such package.
    pub fn dependency(&self, name: &str) -> Result<String> {
        let plan = process::text(self.get().args(["install", "--print-uris", name]))?;
        plan.lines()
            .filter_map(|line| line.split_whitespace().nth(1))
            .filter_map(|file| file.split_once('_').map(|(package, _)| package.to_owned()))
            .find(|package| package.starts_with(name.trim_end_matches("amd64")) && package != name)
            .with_context(|| format!("{name} needs no package"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const LISTING: &str = "http://mirror.test/debian/ trixie\nhttp://mirror.test/debian/ trixie-updates\n\
                           http://mirror.test/security/ trixie-security\nhttp://other.test/ sdk\n";

    #[test]
    fn a_newer_host_gives_the_guests_suite_from_its_mirror() {
        let sources = sources(LISTING, "trixie").unwrap();
        let lines: Vec<&str> = sources.lines().collect();
        assert_eq!(lines.len(), 3);
        assert!(
            lines[0].ends_with("http://mirror.test/debian/ bookworm main"),
            "{sources}"
        );
        assert!(
            lines[2].ends_with("http://mirror.test/security/ bookworm-security main"),
            "{sources}"
        );
    }

    #[test]
    fn a_host_without_a_debian_mirror_has_no_sources() {
        assert_eq!(sources("http://other.test/ sdk\n", "trixie"), None);
    }
}
