//! A homelab of virtual Pis, its inventory, and the real `selfheal` command working on it.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use selfheal_lab::{Lab, Layout, Options, Pi};
use tempfile::TempDir;

/// Settings for tests that are not about packages: under software emulation an installation takes minutes.
pub const NO_PACKAGES: &str = "[hardening]\nautomatic_upgrades = \"off\"\n";

/// Settings that change little, for tests that are about the node and not about the settings.
pub const LITTLE: &str = "[hardening]\nautomatic_upgrades = \"off\"\nswap = \"keep\"\ndisable_services = []\nmodules = []\n\
    [boot]\nmemory_cgroup = false\npsi = false\n";

/// Virtual Pis and the inventory that describes them. The first one is the control plane.
pub struct Homelab {
    pub pis: Vec<Pi>,
    home: TempDir,
    _lab: Lab,
}

impl Homelab {
    /// Boots fresh Pis of these names; `settings` are more sections of the inventory.
    pub fn new(names: &[&str], settings: &str) -> Homelab {
        Homelab::with(names, settings, &Options::default())
    }

    /// The same with Pis that boot as Ubuntu 25.10 does.
    pub fn ubuntu(names: &[&str], settings: &str) -> Homelab {
        let options = Options {
            layout: Layout::Ubuntu,
            ..Options::default()
        };
        Homelab::with(names, settings, &options)
    }

    pub fn with(names: &[&str], settings: &str, options: &Options) -> Homelab {
        let lab = Lab::new().unwrap();
        let boot = |name: &&str| lab.boot_with(name, options).unwrap();
        let pis = names.iter().map(boot).collect();
        let homelab = Homelab {
            pis,
            home: tempfile::tempdir().unwrap(),
            _lab: lab,
        };
        homelab.set(settings);
        homelab
    }

    /// The first Pi.
    pub fn pi(&self) -> &Pi {
        &self.pis[0]
    }

    /// The folder that selfheal takes for the user's home.
    pub fn home(&self) -> &std::path::Path {
        self.home.path()
    }

    /// The inventory's path.
    pub fn inventory(&self) -> PathBuf {
        self.home.path().join("homelab.toml")
    }

    /// Puts releases of k3s where [`Homelab::k3s_section`] says.
    pub fn release(&self, versions: &[&str]) {
        selfheal_lab::release::make(&self.home().join("releases"), versions).unwrap();
    }

    /// `[k3s]` with those releases.
    pub fn k3s_section(&self) -> String {
        format!(
            "[k3s]\nsource = \"{}\"\n",
            self.home().join("releases").display()
        )
    }

    /// Writes the inventory anew, with these settings.
    pub fn set(&self, settings: &str) {
        self.set_after(settings, "");
    }

    /// The same, with more tables after the nodes.
    pub fn set_after(&self, settings: &str, more: &str) {
        // Most tests are about a node, and need no cluster.
        let no_cluster = if settings.contains("[k3s]") {
            ""
        } else {
            "[k3s]\ninstall = false\n"
        };
        let mut text = format!(
            "[cluster]\nname = \"lab\"\n\n[ssh]\nuser = \"pi\"\nidentity = [\"{}\"]\nagent = false\n\n{no_cluster}{settings}\n",
            self.pi().key().display()
        );
        for (position, pi) in self.pis.iter().enumerate() {
            let role = if position == 0 {
                "control-plane"
            } else {
                "worker"
            };
            write!(
                text,
                "[nodes.{}]\nhost = \"127.0.0.1\"\nport = {}\naddress = \"{}\"\nrole = \"{role}\"\nmodel = \"virtual\"\n\
                 host_key = \"{}\"\n\n",
                pi.name(),
                pi.port(),
                pi.lan_address(),
                pi.host_key(),
            )
            .unwrap();
        }
        text.push_str(more);
        std::fs::write(self.inventory(), text).unwrap();
    }

    /// selfheal with these arguments, this inventory and this home.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_selfheal"));
        command
            .args(arguments)
            .arg("--inventory")
            .arg(self.inventory())
            .env("HOME", self.home.path())
            .env_remove("XDG_STATE_HOME")
            .env_remove("SSH_AUTH_SOCK")
            .stdin(Stdio::null());
        command
    }

    /// Runs selfheal to its end.
    pub fn selfheal(&self, arguments: &[&str]) -> Run {
        Run::of(&self.command(arguments).output().unwrap())
    }

    /// Runs selfheal, which has to end with 0.
    pub fn ok(&self, arguments: &[&str]) -> Run {
        let run = self.selfheal(arguments);
        assert_eq!(run.code, Some(0), "selfheal {arguments:?}\n{run}");
        run
    }

    /// Converges all Pis, and shows that a second run changes nothing.
    pub fn converge(&self) {
        self.ok(&["apply", "--yes"]);
        self.is_converged();
    }

    /// Nothing is left to change.
    pub fn is_converged(&self) {
        let run = self.selfheal(&["plan"]);
        assert_eq!(run.code, Some(0), "{run}");
        assert!(run.stdout.contains("Nothing to change."), "{run}");
    }

    /// Starts selfheal; its progress can be followed.
    pub fn start(&self, arguments: &[&str]) -> Started {
        let mut child = self
            .command(arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, lines) = channel();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Started {
            child,
            lines,
            seen: String::new(),
        }
    }
}

/// How a run of selfheal ended.
pub struct Run {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Run {
    pub fn of(output: &Output) -> Run {
        Run {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl std::fmt::Display for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "exit {:?}\n--- stderr\n{}\n--- stdout\n{}",
            self.code,
            end_of(&self.stderr),
            end_of(&self.stdout)
        )
    }
}

/// The last lines of an output: why a test failed stands there, and a plan before it fills pages.
fn end_of(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let left_out = lines.len().saturating_sub(30);
    let cut = if left_out > 0 {
        format!("({left_out} lines before)\n")
    } else {
        String::new()
    };
    cut + &lines[left_out..].join("\n")
}

/// A run under way.
pub struct Started {
    child: Child,
    lines: Receiver<String>,
    seen: String,
}

impl Started {
    /// Waits for a line of progress that holds `text`. False when the run ends without one.
    pub fn reaches(&mut self, text: &str) -> bool {
        loop {
            match self.lines.recv_timeout(Duration::from_secs(600)) {
                Ok(line) => {
                    self.seen.push_str(&line);
                    self.seen.push('\n');
                    if line.contains(text) {
                        return true;
                    }
                }
                Err(_) => return false,
            }
        }
    }

    /// Presses Ctrl-C.
    pub fn interrupt(&self) {
        let pid = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-INT", &pid])
                .status()
                .unwrap()
                .success()
        );
    }

    /// Kills it, as a closed laptop would.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for its end.
    pub fn end(mut self) -> (Option<i32>, String) {
        let code = self.child.wait().unwrap().code();
        while let Ok(line) = self.lines.recv() {
            self.seen.push_str(&line);
            self.seen.push('\n');
        }
        (code, self.seen)
    }
}
