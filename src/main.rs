//! Parse, run, exit code.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // containerd calls the CNI plug-in by a name of its own; it is a link to us.
    let called = std::env::args_os().next().unwrap_or_default();
    if skiff::net::cni::is_plugin(&called.to_string_lossy()) {
        return skiff::net::cni::main();
    }
    skiff::cli::main()
}
