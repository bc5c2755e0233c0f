//! Calls that are refused for their nonce.

use instant_acme::Error;

/// How often a call is made; each time it takes three nonces by itself.
pub(super) const ROUNDS: u32 = 4;

/// Makes a call until it is not refused for its nonce (RFC 8555 section 6.5), which has no other effect.
///
/// A macro and no function: a function of an asynchronous closure gives a future of which the compiler cannot tell that
/// it can be sent.
macro_rules! with_new_nonces {
    ($call:expr) => {{
        let mut rounds = $crate::tls::acme::retry::ROUNDS;
        loop {
            rounds -= 1;
            match $crate::tls::acme::retry::call($call).await {
                Err(error) if rounds > 0 && $crate::tls::acme::retry::is_bad_nonce(&error) => {}
                outcome => break outcome,
            }
        }
    }};
}

pub(super) use with_new_nonces;

/// The call itself; says what kind of future it is.
pub(super) fn call<T, F: Future<Output = Result<T, Error>>>(call: F) -> F {
    call
}

pub(super) fn is_bad_nonce(error: &Error) -> bool {
    let Error::Api(problem) = error else { return false };
    problem.r#type.as_deref() == Some("urn:ietf:params:acme:error:badNonce")
}
