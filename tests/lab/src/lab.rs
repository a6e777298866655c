//! A lab: virtual Pis on one LAN.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;

use crate::cache::Cache;
use crate::identity::Identity;
use crate::image::Image;
use crate::network::{Port, Seat};
use crate::pi::{BOOT, Pi};
use crate::qemu::{Machine, Setup, Start};
use crate::snapshot::{self, FIRST_BOOT, MEMORY_MIB, Snapshot};
use crate::{process, repository, ubuntu};

/// How the boot partition of a Pi is laid out, with all that belongs to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Layout {
    /// One cmdline.txt beside config.txt, as on Raspberry Pi OS.
    #[default]
    RaspberryPiOs,
    /// `current/`, `new/` and `old/` as on Ubuntu 25.10 and later; the Pi also says that it is Ubuntu 25.10.
    Ubuntu,
}

/// How a Pi is to be.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct Options {
    /// RAM in MiB; there is a RAM snapshot for each size, made when it is first wanted
    #[arg(long, default_value_t = MEMORY_MIB)]
    pub memory_mib: u32,
    /// The memory cgroup is on from the first boot, as k3s needs it and as selfheal's boot layer makes it
    #[arg(long)]
    pub memory_cgroup: bool,
    /// Boot instead of going on from the RAM snapshot
    #[arg(long)]
    pub cold: bool,
    /// How it boots, and which system it says it is
    #[arg(long, value_enum, default_value_t)]
    pub layout: Layout,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            memory_mib: MEMORY_MIB,
            memory_cgroup: false,
            cold: false,
            layout: Layout::default(),
        }
    }
}

impl Options {
    /// For a Pi that k3s can be installed on as it is.
    #[must_use]
    pub fn for_k3s() -> Self {
        Self {
            memory_mib: 1024,
            memory_cgroup: true,
            ..Self::default()
        }
    }

    /// The arguments that say the same.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let mut arguments = vec![format!("--memory-mib={}", self.memory_mib)];
        arguments.extend(self.memory_cgroup.then(|| "--memory-cgroup".to_owned()));
        arguments.extend(self.cold.then(|| "--cold".to_owned()));
        let layout = self.layout.to_possible_value();
        arguments.extend(layout.map(|layout| format!("--layout={}", layout.get_name())));
        arguments
    }

    /// What of it a Pi has from the RAM snapshot that it starts from.
    fn of_snapshot(&self) -> Self {
        Self {
            cold: false,
            ..self.clone()
        }
    }
}

/// A table with virtual Pis on it that share a LAN, apart from all other labs' LANs.
#[derive(Debug)]
pub struct Lab {
    cache: Cache,
    image: Image,
    repository: PathBuf,
    fresh: Mutex<Vec<(Options, Fresh)>>,
    folder: PathBuf,
    lan: Port,
    seats: AtomicU8,
    /// Held while the lab is in use; a folder whose lock is free was left behind.
    _lock: Option<File>,
}

/// What fresh Pis of one kind start from.
#[derive(Debug, Clone)]
struct Fresh {
    image: Image,
    snapshot: Snapshot,
}

static LABS: AtomicU32 = AtomicU32::new(0);

impl Lab {
    /// A lab for a test, gone with the value. Whatever the cache lacks is built first, or where a Pi needs it.
    ///
    /// # Errors
    /// When something cannot be built; the text says what to do.
    pub fn new() -> Result<Self> {
        let cache = Cache::open()?;
        let labs = cache.subfolder("run")?;
        remove_left_behind(&labs);
        let folder = labs.join(format!(
            "test-{}-{}",
            std::process::id(),
            LABS.fetch_add(1, Ordering::Relaxed)
        ));
        fs::create_dir_all(&folder)?;
        let lock = File::create(folder.join("lock"))?;
        lock.lock()?;
        let lan = Port::reserve(&cache)?;
        let lab = Self::assemble(cache, folder.clone(), lan, Some(lock));
        if lab.is_err() {
            let _ = fs::remove_dir_all(folder);
        }
        lab
    }

    /// The user's own lab, of which each process holds one Pi; `lan` is the port that they share.
    pub(crate) fn join(cache: Cache, folder: PathBuf, lan: u16) -> Result<Self> {
        let lan = Port::join(&cache, lan)?;
        Self::assemble(cache, folder, lan, None)
    }

