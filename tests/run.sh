#!/bin/sh
# Installs what the tests need and runs them all: the quick ones, then those on virtual Pis.
# Usage: tests/run.sh [--full]     --full tries every point where a short run takes two or three (hours, not minutes)
set -eu
cd "$(dirname "$0")/.."
which=
case ${1-} in
    '') ;;
    --full)
        SELFHEAL_FULL=1
        export SELFHEAL_FULL
        which=--include-ignored
        ;;
    *) sed -n 's/^# Usage: /usage: /p' "$0" >&2; exit 3 ;;
esac

step() { printf '\n==> %s\n' "$*" >&2; }

tests/lab/install.sh

step "Quick tests"
cargo test --workspace --locked

step "The image of a virtual Pi, and the k3s double"
lab() { cargo run --quiet --locked --bin selfheal-lab -- "$@"; }
lab build
lab build --memory-mib 1024
lab release target/k3s-releases

# A test holds one or two Pis, each some 450 MiB; more tests than CPUs only make one another slow.
cpus=$(nproc)
gib=$(awk '/^MemAvailable:/ { print int($2 / 1048576) }' /proc/meminfo)
threads=$cpus
[ "$threads" -le "$gib" ] || threads=$gib
[ "$threads" -ge 1 ] || threads=1
step "Tests on virtual Pis, $threads at a time"
cargo test --workspace --locked --test pis -- --test-threads="$threads" ${which:+"$which"}
