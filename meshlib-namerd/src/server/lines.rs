//! Values that follow each other in an endless answer.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use meshlib::http::Body;
use tokio::sync::watch;
use tokio::time;

use super::shared::Shared;
use super::tables::Tables;

/// What the tables say to a question.
#[derive(Debug)]
pub(super) enum Answer {
    /// Nothing yet.
    Pending,
    /// A line with the newline at its end.
    Line(Bytes),
    /// The namer threw this text.
    Thrown(String),
}

impl Answer {
    pub(super) fn line(json: String) -> Self {
        let mut line = json;
        line.push('\n');
        Self::Line(line.into())
    }
}

/// How lines are made into chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    /// One line, one chunk.
    Single,
    /// One line, two chunks.
    Split,
    /// Two lines, one chunk.
    Pairs,
}

/// Asks again after each change, and sends what is not equal to what was sent before.
///
/// Never ends by itself, unless the namer throws: then its text is the last line.
pub(super) fn watch(
    shared: &Arc<Shared>,
    pace: Pace,
    ask: impl FnMut(&Tables) -> Answer + Send + 'static,
) -> Body {
    let lines = Lines {
        changes: shared.changes(),
        counted: shared.count_watch(),
        shared: Arc::clone(shared),
        ask: Box::new(ask),
        last: None,
        pace,
        kept: None,
        over: false,
    };
    Body::from_stream(stream::unfold(lines, |mut lines| async {
        let chunk = lines.next().await?;
        Some((Ok(chunk), lines))
    }))
}

/// Waits for the first answer that is not pending.
pub(super) async fn first(shared: &Shared, mut ask: impl FnMut(&Tables) -> Answer) -> Answer {
    let mut changes = shared.changes();
    loop {
        changes.mark_unchanged();
        match shared.read(&mut ask) {
            Answer::Pending => {}
            answer => return answer,
        }
        // The sender is in `shared`.
        let _ = changes.changed().await;
    }
}

struct Lines {
    shared: Arc<Shared>,
    changes: watch::Receiver<()>,
    #[expect(dead_code, reason = "counts the watch until it is dropped")]
    counted: super::shared::Counted,
    ask: Box<dyn FnMut(&Tables) -> Answer + Send>,
    last: Option<Bytes>,
    pace: Pace,
    /// The second half of a line, or the first line of a pair.
    kept: Option<Bytes>,
    over: bool,
}

impl Lines {
    async fn next(&mut self) -> Option<Bytes> {
        if self.pace == Pace::Split
            && let Some(rest) = self.kept.take()
        {
            time::sleep(GAP).await;
            return Some(rest);
        }
        while !self.over {
            // Marked before it is looked at, so that no change is missed between the two.
            self.changes.mark_unchanged();
            match self.shared.read(&mut self.ask) {
                Answer::Thrown(text) => {
                    self.over = true;
                    return Some(format!("{text}\n").into());
                }
                Answer::Line(line) if self.last.as_ref() != Some(&line) => {
                    self.last = Some(line.clone());
                    if let Some(chunk) = self.chunk(line) {
                        return Some(chunk);
                    }
                }
                Answer::Line(_) | Answer::Pending => {}
            }
            self.changes.changed().await.ok()?;
        }
        None
    }

    fn chunk(&mut self, mut line: Bytes) -> Option<Bytes> {
        match self.pace {
            Pace::Single => Some(line),
            Pace::Split => {
                let rest = line.split_off(inside_a_number(&line));
                self.kept = Some(rest);
                Some(line)
            }
            Pace::Pairs => match self.kept.take() {
                Some(first) => Some([first, line].concat().into()),
                None => {
                    self.kept = Some(line);
                    None
                }
            },
        }
    }
}

/// Where to cut a line so that a number falls apart, or its middle if it has none of two digits.
pub(super) fn inside_a_number(line: &[u8]) -> usize {
    // The digits of a port, not those of an address, which stand in a text.
    let port = line.windows(7).position(|bytes| bytes == b"\"port\":");
    let digits = |at: usize| line[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    match port {
        Some(at) if digits(at + 7) > 1 => at + 8,
        _ => line.len() / 2,
    }
}

/// Between the halves of a line: long enough for a client to read the first alone.
pub(super) const GAP: Duration = Duration::from_millis(10);
