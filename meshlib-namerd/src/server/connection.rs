//! One accepted connection.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use http::Request;
use meshlib::Conn;
use meshlib::Error;
use meshlib::Io;
use meshlib::http::Body;
use meshlib::http::HttpServer;
use meshlib::http::ServerOptions;
use tokio::time::Instant;
use tower::Service;
use tower::ServiceExt;
use tower::service_fn;

use super::record::Recorded;
use super::routes;
use super::shared::Shared;
use super::wire::Control;
use super::wire::Cut;
use super::wire::Wire;

/// The service of the listening server.
pub(super) fn service(
    shared: &Arc<Shared>,
) -> impl Service<Conn, Response = (), Error = Error, Future = BoxFuture<'static, Result<(), Error>>>
+ Clone
+ Send
+ use<> {
    let shared = Arc::clone(shared);
    service_fn(move |conn: Conn| {
        let connection: BoxFuture<'static, _> = Box::pin(serve(Arc::clone(&shared), conn));
        connection
    })
}

async fn serve(shared: Arc<Shared>, conn: Conn) -> Result<(), Error> {
    let _counted = shared.count_connection();
    let number = shared.number_connection();
    let mut cuts = shared.cuts();
    let control = Arc::new(Control::default());

    let answer = service_fn({
        let (shared, control) = (Arc::clone(&shared), Arc::clone(&control));
        move |request: Request<Body>| {
            let (shared, control) = (Arc::clone(&shared), Arc::clone(&control));
            async move {
                let at = Instant::now();
                let recorded = Recorded::new(at, number, &request, control.take_head());
                shared.log().add(recorded);
                // The HTTP server keeps the space of this future for the life of the connection.
                Ok::<_, Error>(Box::pin(routes::answer(&shared, &control, request)).await)
            }
        }
    });
    // The original sends no Date and never tires of a silent connection; an answer that hangs on purpose does so here.
    let options =
        ServerOptions::default().with_date(false).with_head_within(SILENCE).with_write_within(SILENCE);
    let io = Io::new(Wire::new(conn.io, Arc::clone(&control)));
    let http = HttpServer::with_options(answer, options);
    let mut http = pin!(http.oneshot(Conn::new(io, conn.session, conn.draining)));
    tokio::select! {
        result = &mut http => result,
        _ = cuts.changed() => {
            if *cuts.borrow() == Cut::Reset {
                control.reset();
            }
            // The connection goes with the future that serves it, which lives until this function ends.
            Ok(())
        }
    }
}

/// How long a connection may be silent between requests, and an answer may hang.
const SILENCE: Duration = Duration::from_secs(24 * 60 * 60);
