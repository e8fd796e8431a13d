#!/bin/sh
# Builds fully static binaries: sh packaging/build.sh [x86_64] [aarch64]
#
# Debian's rustc-web and its source are the compiler (the standard library is rebuilt for musl, as no prebuilt one is
# at hand), zig is C compiler, linker and libc for every architecture. The binaries land in target/static/<arch>/skiff.
set -eu
cd "$(dirname "$0")/.."

[ $# -gt 0 ] || set -- x86_64 aarch64
for arch; do
    case $arch in
    x86_64 | aarch64) ;;
    *)
        echo "build.sh: unknown architecture $arch: use x86_64 or aarch64" >&2
        exit 2
        ;;
    esac
done

tools=$PWD/target/tools
missing() { ! dpkg-query -W -f '${Status}' "$1" 2>/dev/null | grep -q 'ok installed'; }
packages=
for package in rustc-web cargo-web rust-web-src gcc libc6-dev protobuf-compiler libprotobuf-dev python3 binutils; do
    # A python3 of another origin with pip does as well.
    if [ $package = python3 ] && python3 -m pip --version >/dev/null 2>&1; then continue; fi
    if missing $package; then packages="$packages $package"; fi
done
if ! python3 -m pip --version >/dev/null 2>&1; then packages="$packages python3-pip"; fi
if [ -n "$packages" ]; then
    if [ "$(id -u)" != 0 ]; then
        echo "build.sh: install these first: apt-get install$packages" >&2
        exit 1
    fi
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -q >/dev/null
    # shellcheck disable=SC2086
    apt-get install -yq --no-install-recommends $packages >/dev/null
fi

stamp=$tools/$(sha256sum packaging/requirements.txt | cut -c1-16)
if [ ! -e "$stamp" ]; then
    rm -rf "$tools"
    mkdir -p "$tools"
    python3 -m pip install -q --no-deps --require-hashes --target "$tools" -r packaging/requirements.txt
    touch "$stamp"
fi

# Only Debian's compiler must be found: rustup's has another version of everything.
export PATH="$tools/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Nor a wrapper for the other one.
unset RUSTC_WORKSPACE_WRAPPER
export CARGO=/usr/bin/cargo RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1
export CARGO_ZIGBUILD_ZIG_PATH="$tools/ziglang/zig"
# 64-bit time on 32-bit architectures.
export RUST_LIBC_UNSTABLE_MUSL_V1_2_3=1
export CARGO_TARGET_DIR=target/static
registry=${CARGO_HOME:-$HOME/.cargo}
export RUSTFLAGS="-C link-self-contained=no -C link-arg=-pie -C link-arg=-fPIE --remap-path-prefix=$PWD=/skiff --remap-path-prefix=$registry=/cargo"

# What is built says which commit it is of, where that can be told.
if command -v git >/dev/null && SKIFF_COMMIT=$(git rev-parse HEAD 2>/dev/null); then
    SKIFF_COMMIT_DATE=$(TZ=UTC git log -1 --date=format-local:%Y-%m-%dT%H:%M:%SZ --format=%cd)
    SKIFF_TREE_STATE=clean
    [ -z "$(git status --porcelain --untracked-files=no)" ] || SKIFF_TREE_STATE=dirty
    export SKIFF_COMMIT SKIFF_COMMIT_DATE SKIFF_TREE_STATE
fi

for arch; do
    target=$arch-unknown-linux-musl
    cargo zigbuild --locked --release --bin skiff -Zbuild-std=std,panic_abort --target "$target"
    out=target/static/$arch
    mkdir -p "$out"
    cp "target/static/$target/release/skiff" "$out/skiff.new"
    if readelf -lW "$out/skiff.new" | grep -q INTERP || readelf -dW "$out/skiff.new" | grep -q NEEDED; then
        echo "build.sh: $out/skiff is not static" >&2
        exit 1
    fi
    mv "$out/skiff.new" "$out/skiff"
    echo "$out/skiff: $(stat -c %s "$out/skiff") bytes, static"
done
