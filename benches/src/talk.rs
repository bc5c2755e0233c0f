//! What is said on one connection of the load: messages that are echoed, or HTTP.

use std::io;
use std::sync::Arc;

use tokio::io::AsyncReadExt;

use crate::http;
use crate::wire::{MESSAGE, Wire, Wish};

/// The language of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Talk {
    /// Messages of [`MESSAGE`] bytes, echoed.
    Messages,
    /// HTTP/1.1 requests for bodies of some bytes.
    Http(usize),
}

impl Talk {
    /// One question.
    pub fn question(self) -> Vec<u8> {
        match self {
            Self::Messages => Wish::Echo.message().into(),
            Self::Http(size) => http::request(size),
        }
    }

    /// The path of a request.
    pub fn path(self) -> Option<String> {
        match self {
            Self::Messages => None,
            Self::Http(size) => Some(http::path(size)),
        }
    }

    /// A reader of answers.
    pub fn answers(self) -> Answers {
        match self {
            Self::Messages => Answers::Messages(0),
            Self::Http(_) => Answers::Http(http::Answers::default()),
        }
    }
}

/// Counts the answers in what is read.
#[derive(Debug)]
pub enum Answers {
    /// How many bytes of the next answer have come.
    Messages(usize),
    /// HTTP.
    Http(http::Answers),
}

impl Answers {
    /// Takes what was read and says how many answers ended in it.
    pub fn take(&mut self, read: &[u8]) -> io::Result<usize> {
        match self {
            Self::Messages(bytes) => {
                let all = *bytes + read.len();
                *bytes = all % MESSAGE;
                Ok(all / MESSAGE)
            }
            Self::Http(answers) => answers.take(read),
        }
    }
}

/// A connection on which one question at a time is asked.
#[derive(Debug)]
pub struct Conversation {
    wire: Wire,
    question: Arc<[u8]>,
    answers: Answers,
    buf: Vec<u8>,
}

impl Conversation {
    /// Talks on `wire`.
    pub fn new(wire: Wire, talk: Talk) -> Self {
        let room = match talk {
            Talk::Messages => MESSAGE,
            Talk::Http(size) => (size + 1024).next_power_of_two().min(64 * 1024),
        };
        Self { wire, question: talk.question().into(), answers: talk.answers(), buf: vec![0; room] }
    }

    /// Asks and waits for the answer.
    pub async fn ask(&mut self) -> io::Result<()> {
        self.wire.send(&self.question).await?;
        loop {
            let n = self.wire.read(&mut self.buf).await?;
            if n == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if self.answers.take(&self.buf[..n])? > 0 {
                return Ok(());
            }
        }
    }

    /// The connection.
    pub fn into_wire(self) -> Wire {
        self.wire
    }
}
