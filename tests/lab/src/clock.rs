//! A time source on the LAN: an SNTP server at 10.99.0.254 that the launcher plays on raw Ethernet frames, so that it
//! can answer on port 123 without being root.

use std::fs::File;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;

use crate::network::Seat;

const ADDRESS: [u8; 4] = Ipv4Addr::new(10, 99, 0, 254).octets();
const MAC: [u8; 6] = [0x52, 0x54, 0x00, 0x63, 0x00, 0xfe];
/// Seconds from 1900, where NTP counts from, to 1970.
const NTP_EPOCH: u64 = 2_208_988_800;

/// A point in time as qemu's `-rtc base=` and `date --set` read it.
#[must_use]
pub fn utc(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Days to a date of the Gregorian calendar, counted in eras of 400 years from 1 March of year 0.
    let shifted = days + 719_468;
    let (era, day) = (shifted / 146_097, shifted % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (day, month) = (
        day - (153 * month + 2) / 5 + 1,
        if month < 10 { month + 3 } else { month - 9 },
    );
    let year = year + era * 400 + u64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}",
        rest / 3_600,
        rest / 60 % 60,
        rest % 60
    )
}

/// Seconds since 1970.
pub(crate) fn now() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

/// Answers one Pi until stopped.
#[derive(Debug)]
pub(crate) struct TimeSource {
    stopped: Arc<AtomicBool>,
}

impl TimeSource {
    /// Answers frames that arrive on this socket, as long as `serves` says so; the guest's own socket is
    /// `time-guest.sock` in the folder.
    pub(crate) fn new(
        socket: UnixDatagram,
        folder: &Path,
        seat: Seat,
        serves: Arc<AtomicBool>,
    ) -> Result<Self> {
        let stopped = Arc::new(AtomicBool::new(false));
        let source = Self {
            stopped: Arc::clone(&stopped),
        };
        let folder = File::open(folder)?;
        socket.set_read_timeout(Some(Duration::from_millis(500)))?;
        thread::Builder::new()
            .name("time source".to_owned())
            .spawn(move || {
                let guest = format!("/proc/self/fd/{}/time-guest.sock", folder.as_raw_fd());
                let mut frame = [0; 2048];
                while !stopped.load(Ordering::Relaxed) {
                    let Ok(size) = socket.recv(&mut frame) else {
                        continue;
                    };
                    if let Some(answer) = answer(&frame[..size], seat.mac_bytes(), now())
                        && serves.load(Ordering::Relaxed)
                    {
                        // A guest that has gone needs no answer.
                        let _ = socket.send_to(&answer, &guest);
                    }
                }
            })?;
        Ok(source)
    }

    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }
}

