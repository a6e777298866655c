//! The image of a fresh Pi: packages, kernel, disks. `tests/lab/guest` holds what lies in it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::cache::{Cache, Recipe};
use crate::firmware::BootPartition;
use crate::mirror::{self, Apt};
use crate::process;

/// What a Pi is booted from.
#[derive(Debug, Clone)]
pub struct Image {
    folder: PathBuf,
    /// Where root file system and boot partition are.
    disks: PathBuf,
    base: PathBuf,
    /// What it was made from; whoever builds on the image adds to it.
    pub(crate) recipe: Recipe,
}

impl Image {
    /// The image for the lab's guests, built if the cache has none (about a minute).
    ///
    /// # Errors
    /// When a tool is missing, the mirror does not answer, or a step of the build fails.
    pub fn ensure(cache: &Cache) -> Result<Self> {
        let guest = guest_folder();
        let sources = mirror::sources_list()?;
        let base_recipe = Recipe::default()
            .with(&sources)
            .with_path(&guest.join("base.sh"))?
            .with_path(&guest.join("packages.txt"))?;
        let base = cache.artefact("base", &base_recipe, |out| {
            build_base(&guest, &sources, out)
        })?;
        let recipe = base_recipe
            .with(include_str!("image.rs"))
            .with_path(&guest)?;
        let folder = cache.artefact("image", &recipe, |out| {
            build_image(&guest, &sources, &base, out)
        })?;
        Ok(Self {
            disks: folder.clone(),
            folder,
            base,
            recipe,
        })
    }

    /// The same with other disks: a folder with root.qcow2 and boot.vfat.
    pub(crate) fn with_disks(&self, disks: PathBuf, recipe: Recipe) -> Self {
        Self {
            disks,
            recipe,
            ..self.clone()
        }
    }

    /// The same with the memory cgroup on.
    ///
    /// # Errors
    /// When the boot partition cannot be written.
    pub(crate) fn with_memory_cgroup(&self, cache: &Cache) -> Result<Self> {
        let recipe = self.recipe.clone().with("memory cgroup");
        let disks = cache.artefact("memory-cgroup", &recipe, |out| {
            process::output(
                Command::new("ln")
                    .arg(self.disk())
                    .arg(out.join("root.qcow2")),
            )?;
            fs::copy(self.boot_partition(), out.join("boot.vfat"))?;
            BootPartition::new(&out.join("boot.vfat")).add_to_command_line("cgroup_enable=memory")
        })?;
        Ok(self.with_disks(disks, recipe))
    }

    /// The root file system, to be used as a backing file only.
    #[must_use]
    pub fn disk(&self) -> PathBuf {
        self.disks.join("root.qcow2")
    }

    /// The boot partition as it comes fresh.
    #[must_use]
    pub fn boot_partition(&self) -> PathBuf {
        self.disks.join("boot.vfat")
    }

    /// The uncompressed kernel.
    #[must_use]
    pub fn kernel(&self) -> PathBuf {
        self.folder.join("vmlinux")
    }

    /// The initramfs.
    #[must_use]
    pub fn initrd(&self) -> PathBuf {
        self.folder.join("initrd.cpio")
    }

    /// The private key that user `pi` accepts.
    #[must_use]
    pub fn key(&self) -> PathBuf {
        self.folder.join("id_ed25519")
    }

    /// A static busybox; its httpd serves the apt repository.
    #[must_use]
    pub fn busybox(&self) -> PathBuf {
        self.folder.join("busybox/bin/busybox")
    }

    /// The packages installed in it, as dpkg's status file.
    pub(crate) fn dpkg_status(&self) -> Result<Vec<u8>> {
        dpkg_status(&self.base)
    }
}

pub(crate) fn guest_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("guest")
}

fn dpkg_status(base: &Path) -> Result<Vec<u8>> {
    process::output(
        Command::new("tar")
            .arg("-xOf")
            .arg(base.join("base.tar"))
            .arg("./var/lib/dpkg/status"),
    )
}

