//! The body of a step's script: calls of the functions in templates/session/step.sh, in the order in which they run.

use std::fmt::Write;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use secrecy::ExposeSecret;

use super::{Guard, Holder, PENDING_RESTART, Secrets};
use crate::node::ledger::PATH as LEDGER;
use crate::node::quote;
use crate::plan::Step;
use crate::resource::change::{Action, Effect, Expect, FileWrite};
use crate::resource::k3s::Asset;

/// The calls, as text.
#[derive(Default)]
pub(super) struct Body {
    /// The calls so far, one a line.
    pub(super) text: String,
}

impl Body {
    pub(super) fn line(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }

    pub(super) fn call(&mut self, function: &str, arguments: &[&str]) {
        let arguments: Vec<String> = arguments.iter().map(|argument| quote(argument)).collect();
        let _ = writeln!(self.text, "{function} {}", arguments.join(" "));
    }

    /// Text on a command's standard input. It goes as base64, so that no line of it can end the here-document.
    pub(super) fn here(&mut self, command: &str, content: &str) {
        let _ = writeln!(
            self.text,
            "base64 -d <<'EOF' | {command} || exit 1\n{}\nEOF",
            BASE64_STANDARD.encode(content.as_bytes())
        );
    }

    pub(super) fn expectation(&mut self, action: &Action) {
        let (path, expect) = match action {
            Action::Write(FileWrite { path, expect, .. }) => (path, expect),
            Action::Remove(path, expect) | Action::RestoreOriginal(path, expect) => (path, expect),
            _ => return,
        };
        match expect {
            Expect::Absent => self.call("expect_absent", &[path.as_str()]),
            Expect::Sha256(hash) => self.call("expect_hash", &[path.as_str(), hash]),
        }
    }

    pub(super) fn keep(&mut self, action: &Action) {
        match action {
            Action::KeepOriginal(path) => self.call("keep_original", &[path.as_str()]),
            Action::SetAside(path) => self.call("set_aside", &[path.as_str()]),
            _ => {}
        }
    }

    pub(super) fn packages(&mut self, actions: &[&Action]) {
        let names: Vec<&str> = actions
            .iter()
            .filter_map(|action| match action {
                Action::InstallPackage(name) => Some(name.as_str()),
                _ => None,
            })
            .collect();
        if !names.is_empty() {
            self.call("install_packages", &names);
        }
    }

    /// Files.
    pub(super) fn make_so(&mut self, action: &Action) {
        match action {
            Action::MakeDirectory(path) => self.call("mkdir -p -m 0755 --", &[path.as_str()]),
            Action::Write(write) => {
                let mode = format!("{:04o}", write.mode);
                self.call(
                    "stage",
                    &[write.path.as_str(), &mode, &write.owner, &write.group],
                );
                self.text.pop();
                let _ = writeln!(
                    self.text,
                    " <<'EOF'\n{}\nEOF",
                    BASE64_STANDARD.encode(&write.content)
                );
            }
            Action::Remove(path, _) => self.call("remove", &[path.as_str()]),
            Action::RestoreOriginal(path, _) => self.call("restore_original", &[path.as_str()]),
            Action::RemoveDirectory(path) => {
                self.call("rmdir --ignore-fail-on-non-empty --", &[path.as_str()]);
            }
            Action::WriteBoot(path, content, expect) => {
                let hash = match expect {
                    Expect::Sha256(hash) => hash.as_str(),
                    Expect::Absent => "absent",
                };
                self.boot("write_boot", &[path.as_str(), hash], content);
            }
            Action::TryBoot {
                folder,
                content,
                current,
                waiting,
            } => {
                let waiting = waiting.as_deref().unwrap_or("-");
                self.boot("try_boot", &[folder.as_str(), current, waiting], content);
            }
            _ => {}
        }
    }

    /// Tokens never pass through a command's arguments.
    pub(super) fn put_secret(&mut self, action: &Action, secrets: &Secrets) {
        match action {
            Action::PutSecret(wanted) => match secrets.get(&wanted.path) {
                Some(Some(secret)) => {
                    let function = format!("put_secret {}", quote(wanted.path.as_str()));
                    self.here(&function, secret.expose_secret());
                }
                _ => self.call("own_secret", &[wanted.path.as_str()]),
            },
            Action::CloseSecret(path) => self.call("close_secret", &[path.as_str()]),
            _ => {}
        }
    }

