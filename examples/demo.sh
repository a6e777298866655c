#!/bin/sh
# Shows selfheal at work on two virtual Raspberry Pis, jarvis and ultron, which become a cluster, and leaves them running.
# There is no internet here to fetch k3s from: its place is taken by the k3s double (see the README, For contributors),
# unless SELFHEAL_LAB_K3S names a real one.
# Usage: examples/demo.sh [up|down]
set -eu
cd "$(dirname "$0")/.."
state=${XDG_STATE_HOME:-$HOME/.local/state}/selfheal-demo
inventory=$state/homelab.toml
releases=target/k3s-releases

step() { printf '\n==> %s\n' "$*" >&2; }
lab() { cargo run --quiet --locked --bin selfheal-lab -- "$@"; }
selfheal() { cargo run --quiet --locked --release --bin selfheal -- "$@"; }

up() {
    step "What the virtual Pis need on this machine"
    tests/lab/install.sh

    step "Building selfheal"
    cargo build --locked --release --bin selfheal

    step "Booting jarvis and ultron, as if just flashed (their image is built first, once)"
    lab up --memory-mib 1024 jarvis ultron
    lab release "$releases"
    mkdir -p "$state"
    lab inventory --k3s "$releases" jarvis ultron >"$inventory"

    step "selfheal bootstrap --yes -i $inventory"
    selfheal bootstrap --yes -i "$inventory"

    step "selfheal apply --yes -i $inventory   (a second run has nothing to change)"
    selfheal apply --yes -i "$inventory"

    step "selfheal status -i $inventory"
    selfheal status -i "$inventory"

    step "jarvis and ultron keep running"
    cat >&2 <<DONE
    log in:         cargo lab ssh jarvis
    look again:     cargo run --release -- plan -i $inventory
    pull the plug:  cargo lab power-cut jarvis; cargo lab power-on jarvis
    its cluster:    cargo lab root jarvis 'k3s kubectl get nodes,pods -A'
    stop them:      examples/demo.sh down
DONE
}

down() {
    lab down jarvis ultron
    rm -f "$inventory"
}

case ${1-up} in
    up) up ;;
    down) down ;;
    *) sed -n 's/^# Usage: /usage: /p' "$0" >&2; exit 3 ;;
esac
