//! Clients that check a connection both ways.

use std::io;

use tokio::io::AsyncRead;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWrite;
use tokio::io::AsyncWriteExt;

/// Sends bytes and reads back as many, at the same time. The connection stays open.
///
/// # Errors
///
/// What the stream says; `UnexpectedEof` if less comes back.
pub async fn echo(io: &mut (impl AsyncRead + AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<Vec<u8>> {
    let (mut input, mut output) = tokio::io::split(io);
    let mut answer = vec![0; bytes.len()];
    let send = async {
        output.write_all(bytes).await?;
        output.flush().await
    };
    tokio::try_join!(send, input.read_exact(&mut answer))?;
    Ok(answer)
}

/// Sends bytes, closes the sending side, and reads all that comes back until the other end closes its own.
///
/// # Errors
///
/// What the stream says.
pub async fn echo_to_end(
    io: &mut (impl AsyncRead + AsyncWrite + Unpin),
    bytes: &[u8],
) -> io::Result<Vec<u8>> {
    let (mut input, mut output) = tokio::io::split(io);
    let mut answer = Vec::new();
    let send = async {
        output.write_all(bytes).await?;
        output.shutdown().await
    };
    tokio::try_join!(send, input.read_to_end(&mut answer))?;
    Ok(answer)
}
