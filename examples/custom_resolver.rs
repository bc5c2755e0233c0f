//! A proxy whose backends are what its user types.
//!
//! Shows a [`Resolver`] of one's own: it answers with a stream in which every item is the whole current set. Here a line
//! of standard input is a set; a message queue, a database or a file would look the same. The name that is asked for
//! does not matter to this resolver, so it resolves any type of name.
//!
//! Run it with the address to listen at (port 0: a free one) and type addresses, separated by spaces:
//!
//! ```text
//! cargo run -p examples --example custom_resolver -- 127.0.0.1:7474
//! 127.0.0.1:9001 127.0.0.1:9002
//! ```
//!
//! Each change is reported. Until the first line, connections wait. An empty line takes all backends away: connections
//! that are open go on, new ones are closed at once. A line that cannot be read changes nothing. Ctrl-C ends the proxy.

use std::env;
use std::io;
use std::net::AddrParseError;
use std::sync::Arc;
use std::thread;

use futures::StreamExt;
use futures::stream;
use meshlib::BalanceLayer;
use meshlib::Drain;
use meshlib::Endpoint;
use meshlib::Resolution;
use meshlib::Resolver;
use meshlib::Server;
use meshlib::TcpConnector;
use meshlib::TcpProxy;
use meshlib::Update;
use meshlib::observe::Event;
use meshlib::observe::Observer;
use meshlib::resolve::ResolveError;
use tokio::sync::watch;
use tower::Layer;

/// What the last line said; nothing before the first.
type Said = Option<Result<Update, ResolveError>>;

/// Resolves every name to the addresses of the last line of standard input.
#[derive(Debug)]
struct Typed(watch::Receiver<Said>);

impl Typed {
    /// Begins to read. The thread is one of its own because a read from a terminal cannot be given up.
    fn new() -> Self {
        let (tx, rx) = watch::channel(None);
        thread::spawn(move || {
            for line in io::stdin().lines().map_while(Result::ok) {
                tx.send_replace(Some(understand(&line)));
            }
        });
        Self(rx)
    }
}

impl<T> Resolver<T> for Typed {
    fn resolve(&self, _: T) -> Resolution {
        let mut lines = self.0.clone();
        // What was said before the resolution began is new to it. The end of the input makes the last line final.
        lines.mark_changed();
        Resolution::new(
            stream::unfold(lines, |mut lines| async move {
                lines.changed().await.ok()?;
                let said = lines.borrow_and_update().clone();
                Some((said, lines))
            })
            .filter_map(async |said| said),
        )
    }
}

/// One line as the answer of a resolver. An error keeps the set that was there before.
fn understand(line: &str) -> Result<Update, ResolveError> {
    let addrs: Result<Vec<_>, AddrParseError> = line.split_whitespace().map(str::parse).collect();
    match addrs {
        Ok(addrs) => Ok(Update::endpoints(addrs.into_iter().map(Endpoint::new))),
        Err(error) => Err(ResolveError::Other(Arc::new(error))),
    }
}

/// Reports what the resolver said.
#[derive(Debug)]
struct Report;

impl Observer for Report {
    fn on(&self, event: &Event<'_>) {
        match event {
            Event::Resolved { result: Ok(n), .. } => println!("{n} backends"),
            Event::Resolved { result: Err(error), .. } => println!("no change: {error}"),
            _ => {}
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let listen = env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7474".into());

    let connect =
        BalanceLayer::new(Typed::new(), "typed").observe(Arc::new(Report)).layer(TcpConnector::default());
    // Without this the first connection would start the resolution.
    connect.start();

    let server = Server::bind(listen).await?;
    let drain = Drain::on_signals();
    println!("listening at {}", server.local_addr());
    server.serve(TcpProxy::new(connect), drain).await?;
    Ok(())
}
