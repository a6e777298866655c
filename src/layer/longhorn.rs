//! What Longhorn wants of a node (domain.md §6): iSCSI with a name of its own, kernel modules, nobody who takes its
//! disks, no network file system on the control plane, and if the node has a disk for it, that one and no other.

use std::collections::BTreeMap;

use camino::Utf8PathBuf;
use minijinja::context;

use super::template::{Template, file, landing, verbatim};
use crate::inventory::{
    FileSystemUuid, Inventory, LabelKey, LabelValue, Longhorn, Multipath, Node, Role,
};
use crate::node::facts::{is_network, network_lines};
use crate::node::file::FileState;
use crate::node::ledger::{Id, Kind, LayerName};
use crate::node::probe::Questions;
use crate::node::snapshot::{Disk, Snapshot};
use crate::plan::Snapshots;
use crate::resource::change::Refusal;
use crate::resource::{Resource, Wanted};

const MODULES_FILE: Template = landing!("/etc/modules-load.d/91-selfheal-longhorn.conf");
const INITIATOR: Template = landing!("/etc/iscsi/initiatorname.iscsi");
const ISCSID_ORDER: Template = landing!("/etc/systemd/system/iscsid.service.d/50-selfheal.conf");
const BLACKLIST: Template = landing!("/etc/multipath/conf.d/90-selfheal-longhorn.conf");
const MOUNT_POINT: Template = landing!("/etc/systemd/system/selfheal-longhorn-mount-point.service");
/// Lands under the name that its mount point gives it.
const MOUNT: Template = landing!("/etc/systemd/system/var-lib-longhorn.mount");
/// Lands under the name that the disk's UUID gives it.
const DEVICE: Template =
    landing!("/etc/systemd/system/dev-disk-by\\x2duuid-UUID.device.d/50-selfheal.conf");

const MOUNT_POINT_UNIT: &str = "selfheal-longhorn-mount-point.service";
const ISCSID_FOLDER: &str = "/etc/systemd/system/iscsid.service.d";
const BLACKLIST_FOLDER: &str = "/etc/multipath/conf.d";
const FSTAB: &str = "/etc/fstab";
const SYSTEM: &str = "/etc/systemd/system";

/// What its preflight asks for. bash, util-linux, grep and awk are essential in Debian. No nfs-common: kernel NFS stops
/// a node (domain.md §8.1).
const PACKAGES: [&str; 4] = ["open-iscsi", "cryptsetup", "dmsetup", "curl"];
const MODULES: [&str; 2] = ["iscsi_tcp", "dm_crypt"];
const ISCSID: &str = "iscsid.service";
/// The socket would start the service again.
const MULTIPATHD: [&str; 2] = ["multipathd.socket", "multipathd.service"];
/// What Longhorn keeps in the folder of a disk.
const KEPT: [&str; 2] = ["longhorn-disk.cfg", "replicas"];

const LAYER: LayerName = LayerName::Longhorn;

/// Whether this layer has anything to do on the node.
fn wanted(node: &Node) -> bool {
    node.k3s.install && node.longhorn.prepare
}

/// Everything this layer may want to know.
pub(super) fn questions(node: &Node) -> Questions {
    if !wanted(node) {
        return Questions::default();
    }
    let mut files: Vec<Utf8PathBuf> = [
        MODULES_FILE.0,
        INITIATOR.0,
        ISCSID_ORDER.0,
        ISCSID_FOLDER,
        BLACKLIST.0,
        BLACKLIST_FOLDER,
        FSTAB,
    ]
    .map(Utf8PathBuf::from)
    .into();
    let mut units: Vec<String> = MULTIPATHD.map(str::to_owned).into();
    units.push(ISCSID.to_owned());
    if let Some(disk) = DataMount::of(&node.longhorn) {
        files.extend(disk.files().into_iter().chain(disk.kept()));
        files.push(disk.device_folder());
        units.extend([disk.unit(), MOUNT_POINT_UNIT.to_owned()]);
    }
    Questions {
        files: files.into_iter().collect(),
        units: units.into_iter().collect(),
        packages: PACKAGES.map(str::to_owned).into(),
        modules: MODULES.map(str::to_owned).into(),
        disks: node.longhorn.data.uuid.is_some(),
        ..Questions::default()
    }
}

