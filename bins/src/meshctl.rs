//! `meshctl`: looks at a running program through its admin address.
//!
//! | Part | What it is |
//! |---|---|
//! | `program` | the command line |
//! | `address`, `ask` | where the program is, and asking it |
//! | `clean` | keeps what a program says from being commands for the terminal |

mod address;
mod ask;
mod clean;
mod program;

pub use program::main;
