//! Processors: as a node names its own, as a release names its files, as a program's header names what it runs on.

use std::fmt;
use std::str::FromStr;

/// A processor that k3s is built for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Arch {
    /// 64-bit x86.
    Amd64,
    /// 64-bit ARM: Pi OS and Ubuntu in 64 bits.
    Arm64,
    /// 32-bit ARM.
    Arm,
}

/// A processor that k3s is not built for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no k3s for the processor {0:?}: it needs amd64, arm64 or armhf (ARMv7)")]
pub struct UnknownArch(String);

impl FromStr for Arch {
    type Err = UnknownArch;

    /// Reads what `uname -m` or `dpkg --print-architecture` says.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.trim() {
            "x86_64" | "amd64" => Ok(Self::Amd64),
            "aarch64" | "arm64" => Ok(Self::Arm64),
            // ARMv6 (the first Pis and the Zero) cannot run it.
            "armv7l" | "armv8l" | "armhf" => Ok(Self::Arm),
            other => Err(UnknownArch(other.to_owned())),
        }
    }
}

impl fmt::Display for Arch {
    /// As the release's lists and bundles are named: `amd64`, `arm64`, `arm`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
            Self::Arm => "arm",
        })
    }
}

/// What a program's ELF header says (elf(5)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Machine {
    /// It runs on the processor in question.
    Right,
    /// It runs on another.
    Other(String),
    /// This is no program.
    None,
}

/// How much of a file the header takes.
pub(super) const HEAD: usize = 20;

impl Machine {
    pub(super) fn of(head: &[u8], wanted: Arch) -> Self {
        // Magic, class, byte order, …, and at 18 the machine.
        let [0x7f, b'E', b'L', b'F', class, order, .., low, high] = head else {
            return Self::None;
        };
        if head.len() != HEAD {
            return Self::None;
        }
        let machine = match order {
            2 => u16::from_be_bytes([*low, *high]),
            _ => u16::from_le_bytes([*low, *high]),
        };
        let found = match (class, order, machine) {
            (2, 1, 62) => Some(Arch::Amd64),
            (2, 1, 183) => Some(Arch::Arm64),
            (1, 1, 40) => Some(Arch::Arm),
            _ => None,
        };
        match found {
            Some(found) if found == wanted => Self::Right,
            Some(found) => Self::Other(found.to_string()),
            None => {
                let bits = if *class == 1 { 32 } else { 64 };
                Self::Other(format!(
                    "a {bits}-bit processor with the ELF number {machine}"
                ))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_processors() {
        for (text, arch) in [
            ("x86_64", Arch::Amd64),
            ("amd64\n", Arch::Amd64),
            ("aarch64", Arch::Arm64),
            ("arm64", Arch::Arm64),
            ("armv7l", Arch::Arm),
            ("armhf", Arch::Arm),
        ] {
            assert_eq!(text.parse(), Ok(arch), "{text}");
        }
        for text in ["armv6l", "riscv64", "", "i686", "armel"] {
            assert!(text.parse::<Arch>().is_err(), "{text}");
        }
    }

    fn header(class: u8, order: u8, machine: [u8; 2]) -> Vec<u8> {
        let mut head = vec![0x7f, b'E', b'L', b'F', class, order, 1];
        head.resize(18, 0);
        head.extend(machine);
        head
    }

    #[test]
    fn headers_of_programs() {
        assert_eq!(
            Machine::of(&header(2, 1, [183, 0]), Arch::Arm64),
            Machine::Right
        );
        assert_eq!(
            Machine::of(&header(1, 1, [40, 0]), Arch::Arm),
            Machine::Right
        );
        assert_eq!(
            Machine::of(&header(2, 1, [62, 0]), Arch::Arm64),
            Machine::Other("amd64".into())
        );
        // 64-bit MIPS, big-endian; and x32, which has amd64's number.
        for odd in [header(2, 2, [0, 8]), header(1, 1, [62, 0])] {
            assert!(matches!(Machine::of(&odd, Arch::Amd64), Machine::Other(_)));
        }
        for none in [&b"#!/bin/sh\nexit 0; # a script"[..HEAD], b"\x7fELF", b""] {
            assert_eq!(Machine::of(none, Arch::Arm64), Machine::None);
        }
    }
}
