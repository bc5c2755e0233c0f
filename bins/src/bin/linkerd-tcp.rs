//! A TCP and TLS load balancer for the linkerd service mesh.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    bins::linkerd_tcp::main()
}
