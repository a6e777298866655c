#!/bin/sh
# Installs what the lab needs on a Debian 12 or 13 host: says what first, takes only what is missing, can be repeated.
# Usage: tests/lab/install.sh [--dry-run]
set -eu

# qemu runs the Pis; mmdebstrap, e2fsprogs, fakeroot, cpio, kmod, xz and zstd build their image; mtools and dosfstools
# hold the boot partition; gcc links the Rust code; shellcheck reads the scripts, groff the manual page.
packages="qemu-system-x86 qemu-utils mmdebstrap fakeroot uidmap e2fsprogs mtools dosfstools cpio kmod xz-utils zstd
openssh-client util-linux debian-archive-keyring ca-certificates gcc libc6-dev shellcheck groff-base"

say() { printf '%s\n' "lab: $*" >&2; }
fail() { say "$*"; exit 1; }

command -v apt-get >/dev/null || fail "this script knows Debian only (no apt-get here); install by hand: $packages"

missing=
for package in $packages; do
    status=$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null || true)
    [ "$status" = installed ] || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

say "to be installed with apt:$missing"
[ "${1-}" != --dry-run ] || exit 0

if [ "$(id -u)" = 0 ]; then
    as_root() { "$@"; }
elif command -v sudo >/dev/null; then
    say "sudo may ask for your password"
    as_root() { sudo "$@"; }
else
    fail "installing needs root or sudo; as root run: apt-get install$missing"
fi
apt() { as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 "$@" >&2; }

# Where a newer qemu-utils came from backports, the suite's own qemu-system-x86 conflicts with it: take that from
# backports too, a source derived from the mirror this host already uses.
target=
case $(dpkg-query -W -f='${Version}' qemu-utils 2>/dev/null || true) in *~bpo*)
    # shellcheck source=/dev/null
    codename=$(. /etc/os-release && printf '%s' "${VERSION_CODENAME:?}")
    target=$codename-backports
    if [ -z "$(apt-get indextargets --format x "Created-By: Packages" "Release: $target")" ]; then
        # shellcheck disable=SC2016 # apt's own placeholder
        mirror=$(apt-get indextargets --format '$(REPO_URI)' "Created-By: Packages" \
            "Release: $codename" "Component: main" | head -n 1)
        [ -n "$mirror" ] || fail "no Debian mirror for $codename in this host's apt configuration"
        say "qemu-utils is from backports: adding $mirror $target as a source"
        printf 'deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] %s %s main\n' "$mirror" "$target" |
            as_root tee /etc/apt/sources.list.d/selfheal-lab-backports.list >/dev/null
    fi
    ;;
esac

apt update
# shellcheck disable=SC2086 # a list of words
if [ -n "$target" ]; then
    apt install --yes --no-install-recommends -t "$target" qemu-system-x86
    apt install --yes --no-install-recommends $missing
else
    apt install --yes --no-install-recommends $missing
fi
