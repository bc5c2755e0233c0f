//! What becomes of a connection.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::OnceLock;

use futures::future::BoxFuture;
use meshlib::BoxConnector;
use meshlib::Conn;
use meshlib::Endpoint;
use meshlib::Error;
use meshlib::Io;
use meshlib::Refusal;
use meshlib::Session;
use meshlib::Side;
use meshlib::TcpConnector;
use meshlib::TcpProxy;
use meshlib::TimeoutLayer;
use meshlib::To;
use meshlib::Transferred;
use meshlib::connect::ProxyHeader;
use meshlib::connect::ProxyHeaderLayer;
use meshlib::connect::SocketOptions;
use meshlib::observe::Event;
use meshlib::observe::Observer;
use meshlib::tproxy::ClientPort;
use meshlib::tproxy::ClientSource;
use meshlib::tproxy::Reach;
use meshlib::tproxy::rules::Reply;
use meshlib::tproxy::rules::Topology;
use tower::Layer;
use tower::Service;
use tower::ServiceExt;
use tower::service_fn;
use tower::util::option_layer;

use super::args::HeaderArg;
use super::args::OnSpoofError;
use super::args::ProxyArgs;
use super::args::SourceArg;
use super::loops::Loops;
use super::metrics::Metrics;
use super::metrics::Seen;
use super::plan::Plan;
use super::upstream::Target;

/// How connections go on to servers.
#[derive(Debug)]
pub(super) struct Wire {
    pub(super) server: Target,
    /// From the client's address, unless that is not wanted.
    connect: BoxConnector,
    /// From our own, where that is the lesser evil.
    fall_back: Option<BoxConnector>,
    keeps_client: bool,
    mark: Option<u32>,
    loops: Loops,
    pub(super) metrics: Arc<Metrics>,
}

impl Wire {
    pub(super) fn new(args: &ProxyArgs, plan: &Plan, loops: Loops) -> Self {
        let source = client_source(args.source, plan);
        let mark = source.is_some().then(|| mark(plan)).flatten();
        let connector = |options| {
            let tcp = TcpConnector::new(options);
            let within = TimeoutLayer::connect(args.connect_timeout);
            let header = args.send_proxy_protocol.map(|form| match form {
                HeaderArg::V1 => ProxyHeader::V1,
                HeaderArg::V2 => ProxyHeader::V2,
            });
            BoxConnector::new(within.layer(option_layer(header.map(ProxyHeaderLayer::new)).layer(tcp)))
        };
        let falls_back = source.is_some() && args.on_spoof_error == OnSpoofError::Local;
        let keeps_client = source.is_some();
        Self {
            server: plan.server,
            connect: connector(SocketOptions::default().with_client_source(source).with_mark(mark)),
            fall_back: falls_back.then(|| connector(SocketOptions::default())),
            keeps_client,
            mark,
            loops,
            metrics: Arc::new(Metrics::new(plan.rules.intercept)),
        }
    }

    /// Serves one accepted connection.
    pub(super) fn serve(self: Arc<Self>, conn: Conn) -> BoxFuture<'static, Result<Transferred, Error>> {
        let (remote, local) = (OnceLock::new(), OnceLock::new());
        let path = Arc::new(Path { wire: self, accept: conn.session.peer, remote, local });
        let connect = service_fn({
            let path = Arc::clone(&path);
            move |session| {
                let path = Arc::clone(&path);
                async move { path.connect(session).await }
            }
        });
        // Made for each connection, so that what its end is reported with is at hand.
        TcpProxy::new(connect).reset_unserved(true).observe(path).call(conn)
    }
}

/// One connection from its client to its server.
#[derive(Debug)]
struct Path {
    wire: Arc<Wire>,
    accept: Option<SocketAddr>,
    /// Where its server is.
    remote: OnceLock<SocketAddr>,
    /// The address that its server sees.
    local: OnceLock<SocketAddr>,
}

