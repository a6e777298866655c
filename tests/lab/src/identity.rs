//! What makes one Pi another than the next: all come from one image, and from one RAM snapshot.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::clock;
use crate::network::Seat;
use crate::process;

/// A Pi's own host key and machine-id, made fresh on the host.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    pub(crate) host_key: String,
    private_key: String,
    machine_id: String,
}

impl Identity {
    /// Makes one; the files stay in the Pi's folder.
    pub(crate) fn new(folder: &Path) -> Result<Self> {
        let file = folder.join("ssh_host_ed25519_key");
        process::output(
            Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-C", "", "-f"])
                .arg(&file),
        )?;
        let uuid = fs::read_to_string("/proc/sys/kernel/random/uuid")?;
        Ok(Self {
            host_key: fs::read_to_string(file.with_extension("pub"))?
                .trim()
                .to_owned(),
            private_key: fs::read_to_string(&file)?,
            machine_id: uuid.trim().replace('-', ""),
        })
    }

    /// The script that gives it to a Pi that runs, with its seat on the LAN and the time of day.
    pub(crate) fn script(&self, seat: Seat) -> String {
        let Self {
            host_key,
            private_key,
            machine_id,
        } = self;
        let (address, mac, now) = (seat.address(), seat.mac(), clock::now());
        let (seconds, nanos) = (now.as_secs(), now.subsec_nanos());
        format!(
            "set -e
date --set=@{seconds}.{nanos:09} >/dev/null
cd /etc/ssh
umask 077
cat >ssh_host_ed25519_key <<'KEY'
{private_key}KEY
umask 022
echo '{host_key}' >ssh_host_ed25519_key.pub
# journald keeps its files under the machine-id.
mv \"/run/log/journal/$(cat /etc/machine-id)\" /run/log/journal/{machine_id}
echo {machine_id} >/etc/machine-id
cat >/etc/systemd/network/20-eth1.network <<'NETWORK'
[Match]
Name=eth1

[Link]
MACAddress={mac}
RequiredForOnline=no

[Network]
Address={address}/24
IPv6AcceptRA=no
LinkLocalAddressing=no
NETWORK
networkctl reload
systemctl restart systemd-journald
# What `systemctl reload ssh` comes to, at a tenth of the cost.
kill -HUP \"$(cat /run/sshd.pid)\"
sync
"
        )
    }
}
