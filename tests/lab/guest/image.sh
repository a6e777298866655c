#!/bin/sh
# Puts a virtual Pi's disks together, as root or under fakeroot:
#   image.sh BASE.tar KERNEL BUSYBOX OUT
# KERNEL is an unpacked linux-image package, BUSYBOX an unpacked busybox-static. Into the folder OUT go root.qcow2,
# boot.vfat, initrd.cpio and the key id_ed25519 that opens the Pi.
set -eu
umask 022
here=$(cd "$(dirname "$0")" && pwd)
base=$(realpath "$1") kernel=$(realpath "$2") busybox=$(realpath "$3") out=$(realpath "$4")
work=$(mktemp -d "$out/work.XXXXXX")
root=$work/root initramfs=$work/initramfs

# The file tree: packages, then what makes it a Raspberry Pi.
mkdir "$root"
tar -C "$root" --numeric-owner -xf "$base"
rm -f "$root/etc/resolv.conf" "$root"/etc/apt/sources.list "$root"/etc/apt/sources.list.d/*
tar -C "$here/root" --owner=0 --group=0 -cf - . | tar -C "$root" --no-overwrite-dir -xf -
chmod 440 "$root/etc/sudoers.d/010_pi-nopasswd"
mkdir -p "$root/boot/firmware"
# As its package does where file capabilities do not work; fakeroot cannot put them on a disk.
chmod u+s "$root/bin/ping"
# Replaced when a Pi is taken out of its box (src/identity.rs); fixed here, so that nothing counts as a first boot.
echo 00000000000000000000000000000001 >"$root/etc/machine-id"
rm -f "$root/var/lib/dbus/machine-id"
ln -s /etc/machine-id "$root/var/lib/dbus/machine-id"
rm -f "$root"/etc/ssh/ssh_host_*
ssh-keygen -q -t ed25519 -N '' -C golden -f "$root/etc/ssh/ssh_host_ed25519_key"
ssh-keygen -q -t ed25519 -N '' -C selfheal-lab -f "$out/id_ed25519"
install -d -m 700 "$root/home/pi/.ssh"
install -m 600 "$out/id_ed25519.pub" "$root/home/pi/.ssh/authorized_keys"
chown -R "$(awk -F: '$1 == "pi" { print $3 ":" $4 }' "$root/etc/passwd")" "$root/home/pi"
rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/var/log/*.log "$root"/var/log/apt

# Units: what runs, and what would make tests depend on the hour they run at.
units=$root/etc/systemd/system
mkdir -p "$units/multi-user.target.wants"
ln -s /etc/systemd/system/lab-root.service "$units/multi-user.target.wants/"
ln -sf /lib/systemd/system/systemd-networkd.service "$units/multi-user.target.wants/"
for unit in apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service \
    fstrim.timer getty@tty1.service serial-getty@ttyS0.service \
    systemd-networkd-wait-online.service; do
    ln -sf /dev/null "$units/$unit"
done

# Kernel modules, the few that matter.
version=$(ls "$kernel/lib/modules")
modules=$root/usr/lib/modules/$version
mkdir -p "$modules/kernel"
cp "$kernel/lib/modules/$version"/modules.builtin* "$kernel/lib/modules/$version/modules.order" "$modules/"
sed '/^#/d; s,^,^\\./,' "$here/modules.txt" >"$work/keep"
(cd "$kernel/lib/modules/$version/kernel" && find . -name '*.ko*' | grep -E -f "$work/keep" >"$work/list")
tar -C "$kernel/lib/modules/$version/kernel" -cf - -T "$work/list" | tar -C "$modules/kernel" -xf -
depmod -b "$root" "$version"

# The initramfs with what it takes to reach the root file system.
mkdir -p "$initramfs/bin" "$initramfs/dev" "$initramfs/proc" "$initramfs/sys" "$initramfs/new" \
    "$initramfs/lib/modules/$version"
cp "$busybox/bin/busybox" "$initramfs/bin/"
cp "$modules"/modules.builtin* "$modules/modules.order" "$initramfs/lib/modules/$version/"
install -m 755 "$here/init" "$initramfs/init"
for module in virtio_pci virtio_blk crc32c_generic crc32c-intel ext4 i6300esb; do
    modprobe -d "$root" -S "$version" --show-depends "$module" | sed -n "s,^insmod $root/usr/lib/modules/$version/,,p;
        s,^insmod $root/lib/modules/$version/,,p"
done | sort -u >"$work/list"
sed -i 's/ *$//' "$work/list"
tar -C "$modules" -cf - -T "$work/list" | tar -C "$initramfs/lib/modules/$version" -xf -
find "$initramfs" -name '*.xz' -exec xz -d {} +
depmod -b "$initramfs" "$version"
(cd "$initramfs" && find . | cpio --quiet -o -H newc) >"$out/initrd.cpio"

# The two disks. lazy_*_init: nothing writes on a disk that is idle.
mke2fs -q -t ext4 -L rootfs -E lazy_itable_init=1,lazy_journal_init=1 -d "$root" "$work/root.ext4" 4G
qemu-img convert -q -O qcow2 "$work/root.ext4" "$out/root.qcow2"
truncate -s 128M "$out/boot.vfat"
mkfs.vfat -F 32 -n bootfs "$out/boot.vfat" >/dev/null
mcopy -i "$out/boot.vfat" "$here/firmware/cmdline.txt" "$here/firmware/config.txt" ::
rm -rf "$work"
