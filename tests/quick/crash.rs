//! Runs a node script as a Pi would, and takes its power at any command.
//!
//! Every outside command of the script is a stand-in that counts itself and then does its work; at the chosen count it
//! kills the whole process group instead, half of a `cat` done. So "every step" is every step, each time.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Commands that do their real work, counted.
const COUNTED: &[&str] = &[
    "base64",
    "basename",
    "cat",
    "chmod",
    "chown",
    "cp",
    "cut",
    "date",
    "dd",
    "df",
    "du",
    "dirname",
    "flock",
    "grep",
    "head",
    "install",
    "ln",
    "mkdir",
    "mv",
    "od",
    "readlink",
    "rm",
    "rmdir",
    "sed",
    "sha256sum",
    "sort",
    "stat",
    "sync",
    "tail",
    "touch",
    "tr",
    "wc",
];

/// A folder for one script's world.
pub struct Stage {
    folder: tempfile::TempDir,
}

/// What a run came to.
pub struct Run {
    /// `None`: killed.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
    /// Outside commands started, where they were counted.
    pub commands: usize,
}

/// "Never", and count.
pub const COUNT: usize = usize::MAX;

impl Stage {
    /// With stand-ins for all commands that scripts use; `id` says root, and `timeout` lets things take their time (it
    /// would move them out of the process group that is killed).
    pub fn new() -> Stage {
        let stage = Stage {
            folder: tempfile::tempdir().unwrap(),
        };
        for folder in ["own", "counted"] {
            fs::create_dir(stage.path(folder)).unwrap();
        }
        for name in COUNTED {
            let real = ["/usr/bin", "/bin"]
                .iter()
                .map(|bin| Path::new(bin).join(name))
                .find(|path| path.exists())
                .unwrap();
            let half = if *name == "cat" {
                "/usr/bin/head -c 5 -- \"$2\"; "
            } else {
                ""
            };
            stage.stand_in(
                "counted",
                name,
                half,
                &format!("exec {} \"$@\"", real.display()),
            );
        }
        stage.command("id", "echo 0");
        stage.command("timeout", "[ $1 != -k ] || shift 2\nshift\nexec \"$@\"");
        stage
    }

    /// A command with a body of its own.
    pub fn command(&self, name: &str, body: &str) {
        self.stand_in("own", name, "", body);
    }

    fn stand_in(&self, folder: &str, name: &str, dying: &str, body: &str) {
        let script = format!(
            "#!/bin/sh\nread -r at <'{at}'\nif [ \"$at\" != 0 ]; then\nprintf x >>'{count}'\n\
             if [ \"$(/usr/bin/wc -c <'{count}')\" -ge \"$at\" ]; then {dying}kill -9 0; fi\nfi\n{body}\n",
            count = self.path("count").display(),
            at = self.path("at").display(),
        );
        let path = self.path(folder).join(name);
        fs::write(&path, script).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// A path in this world.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs `sh` with these arguments. The power goes at outside command number `at`; 0 is never, [`COUNT`] is never
    /// but the commands are counted.
    pub fn sh(&self, arguments: &[&str], stdin: &[u8], at: usize) -> Run {
        fs::write(self.path("count"), "").unwrap();
        fs::write(self.path("at"), format!("{}\n", at.min(1_000_000))).unwrap();
        let others = if at == 0 {
            "/usr/bin:/bin".into()
        } else {
            self.path("counted").display().to_string()
        };
        let mut child = Command::new("/bin/sh")
            .args(arguments)
            .env_clear()
            .env("PATH", format!("{}:{others}", self.path("own").display()))
            .env("SELFHEAL_ROOT", self.path("root"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap();
        // A script that was killed early does not read.
        let _ = child.stdin.take().unwrap().write_all(stdin);
        let output = child.wait_with_output().unwrap();
        Run {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            commands: fs::read(self.path("count")).unwrap().len(),
        }
    }
}

/// The path of a template in the repository.
pub fn template(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("templates")
        .join(name)
}
