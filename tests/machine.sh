#!/bin/sh
# Stories on whole Debian machines: sh tests/machine.sh [systemd] [openrc]
#
# `systemd` boots in an emulator, with cgroup v2 and 512 MB of memory; it runs its story at every boot, in the phase that
# the boot before left, and says on its serial line how it went. `openrc` is a root of its own on this kernel.
# The stories are in tests/machine. Uses SKIFF_TEST_BINARY (static) and SKIFF_TEST_KUBECTL.
set -eu
cd "$(dirname "$0")/.."
work=$PWD/target/machine
boot_seconds=600
[ $# -gt 0 ] || set -- systemd openrc
for init; do
    case $init in
    systemd | openrc) ;;
    *)
        echo "machine.sh: unknown machine $init: use systemd or openrc" >&2
        exit 2
        ;;
    esac
done

# A root file system of Debian's packages, kept for the next run. debootstrap does not choose among alternatives, so apt
# adds the init.
make_root() {
    [ ! -e "$work/$1/complete" ] || return 0
    if [ ! -e "$work/base.complete" ]; then
        rm -rf "$work/base"
        mkdir -p "$work/base"
        debootstrap --variant=minbase --include=linux-image-cloud-amd64,containerd,runc,nftables,conntrack,iproute2,ca-certificates,procps,kmod,udev \
            bookworm "$work/base" "$(sh tests/tools/mirror.sh)" >"$work/log" 2>&1 || {
            tail -20 "$work/log" >&2
            exit 1
        }
        touch "$work/base.complete"
    fi
    case $1 in
    systemd) packages="systemd-sysv dbus" ;;
    openrc) packages="openrc sysvinit-core" ;;
    esac
    rm -rf "${work:?}/$1"
    mkdir -p "$work/$1"
    cp -a "$work/base" "$work/$1/root"
    cp /etc/resolv.conf "$work/$1/root/etc/resolv.conf"
    echo machine >"$work/$1/root/etc/hostname"
    echo '127.0.0.1 localhost machine' >"$work/$1/root/etc/hosts"
    # shellcheck disable=SC2086
    DEBIAN_FRONTEND=noninteractive chroot "$work/$1/root" sh -c "apt-get update && apt-get install -y --no-install-recommends $packages" \
        >"$work/log" 2>&1 || {
        tail -20 "$work/log" >&2
        exit 1
    }
    rm -rf "$work/$1/root"/var/cache/apt/archives/*.deb "$work/$1/root"/var/lib/apt/lists/*
    touch "$work/$1/complete"
}

# An archive of one image, as `docker save` writes it: the static busybox of Debian.
make_archive() {
    tree=$work/image
    rm -rf "$tree"
    mkdir -p "$tree/layer/bin"
    cp /bin/busybox "$tree/layer/bin/busybox"
    for applet in sh sleep tail cat; do ln -s busybox "$tree/layer/bin/$applet"; done
    tar -C "$tree/layer" -cf "$tree/layer.tar" bin
    digest=$(sha256sum "$tree/layer.tar" | cut -d' ' -f1)
    printf '{"architecture":"amd64","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}' \
        "$digest" >"$tree/config.json"
    printf '[{"Config":"config.json","RepoTags":["registry.test/busybox:1"],"Layers":["layer.tar"]}]' >"$tree/manifest.json"
    tar -C "$tree" -cf "$1" manifest.json config.json layer.tar
}

# What the story needs, under /story of the root.
make_story() {
    root=$work/$1/root
    rm -rf "$root/story" "$root/var/lib/skiff" "$root/etc/skiff"
    mkdir -p "$root/story"
    cp -r packaging systemd "$root/story/"
    cp "$SKIFF_TEST_BINARY" "$root/story/skiff-binary"
    cp "$SKIFF_TEST_KUBECTL" "$root/usr/local/bin/kubectl"
    cp tests/machine/common "$root/story/common"
    cp "tests/machine/$1" "$root/story/run"
    make_archive "$root/story/busybox.tar"
}

# One boot, until the machine turns itself off or says that its plug may be pulled. Prints what it said.
boot() {
    dir=$work/$1
    serial=$dir/serial
    : >"$serial"
    qemu-system-x86_64 -accel tcg,thread=multi -cpu max -smp 2 -m 512 -display none -monitor none -no-reboot \
        -kernel "$(echo "$dir"/root/boot/vmlinuz-*)" -initrd "$(echo "$dir"/root/boot/initrd.img-*)" \
        -append "root=/dev/vda rw console=ttyS0 net.ifnames=0 quiet" -drive "file=$dir/disk,format=raw,if=virtio" \
        -nic user,model=virtio -serial "file:$serial" &
    machine=$!
    # shellcheck disable=SC2064
    trap "kill -9 $machine 2>/dev/null || true" EXIT
    waited=0
    while kill -0 $machine 2>/dev/null; do
        if grep -q -e '^story: pull the plug' -e '^story: ended' "$serial"; then
            kill -9 $machine
            break
        fi
        sleep 1
        waited=$((waited + 1))
        if [ $waited -ge $boot_seconds ]; then
            kill -9 $machine
            echo "story: the machine was not done after $boot_seconds s" >>"$serial"
            break
        fi
    done
    wait $machine 2>/dev/null || true
    trap - EXIT
    tr -d '\r' <"$serial" | grep '^story: ' || true
}

run_systemd() {
    dir=$work/systemd
    sh tests/machine/setup-systemd "$dir/root" || return 1
    rm -f "$dir/disk"
    truncate -s 3G "$dir/disk"
    mke2fs -q -F -t ext4 -d "$dir/root" "$dir/disk" || return 1
    for phase in 1 2; do
        said=$(boot systemd)
        echo "$said" | sed 's/^story:/systemd:/'
        case $said in
        *"story: phase $phase passed"*) ;;
        *)
            tail -100 "$dir/serial" >&2
            return 1
            ;;
        esac
    done
    rm -f "$dir/disk"
}

run_openrc() {
    root=$work/openrc/root
    name=skrc$$
    # shellcheck disable=SC2064
    trap "ip netns del $name" EXIT
    sh tests/tools/network.sh $name 10.89.1.1/24 || return 1
    # The first process of the namespace reaps what others leave, and all end with it.
    nsenter --net=/run/netns/$name unshare --mount --uts --pid --fork --kill-child --propagation private sh -eu -c '
        mount --bind "$1" "$1"
        mount -t proc proc "$1/proc"
        mount -t sysfs sysfs "$1/sys"
        mount --rbind /sys/fs/cgroup "$1/sys/fs/cgroup"
        mount --rbind /dev "$1/dev"
        mount -t tmpfs tmpfs "$1/run"
        hostname machine
        chroot "$1" sh /story/run 2>&1 &
        wait $!' sh "$root" | sed 's/^story:/openrc:/' | tee "$work/openrc/log"
    ip netns del $name
    trap - EXIT
    grep -q '^openrc: passed' "$work/openrc/log"
}

for init; do
    make_root "$init"
    make_story "$init"
    "run_$init" || {
        echo "machine: $init: 0 passed, 1 failed" >&2
        exit 1
    }
    echo "machine: $init: 1 passed, 0 failed"
done