/// The recipe.
pub(super) fn desired(
    inventory: &Inventory,
    node: &Node,
    snapshots: &Snapshots,
) -> Result<Vec<Resource>, Refusal> {
    let Some(snapshot) = snapshots.get(&node.name).filter(|_| wanted(node)) else {
        return Ok(Vec::new());
    };
    if let (Role::ControlPlane, Some(share)) = (node.role, share(snapshot)) {
        return Err(refuse(
            share,
            "when its server does not answer, all that touches it hangs for ever, k3s with the whole cluster among it, and \
             no watchdog sees that",
            "unmount it and take it out of /etc/fstab; copy by rsync over SSH instead, or mount it on a worker. With \
             longhorn.prepare = false selfheal does not look",
        ));
    }
    let mut resources: Vec<Resource> = PACKAGES
        .map(|name| want(Wanted::Package(name.to_owned())))
        .into();
    resources.push(verbatim(LAYER, MODULES_FILE, 0o644));
    resources.extend(MODULES.map(|name| want(Wanted::Module(name.to_owned()))));
    initiator(inventory, node, snapshots, snapshot, &mut resources)?;
    resources.push(want(Wanted::Directory(ISCSID_FOLDER.into())));
    resources.push(verbatim(LAYER, ISCSID_ORDER, 0o644));
    resources.push(want(Wanted::Running(ISCSID.to_owned())));
    multipath(node.longhorn.multipath, snapshot, &mut resources);
    if let Some(disk) = DataMount::of(&node.longhorn) {
        disk.desired(snapshot, &mut resources)?;
    }
    Ok(resources)
}

/// What the user should know of a node that is as wanted.
pub(super) fn notes(node: &Node, snapshot: &Snapshot) -> Vec<String> {
    let share = share(snapshot).filter(|_| wanted(node) && node.role == Role::Worker);
    let note = |share| {
        format!(
            "{share}: when its server does not answer, all that touches it hangs; copy by rsync over SSH instead"
        )
    };
    share.map(note).into_iter().collect()
}

/// The labels that Longhorn reads on the Node: where it makes a default disk (`createDefaultDiskLabeledNodes`).
pub fn labels(node: &Node) -> BTreeMap<LabelKey, LabelValue> {
    let disk = wanted(node) && node.longhorn.default_disk;
    let pair = (
        "node.longhorn.io/create-default-disk".parse(),
        "true".parse(),
    );
    match pair {
        (Ok(key), Ok(value)) if disk => [(key, value)].into(),
        _ => BTreeMap::new(),
    }
}

fn want(wanted: Wanted) -> Resource {
    Resource::new(LAYER, wanted)
}

fn refuse(what: impl Into<String>, reason: impl Into<String>, hint: impl Into<String>) -> Refusal {
    Refusal {
        layer: LAYER,
        what: what.into(),
        reason: reason.into(),
        hint: hint.into(),
    }
}

/// The first network file system that is mounted, or would be.
fn share(snapshot: &Snapshot) -> Option<String> {
    let mut mounts = snapshot.facts.mounts.iter();
    let mounted = mounts.find(|mount| is_network(&mount.kind)).map(|mount| {
        format!(
            "{} from {} is mounted at {}",
            mount.kind, mount.source, mount.point
        )
    });
    let line = || {
        network_lines(&fstab(snapshot))
            .next()
            .map(|line| format!("{FSTAB} has `{line}`"))
    };
    mounted.or_else(line)
}

fn fstab(snapshot: &Snapshot) -> String {
    let content = snapshot.content(FSTAB.into()).unwrap_or_default();
    String::from_utf8_lossy(content).into_owned()
}

