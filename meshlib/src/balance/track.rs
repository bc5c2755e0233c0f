//! When the work of a request has ended.

use tower::load::TrackCompletion;

use super::set::InFlight;
use crate::io::Io;

/// A request's work lasts until its answer is dropped: until the connection is closed, the body read. A body that has come as
/// a whole with its head is no work any more.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct UntilEnd {}

impl UntilEnd {
    /// There are no options.
    pub const fn new() -> Self {
        Self {}
    }
}

impl TrackCompletion<InFlight, Io> for UntilEnd {
    type Output = Io;

    fn track_completion(&self, guard: InFlight, mut io: Io) -> Io {
        io.set_peer_stats(Some(guard.peer_stats()));
        io.hold(guard);
        io
    }
}

#[cfg(feature = "http")]
impl TrackCompletion<InFlight, http::Response<crate::http::Body>> for UntilEnd {
    type Output = http::Response<crate::http::Body>;

    fn track_completion(&self, guard: InFlight, response: Self::Output) -> Self::Output {
        guard.record_answer();
        if response.body().is_whole() {
            return response;
        }
        response.map(|body| body.holding(guard))
    }
}

#[cfg(all(test, feature = "http"))]
mod tests {
    use std::net::SocketAddr;
    use std::sync::Arc;
    use std::sync::atomic::AtomicU32;
    use std::sync::atomic::Ordering;
    use std::time::Duration;

    use http::Request;
    use http::Response;
    use tower::Layer;
    use tower::ServiceExt;

    use crate::BalanceLayer;
    use crate::Error;
    use crate::Static;
    use crate::balance::PeakEwma;
    use crate::http::Body;
    use crate::session::To;

    #[tokio::test(start_paused = true)]
    async fn an_endpoint_whose_answers_take_long_gets_few_requests() {
        static SLOW: AtomicU32 = AtomicU32::new(0);
        let addrs: Vec<SocketAddr> = (1..=10).map(|port| ([127, 0, 0, 1], port).into()).collect();
        let service = tower::service_fn(|to: To<Request<Body>>| async move {
            let slow = to.endpoint.addr.port() == 1;
            SLOW.fetch_add(u32::from(slow), Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(if slow { 200 } else { 2 })).await;
            Ok::<_, Error>(Response::new(Body::from("ok")))
        });
        let balance = BalanceLayer::new(Static::new(addrs), "ten").balancer(PeakEwma::new()).layer(service);

        for _ in 0..300 {
            balance.clone().oneshot(Request::new(Body::empty())).await.unwrap();
        }

        let slow = SLOW.load(Ordering::Relaxed);
        assert!(slow <= 6, "{slow} of 300 went to the slow one");
    }

    #[tokio::test(start_paused = true)]
    async fn each_endpoint_is_tried_though_others_are_known_to_be_quick() {
        let tried: Arc<[AtomicU32; 3]> = Arc::default();
        let addrs: Vec<SocketAddr> = (0..3).map(|port| ([127, 0, 0, 1], port).into()).collect();
        let service = tower::service_fn({
            let tried = Arc::clone(&tried);
            move |to: To<Request<Body>>| {
                tried[usize::from(to.endpoint.addr.port())].fetch_add(1, Ordering::Relaxed);
                async {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                    Ok::<_, Error>(Response::new(Body::from("ok")))
                }
            }
        });
        let balance = BalanceLayer::new(Static::new(addrs), "three").balancer(PeakEwma::new()).layer(service);

        // One at a time, so that nothing but the measurements tells them apart.
        for _ in 0..100 {
            balance.clone().oneshot(Request::new(Body::empty())).await.unwrap();
        }

        for (i, tried) in tried.iter().enumerate() {
            let tried = tried.load(Ordering::Relaxed);
            assert!(tried >= 10, "{tried} of 100 went to endpoint {i}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn how_long_answers_take_is_known_though_the_balancer_does_not_care() {
        let service = tower::service_fn(|_: To<Request<Body>>| async {
            tokio::time::sleep(Duration::from_millis(70)).await;
            Ok::<_, Error>(Response::new(Body::from("ok")))
        });
        let endpoint = SocketAddr::from(([127, 0, 0, 1], 1));
        let balance = BalanceLayer::new(Static::new([endpoint]), "one").layer(service);

        balance.clone().oneshot(Request::new(Body::empty())).await.unwrap();

        let state = balance.view().state().unwrap();
        let time = state.replicas.replicas()[0].answer_time().unwrap();
        assert_eq!(time.as_millis(), 70);
    }
}
