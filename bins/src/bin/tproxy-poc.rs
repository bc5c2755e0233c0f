//! A transparent proxy that keeps the client's address.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    bins::tproxy_poc::main()
}
