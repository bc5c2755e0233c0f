//! Connecting to where the client wanted to go.

use std::task::Context;
use std::task::Poll;

use futures::future::Either;
use futures::future::Ready;
use futures::future::ready;
use tower::Layer;
use tower::Service;
use tower::ServiceExt;
use tower::util::Oneshot;

use crate::endpoint::Endpoint;
use crate::error::Error;
use crate::error::Refusal;
use crate::session::Session;
use crate::session::To;

/// Makes the session's original destination its endpoint, in the place where others balance.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct DirectLayer {}

impl DirectLayer {
    /// The layer has no options.
    pub fn new() -> Self {
        Self::default()
    }
}

impl<S> Layer<S> for DirectLayer {
    type Service = Direct<S>;

    fn layer(&self, inner: S) -> Direct<S> {
        Direct { inner }
    }
}

/// Connects to where the client wanted to go before it was redirected; made by [`DirectLayer`].
///
/// A session without an original destination is refused.
#[derive(Clone, Debug)]
pub struct Direct<S> {
    inner: S,
}

impl<S> Service<Session> for Direct<S>
where
    S: Service<To<Session>, Error = Error> + Clone,
{
    type Response = S::Response;
    type Error = Error;
    type Future = Either<Oneshot<S, To<Session>>, Ready<Result<S::Response, Error>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, session: Session) -> Self::Future {
        match session.original_dst {
            Some(addr) => Either::Left(self.inner.clone().oneshot(To::new(Endpoint::new(addr), session))),
            None => Either::Right(ready(Err(Error::Refused(Refusal::NoDestination)))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_original_destination_becomes_the_endpoint() {
        let echo = tower::service_fn(|to: To<Session>| async move { Ok::<_, Error>(to.endpoint.addr) });
        let direct = DirectLayer::new().layer(echo);
        let session = Session::default().with_original_dst("192.0.2.1:80".parse().unwrap());

        assert_eq!(direct.clone().oneshot(session).await.unwrap().to_string(), "192.0.2.1:80");
        let refused = direct.oneshot(Session::default()).await;
        assert!(matches!(refused, Err(Error::Refused(Refusal::NoDestination))));
    }
}
