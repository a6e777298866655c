//! What stops k3s on a node that is not ready for it.

use std::fs;
use std::path::Path;

use anyhow::{Result, bail, ensure};

use crate::config::Config;
use crate::log;

/// Kernel settings that the kubelet wants: it sets them itself, unless `protect-kernel-defaults` forbids that.
const WANTED: &[(&str, &str)] = &[
    ("vm/overcommit_memory", "1"),
    ("vm/panic_on_oom", "0"),
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    ("kernel/keys/root_maxkeys", "1000000"),
    ("kernel/keys/root_maxbytes", "25000000"),
];

/// The cgroups that containers need.
pub fn check_cgroups() -> Result<()> {
    let controllers = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
    let has = |name: &str| controllers.split_whitespace().any(|word| word == name);
    ensure!(has("memory"), "failed to find memory cgroup (v2)");
    ensure!(has("pids"), "failed to find pids cgroup (v2)");
    ensure!(has("cpu"), "failed to find cpu cgroup (v2)");
    Ok(())
}

/// The network interface that flannel is told to use.
pub fn check_interface(config: &Config) -> Result<()> {
    if let Some(name) = config.last("flannel-iface")
        && !Path::new("/sys/class/net").join(name).exists()
    {
        bail!("unable to find interface {name}: route ip+net: no such network interface");
    }
    Ok(())
}

/// The kernel's settings, as the kubelet treats them.
pub fn tune_kernel(config: &Config) -> Result<()> {
    let protects = config.is_on("protect-kernel-defaults");
    let mut wrong = Vec::new();
    for (name, wanted) in WANTED {
        let file = Path::new("/proc/sys").join(name);
        let Ok(actual) = fs::read_to_string(&file) else {
            continue;
        };
        let actual = actual.trim();
        if actual == *wanted {
        } else if protects {
            wrong.push(format!(
                "invalid kernel flag: {name}, expected value: {wanted}, actual value: {actual}"
            ));
        } else {
            log::info(format!(
                "Updating kernel flag {name} from {actual} to {wanted}"
            ));
            fs::write(&file, wanted)?;
        }
    }
    ensure!(
        wrong.is_empty(),
        "Failed to start ContainerManager: [{}]",
        wrong.join(", ")
    );
    Ok(())
}
