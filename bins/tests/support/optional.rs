//! Programs that tests use where they are.

use std::env;
use std::fs::OpenOptions;
use std::io::Write;
use std::thread;

use meshlib::test_util::require_programs;

/// Whether a program is there. If not, the test is told of like others that are skipped, wherever they must not be: nobody
/// is asked to have it.
pub(crate) fn is_there(program: &str) -> bool {
    let Err(missing) = require_programs(&[program]) else { return true };
    let thread = thread::current();
    let line = format!("{}: {missing}", thread.name().unwrap_or("a test"));
    eprintln!("skipped: {line}");
    if let Some(file) = env::var_os("MESHLIB_SKIPPED") {
        let file = OpenOptions::new().create(true).append(true).open(file);
        file.and_then(|mut file| file.write_all(format!("{line}\n").as_bytes())).expect("it can be noted");
    }
    false
}