    fn assemble(cache: Cache, folder: PathBuf, lan: Port, lock: Option<File>) -> Result<Self> {
        let image = Image::ensure(&cache)?;
        let repository = repository::ensure(&cache, &image)?;
        Ok(Self {
            cache,
            image,
            repository,
            fresh: Mutex::default(),
            folder,
            lan,
            seats: AtomicU8::new(1),
            _lock: lock,
        })
    }

    /// Builds what Pis of this kind start from, if the cache lacks it.
    ///
    /// # Errors
    /// When it cannot be built; the text says what to do.
    pub fn prepare(&self, options: &Options) -> Result<()> {
        self.fresh(options).map(drop)
    }

    fn fresh(&self, options: &Options) -> Result<Fresh> {
        let kind = options.of_snapshot();
        let mut all = self.fresh.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, fresh)) = all.iter().find(|(of, _)| *of == kind) {
            return Ok(fresh.clone());
        }
        let mut image = match kind.layout {
            Layout::RaspberryPiOs => self.image.clone(),
            Layout::Ubuntu => ubuntu::ensure(&self.cache, &self.image)?,
        };
        if kind.memory_cgroup {
            image = image.with_memory_cgroup(&self.cache)?;
        }
        let snapshot = Snapshot::ensure(&self.cache, &image, kind.memory_mib)?;
        let fresh = Fresh { image, snapshot };
        all.push((kind, fresh.clone()));
        Ok(fresh)
    }

    /// A fresh Pi, ready for a login.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn boot(&self, name: &str) -> Result<Pi> {
        self.boot_with(name, &Options::default())
    }

    /// A fresh Pi that is somehow special.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn boot_with(&self, name: &str, options: &Options) -> Result<Pi> {
        let seat = Seat {
            number: self.seats.fetch_add(1, Ordering::Relaxed),
        };
        ensure!(seat.number <= 200, "this lab's table is full");
        self.boot_at(name, seat, options)
            .with_context(|| format!("cannot boot the virtual Pi {name}"))
    }

    pub(crate) fn boot_at(&self, name: &str, seat: Seat, options: &Options) -> Result<Pi> {
        let Fresh { image, snapshot } = self.fresh(options)?;
        let folder = self.folder.join(name);
        fs::create_dir(&folder).with_context(|| {
            format!("there is a Pi of that name already ({})", folder.display())
        })?;
        if options.cold {
            snapshot::lay_disks(&image.disk(), &image.boot_partition(), &folder)?;
        } else {
            snapshot::lay_disks(&snapshot.disk(), &snapshot.boot_partition(), &folder)?;
        }
        let port = Port::reserve(&self.cache)?;
        let identity = Identity::new(&folder)?;
        let known_hosts = folder.join("known_hosts");
        fs::write(
            &known_hosts,
            format!("[127.0.0.1]:{} {}\n", port.number, identity.host_key),
        )?;
        let machine = Machine::new(Setup {
            name: name.to_owned(),
            folder,
            image: image.clone(),
            repository: Some(self.repository.clone()),
            accelerator: snapshot.accelerator,
            memory_mib: options.memory_mib,
            ssh_port: port.number,
            lan_port: self.lan.number,
            seat,
            serves_time: Arc::new(AtomicBool::new(true)),
        });
        let ssh = crate::ssh::Ssh {
            port: port.number,
            key: image.key(),
            known_hosts,
        };
        let pi = Pi {
            machine,
            identity,
            ssh,
            _port: port,
        };

        let ram = (!options.cold).then(|| snapshot.ram());
        pi.machine.power_on(Start {
            snapshot: ram,
            ..Start::default()
        })?;
        if options.cold {
            snapshot::settle(&pi.machine, FIRST_BOOT)?;
        }
        pi.root(&pi.identity.script(seat))?;
        pi.wait_for_ssh(BOOT)?;
        Ok(pi)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // A Pi that lives on still has its disks in there.
        let _ = fs::remove_file(self.folder.join("lock"));
        let _ = fs::remove_dir(&self.folder);
    }
}

/// Removes the folders of tests that were killed.
fn remove_left_behind(labs: &Path) {
    for entry in fs::read_dir(labs).into_iter().flatten().flatten() {
        let is_test = entry.file_name().as_encoded_bytes().starts_with(b"test-");
        let lock = File::open(entry.path().join("lock"));
        if is_test
            && lock.is_ok_and(|lock| lock.try_lock().is_ok())
            && fs::remove_dir_all(entry.path()).is_ok()
        {
            process::say(&format!(
                "removed {}, which a killed test left behind",
                entry.path().display()
            ));
        }
    }
}
