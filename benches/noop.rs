//! A run with nothing to do against two virtual Pis, side by side with what it costs at least: two concurrent fresh
//! `ssh node 'sudo -n sh -s'` of the same probe script. Prints both medians and their ratio.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeSet;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use selfheal::inventory;
use selfheal::layer;
use selfheal::node::ledger::LayerName;
use selfheal_lab::{Lab, Pi};

const ROUNDS: usize = 10;

fn main() {
    let lab = Lab::new().unwrap();
    let pis = [lab.boot("jarvis").unwrap(), lab.boot("ultron").unwrap()];
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("homelab.toml");
    std::fs::write(&path, inventory_of(&pis)).unwrap();
    let apply = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_selfheal"));
        command
            .args(["apply", "--yes", "--quiet", "-i"])
            .arg(&path)
            .env("HOME", home.path())
            .stdout(Stdio::null());
        assert!(command.status().unwrap().success());
    };
    apply();

    let (inventory, _) = inventory::parse(path.to_str().unwrap(), &std::fs::read(&path).unwrap());
    let inventory = inventory.unwrap();
    let layers: BTreeSet<LayerName> = LayerName::ALL.into();
    let scripts: Vec<String> = inventory
        .nodes
        .iter()
        .map(|node| layer::questions(&inventory, node, &layers).script("0123456789abcdef"))
        .collect();

    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        bare.push(timed(|| bare_probe(&pis, &scripts)));
        ours.push(timed(apply));
    }
    let (ours, bare) = (median(ours), median(bare));
    println!(
        "selfheal apply, nothing to do, 2 nodes: median of {ROUNDS}: {:.2} s",
        ours.as_secs_f64()
    );
    println!(
        "ssh node 'sudo -n sh -s', 2 nodes:      median of {ROUNDS}: {:.2} s",
        bare.as_secs_f64()
    );
    println!("ratio: {:.2}", ours.as_secs_f64() / bare.as_secs_f64());
}

fn timed(work: impl FnOnce()) -> Duration {
    let began = Instant::now();
    work();
    began.elapsed()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn bare_probe(pis: &[Pi], scripts: &[String]) {
    let children: Vec<_> = pis
        .iter()
        .zip(scripts)
        .map(|(pi, script)| {
            let mut ssh = pi.ssh();
            ssh.arg("sudo -n sh -s")
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::null());
            let mut child = ssh.spawn().unwrap();
            child
                .stdin
                .take()
                .unwrap()
                .write_all(script.as_bytes())
                .unwrap();
            child
        })
        .collect();
    for child in children {
        assert!(child.wait_with_output().unwrap().status.success());
    }
}

fn inventory_of(pis: &[Pi]) -> String {
    let mut text = format!(
        "[cluster]\nname = \"bench\"\n[ssh]\nidentity = [\"{}\"]\nagent = false\n[hardening]\nautomatic_upgrades = \"off\"\n",
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
