//! An agent that is started again, and answers before it has read its log to the end.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::BoxStream;
use meshlib_consul::Config;
use meshlib_consul::Consul;
use meshlib_consul::Services;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time;
use tokio::time::Instant;

const LONG: Duration = Duration::from_secs(40);

/// What an agent knows: how many instances each service has.
#[derive(Clone)]
struct State {
    index: u64,
    services: BTreeMap<String, usize>,
    /// Connections end without an answer, and new ones are refused.
    is_down: bool,
}

impl State {
    fn new(index: u64, services: usize, instances: usize) -> Self {
        let services = (0..services).map(|n| (format!("web{n}"), instances)).collect();
        Self { index, services, is_down: false }
    }

    fn answer(&self, path: &str) -> String {
        if path == "/v1/status/leader" {
            return r#""127.0.0.1:8300""#.to_owned();
        }
        if path == "/v1/catalog/services" {
            let services = self.services.keys().map(|name| format!(r#""{name}":["x"]"#));
            return format!(r#"{{"consul":[],{}}}"#, services.collect::<Vec<_>>().join(","));
        }
        let instances = path.strip_prefix("/v1/health/service/").and_then(|name| self.services.get(name));
        let entries = (0..*instances.unwrap_or(&0)).map(|n| {
            format!(
                r#"{{"Node":{{"Node":"n","Address":"10.0.0.1"}},"Service":{{"ID":"w{n}","Service":"web","Port":80,
                    "Tags":["x"]}},"Checks":[]}}"#
            )
        });
        format!("[{}]", entries.collect::<Vec<_>>().join(","))
    }
}

/// An agent that knows what it is told to.
struct Fake {
    addr: SocketAddr,
    state: watch::Sender<State>,
}

impl Fake {
    /// One that asks often, so that nothing has to be waited for.
    fn client(&self) -> Consul {
        let config = Config::new(format!("http://{}", self.addr)).with_wait(Duration::from_secs(1));
        Consul::new(config).unwrap()
    }

    async fn start(state: State) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let state = watch::Sender::new(state);
        let mut states = state.subscribe();
        // Ends with the test's runtime.
        tokio::spawn(async move {
            let mut listener = listener;
            loop {
                let connections = states.clone();
                tokio::select! {
                    Ok((stream, _)) = listener.accept() => drop(tokio::spawn(serve(stream, connections))),
                    () = async { drop(states.wait_for(|state| state.is_down).await) } => {
                        drop(listener);
                        states.wait_for(|state| !state.is_down).await.unwrap();
                        listener = TcpListener::bind(addr).await.unwrap();
                    }
                }
            }
        });
        Self { addr, state }
    }
}

async fn serve(mut stream: TcpStream, mut states: watch::Receiver<State>) {
    let mut buf = Vec::new();
    loop {
        while !buf.ends_with(b"\r\n\r\n") {
            tokio::select! {
                read = stream.read_buf(&mut buf) => if read.unwrap_or(0) == 0 { return },
                _ = states.wait_for(|state| state.is_down) => return,
            }
        }
        let head = String::from_utf8(std::mem::take(&mut buf)).unwrap();
        let uri = head.split(' ').nth(1).unwrap();
        let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
        let known = query.split('&').find_map(|part| part.strip_prefix("index=")?.parse::<u64>().ok());
        let changes = states.wait_for(|state| state.is_down || known.is_none_or(|known| state.index > known));
        let _ = time::timeout(Duration::from_secs(1), changes).await;
        let state = states.borrow_and_update().clone();
        if state.is_down {
            return;
        }
        let body = state.answer(path);
        let head = format!(
            "HTTP/1.1 200 OK\r\nx-consul-index: {}\r\nx-consul-knownleader: true\r\ncontent-length: {}\r\n\r\n",
            state.index,
            body.len()
        );
        if stream.write_all(&[head.as_bytes(), body.as_bytes()].concat()).await.is_err() {
            return;
        }
    }
}

/// Follows until what is asked for is so, or for as long as it may take. Nothing must be lost on the way.
async fn follow(
    services: &mut BoxStream<'static, Services>,
    least: usize,
    within: Duration,
    until: impl Fn(&Services) -> bool,
) -> bool {
    time::timeout(within, async {
        loop {
            let level = services.next().await.unwrap();
            let instances: usize = level.all.values().map(|instances| instances.len()).sum();
            assert!(instances >= least, "{instances} instances of {least}, {:?}", level.degraded);
            if until(&level) {
                return;
            }
        }
    })
    .await
    .is_ok()
}

