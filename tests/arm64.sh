#!/bin/sh
# Builds the static arm64 binary and runs it under emulation: sudo sh tests/arm64.sh. Apart from tests/run.sh, as the
# build alone takes half an hour on two cores.
set -eu
cd "$(dirname "$0")/.."
PATH=$PATH:$HOME/.cargo/bin
sh packaging/build.sh aarch64
SKIFF_TEST_KUBECTL=$(sh tests/tools/kubectl.sh sid)
export SKIFF_TEST_KUBECTL
cargo test --locked --test cluster arm64 -- --ignored
