//! `resolve`, `bind` and `addr`.

use std::sync::Arc;

use bytes::Bytes;
use http::Response;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use meshlib::Weight;
use meshlib::dtab::path::Path;
use meshlib::http::Body;
use tokio::time;

use super::dtab::Dentry;
use super::fault::Chosen;
use super::fault::Fault;
use super::fault::Step;
use super::lines;
use super::lines::Answer;
use super::lines::Pace;
use super::shared::Shared;
use super::tables;
use super::tables::Tables;
use super::wire::Control;
use crate::api::Addr;
use crate::api::Tree;

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Door {
    Resolve,
    Bind,
    Addr,
}

/// A request for a name.
#[derive(Clone, Debug)]
pub(super) struct Question {
    pub(super) door: Door,
    pub(super) namespace: String,
    pub(super) path: Path,
    /// Entries that count for this request only.
    pub(super) extra: Vec<Dentry>,
    pub(super) watch: bool,
}

impl Question {
    /// Answers, properly or as a fault wants it.
    pub(super) async fn answer(self, shared: &Arc<Shared>, control: &Control) -> Response<Body> {
        let fault = self.fault(shared).await;
        let pace = match &fault {
            Some(Fault::SplitNumber) => Pace::Split,
            Some(Fault::TwoLines) => Pace::Pairs,
            _ => Pace::Single,
        };
        match fault {
            None => {}
            // A client that goes takes this future with it.
            Some(Fault::Hold) => return std::future::pending().await,
            Some(Fault::Late(delay)) => time::sleep(delay).await,
            Some(Fault::Status(code)) => {
                return plain(StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR));
            }
            Some(Fault::CloseBefore) => return instead(control, vec![Step::Close]),
            Some(Fault::ResetBefore) => return instead(control, vec![Step::Reset]),
            Some(Fault::Raw(steps)) => return instead(control, steps),
            Some(Fault::SplitNumber | Fault::TwoLines) if self.watch => {}
            Some(fault) => return self.once(shared, control, Some(fault)).await,
        }
        if self.watch {
            let (mut draw, door) = (Draw::default(), self.door);
            let lines = lines::watch(shared, pace, move |tables| self.ask(tables, &mut draw));
            return typed(door, lines);
        }
        self.once(shared, control, None).await
    }

    /// The fault of this request. A name that is held is waited for.
    async fn fault(&self, shared: &Shared) -> Option<Fault> {
        if let Some(fault) = shared.take(|tables| tables.faults().take()) {
            return Some(fault);
        }
        let mut changes = shared.changes();
        loop {
            changes.mark_unchanged();
            match shared.take(|tables| tables.faults().of(&self.namespace, &self.path)) {
                Chosen::Proper => return None,
                Chosen::Now(fault) => return Some(fault),
                // The sender is in `shared`.
                Chosen::Held => drop(changes.changed().await),
            }
        }
    }

    /// One answer, as soon as there is one.
    async fn once(&self, shared: &Shared, control: &Control, fault: Option<Fault>) -> Response<Body> {
        let mut draw = Draw::default();
        let line = match lines::first(shared, |tables| self.ask(tables, &mut draw)).await {
            Answer::Line(line) => line,
            Answer::Thrown(_) | Answer::Pending => return plain(StatusCode::INTERNAL_SERVER_ERROR),
        };
        let half = line.len() / 2;
        let framed = |length: usize, sent: &[u8]| self.framed(length, sent);
        let steps = match fault {
            Some(Fault::NotJson) => {
                let mut response = Response::new(Body::from(NOT_JSON));
                response.headers_mut().insert(CONTENT_TYPE, HTML);
                return response;
            }
            Some(Fault::SplitNumber) => {
                let at = lines::inside_a_number(&line);
                vec![
                    Step::Send(self.chunked(&line[..at])),
                    Step::Wait(lines::GAP),
                    Step::Send(chunk(&line[at..])),
                    Step::Send(Bytes::from_static(b"0\r\n\r\n")),
                ]
            }
            Some(Fault::TwoLines) => return typed(self.door, Body::from([&*line, &*line].concat())),
            Some(Fault::Truncated) if self.watch => {
                let mut bytes = self.chunked(&line).to_vec();
                // Half of the line and the end of the chunk.
                bytes.truncate(bytes.len() - 2 - half);
                vec![Step::Send(bytes.into()), Step::Close]
            }
            Some(Fault::Truncated) => vec![framed(line.len(), &line[..half]), Step::Close],
            Some(Fault::LengthTooLong) => vec![framed(line.len() + 10, &line), Step::Hang],
            Some(Fault::LengthTooShort) => vec![framed(line.len().saturating_sub(5), &line)],
            Some(Fault::CloseDuring) => vec![framed(line.len(), b""), Step::Close],
            Some(Fault::ResetDuring) => vec![
                framed(line.len(), &line[..half]),
                // The client must have read it: a reset overtakes what lies in its buffer.
                Step::Wait(lines::GAP),
                Step::Reset,
            ],
            _ => return typed(self.door, Body::from(line)),
        };
        instead(control, steps)
    }

    fn ask(&self, tables: &Tables, draw: &mut Draw) -> Answer {
        if self.door == Door::Addr {
            return match tables.addr(&self.namespace, &self.path) {
                Ok(addr) => line(&addr),
                Err(thrown) => Answer::Thrown(thrown.0),
            };
        }
        let tree = match tables.bind(&self.namespace, &self.path, &self.extra) {
            Ok(tree) => tree,
            Err(thrown) => return Answer::Thrown(thrown.0),
        };
        if self.door == Door::Resolve {
            return line(draw.leaf(&tree).unwrap_or(&Addr::Neg));
        }
        if tables::leaves(&tree).iter().any(|bound| bound.addr == Addr::Pending) {
            return Answer::Pending;
        }
        Answer::line(tree.to_json())
    }

    /// A head that announces a length, and what comes of it.
    fn framed(&self, length: usize, sent: &[u8]) -> Step {
        let head = self.head(&format!("content-length: {length}"));
        Step::Send([head.as_bytes(), sent].concat().into())
    }

    /// A head of a chunked answer, and its first chunk.
    fn chunked(&self, sent: &[u8]) -> Bytes {
        let head = self.head("transfer-encoding: chunked");
        [head.as_bytes(), &chunk(sent)].concat().into()
    }

    fn head(&self, length: &str) -> String {
        let kind = match self.door {
            Door::Resolve => "content-type: application/json\r\n",
            Door::Bind | Door::Addr => "",
        };
        format!("HTTP/1.1 200 OK\r\n{kind}{length}\r\n\r\n")
    }
}

