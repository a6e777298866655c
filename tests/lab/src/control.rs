//! The user's own lab, `cargo lab`: each Pi has a launcher process that lives as long as it and takes requests on a
//! socket in the Pi's folder.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::cache::Cache;
use crate::lab::{Lab, Options};
use crate::network::{Port, Seat};
use crate::pi::Pi;
use crate::process;
use crate::snapshot::FIRST_BOOT;

const SOCKET: &str = "control.sock";

/// What a launcher can be asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Request {
    /// How it is, as a [`Status`].
    Status,
    /// Pull the plug.
    PowerCut,
    /// Plug it in.
    PowerOn,
    /// Crash the kernel.
    Freeze,
    /// Stop the machine.
    Pause,
    /// Let it go on.
    Resume,
    /// Plug or pull its network cables.
    Network(bool),
    /// Run a script as root over the private channel.
    Root(String),
    /// End Pi and launcher.
    Down,
}

/// How a Pi is and how it is reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Its name in the lab.
    pub name: String,
    /// Whether it has power.
    pub on: bool,
    /// How often it booted.
    pub boots: u32,
    /// How often its watchdog fired.
    pub watchdog_resets: u32,
    /// Always 127.0.0.1.
    pub host: Ipv4Addr,
    /// sshd's port there.
    pub port: u16,
    /// The user to log in as.
    pub user: String,
    /// Its address on the lab's LAN.
    pub lan_address: Ipv4Addr,
    /// Its host key, a public key line of OpenSSH.
    pub host_key: String,
    /// The private key that it accepts.
    pub identity: PathBuf,
    /// A known_hosts file that holds its host key.
    pub known_hosts: PathBuf,
    /// Its disks and logs.
    pub folder: PathBuf,
}

/// The lab of this user, whatever Pis are in it.
#[derive(Debug)]
pub struct Table {
    cache: Cache,
    folder: PathBuf,
}

impl Table {
    /// Opens it.
    ///
    /// # Errors
    /// When the cache folder cannot be made.
    pub fn open() -> Result<Self> {
        let cache = Cache::open()?;
        let folder = cache.subfolder("run/table")?;
        Ok(Self { cache, folder })
    }

