#!/bin/sh
# Runs every test, on the real kernel, containerd, kubectl and network: sudo sh tests/run.sh
#
# Installs what the tests need (Debian packages), builds the static binaries, and says at the end how many passed.
set -eu
cd "$(dirname "$0")/.."
[ "$(id -u)" = 0 ] || {
    echo "run.sh: must be run as root: sudo sh tests/run.sh" >&2
    exit 1
}

step() { echo "== $(date +%T) $*"; }

step "what the tests need"
packages=
for package in containerd runc nftables conntrack iproute2 busybox-static protobuf-compiler libprotobuf-dev gcc \
    libc6-dev g++ python3-venv qemu-user-static qemu-system-x86 debootstrap e2fsprogs docker-registry openssl \
    util-linux curl procps iputils-ping; do
    dpkg-query -W -f '${Status}' $package 2>/dev/null | grep -q 'ok installed' || packages="$packages $package"
done
if [ -n "$packages" ]; then
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -q >/dev/null
    # shellcheck disable=SC2086
    apt-get install -yq --no-install-recommends $packages >/dev/null
fi
# sudo hides the toolchain of the user who called it.
user_home=$(getent passwd "${SUDO_USER:-root}" | cut -d: -f6)
PATH=$PATH:$user_home/.cargo/bin:/root/.cargo/bin:/usr/sbin:/sbin
export PATH
[ -d "$user_home/.rustup" ] && export RUSTUP_HOME="${RUSTUP_HOME:-$user_home/.rustup}"
[ -d "$user_home/.cargo" ] && export CARGO_HOME="${CARGO_HOME:-$user_home/.cargo}"

SKIFF_TEST_KUBECTL=$(sh tests/tools/kubectl.sh sid)
# The oldest client that is promised to work, where the machine has it; else the oldest that Debian still has.
SKIFF_TEST_KUBECTL_OLD=$(readlink -f "$(command -v kubectl)" 2>/dev/null | sed 's|[^/]*$|kubectl.1.30|')
[ -x "$SKIFF_TEST_KUBECTL_OLD" ] || SKIFF_TEST_KUBECTL_OLD=$(sh tests/tools/kubectl.sh trixie)
SKIFF_TEST_CLIENTS=$(sh tests/tools/clients.sh)
# What a newer containerd can, beside what the machine's own can.
SKIFF_TEST_CONTAINERD=$(sh tests/tools/containerd.sh sid)
export SKIFF_TEST_KUBECTL SKIFF_TEST_KUBECTL_OLD SKIFF_TEST_CLIENTS SKIFF_TEST_CONTAINERD

step "the static binary"
sh packaging/build.sh "$(uname -m)"
SKIFF_TEST_BINARY=$PWD/target/static/$(uname -m)/skiff
export SKIFF_TEST_BINARY

step "tests"
# One at a time where the kernel is shared: namespaces, bridges and rulesets of one test are not another's.
cargo test --locked --lib --test tidy --test api
cargo test --locked --test kernel --test cluster -- --test-threads=1
step "fuzzing"
sh tests/fuzz.sh
step "installing"
sh tests/install.sh
step "whole machines"
sh tests/machine.sh openrc
# The emulated machine is an x86_64 one.
[ "$(uname -m)" != x86_64 ] || sh tests/machine.sh systemd
step "done"
