//! Misbehaving on demand.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use meshlib::dtab::path::Path;

/// How a request is answered wrongly.
///
/// Faults concern `resolve`, `bind` and `addr`. Where nothing else is said they apply to answers and watches alike, and
/// need a name that is not pending.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Fault {
    /// Says nothing. One set for a path ends when it is taken back, one for the next requests never.
    Hold,
    /// Answers properly, but only after this time.
    Late(Duration),
    /// Answers with this status and an empty body. A number that is no status is 500.
    Status(u16),
    /// Answers 200 with a page of HTML; a watch ends after it.
    NotJson,
    /// Announces the whole body, sends half of it and closes the connection.
    Truncated,
    /// Announces ten bytes more than it sends, and keeps the connection open.
    LengthTooLong,
    /// Announces five bytes less than it sends. The rest lies before the next answer.
    LengthTooShort,
    /// Sends each value in two chunks, 10 ms apart, with the border inside a number.
    SplitNumber,
    /// Sends values of a watch only in pairs: two lines in one chunk. An answer has its line twice.
    TwoLines,
    /// Answers a watch like any other request, once and with a length.
    IgnoreWatch,
    /// Closes the connection instead of answering.
    CloseBefore,
    /// Resets the connection instead of answering.
    ResetBefore,
    /// Closes the connection between the head and the body.
    CloseDuring,
    /// Resets the connection after the head and half of the body.
    ResetDuring,
    /// Sends these bytes instead of an answer.
    Raw(Vec<Step>),
}

/// A part of [`Fault::Raw`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Step {
    /// Sends bytes as they are.
    Send(Bytes),
    /// Does nothing for a while.
    Wait(Duration),
    /// Closes the connection.
    Close,
    /// Resets the connection.
    Reset,
    /// Does nothing until the client goes.
    Hang,
}

/// Which requests are answered wrongly.
#[derive(Debug, Default)]
pub(super) struct Faults {
    /// How many of the next requests, and how.
    next: VecDeque<(usize, Fault)>,
    names: HashMap<(String, Path), Fault>,
}

/// The fault of one request.
#[derive(Debug)]
pub(super) enum Chosen {
    /// None.
    Proper,
    /// One that stays with the request.
    Now(Fault),
    /// The name is held; the question is asked again when something has changed.
    Held,
}

impl Faults {
    pub(super) fn set(&mut self, namespace: &str, path: Path, fault: Option<Fault>) {
        let key = (namespace.to_owned(), path);
        match fault {
            Some(fault) => self.names.insert(key, fault),
            None => self.names.remove(&key),
        };
    }

    pub(super) fn push(&mut self, requests: usize, fault: Fault) {
        if requests > 0 {
            self.next.push_back((requests, fault));
        }
    }

    /// Takes the fault that is meant for the next request of any path.
    pub(super) fn take(&mut self) -> Option<Fault> {
        let (requests, fault) = self.next.front_mut()?;
        *requests -= 1;
        if *requests > 0 {
            return Some(fault.clone());
        }
        self.next.pop_front().map(|(_, fault)| fault)
    }

    /// The fault of a path.
    pub(super) fn of(&self, namespace: &str, path: &Path) -> Chosen {
        // Few names have faults, and most servers none.
        if self.names.is_empty() {
            return Chosen::Proper;
        }
        match self.names.get(&(namespace.to_owned(), path.clone())) {
            None => Chosen::Proper,
            Some(Fault::Hold) => Chosen::Held,
            Some(fault) => Chosen::Now(fault.clone()),
        }
    }
}
