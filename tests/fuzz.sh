#!/bin/sh
# Fuzzes the readers of what comes from outside: sh tests/fuzz.sh [inputs for each target [target...]]
#
# The targets are in fuzz/fuzz_targets, a layout that `cargo fuzz` knows too; this needs only the stable toolchain and a
# C++ compiler. Seed and number of inputs are fixed, so that the same code is tried with much the same inputs on any
# machine. A change of a target or of what it tries is worth a million of them. What fails is printed, and kept in
# target/fuzz/artifacts. What a run finds is kept in target/fuzz/corpus, where the next one begins.
set -eu
cd "$(dirname "$0")/.."
PATH=$PATH:$HOME/.cargo/bin
export PATH
inputs=${1:-2000}
[ $# = 0 ] || shift

if ! command -v c++ >/dev/null; then
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -q >/dev/null && apt-get install -yq --no-install-recommends g++ >/dev/null
fi
# The crates of others are shared with the main build: only ours are compiled again, with counters.
export CARGO_TARGET_DIR="$PWD/target" RUSTC_WRAPPER="$PWD/fuzz/instrument.sh"
started=$(date +%s)
(cd fuzz && cargo build --locked --bins --quiet)
echo "fuzz.sh: built in $(($(date +%s) - started)) s"

[ $# != 0 ] || set -- $(sed -n 's|^path = "fuzz_targets/\(.*\)\.rs"|\1|p' fuzz/Cargo.toml)
dir=target/fuzz
mkdir -p $dir/artifacts $dir/seeds
# Targets make structured values of any bytes: enough of them to begin with, always the same.
awk -v dir=$dir/seeds 'BEGIN {
    srand(36)
    for (file = 1; file <= 16; file++)
        for (i = 0; i < 32 * file; i++) printf "%c", int(rand() * 255) + 1 >(dir "/" file)
}'

# One input may take 25 s and 1 GB: far more than any limit of ours lets it, though the crates of others are not optimised
# here and the machine may be busy.
run() {
    mkdir -p "$dir/corpus/$1"
    target/debug/"$1" -seed=1 -runs="$inputs" -max_len=1024 -len_control=0 -timeout=25 -rss_limit_mb=1024 \
        -artifact_prefix="$dir/artifacts/$1-" -print_final_stats=1 "$dir/corpus/$1" $dir/seeds >"$dir/$1.log" 2>&1
}

failed=
# Two at a time: the machines that this runs on have two cores.
while [ $# != 0 ]; do
    one=$1
    two=${2:-}
    run "$one" &
    first=$!
    second=
    if [ -n "$two" ]; then
        run "$two" &
        second=$!
    fi
    wait $first || failed="$failed $one"
    [ -z "$second" ] || wait "$second" || failed="$failed $two"
    for target in $one $two; do
        echo "fuzz.sh: $target: $(sed -n 's/^stat::number_of_executed_units: *//p' "$dir/$target.log") inputs"
    done
    shift
    [ -z "$two" ] || shift
done
for target in $failed; do
    echo "fuzz.sh: $target failed:" >&2
    grep -av '^#\|^INFO\|^stat::\|NEW_FUNC\|^  *[0-9]*: \|^  *at ' "$dir/$target.log" | tail -n 40 >&2
done
[ -z "$failed" ]