fn build_base(guest: &Path, sources: &str, out: &Path) -> Result<()> {
    process::say("installing Debian for the virtual Pis (once, about a minute)");
    fs::write(out.join("sources.list"), sources)?;
    fs::write(out.join("apt.conf"), mirror::proxies()?)?;
    process::output(
        Command::new(guest.join("base.sh"))
            .arg(out.join("sources.list"))
            .arg(out.join("apt.conf"))
            .arg(guest.join("packages.txt"))
            .arg(out.join("base.tar")),
    )?;
    Ok(())
}

fn build_image(guest: &Path, sources: &str, base: &Path, out: &Path) -> Result<()> {
    process::say("building the image of a fresh Pi (once, about 20 seconds)");
    let apt = Apt::new(&out.join("apt"), sources, &dpkg_status(base)?)?;
    let (kernel, busybox) = (out.join("kernel"), out.join("busybox"));
    apt.unpack(&apt.dependency("linux-image-amd64")?, &kernel)?;
    apt.unpack("busybox-static", &busybox)?;

    process::output(
        as_root(&guest.join("image.sh"))?
            .arg(base.join("base.tar"))
            .args([&kernel, &busybox])
            .arg(out),
    )?;

    let boot = fs::read_dir(kernel.join("boot"))?
        .filter_map(Result::ok)
        .find(|entry| {
            entry
                .file_name()
                .as_encoded_bytes()
                .starts_with(b"vmlinuz-")
        })
        .context("the kernel package holds no vmlinuz")?;
    fs::write(
        out.join("vmlinux"),
        uncompressed(&fs::read(boot.path())?, out)?,
    )?;
    fs::remove_dir_all(kernel)?;
    fs::remove_dir_all(out.join("apt"))?;
    Ok(())
}

/// A script to be run as root, or as if by root.
pub(crate) fn as_root(script: &Path) -> Result<Command> {
    if process::text(Command::new("id").arg("-u"))?.trim() == "0" {
        return Ok(Command::new(script));
    }
    let mut fakeroot = Command::new("fakeroot");
    fakeroot.arg(script);
    Ok(fakeroot)
}

/// The ELF kernel inside a bzImage, so that software emulation need not run the decompressor. Offsets are those of the
/// x86 boot protocol: setup_sects at 0x1f1, payload_offset and payload_length at 0x248 and 0x24c.
fn uncompressed(image: &[u8], scratch: &Path) -> Result<Vec<u8>> {
    let field = |at: usize| -> Result<usize> {
        let bytes: [u8; 4] = image
            .get(at..at + 4)
            .and_then(|b| b.try_into().ok())
            .context("no kernel image")?;
        Ok(u32::from_le_bytes(bytes) as usize)
    };
    let setup_sectors = usize::from(*image.get(0x1f1).context("no kernel image")?);
    let start = (setup_sectors + 1) * 512 + field(0x248)?;
    let payload = image
        .get(start..start + field(0x24c)?)
        .context("the kernel image is cut short")?;
    // The payload ends with its uncompressed size, which no decompressor knows of.
    let payload = payload
        .get(..payload.len().saturating_sub(4))
        .unwrap_or_default();
    let tool: &[&str] = match payload {
        [0xfd, b'7', b'z', b'X', b'Z', ..] => &["xz", "--decompress", "--stdout"],
        [0x28, 0xb5, 0x2f, 0xfd, ..] => &["zstd", "--decompress", "--stdout", "--quiet"],
        [0x1f, 0x8b, ..] => &["gzip", "--decompress", "--stdout"],
        _ => bail!("the kernel is compressed in a way the lab does not know"),
    };
    let file = scratch.join("kernel.payload");
    fs::write(&file, payload)?;
    let kernel = process::output(
        Command::new(tool[0])
            .args(&tool[1..])
            .stdin(fs::File::open(&file)?)
            .arg(&file),
    )?;
    fs::remove_file(file)?;
    ensure!(
        kernel.starts_with(b"\x7fELF"),
        "the kernel image holds no ELF kernel"
    );
    Ok(kernel)
}
