//! A node on paper.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use selfheal::node::ledger::{self, Id, Kind, Ledger, original_of};
use selfheal::plan::NodePlan;
use selfheal::resource::change::{Action, Effect, Expect};
use selfheal::resource::k3s::{Asset, Origin, WantedSecret};

#[derive(Debug, Clone, PartialEq, Eq)]
struct File {
    mode: u32,
    owner: String,
    content: Vec<u8>,
}

/// What a node holds, as far as selfheal asks.
#[derive(Debug, Clone, PartialEq)]
pub struct PaperNode {
    files: BTreeMap<String, File>,
    links: BTreeMap<String, String>,
    folders: BTreeSet<String>,
    units: BTreeMap<String, (bool, bool)>,
    packages: BTreeMap<String, bool>,
    sysctls: BTreeMap<String, String>,
    modules: BTreeSet<String>,
    hostname: String,
    swap: bool,
    booted: String,
    /// What systemd took from its own settings.
    manager: BTreeMap<String, String>,
    /// What else the probe is told.
    facts: BTreeMap<String, String>,
    /// Why it is in safe mode.
    pub safe_mode: Option<String>,
    /// Drop-ins of systemd that speak of watchdogs.
    pub drop_ins: Vec<String>,
    ledger: Ledger,
    /// Other frames of its answer, by their header.
    pub frames: BTreeMap<String, String>,
    /// Boot files written since the last boot.
    written: BTreeSet<String>,
    /// A token with which a trial boot fails.
    fails_with: Option<String>,
}

const LINE_FILE: &str = "/boot/firmware/cmdline.txt";
const CURRENT: &str = "/boot/firmware/current/cmdline.txt";
const NEW: &str = "/boot/firmware/new/cmdline.txt";
const NEW_STATE: &str = "/boot/firmware/new/state";
const WRITTEN: &str = "/run/selfheal/boot-line";

const LINE: &str = "console=serial0,115200 console=tty1 root=PARTUUID=ab-02 rootfstype=ext4 fsck.repair=yes rootwait\n";

impl PaperNode {
    /// Raspberry Pi OS bookworm, freshly flashed.
    pub fn raspberry_pi_os() -> PaperNode {
        let mut node = PaperNode {
            files: BTreeMap::new(),
            links: BTreeMap::new(),
            folders: ["/etc/systemd", "/usr/local", "/var/log"]
                .map(str::to_owned)
                .into(),
            units: BTreeMap::new(),
            packages: [
                ("systemd-timesyncd".to_owned(), false),
                ("raspi-firmware".to_owned(), false),
            ]
            .into(),
            sysctls: [
                ("kernel.panic", "0"),
                ("kernel.panic_on_oops", "0"),
                ("kernel.softlockup_panic", "0"),
                ("kernel.hung_task_timeout_secs", "120"),
                ("kernel.hung_task_panic", "0"),
                ("kernel.hung_task_warnings", "10"),
                ("kernel.panic_on_rcu_stall", "0"),
                ("kernel.max_rcu_stall_to_panic", "0"),
                ("vm.swappiness", "60"),
                ("vm.overcommit_memory", "0"),
                ("vm.panic_on_oom", "0"),
                ("net.ipv4.ip_forward", "0"),
                ("fs.inotify.max_user_instances", "128"),
            ]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
            modules: BTreeSet::new(),
            hostname: "raspberrypi".to_owned(),
            swap: true,
            booted: LINE.trim().to_owned(),
            manager: BTreeMap::new(),
            facts: [
                (
                    "watchdog",
                    "identity Broadcom BCM2835 Watchdog timer\nmax_timeout 0\n",
                ),
                ("rcu-exp-cpu-stall-timeout", "0\n"),
            ]
            .map(|(name, text)| (name.to_owned(), text.to_owned()))
            .into(),
            safe_mode: None,
            drop_ins: Vec::new(),
            ledger: Ledger::default(),
            frames: [("file /dev/watchdog0", "special")]
                .map(|(header, content)| (header.to_owned(), content.to_owned()))
                .into(),
            written: BTreeSet::new(),
            fails_with: None,
        };
        node.unit("dphys-swapfile.service", true, true);
        node.unit("bluetooth.service", true, true);
        node.unit("systemd-timesyncd.service", true, true);
        node.write(
            "/etc/hosts",
            "127.0.0.1\tlocalhost\n127.0.1.1\traspberrypi\n",
        );
        node.write("/etc/hostname", "raspberrypi\n");
        node.write("/etc/fstab", "PARTUUID=ab-02 / ext4 defaults,noatime 0 1\n");
        node.write("/boot/firmware/cmdline.txt", LINE);
        node.write("/boot/firmware/config.txt", "[all]\narm_64bit=1\n");
        node
    }

