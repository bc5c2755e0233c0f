//! A router that sends TLS connections where their server name says, without decrypting them.
//!
//! Shows how the two sides meet in the [`Session`]: a [`TlsPolicy`] has the first bytes looked at and passed on as they
//! are, which notes the server name in the session, and [`BalanceLayer::by`] balances by that name. The router has no
//! certificate and no key; clients see the certificates of the backends.
//!
//! Run it with the address to listen at (port 0: a free one) and a list of name, `=`, address; a name that is there
//! several times is balanced over its addresses:
//!
//! ```text
//! cargo run -p examples --example sni_router -- 127.0.0.1:8443 one.localhost=127.0.0.1:9443 two.localhost=127.0.0.1:9444
//! openssl s_client -connect 127.0.0.1:8443 -servername two.localhost
//! ```
//!
//! A client that asks for a name nobody has gets the alert "unrecognized name", one that does not speak TLS is closed.
//! Ctrl-C ends the router.

use std::collections::HashMap;
use std::env;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use meshlib::BalanceLayer;
use meshlib::Drain;
use meshlib::Error;
use meshlib::Refusal;
use meshlib::Resolver;
use meshlib::Server;
use meshlib::Session;
use meshlib::Static;
use meshlib::TcpConnector;
use meshlib::TcpProxy;
use meshlib::TlsLayer;
use meshlib::io::sniff::Sniffed;
use meshlib::tls::AcceptTls;
use meshlib::tls::Hello;
use meshlib::tls::Inspect;
use meshlib::tls::TlsPolicy;
use meshlib::tls::rustls::AlertDescription;
use tower::ServiceBuilder;

/// The addresses of each server name, in lower case.
type Routes = HashMap<Arc<str>, Vec<SocketAddr>>;

/// Passes TLS for known names on as it is.
struct PassThrough(Arc<Routes>);

impl TlsPolicy for PassThrough {
    fn inspect(&self, _: &Session) -> Inspect {
        Inspect::FirstBytes { within: Duration::from_secs(5) }
    }

    fn accept(&self, hello: &Hello<'_>) -> AcceptTls {
        // The session has the name in lower case; the hello has it as the client wrote it.
        match (&hello.protocol, &hello.session.server_name) {
            (Sniffed::Tls { .. }, Some(name)) if self.0.contains_key(name) => AcceptTls::Forward,
            (Sniffed::Tls { .. }, _) => AcceptTls::Alert(AlertDescription::UnrecognisedName),
            _ => AcceptTls::Refuse,
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = env::args().skip(1);
    let listen = args.next().unwrap_or_else(|| "127.0.0.1:8443".into());
    let routes = Arc::new(parse(args)?);

    // A name is only asked for if the policy has let it pass; the empty list is there for the type.
    let table = Arc::clone(&routes);
    let by_name =
        move |name: Arc<str>| Static::new(table.get(&name).cloned().unwrap_or_default()).resolve(name);
    let asked_for = |session: &Session| session.server_name.clone().ok_or(Error::Refused(Refusal::Policy));
    let connect =
        ServiceBuilder::new().layer(BalanceLayer::by(by_name, asked_for)).service(TcpConnector::default());
    let service =
        ServiceBuilder::new().layer(TlsLayer::new(PassThrough(routes))).service(TcpProxy::new(connect));

    let server = Server::bind(listen).await?;
    let drain = Drain::on_signals();
    println!("listening at {}", server.local_addr());
    server.serve(service, drain).await?;
    Ok(())
}

fn parse(args: impl Iterator<Item = String>) -> Result<Routes, Box<dyn std::error::Error>> {
    let mut routes = Routes::new();
    for arg in args {
        let (name, addr) = arg.split_once('=').ok_or("a route is NAME=ADDRESS")?;
        routes.entry(name.to_ascii_lowercase().into()).or_default().push(addr.parse()?);
    }
    if routes.is_empty() {
        routes.insert("localhost".into(), vec![([127, 0, 0, 1], 9443).into()]);
    }
    Ok(routes)
}
