//! One virtual Pi.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;

use crate::clock;
use crate::firmware::BootPartition;
use crate::identity::Identity;
use crate::network::Port;
use crate::process;
use crate::qemu::{Machine, Start};
use crate::recording::Recording;
use crate::ssh::Ssh;

/// The longest one command over ssh may take, unless told otherwise.
const COMMAND: u32 = 120;
/// The longest a boot may take on a busy machine.
pub const BOOT: Duration = Duration::from_secs(240);

/// A virtual Pi: a fresh one when [`crate::Lab::boot`] returns it. Dropping it pulls the plug and removes its disks.
#[derive(Debug)]
pub struct Pi {
    pub(crate) machine: Machine,
    pub(crate) identity: Identity,
    pub(crate) ssh: Ssh,
    pub(crate) _port: Port,
}

/// Reaching it.
impl Pi {
    /// The name the lab knows it by; its hostname is `raspberrypi`, as on every fresh Pi.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.machine.setup().name
    }

    /// The port of 127.0.0.1 where its sshd answers; it stays the same over power cuts.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.ssh.port
    }

    /// Its address on the lab's LAN, where the lab's other Pis reach it.
    #[must_use]
    pub fn lan_address(&self) -> Ipv4Addr {
        self.machine.setup().seat.address()
    }

    /// Its host key, as a public key line of OpenSSH: `ssh-ed25519 AAAA…`.
    #[must_use]
    pub fn host_key(&self) -> &str {
        &self.identity.host_key
    }

    /// The private key file that user `pi` accepts; the password `raspberry` works too.
    #[must_use]
    pub fn key(&self) -> &Path {
        &self.ssh.key
    }

    /// A known_hosts file that holds its host key.
    #[must_use]
    pub fn known_hosts(&self) -> &Path {
        &self.ssh.known_hosts
    }

    /// The folder with its disks, sockets and logs.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.machine.setup().folder
    }

    /// The system's `ssh` to this Pi, to be given a command and run.
    #[must_use]
    pub fn ssh(&self) -> Command {
        self.ssh.command()
    }

    /// Runs a command as `pi` over ssh, within 120 seconds; a failing one is no error here, but ssh not getting
    /// through is one.
    ///
    /// # Errors
    /// When ssh does not get through or the command does not end.
    pub fn run(&self, command: &str) -> Result<Output> {
        self.run_within(command, COMMAND)
    }

    /// The same with a limit in seconds.
    ///
    /// # Errors
    /// When ssh does not get through or the command does not end.
    pub fn run_within(&self, command: &str, seconds: u32) -> Result<Output> {
        let output = self.ssh.run(command, seconds)?;
        match output.status.code() {
            Some(255) => bail!(
                "{}: no ssh: {}",
                self.name(),
                process::last_lines(&output.stderr, 5)
            ),
            Some(124 | 137) => bail!("{}: `{command}` took longer than {seconds} s", self.name()),
            _ => Ok(output),
        }
    }

    /// Runs a command as `pi` over ssh that has to succeed; returns what it wrote to stdout.
    ///
    /// # Errors
    /// When it fails; the error holds the end of its stderr.
    pub fn ok(&self, command: &str) -> Result<String> {
        self.ok_within(command, COMMAND)
    }

    /// The same with a limit in seconds.
    ///
    /// # Errors
    /// When it fails; the error holds the end of its stderr.
    pub fn ok_within(&self, command: &str, seconds: u32) -> Result<String> {
        let output = self.run_within(command, seconds)?;
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(
            output.status.success(),
            "{}: `{command}` ended with {}:\n{}\n{}",
            self.name(),
            output.status,
            process::last_lines(&output.stdout, 10),
            process::last_lines(&output.stderr, 10)
        );
        Ok(stdout)
    }

    /// Runs a script as root over the lab's private channel, which needs neither network nor sshd: to look at a Pi
    /// that locked everybody out, or to prepare one. Returns its output.
    ///
    /// # Errors
    /// When it fails or takes longer than 120 seconds.
    pub fn root(&self, script: &str) -> Result<String> {
        self.machine
            .root(script, Duration::from_secs(COMMAND.into()))
    }

    /// Waits until a login works.
    ///
    /// # Errors
    /// When none does within the limit, with the end of the console's log.
    pub fn wait_for_ssh(&self, limit: Duration) -> Result<()> {
        self.wait(limit, "ssh", || {
            Ok(self.ssh.run("true", 30)?.status.success())
        })
    }

    /// The boot_id of the boot that it is in. (Fresh Pis of one RAM snapshot are all in the same boot.)
    ///
    /// # Errors
    /// When ssh does not get through.
    pub fn boot_id(&self) -> Result<String> {
        Ok(self
            .ok("cat /proc/sys/kernel/random/boot_id")?
            .trim()
            .to_owned())
    }

    /// Waits for a login in another boot than `old`; returns the new boot_id.
    ///
    /// # Errors
    /// When there is none within the limit, with the end of the console's log.
    pub fn wait_for_reboot(&self, old: &str, limit: Duration) -> Result<String> {
        let mut new = String::new();
        self.wait(limit, "a reboot", || {
            let output = self.ssh.run("cat /proc/sys/kernel/random/boot_id", 30)?;
            new = String::from_utf8_lossy(&output.stdout).trim().to_owned();
            Ok(output.status.success() && new != old)
        })?;
        Ok(new)
    }

    /// Waits until its console has shown this text.
    ///
    /// # Errors
    /// When it has not within the limit.
    pub fn wait_for_console(&self, text: &str, limit: Duration) -> Result<()> {
        self.wait(limit, &format!("'{text}' on the console"), || {
            Ok(self.serial_log().contains(text))
        })
    }

    fn wait(
        &self,
        limit: Duration,
        what: &str,
        mut check: impl FnMut() -> Result<bool>,
    ) -> Result<()> {
        let deadline = Instant::now() + limit;
        while !check()? {
            if !self.machine.is_on() || Instant::now() > deadline {
                bail!(
                    "{}: no {what} within {} s ({}); its console says:\n{}",
                    self.name(),
                    limit.as_secs(),
                    if self.machine.is_on() {
                        "it is on"
                    } else {
                        "it is off"
                    },
                    process::last_lines(self.serial_log().as_bytes(), 20)
                );
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    /// What it wrote to its serial console since it was taken out of the box.
    #[must_use]
    pub fn serial_log(&self) -> String {
        let log = fs::read(self.folder().join("serial.log")).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }
}

/// Power, and other blows.
impl Pi {
    /// Pulls the plug.
    ///
    /// # Errors
    /// When qemu does not end.
    pub fn power_cut(&self) -> Result<()> {
        self.machine.power_cut()
    }

    /// Plugs it in again; returns when it begins to boot.
    ///
    /// # Errors
    /// When qemu does not start.
    pub fn power_on(&self) -> Result<()> {
        self.machine.power_on(Start::default())
    }

    /// Plugs it in with a hardware clock that says so many seconds since 1970. (systemd never lets the clock stand
    /// before its own build: that is what a Pi without a clock comes up with.)
    ///
    /// # Errors
    /// When qemu does not start.
    pub fn power_on_at(&self, seconds: u64) -> Result<()> {
        self.machine.power_on(Start {
            clock: Some(seconds),
            ..Start::default()
        })
    }

    /// Plugs it in; what it writes to its boot partition is recorded from then until its next reset or power cut.
    ///
    /// # Errors
    /// When qemu does not start.
    pub fn power_on_recording(&self) -> Result<()> {
        self.machine.power_on(Start {
            records: true,
            ..Start::default()
        })
    }

    /// What was recorded, once it is off or reset.
    ///
    /// # Errors
    /// When nothing was recorded.
    pub fn recording(&self) -> Result<Recording> {
        Recording::read(&self.boot_partition_image())
    }

    /// Whether it has power and did not switch itself off.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.machine.is_on()
    }

    /// Waits until it has switched itself off.
    ///
    /// # Errors
    /// When it has not within the limit.
    pub fn wait_until_off(&self, limit: Duration) -> Result<()> {
        self.machine.wait_until_off(limit)
    }

    /// How often it began to boot (or went on from the RAM snapshot).
    #[must_use]
    pub fn boots(&self) -> u32 {
        self.machine.counts().0
    }

    /// Waits until it has begun to boot so many times.
    ///
    /// # Errors
    /// When it has not within the limit.
    pub fn wait_for_boots(&self, boots: u32, limit: Duration) -> Result<()> {
        self.wait(limit, &format!("boot number {boots}"), || {
            Ok(self.boots() >= boots)
        })
    }

    /// How often its watchdog fired.
    #[must_use]
    pub fn watchdog_resets(&self) -> u32 {
        self.machine.counts().1
    }

    /// Waits until its watchdog has fired more than `seen` times.
    ///
    /// # Errors
    /// When it has not within the limit.
    pub fn wait_for_watchdog(&self, seen: u32, limit: Duration) -> Result<()> {
        self.machine.wait_for_watchdog(seen, limit)
    }

    /// Crashes its kernel for good: a panic that does not reboot by itself, so that only a watchdog helps.
    ///
    /// # Errors
    /// When the Pi is off.
    pub fn freeze(&self) -> Result<()> {
        self.machine
            .root_send("echo 0 >/proc/sys/kernel/panic; echo c >/proc/sysrq-trigger")
    }

    /// Stops the machine between two instructions, watchdog included, as if time stood still for it.
    ///
    /// # Errors
    /// When the Pi is off.
    pub fn pause(&self) -> Result<()> {
        self.machine.qmp("stop", &json!({})).map(drop)
    }

    /// Lets a paused machine go on.
    ///
    /// # Errors
    /// When the Pi is off.
    pub fn resume(&self) -> Result<()> {
        self.machine.qmp("cont", &json!({})).map(drop)
    }

    /// Pulls (`false`) or plugs its network cables: towards the host and towards the LAN.
    ///
    /// # Errors
    /// When the Pi is off.
    pub fn network(&self, up: bool) -> Result<()> {
        for name in ["eth0", "eth1"] {
            self.machine
                .qmp("set_link", &json!({ "name": name, "up": up }))?;
        }
        Ok(())
    }
}

/// Clock and boot files.
impl Pi {
    /// Sets its clock, in seconds since 1970. Its time source would soon put that right: see [`Pi::serve_time`].
    ///
    /// # Errors
    /// When the Pi does not answer.
    pub fn set_clock(&self, seconds: u64) -> Result<()> {
        self.root(&format!("date --utc --set={}", clock::utc(seconds)))
            .map(drop)
    }

    /// Lets the time source on its LAN answer (as it does from the start) or not.
    pub fn serve_time(&self, serve: bool) {
        self.machine
            .setup()
            .serves_time
            .store(serve, Ordering::Relaxed);
    }

    /// Reads a file of the boot partition, named from its root (`cmdline.txt`), while the Pi is off.
    ///
    /// # Errors
    /// When the Pi is on, or there is no such file.
    pub fn read_boot_file(&self, path: &str) -> Result<Vec<u8>> {
        self.boot_partition()?.read(path)
    }

    /// Writes a file of the boot partition while the Pi is off, as one does with a card in a PC.
    ///
    /// # Errors
    /// When the Pi is on, or the file cannot be written.
    pub fn write_boot_file(&self, path: &str, content: &[u8]) -> Result<()> {
        self.boot_partition()?.write(path, content)
    }

    fn boot_partition(&self) -> Result<BootPartition> {
        ensure!(
            !self.is_on(),
            "{} is on: its boot partition is mounted",
            self.name()
        );
        Ok(BootPartition::new(&self.boot_partition_image()))
    }

    /// The boot partition as a raw vfat image.
    #[must_use]
    pub fn boot_partition_image(&self) -> PathBuf {
        self.folder().join("boot.vfat")
    }
}

impl Drop for Pi {
    fn drop(&mut self) {
        if self.power_cut().is_ok() {
            let keep = std::env::var_os("SELFHEAL_LAB_KEEP").is_some();
            if !keep
                && let Err(error) =
                    fs::remove_dir_all(self.folder()).context("cannot remove a Pi's disks")
            {
                process::say(&format!("{error:#}"));
            }
        }
    }
}
