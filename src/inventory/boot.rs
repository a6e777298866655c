//! `[boot]`: the kernel command line and the config.txt of a node.

use std::fmt;
use std::str::FromStr;

use super::define::{section, serialized_as_shown};
use super::diagnostic::Wrong;
use super::name::shown;
use super::quantity::{HOUR, MINUTE, Period};
use super::setting::Text;
use crate::node::boot::{ConfigLine, Standing, Token, TokenError};

section! {
    /// What the firmware gives the kernel: for all nodes in `[boot]`, for one in `[nodes.NAME.boot]`.
    pub struct Boot {
        /// Whether to switch the memory cgroup on where the firmware switched it off. k3s does not start without it.
        memory_cgroup: bool = true,
        /// Whether to switch pressure stall information on where it is off.
        psi: bool = true,
        /// How long after a kernel panic the node reboots by itself (`panic=`).
        panic_timeout: Period<1, { 5 * MINUTE }> = Period::clamped(10),
        /// Whether to let the kernel wait 21 s before it calls an expedited RCU grace period stalled, where it waits
        /// less than a second.
        rcu_stall_timeout: bool = true,
        /// Whether RCU grace periods are normal ones once the node is up: fewer interrupts, slower removal of pods.
        rcu_normal_after_boot: bool = false,
        /// Whether to switch power saving off for an NVMe drive that the kernel had to reset.
        nvme_quirk: bool = true,
        /// Whether to do without UAS for a USB drive that the kernel had to reset. It gets slower.
        uas_quirk: bool = true,
        /// More parameters. What is not known to be harmless needs `untested = true`.
        add: Vec<BootToken> = Vec::new(),
        /// Parameters that must not be there. What selfheal does not know needs `untested = true`.
        remove: Vec<BootToken> = Vec::new(),
        /// Whether to switch the board's watchdog on in config.txt where the kernel has none.
        board_watchdog: bool = true,
        /// More lines of config.txt, each `key=value`. What is not known to be harmless needs `untested = true`.
        config: Vec<BootConfig> = Vec::new(),
        /// Whether `add`, `remove` and `config` may hold what selfheal does not know. Nothing can undo a kernel that
        /// does not boot.
        untested: bool = false,
        /// Whether Ubuntu's trial boot (25.10 and later) tests a changed command line before the node keeps it. Without
        /// it a mistake leaves a node that does not boot.
        trial: bool = true,
        /// How long a node may take to go down for a reboot before it is forced to.
        force_reboot_after: Period<10, HOUR> = Period::clamped(3 * MINUTE),
        /// How long a node may take to come back from a reboot.
        reboot_timeout: Period<MINUTE, HOUR> = Period::clamped(10 * MINUTE),
    }
}

/// One parameter of the kernel command line, `name` or `name=value`, none of those that decide what boots.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BootToken(Token);

impl BootToken {
    /// The parameter.
    pub fn token(&self) -> &Token {
        &self.0
    }
}

impl fmt::Display for BootToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.0.as_str())
    }
}

serialized_as_shown!(BootToken);

impl FromStr for BootToken {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        let wrong =
            |why: &str| Wrong::new(format!("`{}` cannot stand in `[boot]`: {why}", shown(text)));
        let token = text.parse::<Token>().map_err(|error| match error {
            TokenError::Empty => wrong("it is empty"),
            TokenError::NotOne(_) => wrong("it is more than one parameter").help(
                "write each parameter on its own, and a value that holds blanks in double quotes",
            ),
            TokenError::Characters(_) => wrong("it holds what the kernel would read otherwise").help(
                "a name holds letters, digits, `_`, `-` and `.`; a value plain ASCII, with quotes only around all of it",
            ),
        })?;
        match token.standing() {
            Standing::Untouchable(why) => Err(wrong(why)),
            Standing::Setting(key) => Err(wrong(&format!("`{key}` sets it"))),
            _ => Ok(Self(token)),
        }
    }
}

/// One line of config.txt, `key=value`, none of those that decide what boots.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BootConfig(ConfigLine);

impl BootConfig {
    /// The line.
    pub fn line(&self) -> &ConfigLine {
        &self.0
    }
}

impl fmt::Display for BootConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.0.as_str())
    }
}

serialized_as_shown!(BootConfig);

impl FromStr for BootConfig {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        text.parse::<ConfigLine>().map(Self).map_err(|error| {
            Wrong::new(format!(
                "`{}` cannot be added to config.txt: {error}",
                shown(text)
            ))
        })
    }
}

impl Text for BootConfig {
    const EXPECTED: &'static str = "a line of config.txt";
}

impl Text for BootToken {
    const EXPECTED: &'static str = "a kernel parameter";
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        let wrong = text.parse::<BootToken>().unwrap_err();
        wrong.message
    }

    #[test]
    fn what_decides_what_boots_is_never_taken() {
        for text in [
            "root=/dev/sda2",
            "rootwait",
            "init=/bin/sh",
            "systemd.unit=rescue.target",
            "rd.break",
            "console=tty1",
            "single",
            "1",
            "S",
            "-b",
            "--",
            "=x",
            "panic=0",
            "psi=0",
            "cgroup-enable=memory",
            "bootconfig",
            "",
            "a b",
            "a=\"b",
            "a\nb",
            "ü",
            "\"a b\"=c",
        ] {
            assert!(refused(text).contains("cannot stand in"), "{text}");
        }
        let token: BootToken = "dyndbg=\"file drivers/usb/* +p\"".parse().unwrap();
        assert_eq!(token.to_string(), "dyndbg=\"file drivers/usb/* +p\"");
    }

    #[test]
    fn lines_of_config_txt_that_decide_what_boots_are_never_taken() {
        for text in [
            "os_prefix=new/",
            "[all]",
            "arm_64bit=0",
            "dtparam",
            "a=b\nc=d",
            "# a=b",
        ] {
            let wrong = text.parse::<BootConfig>().unwrap_err();
            assert!(
                wrong.message.contains("cannot be added to config.txt"),
                "{text}"
            );
        }
    }
}
