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

/// The files that the firmware boots, as config.txt names them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootFiles<'a> {
    /// `os_prefix`, put before the names of all files.
    prefix: &'a str,
    kernel: &'a str,
    cmdline: &'a str,
}

impl<'a> BootFiles<'a> {
    /// Reads config.txt; later settings win.
    #[must_use]
    pub fn named_by(config: &'a str, mode: BootMode) -> Self {
        let mut files = Self {
            prefix: "",
            kernel: "kernel8.img",
            cmdline: "cmdline.txt",
        };
        // `[all]` ends all filters; filters of different kinds must all apply.
        let (mut board, mut boot) = (true, true);
        for line in config.lines().map(str::trim_end) {
            if let Some(section) = line
                .strip_prefix('[')
                .and_then(|rest| rest.strip_suffix(']'))
            {
                match section {
                    "all" => (board, boot) = (true, true),
                    "tryboot" => boot = mode == BootMode::Tryboot,
                    // Filters for boards, displays and pins: the lab's Pi is none of them.
                    _ => board = false,
                }
            } else if board && boot {
                match line.split_once('=') {
                    Some(("os_prefix", value)) => files.prefix = value,
                    Some(("kernel", value)) => files.kernel = value,
                    Some(("cmdline", value)) => files.cmdline = value,
                    _ => {}
                }
            }
        }
        files
    }

    /// The path of the command line file on the boot partition.
    #[must_use]
    pub fn cmdline_path(&self) -> String {
        format!("{}{}", self.prefix, self.cmdline)
    }
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

    /// Puts a word at the end of the line that config.txt leads to.
    pub(crate) fn add_to_command_line(&self, word: &str) -> Result<()> {
        let config = self.read("config.txt").unwrap_or_default();
        let config = String::from_utf8_lossy(&config);
        let path = BootFiles::named_by(&config, BootMode::Normal).cmdline_path();
        let line = self.read(&path)?;
        let line = String::from_utf8_lossy(&line);
        self.write(&path, format!("{} {word}\n", line.trim_end()).as_bytes())
    }

    /// What the firmware hands to the kernel.
    pub(crate) fn kernel_command_line(&self, mode: BootMode) -> Result<String> {
        let config = match mode {
            BootMode::Tryboot if !self.tries_with_config_txt() => "tryboot.txt",
            BootMode::Tryboot | BootMode::Normal => "config.txt",
        };
        // The firmware boots without a config.txt too.
        let config = self.read(config).unwrap_or_default();
        let config = String::from_utf8_lossy(&config);
        let mut files = BootFiles::named_by(&config, mode);
        if !self.holds_system(&files) {
            // What a Pi then finds in the root is no kernel. The lab has one of its own, which finds no root: it hangs, as
            // the bootloader of a Pi 5 does, until the plug is pulled.
            files.prefix = "";
        }
        // Without a cmdline.txt it hands over nothing; the kernel then finds no root.
        let cmdline = self.read(&files.cmdline_path()).unwrap_or_default();
        Ok(kernel_command_line(&cmdline))
    }

    /// Whether a trial boot is one with config.txt and its `[tryboot]` sections, instead of one with tryboot.txt.
    fn tries_with_config_txt(&self) -> bool {
        let autoboot = self.read("autoboot.txt").unwrap_or_default();
        String::from_utf8_lossy(&autoboot)
            .lines()
            .any(|line| line.trim_end() == "tryboot_a_b=1")
    }

    /// Whether there is what a prefix needs to count: a kernel and a device tree.
    fn holds_system(&self, files: &BootFiles<'_>) -> bool {
        [files.kernel, "*.dtb"].iter().all(|name| {
            process::output(
                self.mtools("mdir")
                    .arg("-b")
                    .arg(format!("::{}{name}", files.prefix)),
            )
            .is_ok()
        })
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
    use std::fs;

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

    fn cmdline_path(config: &str, mode: BootMode) -> String {
        BootFiles::named_by(config, mode).cmdline_path()
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
        let ubuntu = "[all]\nos_prefix=current/\n[tryboot]\nos_prefix=new/\n[pi4]\nos_prefix=no/\n[tryboot]\nos_prefix=no/\n";
        assert_eq!(
            cmdline_path(ubuntu, BootMode::Normal),
            "current/cmdline.txt"
        );
        assert_eq!(cmdline_path(ubuntu, BootMode::Tryboot), "new/cmdline.txt");
    }

    /// A vfat with these files.
    fn partition(folder: &Path, files: &[(&str, &str)]) -> BootPartition {
        let image = folder.join("boot.vfat");
        fs::File::create(&image).unwrap().set_len(4 << 20).unwrap();
        process::output(Command::new("mkfs.vfat").arg(&image)).unwrap();
        let partition = BootPartition::new(&image);
        for name in ["current", "new"] {
            process::output(partition.mtools("mmd").arg(format!("::{name}"))).unwrap();
        }
        for (path, content) in files {
            partition.write(path, content.as_bytes()).unwrap();
        }
        partition
    }

    #[test]
    fn a_trial_boots_new_if_there_is_a_system_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let partition = partition(
            folder.path(),
            &[
                ("autoboot.txt", "[all]\ntryboot_a_b=1\n"),
                (
                    "config.txt",
                    "[all]\nos_prefix=current/\n[tryboot]\nos_prefix=new/\n[all]\nkernel=vmlinuz\n",
                ),
                ("current/vmlinuz", "kernel"),
                ("current/a.dtb", "device tree"),
                ("current/cmdline.txt", "root=LABEL=current"),
                ("new/vmlinuz", "kernel"),
                ("new/cmdline.txt", "root=LABEL=new"),
            ],
        );
        let root = |mode| {
            let line = partition.kernel_command_line(mode).unwrap();
            line.split_once("root=LABEL=")
                .map(|(_, root)| root.to_owned())
        };
        assert_eq!(root(BootMode::Normal).as_deref(), Some("current"));
        assert_eq!(root(BootMode::Tryboot), None, "without a device tree");
        partition.write("new/a.dtb", b"device tree").unwrap();
        assert_eq!(root(BootMode::Tryboot).as_deref(), Some("new"));
        partition.write("autoboot.txt", b"[all]\n").unwrap();
        assert_eq!(root(BootMode::Tryboot), None, "there is no tryboot.txt");
    }
}
