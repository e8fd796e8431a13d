#!/bin/sh
# Prints this machine's figures: sudo sh tests/bench.sh. Nothing fails because a machine is slow.
set -eu
cd "$(dirname "$0")/.."
sh packaging/build.sh "$(uname -m)" >&2
SKIFF_TEST_BINARY=$PWD/target/static/$(uname -m)/skiff
SKIFF_TEST_KUBECTL=$(sh tests/tools/kubectl.sh sid)
export SKIFF_TEST_BINARY SKIFF_TEST_KUBECTL
cargo test --locked -q --test cluster -- bench:: bench_node:: bench_streams:: fleet:: --ignored --nocapture --test-threads=1
