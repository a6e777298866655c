//! The home folder that SSH's own files lie in.

use camino::Utf8PathBuf;
use nix::unistd::{Uid, User};

/// The folder that `~` means to ssh: that of the password database, whatever `$HOME` says (ssh(1)). So a key or a
/// known_hosts file is the same one for selfheal and for a plain `ssh`. Where there is no program `ssh` to agree with, it
/// is `$HOME`, as for every other path.
pub fn home() -> Option<Utf8PathBuf> {
    let path = if has_ssh() {
        User::from_uid(Uid::current()).ok()??.dir
    } else {
        etcetera::home_dir().ok()?
    };
    Utf8PathBuf::try_from(path).ok()
}

fn has_ssh() -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join("ssh").is_file())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn it_is_the_one_that_ssh_goes_by() {
        if !has_ssh() {
            assert_eq!(home().unwrap(), etcetera::home_dir().unwrap());
            return;
        }
        let answer = Command::new("ssh")
            .args(["-G", "-F", "none", "-o", "UserKnownHostsFile=~/mine", "x"])
            .env("HOME", "/nowhere")
            .output()
            .unwrap();
        let answer = String::from_utf8(answer.stdout).unwrap();
        let line = format!("userknownhostsfile {}", home().unwrap().join("mine"));
        assert!(answer.lines().any(|said| said == line), "{line}: {answer}");
    }
}
