#!/bin/sh
# Gives a fresh Pi the boot layout of Ubuntu 25.10, as root or under fakeroot:
#   image.sh PLAIN.qcow2 OUT
# PLAIN.qcow2 is the root file system of the other layout. Into the folder OUT go root.qcow2 and boot.vfat.
set -eu
umask 022
here=$(cd "$(dirname "$0")" && pwd)
plain=$(realpath "$1") out=$(realpath "$2")
# config.txt and cmdline.txt are the very files that selfheal's own tests read.
fixtures=$here/../../fixtures/boot/ubuntu-25.10
work=$(mktemp -d "$out/work.XXXXXX")
disk=$work/root.ext4 boot=$work/boot

# The files of root/, put into the file system as it is. debugfs complains of folders that are there and of files that
# are not, and ends well even where a write failed: so what was written is read again.
qemu-img convert -q -O raw "$plain" "$disk"
cp -R "$here/root" "$work/root"
chmod -R u=rwX,go=rX "$work/root"
cd "$work/root"
{
    find . -mindepth 1 -type d | sort | sed 's,^\.,mkdir ,'
    find . ! -type d | sed 's,^\.,rm ,'
    # What Raspberry Pi OS alone leaves there.
    printf 'rm /boot/%s\n' cmdline.txt config.txt
} >"$work/prepare"
{
    find . -type f | sed 's,^\.\(.*\),write .\1 \1,'
    find . -type l -printf 'symlink /%P %l\n'
} >"$work/write"
find . -type f | sed "s,^\.\(.*\),dump \1 $work/read\1," >"$work/dump"
find . -type d -exec mkdir -p "$work/read/{}" \;
debugfs -w -f "$work/prepare" "$disk" >/dev/null 2>&1
debugfs -w -f "$work/write" "$disk" >"$work/log" 2>&1
debugfs -f "$work/dump" "$disk" >/dev/null 2>&1
find . -type f | while read -r file; do
    cmp "$file" "$work/read/$file" || { cat "$work/log" >&2; exit 1; }
done
cd "$here"
e2label "$disk" writable
qemu-img convert -q -O qcow2 "$disk" "$out/root.qcow2"

# The boot partition: one set of boot assets, known to be good.
mkdir -p "$boot/current"
cp "$here/firmware/autoboot.txt" "$fixtures/config.txt" "$boot/"
cp -R "$here/root/usr/lib/lab/boot-assets/." "$fixtures/current/cmdline.txt" "$boot/current/"
echo good >"$boot/current/state"
truncate -s 64M "$out/boot.vfat"
mkfs.vfat -F 32 -n system-boot "$out/boot.vfat" >/dev/null
mcopy -s -i "$out/boot.vfat" "$boot"/* ::
rm -rf "$work"