#[tokio::test]
async fn one_asks_for_an_agent_that_is_away_and_nobody_else() {
    const SERVICES: usize = 400;
    let fake = Fake::start(State::new(100, SERVICES, 1)).await;
    let consul = fake.client();
    let mut services = consul.services(|_, tags| !tags.is_empty());
    assert!(follow(&mut services, 0, LONG, |services| services.all.len() == SERVICES).await);

    fake.state.send_modify(|state| state.is_down = true);
    assert!(follow(&mut services, SERVICES, LONG, |services| services.degraded.is_some()).await);
    follow(&mut services, SERVICES, Duration::from_secs(8), |_| false).await;

    let errors = |endpoint: &str| consul.stats().endpoints.get(endpoint).map_or(0, |counts| counts.errors);
    // Each may be read before the last watch has noticed.
    assert!(errors("health/service") < 3 * SERVICES as u64, "{:?}", consul.stats());
    assert!(errors("status/leader") > 2, "{:?}", consul.stats());
    fake.state.send_replace(State::new(101, SERVICES + 1, 1));
    assert!(follow(&mut services, SERVICES, LONG, |services| services.all.len() > SERVICES).await);
}

#[tokio::test]
async fn each_service_is_read_once_in_the_beginning() {
    const SERVICES: usize = 400;
    let fake = Fake::start(State::new(100, SERVICES, 1)).await;
    let consul = fake.client();
    let mut services = consul.services(|_, tags| !tags.is_empty());

    assert!(follow(&mut services, 0, LONG, |services| services.all.len() == SERVICES).await);
    follow(&mut services, SERVICES, Duration::from_secs(8), |_| false).await;

    let stats = consul.stats();
    let reads = stats.endpoints["health/service"].requests;
    let (least, most) = (SERVICES as u64, SERVICES as u64 * 3 / 2);
    assert!((least..most).contains(&reads), "{stats:?}");
}

/// A service that has gone and is back as it was is told again.
#[tokio::test]
async fn a_swept_service_comes_back_as_it_was() {
    const SERVICES: usize = 400;
    let full = State::new(100, SERVICES, 1);
    let fake = Fake::start(full.clone()).await;
    let consul = fake.client();
    let mut services = consul.services(|_, tags| !tags.is_empty());
    assert!(follow(&mut services, 0, LONG, |services| services.all.len() == SERVICES).await);

    fake.state.send_modify(|state| {
        state.services.remove("web0");
        state.index += 1;
    });
    assert!(follow(&mut services, 0, LONG, |services| services.all.len() == SERVICES - 1).await);
    fake.state.send_replace(State { index: 102, ..full });

    let within = Duration::from_secs(5);
    assert!(follow(&mut services, 0, within, |services| services.all.len() == SERVICES).await);
}

async fn nothing_is_lost(n: usize) {
    let full = State::new(100, n, 2);
    let fake = Fake::start(full.clone()).await;
    let consul = fake.client();
    let mut services = consul.services(|_, tags| !tags.is_empty());
    let is_all = |services: &Services| services.all.values().map(|all| all.len()).sum::<usize>() == 2 * n;
    assert!(follow(&mut services, 0, LONG, is_all).await);

    fake.state.send_modify(|state| state.is_down = true);
    assert!(follow(&mut services, 2 * n, LONG, |services| services.degraded.is_some()).await);
    fake.state.send_replace(State::new(50, n / 2, 1));
    assert!(follow(&mut services, 2 * n, LONG, |services| services.degraded.is_none()).await);
    follow(&mut services, 2 * n, Duration::from_secs(3), |_| false).await;

    fake.state.send_replace(State { services: State::new(0, n + 1, 2).services, ..full });
    assert!(follow(&mut services, 2 * n, LONG, |services| services.all.len() == n + 1).await);
    follow(&mut services, 2 * n + 2, Duration::from_secs(15), |_| false).await;

    fake.state.send_modify(|state| {
        state.services.remove("web0");
        state.index += 1;
    });
    let began = Instant::now();
    assert!(follow(&mut services, 2 * n, LONG, |services| !services.all.contains_key("web0")).await);
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
}

#[tokio::test]
async fn nothing_is_lost_of_what_is_watched() {
    nothing_is_lost(10).await;
}

#[tokio::test]
async fn nothing_is_lost_of_what_is_swept() {
    nothing_is_lost(400).await;
}
