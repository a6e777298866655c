//! Two virtual Pis, selfheal's work on them, and side by side the least it can cost: two concurrent fresh
//! `ssh node 'sudo -n sh -s'` of the same scripts.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use selfheal::inventory::{self, Inventory};
use selfheal_lab::{Lab, Pi};
use tempfile::TempDir;

const ROUNDS: usize = 10;

/// Two Pis and their inventory.
pub struct Homelab {
    /// The Pis, in the order of the inventory.
    pub pis: [Pi; 2],
    /// What `homelab.toml` says of them.
    pub inventory: Inventory,
    home: TempDir,
    _lab: Lab,
}

impl Homelab {
    /// Boots them.
    pub fn new() -> Homelab {
        let lab = Lab::new().unwrap();
        let pis = [lab.boot("jarvis").unwrap(), lab.boot("ultron").unwrap()];
        let home = tempfile::tempdir().unwrap();
        let text = inventory_of(&pis);
        std::fs::write(home.path().join("homelab.toml"), &text).unwrap();
        let (inventory, _) = inventory::parse("homelab.toml", text.as_bytes());
        Homelab {
            pis,
            inventory: inventory.unwrap(),
            home,
            _lab: lab,
        }
    }

    /// Runs selfheal, which has to end with one of these exit codes.
    pub fn selfheal(&self, arguments: &[&str], codes: &[i32]) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_selfheal"));
        command
            .args(arguments)
            .args(["--quiet", "-i"])
            .arg(self.home.path().join("homelab.toml"))
            .env("HOME", self.home.path())
            .stdout(Stdio::null());
        let code = command.status().unwrap().code().unwrap();
        assert!(codes.contains(&code), "selfheal {arguments:?}: exit {code}");
    }

    /// Times `ours` and the bare scripts in turn, and prints both medians and their ratio.
    pub fn compare(&self, name: &str, ours: impl Fn(), scripts: &[String]) {
        let (mut own, mut bare) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            bare.push(timed(|| self.bare(scripts)));
            own.push(timed(&ours));
        }
        let (own, bare) = (median(own).as_secs_f64(), median(bare).as_secs_f64());
        println!("{name}, 2 nodes: median of {ROUNDS}: {own:.2} s");
        println!("ssh node 'sudo -n sh -s', 2 nodes: median of {ROUNDS}: {bare:.2} s");
        println!("ratio: {:.2}", own / bare);
    }

    fn bare(&self, scripts: &[String]) {
        let run = |(pi, script): (&Pi, &String)| {
            let mut ssh = pi.ssh();
            ssh.arg("sudo -n sh -s")
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::null());
            let mut child = ssh.spawn().unwrap();
            let mut stdin = child.stdin.take().unwrap();
            stdin.write_all(script.as_bytes()).unwrap();
            child
        };
        let children: Vec<_> = self.pis.iter().zip(scripts).map(run).collect();
        for child in children {
            assert!(child.wait_with_output().unwrap().status.success());
        }
    }
}

/// How long `work` takes.
pub fn timed(work: impl FnOnce()) -> Duration {
    let began = Instant::now();
    work();
    began.elapsed()
}

/// The middle one.
pub fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn inventory_of(pis: &[Pi]) -> String {
    let mut text = format!(
        "[cluster]\nname = \"bench\"\n[ssh]\nidentity = [\"{}\"]\nagent = false\n[hardening]\nautomatic_upgrades = \"off\"\n[k3s]\ninstall = false\n",
        pis[0].key().display()
    );
    for (pi, role) in pis.iter().zip(["control-plane", "worker"]) {
        text += &format!(
            "[nodes.{}]\nhost = \"127.0.0.1\"\nport = {}\naddress = \"{}\"\nrole = \"{role}\"\nmodel = \"virtual\"\nhost_key = \"{}\"\n",
            pi.name(),
            pi.port(),
            pi.lan_address(),
            pi.host_key()
        );
    }
    text
}
