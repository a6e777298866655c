//! Which file the Pi boots from, found as the firmware finds it and checked against what it did boot (domain.md §1.1).

use std::collections::BTreeMap;

use camino::{Utf8Path, Utf8PathBuf};

use super::command_line::{CommandLine, CommandLineError, Edit, EditError};
use super::config_txt::{Board, ConfigTxt, Setting};
use super::token::Token;
use super::trial::{Trial, Written};

/// What the probe read about booting.
#[derive(Clone, Debug)]
pub struct BootFacts {
    /// The mounts at `/boot/firmware` and `/boot`, whichever there are, of any type.
    pub mounts: Vec<BootMount>,
    /// Content of the boot files that exist, by absolute path: `config.txt`, `cmdline.txt`, and the `cmdline.txt` and
    /// `state` in `current/` and `new/` below each mount.
    pub files: BTreeMap<Utf8PathBuf, Vec<u8>>,
    /// Content of `/proc/cmdline`.
    pub proc_cmdline: String,
    /// The board, for config.txt's model filters.
    pub board: Board,
    /// What selfheal wrote since the last boot.
    pub written: Option<Written>,
}

/// A mount that may be the boot partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootMount {
    /// Where it is mounted.
    pub path: Utf8PathBuf,
    /// The type in /proc/self/mountinfo: `vfat` for a boot partition.
    pub fs_type: String,
    /// Whether it is mounted read-only, which FAT also becomes by itself after an error.
    pub read_only: bool,
    /// Free space in bytes.
    pub free: u64,
}

/// How the boot partition is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// One cmdline.txt, without a fallback: Raspberry Pi OS, and Ubuntu up to 25.04.
    Plain,
    /// Ubuntu's `current/` and `new/`, tried before they are kept: 25.10 and later, and what was upgraded to it.
    UbuntuAb,
}

/// The cmdline.txt that decides the next boot: the one that the firmware reads, or that of a trial that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootFile {
    /// Its absolute path.
    pub path: Utf8PathBuf,
    /// The layout it belongs to.
    pub layout: Layout,
    /// How Ubuntu's second set of boot files stands; [`Trial::UnderWay`] is a problem, and never here.
    pub trial: Trial,
    /// Its content as it is, for the hash that guards the write.
    pub content: Vec<u8>,
    /// Its content, read.
    pub line: CommandLine,
    /// Content of the file that the firmware reads on an ordinary boot: the same, unless a trial waits.
    pub ordinary: Vec<u8>,
    /// The line that an earlier trial boot failed with, while Ubuntu keeps it.
    pub rejected: Option<CommandLine>,
    /// The line before selfheal wrote `line` in this boot; the same where it did not.
    pub booted: CommandLine,
    /// Tokens that are written but wait for a reboot.
    pub pending: Vec<Token>,
    /// Content of /proc/cmdline.
    pub(super) running: String,
    /// The mount it lies on.
    pub mount: BootMount,
}

