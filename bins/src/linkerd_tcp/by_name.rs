//! One balancer for each name that clients ask for, of which there is room for so many.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::Weak;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use futures::future::Either;
use futures::future::Ready;
use futures::future::ready;
use meshlib::Error;
use meshlib::Io;
use meshlib::Refusal;
use meshlib::Session;
use meshlib::To;
use meshlib::balance::Balance;
use meshlib::balance::Replica;
use meshlib::balance::Waiting;
use tokio::time;
use tokio::time::Instant;
use tower::Service;

/// After this long without a client a name is forgotten.
const IDLE: Duration = Duration::from_secs(600);
/// How often names are looked at.
const SWEEP: Duration = Duration::from_secs(60);

/// Connects each client to an endpoint of the name that it asks for. A clone has the same names.
///
/// Names come from clients, that is from anybody. When there is no room for one more, a tenth makes room: those that
/// discovery does not know first, then those that nobody has asked for the longest. A name with connections stays; only if
/// all have some is the new one refused.
pub(super) struct ByName<S> {
    names: Arc<Names<S>>,
    waiting: Waiting,
}

struct Names<S> {
    /// The destination, with a place for the name.
    template: String,
    balance: Box<dyn Fn(String) -> Balance<S> + Send + Sync>,
    most: usize,
    /// Held for a look-up once per connection, after a handshake that costs a thousand times as much.
    table: Mutex<HashMap<String, Entry<S>>>,
}

struct Entry<S> {
    balance: Balance<S>,
    used: Instant,
}

impl<S> Entry<S> {
    /// What is worth less comes first; nothing for a name with connections.
    fn worth(&self) -> Option<(bool, Instant)> {
        let Some(state) = self.balance.view().state() else { return Some((false, self.used)) };
        let open = |replica: &Replica| replica.in_flight() > 0;
        let is_live = state.retired > 0 || state.replicas.replicas().iter().any(open);
        (!is_live).then_some((state.resolved == Some(true), self.used))
    }
}

impl<S: Clone + Send + Sync + 'static> ByName<S> {
    /// Destinations for at most so many names, each with the balancer that a function makes. Must be called in a runtime.
    pub(super) fn new(
        most: usize,
        waiting: Waiting,
        template: &str,
        balance: impl Fn(String) -> Balance<S> + Send + Sync + 'static,
    ) -> Self {
        let (template, balance) = (template.to_owned(), Box::new(balance));
        let names = Arc::new(Names { template, balance, most, table: Mutex::default() });
        tokio::spawn(sweep(Arc::downgrade(&names)));
        Self { names, waiting }
    }

    /// The same names for clients that wait otherwise.
    pub(super) fn with_waiting(&self, waiting: Waiting) -> Self {
        Self { waiting, ..self.clone() }
    }

    fn balance(&self, session: &Session) -> Result<Balance<S>, Error> {
        let name = session.server_name.as_deref().ok_or(Error::Refused(Refusal::NoDestination))?;
        let name = self.names.template.replace("{sni}", name);
        let mut table = self.names.table();
        if let Some(entry) = table.get_mut(&name) {
            entry.used = Instant::now();
            return Ok(entry.balance.with_waiting(self.waiting));
        }
        if table.len() >= self.names.most {
            make_room(&mut table);
            if table.len() >= self.names.most {
                return Err(Error::Refused(Refusal::Limit));
            }
        }
        let balance = (self.names.balance)(name.clone());
        table.insert(name, Entry { balance: balance.clone(), used: Instant::now() });
        Ok(balance.with_waiting(self.waiting))
    }
}

