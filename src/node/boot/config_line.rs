//! One line that may be added to config.txt, and how far it may be trusted (domain.md §1.5).

use std::fmt;
use std::str::FromStr;

/// A line `key=value` for config.txt, none of those that decide what boots.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConfigLine(String);

/// Why a text is not a line that selfheal would add to config.txt.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigLineError {
    /// Something else than one `key=value`.
    #[error(
        "it is not `key=value` in one line of plain ASCII, without blanks around `=`, which is all the firmware understands"
    )]
    Form,
    /// Longer than the firmware reads.
    #[error("it is longer than {MAX_LINE} characters, and the firmware ignores the rest")]
    TooLong,
    /// It decides what boots.
    #[error("`{0}` decides what boots, and nothing can undo that: selfheal leaves it alone")]
    Untouchable(String),
    /// It overclocks the board.
    #[error(
        "`{0}` is for overclocking: an overclocked Pi freezes in ways that cannot be told from a fault"
    )]
    Overclocks(String),
}

/// The firmware reads no more of a line than this, in bytes.
const MAX_LINE: usize = 98;

/// Keys that decide which kernel boots, with what, and from where.
const UNTOUCHABLE: &[&str] = &[
    "arm_64bit",
    "armstub",
    "auto_initramfs",
    "boot_partition",
    "boot_ramdisk",
    "cmdline",
    "device_tree",
    "device_tree_address",
    "device_tree_end",
    "disable_commandline_tags",
    "fixup_file",
    "include",
    "initramfs",
    "kernel",
    "kernel_address",
    "kernel_old",
    "kernel_watchdog_partition",
    "kernel_watchdog_timeout",
    "os_check",
    "os_prefix",
    "overlay_prefix",
    "ramfsaddr",
    "ramfsfile",
    "start_debug",
    "start_file",
    "start_x",
    "total_mem",
];

/// Families of the same sort.
const UNTOUCHABLE_FAMILIES: &[&str] = &["tryboot", "program_", "secure_boot"];

/// Keys that raise a clock or a voltage. `_min` and the like of them do not.
const OVERCLOCKS: &[&str] = &[
    "arm_freq",
    "core_freq",
    "force_turbo",
    "gpu_freq",
    "h264_freq",
    "hevc_freq",
    "isp_freq",
    "over_voltage",
    "over_voltage_avs",
    "over_voltage_delta",
    "over_voltage_sdram",
    "sdram_freq",
    "v3d_freq",
];

/// Lines that are known to be harmless; a key alone stands for every number as its value.
const KNOWN: &[&str] = &[
    "boot_delay",
    "camera_auto_detect=0",
    "camera_auto_detect=1",
    "disable_splash=1",
    "display_auto_detect=0",
    "display_auto_detect=1",
    "dtoverlay=disable-bt",
    "dtoverlay=ramoops",
    "dtparam=act_led_trigger=heartbeat",
    "dtparam=act_led_trigger=none",
    "dtparam=audio=off",
    "dtparam=audio=on",
    "dtparam=i2c_arm=on",
    "dtparam=nvme",
    "dtparam=pciex1",
    "dtparam=pciex1_gen=2",
    "dtparam=pwr_led_trigger=none",
    "dtparam=spi=on",
    "dtparam=watchdog=on",
    "enable_uart=1",
    "gpu_mem",
    "max_framebuffers",
];

impl ConfigLine {
    /// Switches the board's watchdog on: harmless, and the default on current kernels (domain.md §1.5).
    pub fn watchdog() -> ConfigLine {
        ConfigLine("dtparam=watchdog=on".to_owned())
    }

    /// The line, without its end.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part before the first `=`.
    pub fn key(&self) -> &str {
        self.0.split_once('=').map_or(&self.0, |(key, _)| key)
    }

    /// The part after the first `=`.
    pub fn value(&self) -> &str {
        self.0.split_once('=').map_or("", |(_, value)| value)
    }

    /// Whether selfheal knows it to be harmless; others need `boot.untested`.
    pub fn is_known(&self) -> bool {
        let number =
            !self.value().is_empty() && self.value().bytes().all(|byte| byte.is_ascii_digit());
        KNOWN.contains(&self.as_str()) || (number && KNOWN.contains(&self.key()))
    }
}

/// Whether a setting of this key that is in force overclocks the board.
pub(super) fn overclocks(key: &[u8], value: &[u8]) -> bool {
    OVERCLOCKS.iter().any(|name| name.as_bytes() == key) && !matches!(value, b"" | b"0")
}

impl FromStr for ConfigLine {
    type Err = ConfigLineError;

    fn from_str(text: &str) -> Result<ConfigLine, ConfigLineError> {
        let (key, value) = text.split_once('=').ok_or(ConfigLineError::Form)?;
        let named = !key.is_empty()
            && key.bytes().all(|byte| {
                byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b':')
            });
        let printable = value
            .bytes()
            .all(|byte| byte == b' ' || byte.is_ascii_graphic());
        if !named || value.is_empty() || !printable || value.trim() != value {
            return Err(ConfigLineError::Form);
        }
        if text.len() > MAX_LINE {
            return Err(ConfigLineError::TooLong);
        }
        if UNTOUCHABLE.contains(&key)
            || UNTOUCHABLE_FAMILIES
                .iter()
                .any(|family| key.starts_with(family))
        {
            return Err(ConfigLineError::Untouchable(key.to_owned()));
        }
        if OVERCLOCKS.contains(&key) {
            return Err(ConfigLineError::Overclocks(key.to_owned()));
        }
        Ok(ConfigLine(text.to_owned()))
    }
}

impl fmt::Display for ConfigLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
