//! Ports of this host and the LAN of the virtual Pis.

use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};

use anyhow::{Result, bail};

use crate::cache::Cache;

/// A port of 127.0.0.1 that no other lab takes as long as this value lives, whether its Pi is on or off.
#[derive(Debug)]
pub(crate) struct Port {
    pub(crate) number: u16,
    _lock: File,
}

/// Below the range that Linux takes outgoing connections from, so that nobody gets it while the Pi is off.
const RANGE: std::ops::Range<u16> = 20_000..32_000;

impl Port {
    pub(crate) fn reserve(cache: &Cache) -> Result<Self> {
        let folder = cache.subfolder("ports")?;
        for attempt in 0..200_u16 {
            let random = RandomState::new().hash_one(attempt) % u64::from(RANGE.end - RANGE.start);
            let number = RANGE.start + u16::try_from(random)?;
            let lock = File::create(folder.join(number.to_string()))?;
            if lock.try_lock().is_ok() && is_free(number) {
                return Ok(Self {
                    number,
                    _lock: lock,
                });
            }
        }
        bail!(
            "no free port of 127.0.0.1 between {} and {}",
            RANGE.start,
            RANGE.end
        )
    }

    /// Shares a port that a lab has, its LAN's.
    pub(crate) fn join(cache: &Cache, number: u16) -> Result<Self> {
        let lock = File::create(cache.subfolder("ports")?.join(number.to_string()))?;
        lock.lock_shared()?;
        Ok(Self {
            number,
            _lock: lock,
        })
    }
}

fn is_free(number: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok()
        && UdpSocket::bind((Ipv4Addr::LOCALHOST, number)).is_ok()
}

/// A Pi's place on its LAN: the nth of 1 to 200.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seat {
    pub(crate) number: u8,
}

impl Seat {
    pub(crate) fn address(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 99, 0, self.number)
    }

    pub(crate) fn mac(self) -> String {
        format!("52:54:00:63:00:{:02x}", self.number)
    }

    pub(crate) fn mac_bytes(self) -> [u8; 6] {
        [0x52, 0x54, 0x00, 0x63, 0x00, self.number]
    }
}