    pub(super) fn put_asset(&mut self, action: &Action) {
        match action {
            Action::InstallAsset(wanted) => {
                if let (Asset::Program, Some(version)) = (wanted.asset, &wanted.found) {
                    self.call("keep_datastore", &[version]);
                }
                self.call("install_asset", &[wanted.path.as_str()]);
            }
            Action::Discard(path) => self.call("discard", &[path.as_str()]),
            Action::LeaveCluster => self.line("leave_cluster"),
            _ => {}
        }
    }

    /// A boot file's new content on the standard input of what writes it; its exit code is the step's.
    fn boot(&mut self, function: &str, arguments: &[&str], content: &[u8]) {
        let arguments: Vec<String> = arguments.iter().map(|argument| quote(argument)).collect();
        let _ = writeln!(
            self.text,
            "base64 -d <<'EOF' | {function} {} || exit\n{}\nEOF",
            arguments.join(" "),
            BASE64_STANDARD.encode(content)
        );
    }

    /// What takes effect at once, after the files are in place.
    pub(super) fn set(&mut self, action: &Action) {
        match action {
            Action::SetSysctl(key, value) => self.call("set_sysctl", &[key, value]),
            Action::SetHostname(name) => self.call("set_hostname", &[name]),
            Action::SwapOff => self.line("swap_off"),
            Action::SwapOn => self.line("swapon -a"),
            _ => {}
        }
    }

    /// One command for all that it is wanted for: systemctl reads everything again after each of its calls.
    pub(super) fn attempt_for<'a>(
        &mut self,
        command: &str,
        actions: &[&'a Action],
        wanted: impl Fn(&'a Action) -> Option<&'a String>,
    ) {
        let names: Vec<&str> = actions
            .iter()
            .filter_map(|action| wanted(action))
            .map(String::as_str)
            .collect();
        if names.is_empty() {
            return;
        }
        let what = format!("{command} {}", names.join(" "));
        let mut arguments = vec![what.as_str(), "120"];
        arguments.extend(command.split(' '));
        arguments.extend(names);
        self.call("attempt", &arguments);
    }

    pub(super) fn forget(&mut self, action: &Action) {
        if let Action::RestoreOriginal(path, _) = action {
            self.call("forget_original", &[path.as_str()]);
        }
    }

    /// The switch is armed before the first change; the paths are those that change.
    pub(super) fn arm(
        &mut self,
        guard: &Guard,
        step: &Step<'_>,
        actions: &[&Action],
        holder: &Holder,
    ) {
        let seconds = guard.seconds.to_string();
        let mut arguments = vec![
            "arming the dead man's switch",
            "180",
            "/usr/local/libexec/selfheal/deadman",
            "arm",
        ];
        arguments.extend([seconds.as_str(), holder.token.as_str()]);
        arguments.extend(actions.iter().filter_map(|action| match action {
            Action::Write(write) => Some(write.path.as_str()),
            Action::Remove(path, _) | Action::RestoreOriginal(path, _) => Some(path.as_str()),
            _ => None,
        }));
        // The switch is armed before the ledger names the change: what undoes the one undoes the other.
        arguments.extend([LEDGER, PENDING_RESTART, "--"]);
        let units: Vec<String> = step
            .effects
            .iter()
            .filter_map(|effect| match effect {
                Effect::Reload(unit) => Some(format!("reload:{unit}")),
                Effect::Restart(unit) => Some(format!("restart:{unit}")),
                Effect::DaemonReload | Effect::DaemonReexec => None,
            })
            .collect();
        arguments.extend(units.iter().map(String::as_str));
        self.call("attempt", &arguments);
    }

    pub(super) fn prove(&mut self, guard: &Guard) {
        let wanted: Vec<String> = guard.sshd.iter().map(|line| quote(line)).collect();
        let _ = writeln!(
            self.text,
            "check_sshd {} || {{\n/usr/local/libexec/selfheal/deadman expire 'sshd did not accept it' >/dev/null 2>&1\n\
             stop $rejected 'sshd does not accept the new settings; the originals are back'\n}}",
            wanted.join(" ")
        );
    }
}
