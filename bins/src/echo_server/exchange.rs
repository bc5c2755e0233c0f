//! One connection.

use std::io;
use std::time::Duration;

use meshlib::Conn;
use meshlib::Draining;
use meshlib::Error;
use meshlib::Io;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::time;

use super::answer::MAX_REQUEST;
use super::answer::answer;

/// How long a client may say nothing.
const SILENCE: Duration = Duration::from_secs(60);

/// How long it may when the server is to end: what was sent before that has arrived by then.
const SILENCE_AT_END: Duration = Duration::from_secs(1);

/// How long the answer and the end of the connection may take.
const FAREWELL: Duration = Duration::from_secs(5);

/// The most bytes that are read after the answer.
const MAX_REST: usize = 1024 * 1024;

/// Reads once, answers and closes. What goes wrong is logged and ends nothing but this connection.
pub(super) async fn exchange(mut conn: Conn) -> Result<(), Error> {
    let srv = conn.session.local.map(tracing::field::display);
    let accept = conn.session.peer.map(tracing::field::display);
    tracing::info!(target: "echo_server", srv, accept, "Connection accepted");

    let mut request = vec![0; MAX_REQUEST];
    let read = tokio::select! {
        biased;
        read = conn.io.read(&mut request) => read,
        () = silence(&conn.draining) => Err(io::ErrorKind::TimedOut.into()),
    };
    let result = match read {
        Ok(0) => {
            tracing::debug!(target: "echo_server", accept, "Received 0 bytes, closing");
            return Ok(());
        }
        Ok(n) => {
            let request = &request[..n];
            tracing::debug!(target: "echo_server", accept, data = %request.escape_ascii(), "Read {n} bytes");
            let answer = answer(request, conn.session.peer);
            let told = time::timeout(FAREWELL, tell(&mut conn.io, &answer)).await;
            told.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map(|()| answer.len())
        }
        Err(error) => Err(error),
    };
    match result {
        Ok(n) => tracing::debug!(target: "echo_server", accept, "Wrote {n} bytes"),
        Err(error) => tracing::debug!(target: "echo_server", accept, %error, "Connection failed"),
    }
    Ok(())
}

/// Ends when a client has said nothing for too long.
async fn silence(draining: &Draining) {
    let drained = async {
        draining.started().await;
        time::sleep(SILENCE_AT_END).await;
    };
    // An error says that the longer time is over.
    let _ = time::timeout(SILENCE, drained).await;
}

/// Sends the answer so that it arrives: while there are bytes that nobody has read, closing the socket resets the
/// connection (RFC 9293 section 3.10.4), and a reset overtakes the answer.
async fn tell(io: &mut Io, answer: &[u8]) -> io::Result<()> {
    io.write_all(answer).await?;
    io.shutdown().await?;
    let mut rest = [0; MAX_REQUEST];
    let mut left = MAX_REST;
    while left > 0 {
        match io.read(&mut rest).await? {
            0 => break,
            n => left = left.saturating_sub(n),
        }
    }
    Ok(())
}
