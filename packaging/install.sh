#!/bin/sh
# Installs skiff on this machine and starts a cluster: sudo sh packaging/install.sh [flags of skiff server…]
#
# From a checkout it builds first, unless SKIFF_BINARY names a binary that is built already. Running it again is
# harmless: what is there stays, a newer binary replaces the old one and the pods go on.
set -eu

here=$(cd "$(dirname "$0")/.." && pwd)
bin=/usr/local/bin/skiff
conf=/etc/skiff
log=/var/log/skiff.log
pid_file=/run/skiff.pid
ready_seconds=120

say() { echo "skiff: $*"; }
die() {
    echo "skiff: $*" >&2
    exit 1
}

[ "$(id -u)" = 0 ] || die "must be run as root: sudo sh packaging/install.sh"

# --- what the machine needs -------------------------------------------------------------------------------------

missing_packages() {
    for pair in containerd:containerd runc:runc nft:nftables conntrack:conntrack ip:iproute2; do
        PATH=$PATH:/usr/sbin:/sbin command -v "${pair%%:*}" >/dev/null 2>&1 || printf ' %s' "${pair#*:}"
    done
}

install_packages() {
    # shellcheck disable=SC2086
    if command -v apt-get >/dev/null 2>&1; then
        export DEBIAN_FRONTEND=noninteractive
        apt-get update -q >/dev/null || say "apt-get update failed; trying with the lists at hand"
        # Debian's containerd service is not ours: we run our own, under our data directory.
        apt-get install -yq --no-install-recommends $1 >/dev/null
    elif command -v apk >/dev/null 2>&1; then
        apk add --quiet $1
    elif command -v dnf >/dev/null 2>&1; then
        dnf install -yq $(echo "$1" | sed 's/conntrack/conntrack-tools/; s/iproute2/iproute/')
    else
        die "install these with this system's package manager, then run this again:$1"
    fi
}

packages=$(missing_packages)
if [ -n "$packages" ]; then
    say "installing$packages"
    install_packages "$packages" || die "could not install$packages"
fi

# --- the binary ---------------------------------------------------------------------------------------------------

binary=${SKIFF_BINARY:-}
if [ -z "$binary" ] && [ -f "$here/Cargo.toml" ]; then
    # sudo hides the toolchain of the user who called it.
    user_home=$(getent passwd "${SUDO_USER:-root}" | cut -d: -f6)
    PATH=$PATH:$user_home/.cargo/bin:/root/.cargo/bin
    command -v cargo >/dev/null 2>&1 || die "no Rust toolchain found: install one (1.95 or newer), or set SKIFF_BINARY"
    # rustup keeps its toolchains with the user who installed them.
    [ -d "$user_home/.rustup" ] && export RUSTUP_HOME="${RUSTUP_HOME:-$user_home/.rustup}"
    [ -d "$user_home/.cargo" ] && export CARGO_HOME="${CARGO_HOME:-$user_home/.cargo}"
    if ! command -v protoc >/dev/null 2>&1 || ! command -v cc >/dev/null 2>&1; then
        say "installing what the build needs: protobuf-compiler libprotobuf-dev gcc libc6-dev"
        install_packages "protobuf-compiler libprotobuf-dev gcc libc6-dev"
    fi
    say "building (some minutes the first time)"
    (cd "$here" && cargo build --release --locked --bin skiff)
    binary=${CARGO_TARGET_DIR:-$here/target}/release/skiff
elif [ -z "$binary" ] && [ -x "$here/skiff" ]; then
    # An unpacked release.
    binary=$here/skiff
fi
[ -n "$binary" ] && [ -x "$binary" ] || die "no binary to install: run this from a checkout or an unpacked release"

changed=no
if ! cmp -s "$binary" "$bin"; then
    mkdir -p "$(dirname "$bin")"
    cp "$binary" "$bin.new"
    chmod 755 "$bin.new"
    mv "$bin.new" "$bin"
    changed=yes
fi
mkdir -p "$conf"
"$bin" check-config "$@" >/tmp/skiff-check.$$ 2>&1 || {
    cat /tmp/skiff-check.$$ >&2
    rm -f /tmp/skiff-check.$$
    die "this machine cannot run skiff yet; see the lines above"
}
rm -f /tmp/skiff-check.$$

# --- the service --------------------------------------------------------------------------------------------------

kubeconfig=$conf/skiff.yaml

quoted_flags() {
    for flag; do printf " '%s'" "$(printf %s "$flag" | sed "s/'/'\\\\''/g")"; done
}

if [ -d /run/systemd/system ]; then
    unit=/etc/systemd/system/skiff.service
    sed "s|^ExecStart=.*|ExecStart=$bin server$(quoted_flags "$@")|" "$here/systemd/skiff.service" >$unit.new
    cmp -s $unit.new $unit || changed=yes
    mv $unit.new $unit
    systemctl daemon-reload
    systemctl enable -q skiff
    if [ $changed = yes ]; then systemctl restart skiff; else systemctl start skiff; fi
    where="journalctl -u skiff"
elif command -v rc-service >/dev/null 2>&1; then
    sed "s|^command_args=.*|command_args=\"server$(quoted_flags "$@")\"|" "$here/packaging/openrc/skiff" >/etc/init.d/skiff
    chmod 755 /etc/init.d/skiff
    rc-update add skiff default >/dev/null
    if [ $changed = yes ]; then rc-service skiff restart; else rc-service skiff start; fi
    where=$log
else
    running=
    if [ -s $pid_file ] && [ "$(readlink "/proc/$(cat $pid_file)/exe" 2>/dev/null | sed 's/ (deleted)$//')" = "$bin" ]; then
        running=$(cat $pid_file)
    fi
    if [ -n "$running" ] && [ $changed = yes ]; then
        say "restarting with the new binary; pods go on"
        kill "$running"
        while [ -d "/proc/$running" ]; do sleep 0.1; done
        running=
    fi
    if [ -z "$running" ]; then
        setsid nohup "$bin" server "$@" >>$log 2>&1 </dev/null &
        echo $! >$pid_file
    fi
    where=$log
    say "no systemd and no OpenRC here: running as a daemon, pid $(cat $pid_file), log $log"
fi

say "waiting for the node to be Ready"
deadline=$(($(date +%s) + ready_seconds))
until node=$("$bin" status "$@" 2>/dev/null); do
    [ "$(date +%s)" -lt $deadline ] || die "the node is not Ready after $ready_seconds s; see $where"
    sleep 0.2
done
say "$node"
if command -v kubectl >/dev/null 2>&1; then
    say "next:  KUBECONFIG=$kubeconfig kubectl get nodes,pods -A"
else
    say "kubectl is not installed; with any version of it from 1.30:  KUBECONFIG=$kubeconfig kubectl get nodes,pods -A"
fi