    /// Raspberry Pi OS trixie: another kind of swap.
    pub fn trixie() -> PaperNode {
        let mut node = PaperNode::raspberry_pi_os();
        node.units.remove("dphys-swapfile.service");
        node.folders.insert("/etc/rpi".to_owned());
        node.swap = false;
        node
    }

    /// Ubuntu: chrony keeps the time, a swap file is in fstab, the boot layout is the old one.
    pub fn ubuntu() -> PaperNode {
        let mut node = PaperNode::raspberry_pi_os();
        node.units.remove("dphys-swapfile.service");
        node.units.remove("systemd-timesyncd.service");
        // An old driver, a threshold meant for telephones, and a disk.
        let fact = |name: &str, text: &str| (name.to_owned(), text.to_owned());
        node.facts.extend([
            fact(
                "watchdog",
                "identity Broadcom BCM2835 Watchdog timer\nmax_timeout 15\n",
            ),
            fact("rcu-exp-cpu-stall-timeout", "20\n"),
        ]);
        node.packages = [
            ("chrony".to_owned(), false),
            ("linux-raspi".to_owned(), false),
        ]
        .into();
        node.write(
            "/etc/fstab",
            "LABEL=writable / ext4 defaults 0 1\n/swapfile none swap sw 0 0\n",
        );
        node.unit("multipathd.service", true, true);
        node.unit("multipathd.socket", true, true);
        node
    }

    /// Ubuntu 25.10 and later: two sets of boot files, and a trial of what is new.
    pub fn ubuntu_ab() -> PaperNode {
        let mut node = PaperNode::ubuntu();
        node.files.remove(LINE_FILE);
        node.write(CURRENT, LINE);
        node.write("/boot/firmware/current/state", "good\n");
        node.write(
            "/boot/firmware/config.txt",
            "[all]\nos_prefix=current/\n[tryboot]\nos_prefix=new/\n[all]\ncmdline=cmdline.txt\n",
        );
        node
    }

    /// What `flash-kernel` does, by hand or for a kernel upgrade.
    pub fn flash_kernel(&mut self) {
        let line = self.text(CURRENT);
        self.write(NEW, &line);
        self.write(NEW_STATE, "unknown\n");
    }

    /// Somebody edits what waits for its trial.
    pub fn set_new_line(&mut self, line: &str) {
        self.write(NEW, line);
    }

    /// How the second set stands.
    pub fn set_new_state(&mut self, state: &str) {
        self.write(NEW_STATE, state);
    }

    /// From now on no trial boot with this token comes up.
    pub fn fail_with(&mut self, token: &str) {
        self.fails_with = Some(token.to_owned());
    }

    /// What `apply` notes when a trial was rejected before its eyes.
    pub fn note_rejected(&mut self, sha256: &str) {
        self.write("/var/lib/selfheal/boot-rejected", &format!("{sha256}\n"));
    }

    /// The line that it was booted with.
    pub fn booted(&self) -> &str {
        &self.booted
    }

    /// The content of a file; nothing where there is none.
    pub fn text(&self, path: &str) -> String {
        let content = self.files.get(path).map(|file| file.content.clone());
        String::from_utf8(content.unwrap_or_default()).unwrap()
    }

    /// Reboots, twice if the first boot finds something to be tried.
    pub fn reboot(&mut self) {
        self.files.remove(WRITTEN);
        self.written.clear();
        if self.text(NEW_STATE) == "unknown\n" {
            let line = self.text(NEW);
            let fails = |token: &String| line.split_whitespace().any(|word| word == token);
            if self.fails_with.as_ref().is_some_and(fails) {
                self.write(NEW_STATE, "bad\n");
            } else {
                self.write(CURRENT, &line);
                self.files.remove(NEW);
                self.files.remove(NEW_STATE);
            }
        }
        let file = if self.files.contains_key(CURRENT) {
            CURRENT
        } else {
            LINE_FILE
        };
        self.booted = self.text(file).trim().to_owned();
    }

