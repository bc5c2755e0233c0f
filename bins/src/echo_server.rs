//! A server that greets, behind the transparent proxy.
//!
//! It reads what a client says first, answers with a greeting and closes; whoever looks at its log sees which address the
//! client had. It does not echo, whatever its name says.

mod answer;
mod exchange;
mod program;

pub use program::Args;
pub use program::main;
