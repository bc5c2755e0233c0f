//! What a program prints, line by line.

use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

/// What must happen at all must happen within this, on a machine that is busy with other things.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// The lines of a pipe, read as they come.
#[derive(Clone)]
pub(crate) struct Lines(Arc<(Mutex<Heard>, Condvar)>);

#[derive(Default)]
struct Heard {
    lines: Vec<String>,
    /// Whether the last of them ended with a line feed.
    is_whole: bool,
    ended: bool,
}

impl Lines {
    /// Reads a pipe to its end.
    pub(crate) fn follow(pipe: impl Read + Send + 'static) -> Self {
        let lines = Self(Arc::default());
        let of_thread = lines.clone();
        // Ends with the pipe, which ends with the process.
        thread::spawn(move || {
            // What is no text is shown as far as it is.
            let mut pipe = BufReader::new(pipe);
            let mut line = Vec::new();
            while pipe.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
                let is_whole = line.pop_if(|last| *last == b'\n').is_some();
                let text = String::from_utf8_lossy(&line).into_owned();
                line.clear();
                let mut heard = of_thread.0.0.lock().unwrap();
                heard.lines.push(text);
                heard.is_whole = is_whole;
                drop(heard);
                of_thread.0.1.notify_all();
            }
            of_thread.0.0.lock().unwrap().ended = true;
            of_thread.0.1.notify_all();
        });
        lines
    }

    /// All lines so far.
    pub(crate) fn all(&self) -> Vec<String> {
        self.0.0.lock().unwrap().lines.clone()
    }

    /// All that there is, as it is, once the pipe has ended. Blocks the thread.
    pub(crate) fn rest(&self) -> String {
        let (lines, changed) = &*self.0;
        let read = changed.wait_timeout_while(lines.lock().unwrap(), SOON, |lines| !lines.ended).unwrap().0;
        read.lines.join("\n") + if read.is_whole { "\n" } else { "" }
    }

    /// How many lines so far hold a text.
    pub(crate) fn count(&self, text: &str) -> usize {
        self.all().iter().filter(|line| line.contains(text)).count()
    }

    /// Waits for a line and returns it. Blocks the thread.
    pub(crate) fn wait_for(&self, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        let (lines, changed) = &*self.0;
        let lines = lines.lock().unwrap();
        let missing = |heard: &mut Heard| !heard.ended && !heard.lines.iter().any(|line| wanted(line));
        let heard = changed.wait_timeout_while(lines, SOON, missing).unwrap().0;
        let lines = heard.lines.clone();
        // A test that fails here must not keep the lock: its end shows the lines once more.
        drop(heard);
        let found = lines.iter().find(|line| wanted(line)).cloned();
        found.unwrap_or_else(|| panic!("no line about {what} in {lines:#?}"))
    }
}
