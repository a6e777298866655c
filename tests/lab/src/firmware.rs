//! A Pi's firmware: which file holds the kernel command line, and what the kernel gets to see of it.
//!
//! The facts are those of the Raspberry Pi documentation: config.txt has `[section]` filters, later settings win,
//! `os_prefix` is put before the names of the files, and only the first line of cmdline.txt counts.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::process;

/// How the firmware was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BootMode {
    /// As always.
    #[default]
    Normal,
    /// Once, to try an update: `[tryboot]` sections apply.
    Tryboot,
}

/// The path of the command line file on the boot partition, as config.txt says.
#[must_use]
pub fn cmdline_path(config: &str, mode: BootMode) -> String {
    let (mut prefix, mut file) = ("", "cmdline.txt");
    let mut applies = true;
    for line in config.lines().map(str::trim_end) {
        if let Some(section) = line
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
        {
            applies = match section {
                "all" => true,
                "tryboot" => mode == BootMode::Tryboot,
                // Filters for boards, displays and pins: the lab's Pi is none of them.
                _ => false,
            };
        } else if applies && let Some(value) = line.strip_prefix("os_prefix=") {
            prefix = value;
        } else if applies && let Some(value) = line.strip_prefix("cmdline=") {
            file = value;
        }
    }
    format!("{prefix}{file}")
}

/// What the kernel gets: the file's first line, behind the tokens that firmware and Pi kernel add on their own (a
/// memory cgroup switched off unless asked for, PSI switched off by default).
#[must_use]
pub fn kernel_command_line(file: &[u8]) -> String {
    let text = String::from_utf8_lossy(file);
    let line = text.lines().next().unwrap_or_default().trim();
    let words: Vec<String> = line
        .split_whitespace()
        .map(|word| word.replacen("console=serial0", "console=ttyS0", 1))
        .collect();
    let mut tokens = vec!["psi=0"];
    if !words.iter().any(|word| word == "cgroup_enable=memory") {
        tokens.push("cgroup_disable=memory");
    }
    tokens.extend(words.iter().map(String::as_str));
    tokens.join(" ")
}

/// The vfat boot partition of a Pi that is switched off.
#[derive(Debug, Clone)]
pub struct BootPartition {
    image: PathBuf,
}

impl BootPartition {
    /// The partition in this file.
    #[must_use]
    pub fn new(image: &Path) -> Self {
        Self {
            image: image.to_owned(),
        }
    }

    /// The file it lies in.
    pub(crate) fn image(&self) -> &Path {
        &self.image
    }

    /// Reads a file, named from the partition's root.
    ///
    /// # Errors
    /// When it is not there, or the file system cannot be read.
    pub fn read(&self, path: &str) -> Result<Vec<u8>> {
        process::output(self.mtools("mtype").arg(format!("::{path}")))
            .with_context(|| format!("{path} of the boot partition"))
    }

    /// Writes a file, replacing an old one.
    ///
    /// # Errors
    /// When the file system cannot be written.
    pub fn write(&self, path: &str, content: &[u8]) -> Result<()> {
        let scratch = self.image.with_extension("write");
        std::fs::write(&scratch, content)?;
        process::output(
            self.mtools("mcopy")
                .args(["-o", "-m"])
                .arg(&scratch)
                .arg(format!("::{path}")),
        )
        .with_context(|| format!("{path} of the boot partition"))?;
        std::fs::remove_file(scratch)?;
        Ok(())
    }

    /// What the firmware hands to the kernel.
    pub(crate) fn kernel_command_line(&self, mode: BootMode) -> Result<String> {
        // The firmware boots without a config.txt too.
        let config = self.read("config.txt").unwrap_or_default();
        let path = cmdline_path(&String::from_utf8_lossy(&config), mode);
        // Without a cmdline.txt it hands over nothing; the kernel then finds no root.
        Ok(kernel_command_line(&self.read(&path).unwrap_or_default()))
    }

    fn mtools(&self, tool: &str) -> Command {
        let mut command = Command::new(tool);
        command
            .env("MTOOLS_SKIP_CHECK", "1")
            .arg("-i")
            .arg(&self.image);
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_line_counts() {
        let line =
            kernel_command_line(b"console=serial0,115200 root=LABEL=rootfs quiet\npanic=10\n");
        assert_eq!(
            line,
            "psi=0 cgroup_disable=memory console=ttyS0,115200 root=LABEL=rootfs quiet"
        );
    }

    #[test]
    fn a_memory_cgroup_that_is_asked_for_is_not_switched_off() {
        let line = kernel_command_line(b"root=LABEL=rootfs cgroup_enable=memory psi=1");
        assert_eq!(line, "psi=0 root=LABEL=rootfs cgroup_enable=memory psi=1");
    }

    #[test]
    fn an_empty_or_odd_file_boots_without_a_root() {
        assert_eq!(kernel_command_line(b""), "psi=0 cgroup_disable=memory");
        assert_eq!(
            kernel_command_line(b"\nroot=LABEL=rootfs"),
            "psi=0 cgroup_disable=memory"
        );
    }

    #[test]
    fn config_txt_says_where_the_command_line_is() {
        assert_eq!(cmdline_path("", BootMode::Normal), "cmdline.txt");
        assert_eq!(
            cmdline_path(
                "[cm4]\ncmdline=other.txt\n[all]\narm_64bit=1\n",
                BootMode::Normal
            ),
            "cmdline.txt"
        );
        let ubuntu = "[all]\nos_prefix=current/\n[tryboot]\nos_prefix=new/\n";
        assert_eq!(
            cmdline_path(ubuntu, BootMode::Normal),
            "current/cmdline.txt"
        );
        assert_eq!(cmdline_path(ubuntu, BootMode::Tryboot), "new/cmdline.txt");
    }
}
