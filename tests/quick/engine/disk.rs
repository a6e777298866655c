//! A paper node whose files lie on this machine's disk, so that the scripts of a run's steps really run. What they ask
//! of the rest of a system is answered by stand-ins.

use std::sync::Mutex;

use selfheal_lab::fake_node::{Exec, Reply};

use super::paper::PaperNode;
use crate::crash::Stage;

/// Where on a node the scripts of a step write.
const WRITTEN: [&str; 6] = [
    "/etc",
    "/var/lib/selfheal",
    "/run/selfheal",
    "/run/sshd",
    "/proc/sys",
    "/boot/",
];

/// The PATH that scripts set for themselves.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

pub struct DiskNode {
    stage: Stage,
    node: Mutex<PaperNode>,
}

impl DiskNode {
    pub fn new(node: PaperNode) -> DiskNode {
        let stage = Stage::new();
        for name in ["chown", "systemctl", "journalctl", "apt-get", "modprobe"] {
            stage.command(name, "exit 0");
        }
        std::fs::create_dir_all(stage.path("root/run")).unwrap();
        node.lay_out(&stage.path("root"));
        DiskNode {
            stage,
            node: Mutex::new(node),
        }
    }

    /// Whether a script is that of a step, and not of a probe: it takes the lease.
    pub fn is_step(exec: &Exec) -> bool {
        exec.script().contains("\ntake_lease\n")
    }

    pub fn answer(&self, exec: &Exec) -> Reply {
        let mut node = self.node.lock().unwrap();
        let root = self.stage.path("root");
        let script = exec.script();
        if !DiskNode::is_step(exec) {
            node.read_back(&root);
            return Reply::ok(node.answer(&script));
        }
        let root = root.display().to_string();
        let found = format!("PATH={}:/usr/bin:/bin", self.stage.path("own").display());
        assert!(script.contains(PATH));
        let script = WRITTEN
            .iter()
            .fold(script.replace(PATH, &found), |script, folder| {
                script.replace(folder, &format!("{root}{folder}"))
            });
        let run = self.stage.sh(&["-c", &script], b"", 0);
        Reply {
            stdout: run.stdout.into(),
            stderr: run.stderr.replace(&root, "").into(),
            exit: run.code.unwrap().try_into().unwrap(),
        }
    }

    /// Somebody works on the node.
    pub fn write(&self, path: &str, text: &str) {
        std::fs::write(self.on_disk(path), text).unwrap();
    }

    pub fn read(&self, path: &str) -> String {
        std::fs::read_to_string(self.on_disk(path)).unwrap()
    }

    /// Every file and folder of the user's and of selfheal's, with what is in it.
    pub fn everything(&self) -> Vec<(String, Option<String>)> {
        let mut found = Vec::new();
        let mut folders = vec![self.on_disk("/")];
        while let Some(folder) = folders.pop() {
            for entry in folder.read_dir().unwrap() {
                let path = entry.unwrap().path();
                // The lease is no state of the node's.
                if path == self.on_disk("/run/selfheal") {
                    continue;
                }
                let name = path.display().to_string();
                if path.is_dir() {
                    folders.push(path);
                    found.push((name, None));
                } else {
                    found.push((name, Some(std::fs::read_to_string(path).unwrap())));
                }
            }
        }
        found.sort();
        found
    }

    fn on_disk(&self, path: &str) -> std::path::PathBuf {
        self.stage.path(&format!("root{path}"))
    }
}