/// Cloned cards share the name by which iSCSI tells nodes apart. The first node that has it keeps it; the others get one
/// that follows from their own name, so that it is the same after a re-flash. A node without a package has none yet:
/// iscsid makes one up when it starts for the first time.
fn initiator(
    inventory: &Inventory,
    node: &Node,
    snapshots: &Snapshots,
    snapshot: &Snapshot,
    resources: &mut Vec<Resource>,
) -> Result<(), Refusal> {
    let given = snapshot
        .ledger
        .get(&Id::new(Kind::File, INITIATOR.0))
        .is_some();
    let own = initiator_name(snapshot);
    let shared = || {
        let earlier = inventory
            .nodes
            .iter()
            .take_while(|other| other.name != node.name);
        let mut names = earlier.filter_map(|other| initiator_name(snapshots.get(&other.name)?));
        own.as_ref()
            .is_some_and(|own| names.any(|name| name == *own))
    };
    let missing = own.is_none() && snapshot.package(PACKAGES[0]).is_some();
    if given || missing || shared() {
        let hash =
            crate::node::sha256(format!("{}/{}", inventory.cluster.name, node.name).as_bytes());
        let name = format!(
            "iqn.1993-08.org.debian:01:{}",
            hash.get(..12).unwrap_or(&hash)
        );
        resources.push(file(LAYER, INITIATOR, 0o600, context! { name })?);
    }
    Ok(())
}

/// The name that iscsid would take: that of the last such line.
fn initiator_name(snapshot: &Snapshot) -> Option<String> {
    let content = String::from_utf8_lossy(snapshot.content(INITIATOR.0.into())?).into_owned();
    let mut names = content.lines().filter_map(|line| {
        let name = line
            .trim()
            .strip_prefix("InitiatorName")?
            .trim_start()
            .strip_prefix('=')?
            .trim();
        (!name.is_empty()).then(|| name.to_owned())
    });
    names.next_back()
}

/// multipathd takes each new disk named `sd…` for a path to one of its own; the mount then finds it busy.
fn multipath(choice: Multipath, snapshot: &Snapshot, resources: &mut Vec<Resource>) {
    match choice {
        Multipath::Off => {
            resources.extend(MULTIPATHD.map(|unit| want(Wanted::Stopped(unit.to_owned()))));
        }
        Multipath::Blacklist if snapshot.unit(MULTIPATHD[1]).loaded => {
            resources.push(want(Wanted::Directory(BLACKLIST_FOLDER.into())));
            resources.push(verbatim(LAYER, BLACKLIST, 0o644));
        }
        Multipath::Blacklist | Multipath::Keep => {}
    }
}

/// A declared data disk.
struct DataMount<'a> {
    uuid: &'a FileSystemUuid,
    path: &'a str,
    fs: &'static str,
}