impl Drop for TimeSource {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The answer to a frame: ARP for our address, or SNTP. Frames of other Pis on the LAN are none of our business.
fn answer(frame: &[u8], pi: [u8; 6], now: Duration) -> Option<Vec<u8>> {
    let (header, payload) = frame.split_at_checked(14)?;
    if header[6..12] != pi {
        return None;
    }
    let (kind, reply) = match header[12..14] {
        [0x08, 0x06] => ([0x08, 0x06], arp(payload)?),
        [0x08, 0x00] => ([0x08, 0x00], ipv4(payload, now)?),
        _ => return None,
    };
    Some([&pi[..], &MAC, &kind, &reply].concat())
}

fn arp(request: &[u8]) -> Option<Vec<u8>> {
    let request = request.get(..28)?;
    let (asks, sender, target) = (&request[..8], &request[8..18], &request[24..28]);
    if *asks != [0, 1, 8, 0, 6, 4, 0, 1] || *target != ADDRESS {
        return None;
    }
    Some([&[0, 1, 8, 0, 6, 4, 0, 2], &MAC[..], &ADDRESS, sender].concat())
}

fn ipv4(packet: &[u8], now: Duration) -> Option<Vec<u8>> {
    let length = usize::from(packet.first()? & 0x0f) * 4;
    let (header, datagram) = packet.split_at_checked(length.max(20))?;
    let (udp, request) = datagram.split_at_checked(8)?;
    if header[9] != 17 || header[16..20] != ADDRESS || udp[2..4] != 123_u16.to_be_bytes() {
        return None;
    }
    let reply = sntp(request, now)?;
    let udp_length = u16::try_from(8 + reply.len()).ok()?;
    // A UDP checksum of 0 means that there is none.
    let datagram = [
        &123_u16.to_be_bytes(),
        &udp[0..2],
        &udp_length.to_be_bytes(),
        &[0, 0],
        &reply,
    ]
    .concat();
    let total = (20 + udp_length).to_be_bytes();
    let mut answer = vec![0x45, 0, total[0], total[1], 0, 0, 0x40, 0, 64, 17, 0, 0];
    answer.extend(ADDRESS);
    answer.extend(&header[12..16]);
    let sum: u32 = answer
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !u16::try_from((folded & 0xffff) + (folded >> 16)).ok()?;
    answer[10..12].copy_from_slice(&checksum.to_be_bytes());
    Some([answer, datagram].concat())
}

/// RFC 4330: version and transmit time of the client come back, with the time in the three other stamps.
fn sntp(request: &[u8], now: Duration) -> Option<Vec<u8>> {
    let request = request.get(..48)?;
    let (version, mode) = (request[0] & 0x38, request[0] & 0x07);
    if mode != 3 {
        return None;
    }
    let seconds = u32::try_from((now.as_secs() + NTP_EPOCH) & 0xffff_ffff).ok()?;
    let fraction = u32::try_from((u64::from(now.subsec_nanos()) << 32) / 1_000_000_000).ok()?;
    let stamp = [seconds.to_be_bytes(), fraction.to_be_bytes()].concat();
    // No leap second, server mode, stratum 2, precision 2^-20 s, no delay, a dispersion of 1 ms.
    let head = [version | 4, 2, request[2], 0xec, 0, 0, 0, 0, 0, 0, 0, 0x42];
    Some(
        [
            &head[..],
            &ADDRESS,
            &stamp,
            &request[40..48],
            &stamp,
            &stamp,
        ]
        .concat(),
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const PI: [u8; 6] = [0x52, 0x54, 0, 0x63, 0, 1];

    #[test]
    fn a_point_in_time_is_written_as_a_date() {
        assert_eq!(utc(0), "1970-01-01T00:00:00");
        assert_eq!(utc(951_782_400), "2000-02-29T00:00:00");
        assert_eq!(utc(1_795_305_599), "2026-11-21T23:59:59");
    }

    #[test]
    fn who_has_our_address_is_told() {
        let ask = [
            &[0xff; 6][..],
            &PI,
            &[8, 6],
            &[0, 1, 8, 0, 6, 4, 0, 1],
            &PI,
            &[10, 99, 0, 1],
            &[0; 6],
            &ADDRESS,
        ]
        .concat();
        let reply = answer(&ask, PI, Duration::ZERO).unwrap();
        assert_eq!(reply[0..6], PI);
        assert_eq!(reply[22..32], [&MAC[..], &ADDRESS].concat());
        assert_eq!(
            answer(&ask, [1; 6], Duration::ZERO),
            None,
            "another Pi's frame"
        );
    }

    #[test]
    fn the_time_comes_back_with_the_clients_stamp() {
        let mut request = vec![0; 48];
        request[0] = 0x23;
        request[40..48].copy_from_slice(b"clientts");
        let reply = sntp(&request, Duration::new(1, 500_000_000)).unwrap();
        assert_eq!(reply.len(), 48);
        assert_eq!(reply[0], 0x24);
        assert_eq!(&reply[24..32], b"clientts");
        assert_eq!(
            reply[40..44],
            u32::try_from(NTP_EPOCH + 1).unwrap().to_be_bytes()
        );
        assert_eq!(reply[44..48], [0x80, 0, 0, 0]);
        assert_eq!(
            sntp(&reply, Duration::ZERO),
            None,
            "a server's packet is no question"
        );
    }

    #[test]
    fn cut_frames_are_ignored() {
        let frame = [&MAC[..], &PI, &[8, 0], &[0x45], &[0; 75]].concat();
        for size in 0..frame.len() {
            assert_eq!(answer(&frame[..size], PI, Duration::ZERO), None);
        }
    }
}
