//! The ways a connection can end.

use std::io;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::time;

use super::client;
use super::client::Client;
use crate::backend;
use crate::backend::Manner;

/// A way to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The client closes after an exchange.
    ClientCloses,
    /// The backend closes after its answer.
    BackendCloses,
    /// The client resets after an exchange.
    ClientResets,
    /// The backend resets instead of an answer.
    BackendResets,
    /// The client ends its direction, then the backend answers.
    ClientHalfCloses,
    /// The backend ends its direction, then the client goes on.
    BackendHalfCloses,
    /// Nobody listens at the only endpoint.
    Refused,
    /// The client resets before the endpoint has answered.
    Gone,
    /// The client closes before the endpoint has answered, which looks as if it still listened.
    GoneQuietly,
    /// The client says goodbye in TLS.
    TlsClean,
    /// The client of a TLS connection closes TCP without a goodbye.
    TlsTruncated,
    /// The client leaves in the middle of its hello.
    TlsAborted,
    /// The client does not speak TLS.
    Garbage,
}

/// Which server of the program a kind needs, in the order of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Port {
    Plain,
    Tls,
    Refused,
    /// Its endpoint does not answer.
    Unanswering,
    /// The same, and it soon gives up.
    Impatient,
}

/// How the backend must see all connections of a kind end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// Properly.
    Clean,
    /// With a reset.
    Reset,
    /// It must not see any.
    Nothing,
}

impl Kind {
    /// All of them.
    pub(crate) const ALL: [Self; 13] = [
        Self::ClientCloses,
        Self::BackendCloses,
        Self::ClientResets,
        Self::BackendResets,
        Self::ClientHalfCloses,
        Self::BackendHalfCloses,
        Self::Refused,
        Self::Gone,
        Self::GoneQuietly,
        Self::TlsClean,
        Self::TlsTruncated,
        Self::TlsAborted,
        Self::Garbage,
    ];

    /// The kind of this name.
    pub(crate) fn named(name: &str) -> io::Result<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name).ok_or_else(|| {
            let known = Self::ALL.map(Self::name).join(", ");
            io::Error::other(format!("no kind is called {name}; there are {known}"))
        })
    }

    /// What it is called on the command line and in the report.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::ClientCloses => "client-closes",
            Self::BackendCloses => "backend-closes",
            Self::ClientResets => "client-resets",
            Self::BackendResets => "backend-resets",
            Self::ClientHalfCloses => "client-half-closes",
            Self::BackendHalfCloses => "backend-half-closes",
            Self::Refused => "refused",
            Self::Gone => "gone",
            Self::GoneQuietly => "gone-quietly",
            Self::TlsClean => "tls-clean",
            Self::TlsTruncated => "tls-truncated",
            Self::TlsAborted => "tls-aborted",
            Self::Garbage => "garbage",
        }
    }

    /// The server it needs.
    pub(crate) fn port(self) -> Port {
        match self {
            Self::Refused => Port::Refused,
            Self::Gone => Port::Unanswering,
            Self::GoneQuietly => Port::Impatient,
            Self::TlsClean | Self::TlsTruncated | Self::TlsAborted | Self::Garbage => Port::Tls,
            _ => Port::Plain,
        }
    }

    /// What the backend must see.
    pub(crate) fn seen(self) -> Seen {
        match self {
            Self::ClientResets => Seen::Reset,
            Self::Refused | Self::Gone | Self::GoneQuietly | Self::TlsAborted | Self::Garbage => {
                Seen::Nothing
            }
            _ => Seen::Clean,
        }
    }

    /// The n-th connection of this kind from its beginning to its end.
    pub(crate) async fn connection(self, client: &Client, n: usize) -> io::Result<()> {
        match self {
            Self::ClientCloses => {
                let mut io = client.connect(n).await?;
                client::exchange(&mut io, Manner::Echo).await
            }
            Self::BackendCloses => {
                let mut io = client.connect(n).await?;
                client::exchange(&mut io, Manner::Close).await?;
                backend::expect_end(&mut io).await
            }
            Self::ClientResets => {
                let mut io = client.connect(n).await?;
                client::exchange(&mut io, Manner::Echo).await?;
                io.set_zero_linger()
            }
            Self::BackendResets => {
                let mut io = client.connect(n).await?;
                io.write_all(&Manner::Reset.message()).await?;
                match io.read(&mut [0]).await {
                    Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(()),
                    other => Err(io::Error::other(format!("no reset but {other:?}"))),
                }
            }
            Self::ClientHalfCloses => {
                let mut io = client.connect(n).await?;
                io.write_all(&Manner::AnswerAtEnd.message()).await?;
                io.shutdown().await?;
                client::expect_answer(&mut io, Manner::AnswerAtEnd).await?;
                backend::expect_end(&mut io).await
            }
            Self::BackendHalfCloses => {
                let mut io = client.connect(n).await?;
                client::exchange(&mut io, Manner::HalfClose).await?;
                backend::expect_end(&mut io).await?;
                io.write_all(&Manner::HalfClose.message()).await
            }
            Self::Refused => client::expect_closed(&mut client.connect(n).await?, false).await,
            Self::Gone => {
                let io = client.connect(n).await?;
                time::sleep(Duration::from_millis(fastrand::u64(0..3))).await;
                io.set_zero_linger()
            }
            Self::GoneQuietly => {
                let io = client.connect(n).await?;
                time::sleep(Duration::from_millis(fastrand::u64(0..3))).await;
                drop(io);
                Ok(())
            }
            Self::TlsClean => {
                let mut wire = client.connect_tls(n).await?;
                client::exchange(&mut wire, Manner::Echo).await?;
                wire.shutdown().await?;
                backend::expect_end(&mut wire).await
            }
            Self::TlsTruncated => {
                let mut wire = client.connect_tls(n).await?;
                client::exchange(&mut wire, Manner::Echo).await?;
                // Forgets the session, so that nothing is said in it.
                wire.into_socket().shutdown().await
            }
            Self::TlsAborted => {
                let mut io = client.connect(n).await?;
                io.write_all(client.part_of_hello()).await
            }
            Self::Garbage => {
                let mut io = client.connect(n).await?;
                io.write_all(b"GET / HTTP/1.1\r\nhost: web\r\n\r\n").await?;
                // An alert may come first.
                client::expect_closed(&mut io, true).await
            }
        }
    }
}
