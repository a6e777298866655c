//! `[longhorn]`: what Longhorn finds on a node.

use super::define::{choice, section, text};
use super::diagnostic::Wrong;
use super::name::shown;

section! {
    /// What Longhorn wants of a node, where `install` of `[k3s]` is on: for all nodes in `[longhorn]`, for one in
    /// `[nodes.NAME.longhorn]`. Longhorn itself is not installed by this.
    pub struct Longhorn {
        /// Whether to get the node ready for it: iSCSI, kernel modules, no multipath, no network file systems. Without
        /// it selfheal leaves the node alone.
        prepare: bool = true,
        /// What becomes of multipathd, which takes Longhorn's disks for its own: `blacklist` lets it run and keeps it
        /// off them.
        multipath: Multipath = Multipath::Off,
        /// The node's data disk. Without one Longhorn shares the root file system.
        data: DataDisk = DataDisk::default(),
        /// Whether Longhorn makes its default disk on this node (the label `node.longhorn.io/create-default-disk`).
        default_disk: bool = false,
    }
}

section! {
    /// A disk of the node's own for Longhorn, mounted by its UUID. selfheal formats nothing.
    pub struct DataDisk {
        /// The UUID of its file system, as `blkid` shows it. Without it nothing is mounted.
        uuid: Option<FileSystemUuid> = None,
        /// Where it is mounted.
        path: MountPoint = MountPoint("/var/lib/longhorn".to_owned()),
        /// Its file system.
        fs: DataFileSystem = DataFileSystem::Ext4,
    }
}

choice! {
    /// What becomes of multipathd.
    pub enum Multipath: "a way with multipathd" {
        /// It neither runs nor starts at boot, and its socket does not start it again.
        Off = "off",
        /// It runs, but not for disks named `sd…`, as Longhorn's are.
        Blacklist = "blacklist",
        /// It stays as it is.
        Keep = "keep",
    }
}

choice! {
    /// A file system that Longhorn can keep its replicas on.
    pub enum DataFileSystem: "a file system that Longhorn works on" {
        /// ext4.
        Ext4 = "ext4",
        /// XFS.
        Xfs = "xfs",
    }
}

text! {
    /// The UUID of an ext4 or XFS file system.
    pub struct FileSystemUuid: "the UUID of a file system", Some("^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"), uuid;
}

fn uuid(text: &str) -> Result<String, Wrong> {
    let lower = text.to_ascii_lowercase();
    let groups: Vec<usize> = lower.split('-').map(str::len).collect();
    let digits = |byte: u8| byte == b'-' || byte.is_ascii_hexdigit();
    if groups == [8, 4, 4, 4, 12] && lower.bytes().all(digits) {
        return Ok(lower);
    }
    Err(Wrong::new(format!(
        "`{}` is no UUID of an ext4 or XFS file system",
        shown(text)
    ))
    .help("`sudo blkid` on the node shows it as UUID (not PARTUUID)"))
}

text! {
    /// Where a disk is mounted.
    pub struct MountPoint: "a mount point", Some("^(/[A-Za-z0-9_][A-Za-z0-9_.-]*)+$"), mount_point;
}

/// Folders of the system, on which nothing may be mounted over; what is below them may.
const TAKEN: [&str; 14] = [
    "/bin", "/boot", "/dev", "/etc", "/home", "/lib", "/opt", "/proc", "/root", "/run", "/sbin",
    "/sys", "/usr", "/var",
];

/// Folders that are not the user's to mount on, with all that is in them.
const FORBIDDEN: [&str; 9] = [
    "/boot",
    "/dev",
    "/etc",
    "/proc",
    "/run",
    "/sys",
    "/usr",
    "/var/lib/selfheal",
    "/var/lib/rancher",
];

fn mount_point(text: &str) -> Result<String, Wrong> {
    let name = |name: &str| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
        name.bytes().all(allowed)
            && name
                .bytes()
                .next()
                .is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    let Some(names) = text
        .strip_prefix('/')
        .filter(|rest| rest.split('/').all(name))
    else {
        return Err(
            Wrong::new(format!("`{}` is no mount point", shown(text))).help(
                "an absolute path of letters, digits, `_`, `.` and `-`, like `/var/lib/longhorn`",
            ),
        );
    };
    let below = |folder: &&str| {
        text.strip_prefix(*folder)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    if TAKEN.contains(&text) || names == "var/lib" || FORBIDDEN.iter().any(below) {
        return Err(
            Wrong::new(format!("`{}` belongs to the system", shown(text)))
                .help("like `/var/lib/longhorn` or `/mnt/longhorn`"),
        );
    }
    Ok(text.to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_named_by_its_file_systems_uuid() {
        let uuid = "2F1C4A50-0a3b-4c5d-8e9f-0123456789ab"
            .parse::<FileSystemUuid>()
            .unwrap();
        assert_eq!(uuid.as_str(), "2f1c4a50-0a3b-4c5d-8e9f-0123456789ab");
        for text in [
            "",
            "ab12-01",
            "1A2B-3C4D",
            "/dev/sda1",
            "2f1c4a50-0a3b-4c5d-8e9f-0123456789ag",
        ] {
            text.parse::<FileSystemUuid>().unwrap_err();
        }
    }

    #[test]
    fn nothing_is_mounted_over_the_system() {
        assert_eq!(
            DataDisk::default().path,
            "/var/lib/longhorn".parse().unwrap()
        );
        for text in [
            "/mnt/longhorn-data",
            "/data",
            "/var/lib/longhorn",
            "/srv/a.b_c",
        ] {
            text.parse::<MountPoint>().unwrap();
        }
        for text in [
            "",
            "/",
            "mnt",
            "/mnt/",
            "/mnt//a",
            "/mnt/..",
            "/mnt/a b",
            "/var",
            "/var/lib",
            "/etc/x",
            "/usr/local/x",
            "/var/lib/rancher/k3s",
            "/mnt/-a",
        ] {
            text.parse::<MountPoint>().unwrap_err();
        }
    }
}
