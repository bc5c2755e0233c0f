//! `meshctl`: looks at a running program through its admin address.
//!
//! | Part | What it is |
//! |---|---|
//! | `program` | the command line |
//! | `address`, `ask` | where the program is, and asking it |
//! | `clean`, `pretty` | keeps what a program says from being commands for the terminal |
//! | `figures`, `row`, `table` | numbers, endpoints and columns as people read them |
//! | `stat`, `watch` | the table, once or again and again |
//! | `top` | the live view, with feature `tui` |

mod address;
mod ask;
mod clean;
mod figures;
mod pretty;
mod program;
mod row;
mod stat;
mod table;
#[cfg(feature = "tui")]
mod top;
mod watch;

pub use program::main;