/// Why it is not known which file the Pi boots from, or why that file is not edited.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BootProblem {
    /// Neither mount is a mounted vfat. A cmdline.txt lying there is a stub or a leftover.
    #[error(
        "no boot partition (vfat) is mounted at /boot/firmware or /boot, so no cmdline.txt can be trusted; mount it, see \
         /etc/fstab"
    )]
    NotMounted,
    /// A line of config.txt decides the file, under a filter that only the firmware can judge.
    #[error(
        "{config} line {line} sets `{key}` under the filter [{filter}], which cannot be judged from here; set it under \
         [all] or the board's own filter"
    )]
    Unclear {
        /// Path of config.txt.
        config: Utf8PathBuf,
        /// `os_prefix` or `cmdline`.
        key: &'static str,
        /// The line, from 1.
        line: usize,
        /// The filter as written.
        filter: String,
    },
    /// config.txt names a file outside the boot partition, or with odd bytes.
    #[error(
        "{config} sets `os_prefix` or `cmdline` to {value:?}, which is no file name on the boot partition"
    )]
    OddName {
        /// Path of config.txt.
        config: Utf8PathBuf,
        /// The value, unreadable bytes replaced.
        value: String,
    },
    /// The file that config.txt leads to is not there.
    #[error(
        "the firmware would read {path} (by config.txt), but there is no such file, or it was not probed"
    )]
    Missing {
        /// The path looked for.
        path: Utf8PathBuf,
    },
    /// The file is there and is no command line.
    #[error("{path}: {source}")]
    Unreadable {
        /// The file.
        path: Utf8PathBuf,
        /// What is wrong with it.
        source: CommandLineError,
    },
    /// The running kernel was not started with this file: the wrong file, a trial boot, or a change by hand.
    #[error(
        "{path} is not what this Pi booted with: /proc/cmdline lacks {}; if the file was changed on purpose, reboot the \
         node and try again, else something else decides what it boots",
        list(missing)
    )]
    NotBooted {
        /// The file.
        path: Utf8PathBuf,
        /// Its tokens that the running kernel does not have.
        missing: Vec<Token>,
    },
    /// Ubuntu is trying new boot files.
    #[error(
        "a trial boot is under way ({state_file} says `trying`): whether the node keeps it is decided within minutes"
    )]
    TrialUnderWay {
        /// The file that says so.
        state_file: Utf8PathBuf,
    },
    /// FAT went read-only, or was mounted so.
    #[error(
        "{mount} is mounted read-only: a damaged card does that by itself; check it (`dmesg`, `fsck.vfat`) and remount it"
    )]
    ReadOnly {
        /// The mount.
        mount: Utf8PathBuf,
    },
    /// Not enough room for a safe write.
    #[error("{mount} has {free} bytes free; a safe write of the boot file needs {needed}")]
    NoRoom {
        /// The mount.
        mount: Utf8PathBuf,
        /// Free bytes.
        free: u64,
        /// Wanted bytes.
        needed: u64,
    },
    /// The edit itself was refused.
    #[error("{path}: {source}")]
    Refused {
        /// The file.
        path: Utf8PathBuf,
        /// Why.
        source: EditError,
    },
}

/// Room that a safe write takes at least, in bytes: three copies of the file and the directory, in clusters of up to
/// 16 KiB. `templates/session/boot.sh` asks for the same.
const ROOM: u64 = 64 * 1024;

/// The mounted boot partition.
///
/// # Errors
/// [`BootProblem::NotMounted`]: nothing that lies in the folder then is what the firmware reads.
pub fn boot_mount(facts: &BootFacts) -> Result<&BootMount, BootProblem> {
    ["/boot/firmware", "/boot"]
        .iter()
        .find_map(|path| {
            facts
                .mounts
                .iter()
                .find(|mount| mount.path == *path && mount.fs_type == "vfat")
        })
        .ok_or(BootProblem::NotMounted)
}

/// Finds the cmdline.txt that the firmware reads on an ordinary boot.
///
/// `ours` are the tokens that selfheal sets or has set: when only these are missing from /proc/cmdline, an earlier run
/// wrote them and did not come to the reboot, and they are [`BootFile::pending`].
///
/// # Errors
/// See [`BootProblem`]. Whatever is not certain is a problem, never a guess.
pub fn resolve(facts: &BootFacts, ours: &[Token]) -> Result<BootFile, BootProblem> {
    let mount = boot_mount(facts)?;
    let config_path = mount.path.join("config.txt");
    let config = ConfigTxt::parse(
        facts
            .files
            .get(&config_path)
            .map(Vec::as_slice)
            .unwrap_or_default(),
    );
    let setting = |key| setting(&config, &config_path, key, facts.board);
    let prefix = setting("os_prefix")?.unwrap_or_default();
    let name = setting("cmdline")?.unwrap_or_else(|| "cmdline.txt".to_owned());
    // The prefix is put in front as it is; it need not be a directory.
    let relative = format!("{prefix}{name}");
    let odd = |part: &str| part.is_empty() || part == "." || part == "..";
    if relative.split('/').any(odd) {
        return Err(BootProblem::OddName {
            config: config_path,
            value: relative,
        });
    }
    let path = mount.path.join(&relative);
    let layout = if relative == "current/cmdline.txt" {
        Layout::UbuntuAb
    } else {
        Layout::Plain
    };
    let trial = match layout {
        Layout::Plain => Trial::None,
        Layout::UbuntuAb => Trial::of(facts),
    };
    if trial == Trial::UnderWay {
        let state_file = mount.path.join("new/state");
        return Err(BootProblem::TrialUnderWay { state_file });
    }
    let (ordinary, ordinary_line) = read(facts, &path)?;
    let written = facts.written.as_ref();
    let expected = |token: &Token| {
        is_written_by_the_os(token)
            || ours.iter().any(|our| held_by(our, token))
            || written.is_some_and(|written| written.after.holds(token))
    };
    let (mut pending, missing): (Vec<Token>, Vec<Token>) = ordinary_line
        .not_booted(&facts.proc_cmdline)
        .into_iter()
        .partition(expected);
    if !missing.is_empty() {
        return Err(BootProblem::NotBooted { path, missing });
    }
    let new = mount.path.join("new/cmdline.txt");
    let rejected = match trial {
        Trial::Rejected => read(facts, &new).ok().map(|(_, line)| line),
        _ => None,
    };
    // What waits for its trial is the next boot's, whoever made it; what else it holds is not selfheal's business.
    let (path, content, line) = if trial == Trial::Waiting {
        let path = new;
        let (content, line) = read(facts, &path)?;
        pending = line.not_booted(&facts.proc_cmdline);
        pending.retain(expected);
        (path, content, line)
    } else {
        (path, ordinary.clone(), ordinary_line)
    };
    let written = written.filter(|written| written.after == line);
    let booted = written.map_or_else(|| line.clone(), |written| written.before.clone());
    Ok(BootFile {
        path,
        layout,
        trial,
        content,
        line,
        ordinary,
        rejected,
        booted,
        pending,
        running: facts.proc_cmdline.clone(),
        mount: mount.clone(),
    })
}