impl<'a> DataMount<'a> {
    fn of(settings: &'a Longhorn) -> Option<DataMount<'a>> {
        Some(DataMount {
            uuid: settings.data.uuid.as_ref()?,
            path: settings.data.path.as_str(),
            fs: settings.data.fs.as_str(),
        })
    }

    /// The mount unit, which has to be called after its mount point (systemd.mount(5)).
    fn unit(&self) -> String {
        format!("{}.mount", escaped(self.path))
    }

    /// The part of a unit's name that stands for the device.
    fn device(&self) -> String {
        escaped(&format!("/dev/disk/by-uuid/{}", self.uuid))
    }

    fn device_folder(&self) -> Utf8PathBuf {
        format!("{SYSTEM}/{}.device.d", self.device()).into()
    }

    /// Where the templates of mount point, mount and device land.
    fn files(&self) -> [Utf8PathBuf; 3] {
        [
            MOUNT_POINT.0.into(),
            format!("{SYSTEM}/{}", self.unit()).into(),
            self.device_folder().join("50-selfheal.conf"),
        ]
    }

    fn kept(&self) -> [Utf8PathBuf; 2] {
        KEPT.map(|name| Utf8PathBuf::from(self.path).join(name))
    }

    fn desired(&self, snapshot: &Snapshot, resources: &mut Vec<Resource>) -> Result<(), Refusal> {
        self.check(snapshot)?;
        let [mount_point, mount, device] = self.files();
        let values = context! {
            path => self.path, fs => self.fs, uuid => self.uuid.as_str(), device => self.device(),
        };
        resources.push(want(Wanted::Directory(self.device_folder())));
        for (path, template) in [
            (mount_point, MOUNT_POINT.1),
            (mount, MOUNT.1),
            (device, DEVICE.1),
        ] {
            let resource = file(LAYER, (MOUNT.0, template), 0o644, values.clone())?;
            if let Wanted::File { content, mode, .. } = resource.wanted {
                resources.push(want(Wanted::File {
                    path,
                    content,
                    mode,
                }));
            }
        }
        resources.push(want(Wanted::Running(MOUNT_POINT_UNIT.to_owned())));
        resources.push(want(Wanted::Running(self.unit())));
        Ok(())
    }

    /// selfheal formats nothing, and mounts over nothing that is in use.
    fn check(&self, snapshot: &Snapshot) -> Result<(), Refusal> {
        let is_ours = |disk: &&Disk| disk.uuid == self.uuid.as_str();
        let Some(disk) = snapshot.disks.iter().find(is_ours) else {
            let seen = match &snapshot.disks[..] {
                [] => "blkid shows no disk at all".to_owned(),
                disks => format!(
                    "blkid shows {}",
                    disks.iter().map(shown).collect::<Vec<_>>().join(", ")
                ),
            };
            return Err(refuse(
                self.what(),
                format!("the node has no such file system; {seen}"),
                format!(
                    "attach the disk, or make a file system on it (`sudo mkfs.{} DEVICE` erases it) and put its UUID \
                         into longhorn.data.uuid",
                    self.fs
                ),
            ));
        };
        if disk.kind != self.fs {
            return Err(refuse(
                self.what(),
                format!("{} is {}, not {}", disk.device, disk.kind, self.fs),
                "say in longhorn.data.fs what it is: ext4 or xfs",
            ));
        }
        let mounts = &snapshot.facts.mounts;
        let elsewhere = |point: &str| {
            mounts
                .iter()
                .find(|mount| mount.source == disk.device && mount.point != point)
        };
        if let Some(mount) = elsewhere(self.path) {
            return Err(refuse(
                self.what(),
                format!("{} is mounted at {}", disk.device, mount.point),
                "unmount it there, or name that place in longhorn.data.path",
            ));
        }
        let lines = fstab(snapshot);
        let mut lines = lines.lines().filter(|line| {
            !line.trim_start().starts_with('#') && line.split_whitespace().nth(1) == Some(self.path)
        });
        if let Some(line) = lines.next() {
            return Err(refuse(
                self.what(),
                format!("{FSTAB} mounts something there already: `{}`", line.trim()),
                "take the line out and let selfheal mount it, or leave longhorn.data out",
            ));
        }
        match snapshot.facts.mount(self.path) {
            Some(mount) if mount.source != disk.device => Err(refuse(
                self.what(),
                format!("{} is mounted there", mount.source),
                "stop k3s, unmount it, and run again",
            )),
            Some(_) => Ok(()),
            None => self.is_empty(snapshot),
        }
    }

    fn is_empty(&self, snapshot: &Snapshot) -> Result<(), Refusal> {
        let kept = self.kept();
        match kept
            .iter()
            .find(|path| *snapshot.file(path) != FileState::Absent)
        {
            Some(path) => Err(refuse(
                self.what(),
                format!(
                    "Longhorn has data there already, on the root file system ({path}), which the mount would hide"
                ),
                "evict this node's replicas in Longhorn and move the folder away, then run again",
            )),
            None => Ok(()),
        }
    }

    fn what(&self) -> String {
        format!("disk {} at {}", self.uuid, self.path)
    }
}

fn shown(disk: &Disk) -> String {
    match disk.uuid.as_str() {
        "" => format!("{} ({})", disk.device, disk.kind),
        uuid => format!("{} ({}, {uuid})", disk.device, disk.kind),
    }
}

/// A path as a part of a unit's name (systemd.unit(5)): its letters are those that [`crate::inventory::MountPoint`]
/// allows.
fn escaped(path: &str) -> String {
    path.trim_start_matches('/')
        .replace('-', "\\x2d")
        .replace('/', "-")
}
