//! Looking again and again, without more than a plain terminal.

use std::io;
use std::io::IsTerminal;
use std::io::Write;
use std::time::Duration;

use rustix::termios;
use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;
use tokio::time;
use tokio::time::Instant;
use tokio::time::MissedTickBehavior;
use unicode_width::UnicodeWidthChar;

use super::clean;
use super::figures;
use crate::kit::cli::Failure;
use crate::kit::log;

/// Shows what is found, each time it is looked, until somebody has enough: INT, TERM, HUP, or a pipe that is closed.
///
/// # Errors
///
/// If nothing is found at the first look, or it cannot be shown.
pub(super) async fn watch<E: std::error::Error>(
    every: Duration,
    mut look: impl AsyncFnMut() -> Result<Vec<String>, E>,
) -> Result<(), Failure> {
    let mut ended = Box::pin(Ended::install().map_err(Failure::runtime)?.wait());
    let mut ticks = time::interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut shown: Option<(Instant, Vec<String>)> = None;
    loop {
        let found = tokio::select! {
            biased;
            () = &mut ended => return Ok(()),
            found = async { ticks.tick().await; look().await } => found,
        };
        let lines = match (found, &shown) {
            (Ok(lines), _) => {
                shown = Some((Instant::now(), lines.clone()));
                lines
            }
            (Err(error), None) => return Err(Failure::runtime(error)),
            (Err(error), Some((at, lines))) => {
                let mut lines = lines.clone();
                lines.insert(0, unanswered(at.elapsed(), &error));
                lines
            }
        };
        match show(&lines) {
            Ok(()) => {}
            // Whoever read it has enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            Err(error) => return Err(Failure::runtime(error)),
        }
    }
}

/// Says for how long there has been no answer, and why.
pub(super) fn unanswered(since: Duration, error: &dyn std::error::Error) -> String {
    let millis = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
    clean::line(&format!("unanswered for {}: {}", figures::time(millis), log::chain(error)))
}

/// The signals that end a client.
#[derive(Debug)]
pub(super) struct Ended([tokio::signal::unix::Signal; 4]);

impl Ended {
    /// Heeds them from now on. Must be called in a runtime.
    ///
    /// # Errors
    ///
    /// What the operating system says.
    pub(super) fn install() -> io::Result<Self> {
        let [int, term] = [SignalKind::interrupt(), SignalKind::terminate()];
        let [hang_up, quit] = [SignalKind::hangup(), SignalKind::quit()];
        Ok(Self([signal(int)?, signal(term)?, signal(hang_up)?, signal(quit)?]))
    }

    /// Waits for the first of them.
    pub(super) async fn wait(mut self) {
        let [int, term, hang_up, quit] = &mut self.0;
        tokio::select! {
            _ = int.recv() => {}
            _ = term.recv() => {}
            _ = hang_up.recv() => {}
            _ = quit.recv() => {}
        }
    }
}

/// In place on a terminal, else as a block after the one before.
fn show(lines: &[String]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let text = match out.is_terminal() {
        true => {
            let size = termios::tcgetwinsize(&out).map(|size| (size.ws_col, size.ws_row));
            // A terminal that does not know its size is as large as the first ones were.
            let (columns, rows) =
                size.ok().filter(|(columns, rows)| *columns > 0 && *rows > 0).unwrap_or((80, 24));
            frame(lines, columns.into(), rows.into())
        }
        false => lines.iter().flat_map(|line| [line, "\n"]).chain(["\n"]).collect(),
    };
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// What draws lines over those that were there: as much of them as the terminal has room for, at once where it can hold
/// back what is half drawn.
fn frame(lines: &[String], columns: usize, rows: usize) -> String {
    // The last line stays empty for the cursor: a line feed in it would move all others.
    let room = rows.saturating_sub(1).max(1);
    let (lines, left) = match lines.len() > room {
        true => (&lines[..room - 1], lines.len() - (room - 1)),
        false => (lines, 0),
    };
    let left = (left > 0).then(|| format!("... and {left} more lines"));
    let mut text = String::from("\x1b[?2026h\x1b[H");
    for line in lines.iter().chain(&left) {
        text.push_str(clipped(line, columns));
        text.push_str("\x1b[K\r\n");
    }
    text.push_str("\x1b[J\x1b[?2026l");
    text
}

/// The beginning of a line that takes so many columns at most.
fn clipped(line: &str, columns: usize) -> &str {
    let mut width = 0;
    let end = line.char_indices().find(|(_, c)| {
        width += c.width().unwrap_or_default();
        width > columns
    });
    end.map_or(line, |(end, _)| &line[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(lines: &[&str]) -> Vec<String> {
        lines.iter().map(|line| (*line).to_owned()).collect()
    }

    #[test]
    fn a_frame_is_drawn_over_the_last_one() {
        assert_eq!(
            frame(&lines(&["a", "bc"]), 80, 24),
            "\x1b[?2026h\x1b[Ha\x1b[K\r\nbc\x1b[K\r\n\x1b[J\x1b[?2026l"
        );
    }

    #[test]
    fn a_frame_stays_within_the_terminal() {
        let text = frame(&lines(&["12345", "大小", "c", "d", "e"]), 3, 4);

        assert_eq!(text, "\x1b[?2026h\x1b[H123\x1b[K\r\n大\x1b[K\r\n...\x1b[K\r\n\x1b[J\x1b[?2026l");
        assert!(frame(&lines(&["a", "b"]), 3, 1).contains("H...\x1b[K"));
    }
}
