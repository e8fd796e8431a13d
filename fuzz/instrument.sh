#!/bin/sh
# Compiles our own crates with the counters that libFuzzer steers by, and all others as ever: these are then shared with
# the main build, and run faster. Called by cargo: RUSTC_WRAPPER=fuzz/instrument.sh
case " $* " in
*" --crate-name skiff "* | *" --crate-name skiff_fuzz "*)
    exec "$@" -C passes=sancov-module -C llvm-args=-sanitizer-coverage-level=3 \
        -C llvm-args=-sanitizer-coverage-inline-8bit-counters -C llvm-args=-sanitizer-coverage-pc-table \
        -C llvm-args=-sanitizer-coverage-trace-compares
    ;;
*) exec "$@" ;;
esac
