#!/bin/sh
# The packages of a virtual Pi, as a tarball: base.sh SOURCES.LIST APT.CONF PACKAGES.TXT OUT.tar
set -eu
sources=$1 aptconf=$2 packages=$3 out=$4

include=$(sed 's/#.*//' "$packages" | tr -s ' \n' ',,')
include=${include#,}
# Key login and the password of an old Raspberry Pi OS image, both as on a fresh Pi.
# shellcheck disable=SC2016 # the hooks' own $1
exec mmdebstrap --variant=apt --architectures=amd64 --include="${include%,}" \
    --aptopt='APT::Install-Recommends "false"' --aptopt="$aptconf" \
    --dpkgopt='force-unsafe-io' \
    --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/info/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' \
    --customize-hook='chroot "$1" useradd --create-home --shell /bin/bash --groups sudo,adm,dialout,video pi' \
    --customize-hook='echo pi:raspberry | chroot "$1" chpasswd' \
    --customize-hook='rm -f "$1"/etc/ssh/ssh_host_* "$1"/etc/apt/apt.conf.d/99mmdebstrap' \
    bookworm "$out" "$sources"
