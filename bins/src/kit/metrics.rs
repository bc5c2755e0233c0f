//! Numbers that every program has.

use meshlib::observe::prometheus::Registry;
use meshlib::observe::prometheus::build_info;
use meshlib::observe::prometheus::process_metrics;

/// Registers those about the process, and what the tool was built from.
pub fn of_process(registry: &Registry, tool: &str) {
    process_metrics(registry);
    let rustc = env!("BUILT_RUSTC");
    // `rustc 1.90.0 (1159e78c4 2025-09-14)`
    let rustc = rustc.split_whitespace().nth(1).unwrap_or(rustc);
    let more = [("commit", env!("BUILT_COMMIT")), ("rustc", rustc), ("tool", tool)];
    build_info(registry, env!("CARGO_PKG_VERSION"), &more);
}