    /// The names of the Pis on it, running or left over.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn names(&self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                names.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
        names.sort();
        Ok(names)
    }

    /// Asks a Pi's launcher and returns its answer.
    ///
    /// # Errors
    /// When there is no such Pi, or the launcher says no.
    pub fn ask(&self, name: &str, request: &Request) -> Result<String> {
        let folder = File::open(self.folder.join(name))
            .with_context(|| format!("there is no Pi {name}; `cargo lab up {name}` boots one"))?;
        let mut stream =
            UnixStream::connect(format!("/proc/self/fd/{}/{SOCKET}", folder.as_raw_fd()))
                .with_context(|| {
                    format!("{name}'s launcher is gone; `cargo lab down {name}` clears it away")
                })?;
        writeln!(stream, "{}", serde_json::to_string(request)?)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let answer: Result<String, String> =
            serde_json::from_str(&answer).with_context(|| format!("{name}'s launcher ended"))?;
        answer.map_err(|error| anyhow::anyhow!(error))
    }

    /// How a Pi is.
    ///
    /// # Errors
    /// When there is no such Pi.
    pub fn status(&self, name: &str) -> Result<Status> {
        Ok(serde_json::from_str(&self.ask(name, &Request::Status)?)?)
    }

    /// Boots Pis that are not there yet, at the same time, each with a launcher that outlives this process.
    ///
    /// # Errors
    /// When one does not come up; the others stay.
    pub fn up(&self, names: &[String], options: &Options) -> Result<()> {
        let taken: Vec<u8> = self
            .names()?
            .iter()
            .filter_map(|name| self.status(name).ok())
            .map(|status| status.lan_address.octets()[3])
            .collect();
        let mut seats = (1..=200).filter(|seat| !taken.contains(seat));
        let lan = self.lan(taken.is_empty())?;
        let mut launchers = Vec::new();
        for name in names {
            ensure!(
                !name.is_empty()
                    && name
                        .bytes()
                        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'),
                "a Pi's name is made of letters, digits and hyphens: {name:?}"
            );
            if self.status(name).is_ok() {
                continue;
            }
            self.clear(name)?;
            let seat = seats.next().context("the table is full")?;
            let log = File::create(self.log(name))?;
            let mut launcher = Command::new("setsid");
            launcher.arg(std::env::current_exe()?).args([
                "launch",
                name,
                &seat.to_string(),
                &lan.to_string(),
            ]);
            launcher
                .args(options.arguments())
                .stdin(Stdio::null())
                .stdout(log.try_clone()?)
                .stderr(log);
            launchers.push((name, launcher.spawn().context("cannot run setsid")?));
        }
        let deadline = Instant::now() + FIRST_BOOT;
        for (name, mut launcher) in launchers {
            while self.status(name).is_err() {
                if launcher.try_wait()?.is_some() || Instant::now() > deadline {
                    let log = fs::read(self.log(name)).unwrap_or_default();
                    bail!("{name} did not come up:\n{}", process::last_lines(&log, 40));
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        Ok(())
    }

    /// Ends a Pi and its launcher, and removes what is left of it.
    ///
    /// # Errors
    /// When its folder cannot be removed.
    pub fn down(&self, name: &str) -> Result<()> {
        if self.status(name).is_ok() {
            self.ask(name, &Request::Down)?;
        }
        self.clear(name)?;
        let _ = fs::remove_file(self.log(name));
        Ok(())
    }

    /// Plays the launcher of a Pi until it is asked to end.
    ///
    /// # Errors
    /// When the Pi does not come up.
    pub fn launch(&self, name: &str, seat: u8, lan: u16, options: &Options) -> Result<()> {
        let lab = Lab::join(self.cache.clone(), self.folder.clone(), lan)?;
        let pi = lab.boot_at(name, Seat { number: seat }, options)?;
        let folder = File::open(pi.folder())?;
        let listener =
            UnixListener::bind(format!("/proc/self/fd/{}/{SOCKET}", folder.as_raw_fd()))?;
        loop {
            let (stream, _) = listener.accept()?;
            match serve(&pi, stream) {
                Ok(false) => {}
                Ok(true) => return Ok(()),
                Err(error) => process::say(&format!("a request failed: {error:#}")),
            }
        }
    }

    fn log(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.log"))
    }

    fn clear(&self, name: &str) -> Result<()> {
        let folder = self.folder.join(name);
        if folder.is_dir() {
            fs::remove_dir_all(&folder)
                .with_context(|| format!("cannot remove {}", folder.display()))?;
        }
        Ok(())
    }

    /// The port of the LAN: that of the Pis that are there, or a new one.
    fn lan(&self, fresh: bool) -> Result<u16> {
        let file = self.folder.join("lan");
        if !fresh && let Ok(number) = fs::read_to_string(&file) {
            return Ok(number.trim().parse()?);
        }
        let port = Port::reserve(&self.cache)?;
        fs::write(file, port.number.to_string())?;
        Ok(port.number)
    }
}

/// Answers one request; true when it was the last.
fn serve(pi: &Pi, mut stream: UnixStream) -> Result<bool> {
    let mut line = String::new();
    BufReader::new(stream.try_clone()?).read_line(&mut line)?;
    let request: Request = serde_json::from_str(&line)?;
    let done = |result: Result<()>| result.map(|()| String::new());
    let answer = match &request {
        Request::Status => Ok(serde_json::to_string(&status(pi))?),
        Request::PowerCut => done(pi.power_cut()),
        Request::PowerOn => done(pi.power_on()),
        Request::Freeze => done(pi.freeze()),
        Request::Pause => done(pi.pause()),
        Request::Resume => done(pi.resume()),
        Request::Network(up) => done(pi.network(*up)),
        Request::Root(script) => pi.root(script),
        Request::Down => done(pi.power_cut()),
    };
    let answer = answer.map_err(|error| format!("{error:#}"));
    stream.write_all(serde_json::to_string(&answer)?.as_bytes())?;
    Ok(request == Request::Down)
}

fn status(pi: &Pi) -> Status {
    let path = |path: &Path| path.to_owned();
    Status {
        name: pi.name().to_owned(),
        on: pi.is_on(),
        boots: pi.boots(),
        watchdog_resets: pi.watchdog_resets(),
        host: Ipv4Addr::LOCALHOST,
        port: pi.port(),
        user: "pi".to_owned(),
        lan_address: pi.lan_address(),
        host_key: pi.host_key().to_owned(),
        identity: path(pi.key()),
        known_hosts: path(pi.known_hosts()),
        folder: path(pi.folder()),
    }
}

/// An inventory for selfheal: the first of the Pis is the control plane, the others are workers.
#[must_use]
pub fn inventory(pis: &[Status], k3s: Option<&Path>) -> String {
    // Debug writes a string as a TOML basic string needs it, for what occurs in paths and keys.
    let identity = pis
        .first()
        .map(|pi| format!("identity = [{:?}]\n", pi.identity))
        .unwrap_or_default();
    let k3s = match k3s {
        Some(releases) => format!("source = {releases:?}"),
        None => "install = false".to_owned(),
    };
    let head =
        format!("[cluster]\nname = \"demo\"\n\n[ssh]\nuser = \"pi\"\n{identity}\n[k3s]\n{k3s}\n");
    let nodes = pis.iter().enumerate().map(|(index, pi)| {
        let role = if index == 0 {
            "control-plane"
        } else {
            "worker"
        };
        let Status {
            name,
            host,
            port,
            host_key,
            lan_address,
            ..
        } = pi;
        format!(
            "\n[nodes.{name}]\nhost = \"{host}\"\nport = {port}\naddress = \"{lan_address}\"\nrole = \"{role}\"\n\
             model = \"virtual\"\nhost_key = \"{host_key}\"\n"
        )
    });
    head + &nodes.collect::<String>()
}