    /// Puts a unit there.
    pub fn unit(&mut self, name: &str, enabled: bool, active: bool) {
        self.units.insert(name.to_owned(), (enabled, active));
    }

    pub fn write(&mut self, path: &str, text: &str) {
        let file = File {
            mode: 0o644,
            owner: "root".to_owned(),
            content: text.as_bytes().to_vec(),
        };
        self.files.insert(path.to_owned(), file);
    }

    /// Writes a file as its user would.
    pub fn rewrite(&mut self, path: &str, text: &str) {
        self.write(path, text);
    }

    /// Boots it with another line.
    pub fn boot_with(&mut self, line: &str) {
        self.write("/boot/firmware/cmdline.txt", line);
        self.reboot();
    }

    /// Puts a symbolic link there.
    pub fn link(&mut self, path: &str, target: &str) {
        self.links.insert(path.to_owned(), target.to_owned());
    }

    /// Puts files, folders and the ledger below a folder of this machine's.
    pub fn lay_out(&self, root: &Path) {
        let below = |path: &str| root.join(path.trim_start_matches('/'));
        for folder in &self.folders {
            fs::create_dir_all(below(folder)).unwrap();
        }
        let ledger = self.ledger.to_string();
        let files = self
            .files
            .iter()
            .map(|(path, file)| (path.as_str(), file.mode, &file.content[..]));
        for (path, mode, content) in files.chain([(ledger::PATH, 0o600, ledger.as_bytes())]) {
            let path = below(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        }
    }

    /// Takes what [`PaperNode::lay_out`] put there as it is now.
    pub fn read_back(&mut self, root: &Path) {
        let below = |path: &str| root.join(path.trim_start_matches('/'));
        for (path, file) in &mut self.files {
            let path = below(path);
            file.content = fs::read(&path).unwrap();
            file.mode = fs::metadata(&path).unwrap().permissions().mode() & 0o7777;
        }
        self.ledger = Ledger::parse(&fs::read_to_string(below(ledger::PATH)).unwrap());
    }

    /// The kernel that runs.
    pub fn kernel(&mut self, release: &str) {
        self.fact("kernel", &format!("{release}\n"));
    }

    /// What the probe is told under this name.
    pub fn fact(&mut self, name: &str, text: &str) {
        self.facts.insert(name.to_owned(), text.to_owned());
    }

    /// Sets a sysctl's runtime value.
    pub fn sysctl(&mut self, key: &str, value: &str) {
        self.sysctls.insert(key.to_owned(), value.to_owned());
    }

    /// The sysctls' runtime values.
    pub fn sysctls(&self) -> &BTreeMap<String, String> {
        &self.sysctls
    }

    /// systemd obeys its defaults, whatever its files say.
    pub fn forget_manager(&mut self) {
        self.manager.clear();
    }

    /// Packages and modules stay on a node that selfheal leaves, and so do units that came with a package.
    pub fn forget_what_stays(&mut self) {
        self.files.remove(WRITTEN);
        let fresh = PaperNode::raspberry_pi_os();
        self.packages
            .retain(|name, _| fresh.packages.contains_key(name));
        self.units.retain(|name, _| fresh.units.contains_key(name));
        self.modules.clear();
        let stalls = "kernel.max_rcu_stall_to_panic";
        self.sysctl(stalls, &fresh.sysctls[stalls]);
        self.files
            .retain(|path, _| !path.starts_with("/var/lib/selfheal/"));
    }

    /// The reply to a probe script.
    pub fn answer(&self, script: &str) -> Vec<u8> {
        let nonce = script
            .split("nonce=")
            .nth(1)
            .unwrap()
            .split(' ')
            .next()
            .unwrap();
        let mut reply = Vec::new();
        let mut frame = |header: &str, content: &[u8]| {
            reply.extend(format!("\n@{nonce} {header}\n").into_bytes());
            reply.extend(content);
        };
        frame("begin", b"");
        frame("fact user", b"0\n");
        frame("fact kernel", b"6.12.34+rpt-rpi-2712\n");
        frame("fact hostname", format!("{}\n", self.hostname).as_bytes());
        frame("fact boot-id", b"7c1f\n");
        frame(
            "fact command-line",
            format!("psi=0 cgroup_disable=memory {}\n", self.booted).as_bytes(),
        );
        let effect = |token: &str| self.booted.split(' ').any(|word| word == token);
        frame(
            "fact cgroup-controllers",
            if effect("cgroup_enable=memory") {
                b"cpu memory"
            } else {
                b"cpu"
            },
        );
        frame("fact psi", if effect("psi=1") { b"yes" } else { b"" });
        frame(
            "fact mounts",
            b"25 1 179:1 / /boot/firmware rw,relatime shared:1 - vfat /dev/mmcblk0p1 rw\n\
              24 1 179:2 / / rw,noatime shared:1 - ext4 /dev/root rw\n",
        );
        for (name, text) in &self.facts {
            frame(&format!("fact {name}"), text.as_bytes());
        }
        let mut manager = String::new();
        for property in ["RuntimeWatchdogUSec", "RebootWatchdogUSec"] {
            let value = self.manager.get(property).map_or("0", String::as_str);
            writeln!(manager, "{property}={value}").unwrap();
        }
        for path in &self.drop_ins {
            writeln!(manager, "drop-in={path}").unwrap();
        }
        frame("manager", manager.as_bytes());
        if let Some(reason) = &self.safe_mode {
            frame("safe-mode", format!("{reason}\n").as_bytes());
        }
        frame("free /boot/firmware", b"100000 4096\n");
        frame(
            "fact swaps",
            if self.swap {
                b"Filename Type\n/var/swap file\n"
            } else {
                b"Filename Type\n"
            },
        );
        frame("fact init", b"systemd");
        frame("fact apt", b"/usr/bin/apt-get");
        let state = self.files.keys().filter_map(|path| {
            let below = path.strip_prefix("/var/lib/selfheal/")?;
            Some(format!("{}\n", below.split('/').next()?))
        });
        frame("state", state.collect::<String>().as_bytes());
        frame("ledger", self.ledger.to_string().as_bytes());
        frame("home pi", b"/home/pi");
        for path in self
            .files
            .keys()
            .chain(&self.folders)
            .chain(self.links.keys())
        {
            let content = match (self.links.get(path), self.files.get(path)) {
                (Some(target), _) => format!("link {target}").into_bytes(),
                (_, Some(file)) => {
                    let (mode, owner) = (0o100_000 + file.mode, &file.owner);
                    let mut content = format!(
                        "file {mode:x} {owner} {owner} {} content\n",
                        file.content.len()
                    )
                    .into_bytes();
                    content.extend(&file.content);
                    content
                }
                _ => b"directory".to_vec(),
            };
            frame(&format!("file {path}"), &content);
        }
        for (key, value) in &self.sysctls {
            frame(&format!("sysctl {key}"), format!("{value}\n").as_bytes());
        }
        for module in &self.modules {
            frame(&format!("module {module}"), b"loaded");
        }
        let mut units = String::new();
        for (name, (enabled, active)) in &self.units {
            let (enabled, active) = (
                if *enabled { "enabled" } else { "disabled" },
                if *active { "active" } else { "inactive" },
            );
            write!(
                units,
                "Id={name}\nLoadState=loaded\nActiveState={active}\nUnitFileState={enabled}\n\n"
            )
            .unwrap();
        }
        frame("units", units.as_bytes());
        let mut packages = String::new();
        for (name, held) in &self.packages {
            writeln!(
                packages,
                "{name} {} installed 1.0",
                if *held { "hold" } else { "install" }
            )
            .unwrap();
        }
        frame("packages", packages.as_bytes());
        let written: Vec<&str> = self.written.iter().map(String::as_str).collect();
        frame("reboot-pending", written.join("\n").as_bytes());
        for (header, content) in &self.frames {
            frame(header, content.as_bytes());
        }
        frame("end", b"");
        reply
    }

    /// Takes a plan at its word, and reboots if it says so.
    pub fn take(&mut self, plan: &NodePlan) {
        self.take_without_reboot(plan);
        if plan.reboot().is_some() {
            self.reboot();
        }
    }

    /// Takes only what a plan does before its first write: the power goes then.
    pub fn begin(&mut self, plan: &NodePlan) {
        for change in &plan.changes {
            for action in &change.actions {
                if matches!(action, Action::KeepOriginal(_)) {
                    self.act(action);
                }
            }
            for (id, entry) in &change.owns {
                self.ledger.own(id.clone(), entry.clone());
            }
        }
    }

    /// Takes a plan at its word, and leaves its reboot pending.
    pub fn take_without_reboot(&mut self, plan: &NodePlan) {
        for (id, entry) in plan
            .changes
            .iter()
            .flat_map(|change| change.owns.iter().cloned())
        {
            self.ledger.own(id, entry);
        }
        for action in plan.changes.iter().flat_map(|change| &change.actions) {
            self.act(action);
        }
        let effects = plan.changes.iter().flat_map(|change| &change.effects);
        if effects
            .clone()
            .any(|effect| *effect == Effect::DaemonReexec)
        {
            self.read_manager();
        }
        for id in plan.changes.iter().flat_map(|change| &change.releases) {
            self.ledger.release(id);
        }
        assert!(self.ledger.get(&Id::new(Kind::CommandLine, "x")).is_none());
    }

    fn sha256(&self, path: &str) -> String {
        selfheal::node::sha256(&self.files[path].content)
    }

    /// Writes a boot file, and remembers what the kernel was started with.
    fn write_line(&mut self, path: &str, content: &[u8]) {
        let new = String::from_utf8(content.to_vec()).unwrap();
        let booted = match self.text(WRITTEN).lines().next() {
            Some(line) => line.to_owned(),
            None if path == NEW => self.text(CURRENT).trim().to_owned(),
            None => self.text(path).trim().to_owned(),
        };
        self.write(WRITTEN, &format!("{booted}\n{new}"));
        self.write(path, &new);
    }

    /// systemd reads its own settings.
    fn read_manager(&mut self) {
        self.manager.clear();
        let file = self
            .files
            .get("/etc/systemd/system.conf.d/60-selfheal-watchdog.conf");
        let text = file.map_or(String::new(), |file| {
            String::from_utf8(file.content.clone()).unwrap()
        });
        for (key, value) in text.lines().filter_map(|line| line.split_once("Sec=")) {
            self.manager.insert(format!("{key}USec"), value.to_owned());
        }
    }

    fn act(&mut self, action: &Action) {
        match action {
            Action::InstallPackage(name) => drop(self.packages.insert(name.clone(), false)),
            Action::Hold(name) => drop(self.packages.insert(name.clone(), true)),
            Action::Unhold(name) => drop(self.packages.insert(name.clone(), false)),
            Action::KeepOriginal(path) => {
                let kept = self.files[path.as_str()].clone();
                self.files
                    .insert(original_of(path.as_str()).into_string(), kept);
            }
            Action::SetAside(_) => {}
            Action::Write(write) => {
                let file = File {
                    mode: write.mode,
                    owner: write.owner.clone(),
                    content: write.content.clone(),
                };
                self.files.insert(write.path.to_string(), file);
                if let Some(unit) = write
                    .path
                    .strip_prefix("/etc/systemd/system")
                    .ok()
                    .map(ToString::to_string)
                {
                    self.units.entry(unit).or_default();
                }
            }
            Action::MakeDirectory(path) => drop(self.folders.insert(path.to_string())),
            Action::RemoveDirectory(path) => drop(self.folders.remove(path.as_str())),
            Action::Remove(path, _) => drop(self.files.remove(path.as_str())),
            Action::RestoreOriginal(path, _) => {
                let kept = self
                    .files
                    .remove(original_of(path.as_str()).as_str())
                    .unwrap();
                self.files.insert(path.to_string(), kept);
            }
            Action::WriteBoot(path, content, expect) => {
                assert_eq!(*expect, Expect::Sha256(self.sha256(path.as_str())));
                if path.ends_with("config.txt") {
                    self.write(path.as_str(), std::str::from_utf8(content).unwrap());
                } else {
                    self.write_line(path.as_str(), content);
                }
                self.written.insert(path.to_string());
            }
            Action::TryBoot {
                content,
                current,
                waiting,
                ..
            } => {
                assert_eq!(*current, self.sha256(CURRENT));
                match waiting {
                    Some(hash) => assert_eq!(*hash, self.sha256(NEW)),
                    None => self.flash_kernel(),
                }
                self.files.remove("/var/lib/selfheal/boot-rejected");
                self.write_line(NEW, content);
            }
            Action::SetSysctl(key, value) => {
                // The kernel takes no 0 here, although that is its default.
                assert_ne!(
                    (&key[..], &value[..]),
                    ("kernel.max_rcu_stall_to_panic", "0")
                );
                self.sysctls.insert(key.clone(), value.clone());
            }
            Action::LoadModule(name) => drop(self.modules.insert(name.clone())),
            Action::Enable(unit) => self.units.entry(unit.clone()).or_default().0 = true,
            Action::Disable(unit) => self.units.entry(unit.clone()).or_default().0 = false,
            Action::Start(unit) => {
                self.units.entry(unit.clone()).or_default().1 = true;
                let name = "/etc/iscsi/initiatorname.iscsi";
                if unit == "iscsid.service" && !self.files.contains_key(name) {
                    self.write(name, "InitiatorName=iqn.1993-08.org.debian:01:paper\n");
                }
            }
            Action::Stop(unit) => self.units.entry(unit.clone()).or_default().1 = false,
            Action::SetHostname(name) => {
                self.hostname = name.clone();
                self.write("/etc/hostname", &format!("{name}\n"));
            }
            Action::InstallAsset(wanted) => match wanted.asset {
                Asset::Program => {
                    let said = format!("k3s version {} (paper)\ngo version\n", wanted.version);
                    self.frames.insert("k3s-version".into(), said);
                }
                Asset::Images => self.write(wanted.path.as_str(), "images"),
            },
            Action::PutSecret(WantedSecret { path, origin }) => {
                let hash = match origin {
                    Origin::Own => "own",
                    Origin::Server { sha256, .. } => sha256.as_deref().unwrap_or("unknown"),
                };
                let said = format!("600 root {hash}");
                self.frames.insert(format!("secret {path}"), said);
            }
            Action::CloseSecret(path) => {
                let said = self.frames.get_mut(&format!("secret {path}")).unwrap();
                let hash = said.rsplit(' ').next().unwrap().to_owned();
                *said = format!("600 root {hash}");
            }
            Action::Discard(path) => drop(self.frames.remove(&format!("secret {path}"))),
            Action::LeaveCluster => {
                let kept = |name: &String| {
                    !name.contains("/var/lib/rancher")
                        && name != "k3s-version"
                        && name != "cluster-nodes"
                        && !name.contains("/etc/rancher/node/")
                };
                self.frames.retain(|name, _| kept(name));
            }
            Action::ForgetNode(_) => {}
            Action::EditNodeObject(edit) => {
                let owned =
                    |words: Vec<&String>| words.into_iter().cloned().collect::<Vec<_>>().join(",");
                let annotations = serde_json::json!({
                    "selfheal/labels": owned(edit.labels.keys().collect()),
                    "selfheal/taints": owned(edit.taints.iter().collect()),
                });
                let taint = |taint: &String| {
                    let (pair, effect) = taint.rsplit_once(':').unwrap();
                    let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                    serde_json::json!({ "key": key, "value": value, "effect": effect })
                };
                let object = serde_json::json!({ "items": [{
                    "metadata": { "name": edit.name, "labels": edit.labels, "annotations": annotations },
                    "spec": { "taints": edit.taints.iter().map(taint).collect::<Vec<_>>() },
                }] });
                self.frames
                    .insert("cluster-nodes".into(), object.to_string());
                let password = "secret /etc/rancher/node/password".to_owned();
                self.frames.insert(password, "600 root p".into());
            }
            Action::SwapOff => self.swap = false,
            Action::SwapOn => self.swap = true,
        }
    }
}