/// A union's branch, drawn once for a tree.
#[derive(Debug, Default)]
struct Draw {
    /// The tree for which it was drawn, without its addresses.
    shape: Option<Tree>,
    seed: u64,
}

impl Draw {
    /// The name that the tree comes down to: of alternatives the first that has one, of a union one branch by weight.
    fn leaf<'a>(&mut self, tree: &'a Tree) -> Option<&'a Addr> {
        if let Tree::Leaf(bound) = tree {
            return Some(&bound.addr);
        }
        let mut shape = tree.clone();
        for bound in tables::leaves_mut(&mut shape) {
            bound.addr = Addr::Pending;
        }
        if self.shape.as_ref() != Some(&shape) {
            self.shape = Some(shape);
            self.seed = fastrand::u64(..);
        }
        // The same draw for the same tree, whatever its addresses.
        leaf(tree, &mut fastrand::Rng::with_seed(self.seed))
    }
}

fn leaf<'a>(tree: &'a Tree, random: &mut fastrand::Rng) -> Option<&'a Addr> {
    match tree {
        Tree::Leaf(bound) => Some(&bound.addr),
        Tree::Alt(trees) => trees.iter().find_map(|tree| leaf(tree, random)),
        Tree::Union(branches) => {
            let total: f64 = branches.iter().map(|branch| branch.weight.get()).sum();
            let mut left = random.f64() * total;
            let drawn = branches.iter().filter(|branch| branch.weight > Weight::ZERO).find(|branch| {
                left -= branch.weight.get();
                left < 0.0
            });
            // The last if rounding leaves none, or if no branch has a weight.
            leaf(&drawn.or_else(|| branches.last())?.tree, random)
        }
        Tree::Neg | Tree::Fail | Tree::Empty => None,
    }
}

fn line(addr: &Addr) -> Answer {
    match addr {
        Addr::Pending => Answer::Pending,
        addr => Answer::line(addr.to_json()),
    }
}

fn chunk(bytes: &[u8]) -> Bytes {
    let size = format!("{:x}\r\n", bytes.len());
    [size.as_bytes(), bytes, b"\r\n"].concat().into()
}

/// A status and nothing else.
pub(super) fn plain(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// Only `resolve` says what it sends.
fn typed(door: Door, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    if door == Door::Resolve {
        response.headers_mut().insert(CONTENT_TYPE, super::routes::JSON);
    }
    response
}

/// An answer that the wire replaces.
fn instead(control: &Control, steps: Vec<Step>) -> Response<Body> {
    control.replace(steps);
    plain(StatusCode::OK)
}

const HTML: http::HeaderValue = http::HeaderValue::from_static("text/html");

const NOT_JSON: &str = "<html><body>502 Bad Gateway</body></html>\n";