impl Path {
    async fn connect(&self, session: Session) -> Result<Io, Error> {
        let wire = &*self.wire;
        let accept = session.peer.map(tracing::field::display);
        let dialled = session.original_dst.or(session.local);
        let server = session.local.map(tracing::field::display);
        let orig_dst = dialled.map(tracing::field::display);
        tracing::info!(target: "tproxy_poc", accept, server, orig_dst, "Handling connection");
        let dialled = dialled.ok_or(Error::Refused(Refusal::NoDestination))?;
        let addr = wire.server.of(dialled);
        // Set once: it connects once.
        let _ = self.remote.set(addr);
        if wire.loops.is_self(addr) || session.peer.is_some_and(|peer| wire.loops.is_own(peer, dialled)) {
            wire.metrics.loops_refused.inc();
            tracing::error!(target: "tproxy_poc", accept, remote_addr = %addr, "refused to connect to myself");
            return Err(Error::Refused(Refusal::Policy));
        }
        tracing::debug!(
            target: "tproxy_poc",
            is_transparent = wire.keeps_client,
            is_freebind = false,
            sock_mark = wire.mark,
            "Making redirect client socket"
        );
        let to = To::new(Endpoint::new(addr), session.clone());
        let mut result = wire.connect.clone().oneshot(to.clone()).await;
        if let (Err(error @ Error::Source { .. }), Some(fall_back)) = (&result, &wire.fall_back) {
            tracing::warn!(target: "tproxy_poc", accept, reason = %error.chain(), "client address not preserved");
            result = fall_back.clone().oneshot(to).await;
        }
        let mut io = result?;
        self.connected(&mut io, &session, addr);
        Ok(io)
    }

    fn connected(&self, io: &mut Io, session: &Session, addr: SocketAddr) {
        let local = io.local_addr();
        let local_addr = local.map(tracing::field::display);
        tracing::info!(target: "tproxy_poc", local_addr, "Connected to {addr}");
        let seen = match (local, session.peer) {
            (Some(local), Some(peer)) if local == peer => Seen::Client,
            (Some(local), Some(peer)) if local.ip() == peer.ip() => Seen::ClientIp,
            _ => Seen::Local,
        };
        self.wire.metrics.seen(seen);
        if let Some(tracked) = local.and_then(|local| self.wire.loops.track(local, addr)) {
            io.hold(tracked);
        }
        let _ = local.map(|local| self.local.set(local));
    }

    /// A client got no server. What is refused is logged where it is.
    fn not_opened(&self, error: &Error) {
        self.wire.metrics.not_opened(error);
        let accept = self.accept.map(tracing::field::display);
        let remote_addr = self.remote.get().map(tracing::field::display);
        let spoofed_client = self.accept.filter(|_| self.wire.keeps_client).map(tracing::field::display);
        match error {
            Error::Refused(Refusal::Policy) => {}
            Error::Forward { side: Side::Client, .. } => {
                tracing::info!(target: "tproxy_poc", accept, remote_addr, "the client left before it had a server");
            }
            _ => {
                let error = error.chain();
                tracing::error!(target: "tproxy_poc", %error, spoofed_client, remote_addr, "failed to connect to server");
            }
        }
    }
}

impl Observer for Path {
    fn on(&self, event: &Event<'_>) {
        let metrics = &self.wire.metrics;
        match event {
            Event::Opened { .. } => metrics.active.add(1),
            Event::NotOpened { error } => self.not_opened(error),
            Event::Progress { transferred } => metrics.moved(transferred),
            Event::Closed { transferred, unreported, lasted, error, forced } => {
                metrics.active.sub(1);
                metrics.moved(unreported);
                metrics.ended(error.is_none() && !forced);
                tracing::info!(
                    target: "tproxy_poc",
                    accept = self.accept.map(tracing::field::display),
                    remote_addr = self.remote.get().map(tracing::field::display),
                    local_addr = self.local.get().map(tracing::field::display),
                    bytes_in = transferred.upstream,
                    bytes_out = transferred.downstream,
                    duration = ?lasted,
                    error = error.map(|error| tracing::field::display(error.chain())),
                    "Connection closed"
                );
            }
            _ => {}
        }
    }

    fn wants_progress(&self) -> bool {
        true
    }
}

fn client_source(arg: SourceArg, plan: &Plan) -> Option<ClientSource> {
    let port = match arg {
        SourceArg::Auto => ClientPort::SameIfFree,
        SourceArg::Client => ClientPort::Same,
        SourceArg::ClientIp => ClientPort::Any,
        SourceArg::None => return None,
    };
    let reach = match plan.rules.topology {
        Topology::Gateway => Reach::Anywhere,
        _ => Reach::Local,
    };
    let untracked = plan.rules.topology == Topology::Pod && plan.rules.reply == Reply::Fwmark;
    Some(ClientSource::default().with_port(port).with_reach(reach).with_untracked(untracked))
}

/// The mark by which answers find back. A gateway's connections must leave it, and those to a loopback address may be
/// known by that.
fn mark(plan: &Plan) -> Option<u32> {
    let marked = plan.rules.topology == Topology::Pod && plan.rules.reply != Reply::SourceRule;
    marked.then_some(plan.rules.mark)
}