impl<S> Names<S> {
    fn table(&self) -> MutexGuard<'_, HashMap<String, Entry<S>>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Forgets a tenth of the names, so that a new name costs ten looks at others and not as many as there are.
fn make_room<S>(table: &mut HashMap<String, Entry<S>>) {
    let worth = table.iter().filter_map(|(name, entry)| Some((entry.worth()?, name.clone())));
    let mut idle: Vec<_> = worth.collect();
    idle.sort_unstable();
    for (_, name) in idle.iter().take(table.len().div_ceil(10)) {
        table.remove(name);
    }
}

/// Ends with the names.
async fn sweep<S>(names: Weak<Names<S>>) {
    loop {
        time::sleep(SWEEP).await;
        let Some(names) = names.upgrade() else { return };
        names.table().retain(|_, entry| entry.used.elapsed() <= IDLE || entry.worth().is_none());
    }
}

impl<S> Clone for ByName<S> {
    fn clone(&self) -> Self {
        Self { names: Arc::clone(&self.names), waiting: self.waiting }
    }
}

impl<S> Service<Session> for ByName<S>
where
    S: Service<To<Session>, Response = Io, Error = Error> + Clone + Send + Sync + 'static,
{
    type Response = Io;
    type Error = Error;
    type Future = Either<<Balance<S> as Service<Session>>::Future, Ready<Result<Io, Error>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, session: Session) -> Self::Future {
        match self.balance(&session) {
            Ok(mut balance) => Either::Left(balance.call(session)),
            Err(error) => Either::Right(ready(Err(error))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::sync::atomic::Ordering;

    use futures::StreamExt;
    use futures::stream;
    use meshlib::BalanceLayer;
    use meshlib::Endpoint;
    use meshlib::Resolution;
    use meshlib::Resolver;
    use meshlib::Update;
    use tower::Layer;
    use tower::ServiceExt;

    use super::*;

    /// Counts the names that are followed, by what discovery knows of them: `web...` has an endpoint, `slow...` is never
    /// answered, and nothing else exists.
    #[derive(Clone, Default)]
    struct Names {
        resolved: Arc<AtomicUsize>,
    }

    impl Resolver<String> for Names {
        fn resolve(&self, name: String) -> Resolution {
            self.resolved.fetch_add(1, Ordering::SeqCst);
            let update = match name.get(..4) {
                Some("slow") => return Resolution::new(stream::pending()),
                _ if name.starts_with("web") => {
                    Update::endpoints([Endpoint::new(([127, 0, 0, 1], 80).into())])
                }
                _ => Update::NotFound,
            };
            Resolution::new(stream::iter([Ok(update)]).chain(stream::pending()))
        }
    }

    async fn connect(_: To<Session>) -> Result<Io, Error> {
        Ok(Io::new(tokio::io::duplex(1).0))
    }

    impl Names {
        fn connect(
            &self,
            most: usize,
        ) -> ByName<
            impl Service<To<Session>, Response = Io, Error = Error, Future: Send> + Clone + Send + Sync + use<>,
        > {
            let resolver = self.clone();
            // Nobody waits long for what does not come.
            let waiting = Waiting::new(usize::MAX, Duration::from_millis(1)).with_absent(Duration::ZERO);
            ByName::new(most, waiting, "{sni}", move |name| {
                BalanceLayer::new(resolver.clone(), name).layer(tower::service_fn(connect))
            })
        }

        fn resolved(&self) -> usize {
            self.resolved.load(Ordering::SeqCst)
        }
    }

    async fn ask<S>(connect: &ByName<S>, name: &str) -> Result<Io, Error>
    where
        S: Service<To<Session>, Response = Io, Error = Error, Future: Send> + Clone + Send + Sync + 'static,
    {
        connect.clone().oneshot(Session::default().with_server_name(name)).await
    }

    #[tokio::test(start_paused = true)]
    async fn invented_names_keep_nobody_out() {
        let names = Names::default();
        let connect = names.connect(100);
        ask(&connect, "web").await.unwrap();

        for n in 0..1_000 {
            ask(&connect, &format!("invented{n}")).await.unwrap_err();
            ask(&connect, &format!("slow{n}")).await.unwrap_err();
            ask(&connect, "web").await.unwrap();
            time::advance(Duration::from_millis(1)).await;
        }

        ask(&connect, "web-too").await.unwrap();
        assert_eq!(names.resolved(), 2_002, "the name in use stayed all the time");
        assert!(connect.names.table().len() <= 100);
    }

    #[tokio::test(start_paused = true)]
    async fn names_with_connections_stay_and_then_the_longest_idle_go_first() {
        let names = Names::default();
        let connect = names.connect(10);
        let live = ask(&connect, "web0").await.unwrap();
        for n in 1..10 {
            time::advance(Duration::from_secs(1)).await;
            ask(&connect, &format!("web{n}")).await.unwrap();
        }

        ask(&connect, "web10").await.unwrap();

        let mut left: Vec<_> = connect.names.table().keys().cloned().collect();
        left.sort_unstable();
        assert_eq!(left, ["web0", "web10", "web2", "web3", "web4", "web5", "web6", "web7", "web8", "web9"]);
        drop(live);
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_is_refused_only_if_all_others_have_connections() {
        let names = Names::default();
        let connect = names.connect(2);
        let first = ask(&connect, "web1").await.unwrap();
        let _second = ask(&connect, "web2").await.unwrap();

        assert!(matches!(ask(&connect, "web3").await, Err(Error::Refused(Refusal::Limit))));
        drop(first);
        ask(&connect, "web3").await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn idle_names_are_forgotten_and_those_with_connections_are_not() {
        let names = Names::default();
        let connect = names.connect(10);
        let _live = ask(&connect, "web1").await.unwrap();
        ask(&connect, "web2").await.unwrap();

        time::sleep(IDLE + 2 * SWEEP).await;

        let left: Vec<_> = connect.names.table().keys().cloned().collect();
        assert_eq!(left, ["web1"]);
    }
}