fn read(facts: &BootFacts, path: &Utf8Path) -> Result<(Vec<u8>, CommandLine), BootProblem> {
    let path = path.to_owned();
    let Some(content) = facts.files.get(&path) else {
        return Err(BootProblem::Missing { path });
    };
    match CommandLine::parse(content) {
        Ok(line) => Ok((content.clone(), line)),
        Err(source) => Err(BootProblem::Unreadable { path, source }),
    }
}

impl BootFile {
    /// The line to write so that `edit` holds; `None` when it holds already.
    ///
    /// # Errors
    /// A refused edit, and everything that makes writing unsafe. The last only where there is something to write.
    pub fn edit(&self, edit: &Edit) -> Result<Option<CommandLine>, BootProblem> {
        let refused = |source| BootProblem::Refused {
            path: self.path.clone(),
            source,
        };
        let line = self.line.edit(edit).map_err(refused)?;
        if line == self.line {
            return Ok(None);
        }
        let longest = self.content.len().max(line.to_string().len());
        self.mount.can_take(longest)?;
        Ok(Some(line))
    }
}

impl BootMount {
    /// Whether files of up to `length` bytes can be written safely.
    ///
    /// # Errors
    /// [`BootProblem::ReadOnly`] or [`BootProblem::NoRoom`].
    pub fn can_take(&self, length: usize) -> Result<(), BootProblem> {
        let (mount, free) = (self.path.clone(), self.free);
        let needed = ROOM.max(4 * u64::try_from(length).unwrap_or(u64::MAX / 4));
        if self.read_only {
            return Err(BootProblem::ReadOnly { mount });
        }
        if free < needed {
            return Err(BootProblem::NoRoom {
                mount,
                free,
                needed,
            });
        }
        Ok(())
    }
}

/// A setting that names a file.
fn setting(
    config: &ConfigTxt,
    path: &Utf8Path,
    key: &'static str,
    board: Board,
) -> Result<Option<String>, BootProblem> {
    match config.setting(key, board) {
        Setting::Default => Ok(None),
        Setting::Value(value) => match String::from_utf8(value) {
            Ok(text) if !text.contains(['\\', '"']) && !text.contains(char::is_control) => {
                Ok(Some(text))
            }
            Ok(value) => Err(BootProblem::OddName {
                config: path.to_owned(),
                value,
            }),
            Err(bytes) => {
                let value = String::from_utf8_lossy(bytes.as_bytes()).into_owned();
                Err(BootProblem::OddName {
                    config: path.to_owned(),
                    value,
                })
            }
        },
        Setting::Unclear { line, filter } => Err(BootProblem::Unclear {
            config: path.to_owned(),
            key,
            line,
            filter,
        }),
    }
}

/// Raspberry Pi OS notes the wireless country in cmdline.txt from its network settings (pi-gen's netplan hook), also on
/// the first boot, so that a freshly flashed Pi has it in the file and not yet in /proc/cmdline.
fn is_written_by_the_os(token: &Token) -> bool {
    token.key() == "cfg80211.ieee80211_regdom"
}

/// Whether a missing token is one of ours: the same, or a comma list that holds ours.
fn held_by(our: &Token, token: &Token) -> bool {
    our.means(token) || our.items_are_in(token)
}

fn list(tokens: &[Token]) -> String {
    tokens
        .iter()
        .map(|token| format!("`{token}`"))
        .collect::<Vec<_>>()
        .join(", ")
}
