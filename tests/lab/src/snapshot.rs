//! A Pi that has just booted, frozen with its RAM: going on from there takes seconds where a boot takes half a minute.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::cache::Cache;
use crate::identity::Identity;
use crate::image::Image;
use crate::network::{Port, Seat};
use crate::process;
use crate::qemu::{Accelerator, Machine, Setup, Start, poll};
use crate::ssh::Ssh;

/// The longest a first boot may take on a busy machine.
pub(crate) const FIRST_BOOT: Duration = Duration::from_secs(300);
/// Guests get this much memory unless told otherwise.
pub(crate) const MEMORY_MIB: u32 = 512;

/// A frozen Pi.
#[derive(Debug, Clone)]
pub struct Snapshot {
    folder: PathBuf,
    pub(crate) accelerator: Accelerator,
}

impl Snapshot {
    /// The frozen fresh Pi with this much memory, made if the cache has none (about a minute without hardware virtualisation).
    ///
    /// # Errors
    /// When the image does not boot to a healthy system.
    pub fn ensure(cache: &Cache, image: &Image, memory_mib: u32) -> Result<Self> {
        let qemu = process::text(Command::new("qemu-system-x86_64").arg("--version"))?;
        let cpus = fs::read_to_string("/proc/cpuinfo")?;
        let cpu = cpus
            .lines()
            .find(|line| line.starts_with("model name"))
            .unwrap_or_default();
        let recipe = image
            .recipe
            .clone()
            .with(qemu)
            .with(cpu)
            .with(memory_mib.to_string())
            .with(format!("{:?}", Accelerator::candidate()));
        let recipe = recipe
            .with(include_str!("qemu.rs"))
            .with(include_str!("snapshot.rs"))
            .with(include_str!("identity.rs"));
        let folder = cache.artefact("snapshot", &recipe, |out| {
            build(cache, image, memory_mib, out)
        })?;
        let accelerator = serde_json::from_slice(&fs::read(folder.join("accelerator.json"))?)?;
        Ok(Self {
            folder,
            accelerator,
        })
    }

    pub(crate) fn disk(&self) -> PathBuf {
        self.folder.join("root.qcow2")
    }

    pub(crate) fn boot_partition(&self) -> PathBuf {
        self.folder.join("boot.vfat")
    }

    pub(crate) fn ram(&self) -> PathBuf {
        self.folder.join("ram")
    }
}

/// Gives a folder its own disks on top of others.
pub(crate) fn lay_disks(disk: &Path, boot_partition: &Path, folder: &Path) -> Result<()> {
    process::output(
        Command::new("qemu-img")
            .args(["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b"])
            .arg(disk)
            .arg(folder.join("root.qcow2")),
    )?;
    process::output(
        Command::new("cp")
            .args(["--sparse=always", "--reflink=auto"])
            .arg(boot_partition)
            .arg(folder.join("boot.vfat")),
    )?;
    Ok(())
}

fn build(cache: &Cache, image: &Image, memory_mib: u32, out: &Path) -> Result<()> {
    process::say("booting a fresh Pi to freeze it (once, about a minute)");
    let accelerator = match Accelerator::candidate() {
        Accelerator::Tcg => Accelerator::Tcg,
        // It aborts or crawls where only the look of KVM is there.
        Accelerator::Kvm => {
            let (kvm, limit) = (Accelerator::Kvm, Duration::from_secs(45));
            match freeze(cache, image, memory_mib, kvm, limit, out) {
                Ok(()) => Accelerator::Kvm,
                Err(error) => {
                    process::say(&format!(
                        "KVM does not work here, going on without it: {error:#}"
                    ));
                    Accelerator::Tcg
                }
            }
        }
    };
    if accelerator == Accelerator::Tcg {
        freeze(cache, image, memory_mib, accelerator, FIRST_BOOT, out)?;
    }
    fs::write(
        out.join("accelerator.json"),
        serde_json::to_vec(&accelerator)?,
    )?;
    Ok(())
}

fn freeze(
    cache: &Cache,
    image: &Image,
    memory_mib: u32,
    accelerator: Accelerator,
    limit: Duration,
    out: &Path,
) -> Result<()> {
    let start = Instant::now();
    let (ssh, lan) = (Port::reserve(cache)?, Port::reserve(cache)?);
    lay_disks(&image.disk(), &image.boot_partition(), out)?;
    let machine = Machine::new(Setup {
        name: "golden".to_owned(),
        folder: out.to_owned(),
        image: image.clone(),
        repository: None,
        accelerator,
        memory_mib,
        ssh_port: ssh.number,
        lan_port: lan.number,
        seat: Seat { number: 250 },
        serves_time: Arc::default(),
    });
    machine.power_on(Start::default())?;
    settle(&machine, limit)?;
    let booted = start.elapsed();

    // A rehearsal of what every Pi does after it: what that needs is then in memory.
    let identity = Identity::new(out)?;
    machine.root(
        &identity.script(machine.setup().seat),
        Duration::from_secs(60),
    )?;
    let known_hosts = out.join("known_hosts");
    fs::write(
        &known_hosts,
        format!("[127.0.0.1]:{} {}\n", ssh.number, identity.host_key),
    )?;
    let login = Ssh {
        port: ssh.number,
        key: image.key(),
        known_hosts,
    };
    // sshd takes the new host key a moment after it was told to.
    poll(Duration::from_secs(60), "a login to the fresh Pi", || {
        let login = login.run("sudo -n true", 60)?;
        Ok(login.status.success().then_some(()))
    })?;
    machine.save(&out.join("ram"))?;
    machine.power_cut()?;
    process::say(&format!(
        "booted in {:.1} s, frozen after {:.1} s",
        booted.as_secs_f32(),
        start.elapsed().as_secs_f32()
    ));
    Ok(())
}

/// Waits until a first boot is over and everything in it went well.
pub(crate) fn settle(machine: &Machine, limit: Duration) -> Result<()> {
    let deadline = Instant::now() + limit;
    let script = "systemctl is-system-running --wait || { systemctl --failed --no-pager; exit 1; }";
    loop {
        let starts = machine.starts();
        let Err(error) = machine.root(script, deadline.saturating_duration_since(Instant::now()))
        else {
            return Ok(());
        };
        // The channel breaks where qemu has to be started once more.
        if Instant::now() < deadline && machine.starts_again(starts, Duration::from_secs(5)) {
            continue;
        }
        let log = fs::read(machine.setup().folder.join("serial.log")).unwrap_or_default();
        return Err(error.context(format!(
            "a fresh Pi does not come up; its console says:\n{}",
            process::last_lines(&log, 20)
        )));
    }
}
