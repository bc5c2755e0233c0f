//! Why a handshake came to nothing.

use std::io;
use std::time::Duration;

use rustls::AlertDescription;
use rustls::CertificateError;
use rustls::InvalidMessage;

use super::date::rfc3339;

/// Why no encrypted connection came about.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The peer does not speak TLS.
    #[error("the peer does not speak TLS")]
    NotTls,
    /// The peer closed the connection in the middle of the handshake.
    #[error("the peer closed the connection")]
    Closed,
    /// The peer said why it will not go on.
    #[error("the peer sent the alert {0:?}")]
    Alert(AlertDescription),
    /// We said why we will not go on.
    #[error("refused with the alert {0:?}")]
    Rejected(AlertDescription),
    /// The peer's certificate cannot be believed.
    ///
    /// A certificate that is its own issuer's and may issue others, which is what `openssl req -x509` makes, is no server's
    /// even where it is [trusted](super::pem::authorities): [pin](super::identity::Pinned) it, or let it issue another one.
    #[error("the peer's certificate is not acceptable: {}", reason(.0))]
    Certificate(CertificateError),
    /// The handshake took too long.
    #[error("the handshake took longer than {0:?}")]
    Timeout(Duration),
    /// The protocol was broken, or the two sides have nothing in common.
    #[error(transparent)]
    Protocol(rustls::Error),
    /// The connection broke.
    #[error(transparent)]
    Io(io::Error),
    /// A name that no certificate can carry.
    #[error("{name:?} is neither a host name nor an address")]
    Name {
        /// The name.
        name: String,
    },
    /// The operating system's certificate authorities cannot be read.
    #[error("the system has no usable certificate authority")]
    NoRoots,
}

impl TlsError {
    /// The kind of failure in one word, for metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NotTls => "not_tls",
            Self::Closed => "peer_closed",
            Self::Alert(_) | Self::Rejected(_) => "alert",
            Self::Certificate(error) => match error {
                CertificateError::Expired | CertificateError::ExpiredContext { .. } => "cert_expired",
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                    "cert_name"
                }
                _ => "cert_untrusted",
            },
            Self::Timeout(_) => "timeout",
            Self::Protocol(_) | Self::Name { .. } | Self::NoRoots => "protocol",
            Self::Io(_) => "io",
        }
    }
}

impl From<rustls::Error> for TlsError {
    fn from(error: rustls::Error) -> Self {
        match error {
            rustls::Error::AlertReceived(alert) => Self::Alert(alert),
            rustls::Error::InvalidCertificate(error) => Self::Certificate(error),
            rustls::Error::InvalidMessage(
                InvalidMessage::InvalidContentType
                | InvalidMessage::UnknownProtocolVersion
                | InvalidMessage::MessageTooLarge
                | InvalidMessage::InvalidEmptyPayload,
            ) => Self::NotTls,
            error => Self::Protocol(error),
        }
    }
}

impl From<io::Error> for TlsError {
    /// Finds the protocol's error inside what a TLS stream reports.
    fn from(error: io::Error) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(inner) => inner.clone().into(),
            None if error.kind() == io::ErrorKind::UnexpectedEof => Self::Closed,
            None => Self::Io(error),
        }
    }
}

/// What is wrong with a certificate: with dates where rustls says seconds since 1970, and with what to do about it where it
/// says no more than a name.
pub(super) fn reason(error: &CertificateError) -> String {
    match error {
        // The verifier's own type cannot be named without depending on its crate.
        CertificateError::Other(other) if other.to_string() == "CaUsedAsEndEntity" => {
            "it is an authority's own, which identifies no server (CaUsedAsEndEntity): \
             pin it, or let the authority issue one for the server"
                .to_owned()
        }
        CertificateError::Other(other) if other.to_string() == "UnsupportedCertVersion" => {
            "it is of X.509 version 1, and version 3 is needed (UnsupportedCertVersion): issue it with an extension, \
             such as a subject alternative name"
                .to_owned()
        }
        CertificateError::ExpiredContext { time, not_after } => {
            let (end, now) = (rfc3339(*not_after), rfc3339(*time));
            format!("certificate expired: it ended at {end}, and it is {now} now")
        }
        CertificateError::NotValidYetContext { time, not_before } => {
            let (begin, now) = (rfc3339(*not_before), rfc3339(*time));
            format!("certificate not valid yet: it begins at {begin}, and it is {now} now")
        }
        CertificateError::ExpiredRevocationListContext { time, next_update } => {
            let (end, now) = (rfc3339(*next_update), rfc3339(*time));
            format!("certificate revocation list expired: it ended at {end}, and it is {now} now")
        }
        error => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::UnixTime;

    use super::*;

    #[test]
    fn the_time_of_a_certificate_is_told_as_a_date() {
        let at = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let said = |error| TlsError::from(rustls::Error::InvalidCertificate(error)).to_string();

        let ended =
            CertificateError::ExpiredContext { time: at(1_796_000_000), not_after: at(1_735_689_599) };
        let begins = CertificateError::NotValidYetContext { time: at(0), not_before: at(951_782_400) };

        let before = "the peer's certificate is not acceptable: certificate";
        assert_eq!(
            said(ended),
            format!("{before} expired: it ended at 2024-12-31T23:59:59Z, and it is 2026-11-30T00:53:20Z now")
        );
        assert_eq!(
            said(begins),
            format!(
                "{before} not valid yet: it begins at 2000-02-29T00:00:00Z, and it is 1970-01-01T00:00:00Z now"
            )
        );
    }
}
