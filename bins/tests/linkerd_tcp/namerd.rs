//! Discovery through namerd, and what clients see of its troubles: nothing.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use meshlib::Weight;
use meshlib::test_util::Echo;
use meshlib_namerd::api::Addr;
use meshlib_namerd::api::Address;
use meshlib_namerd::api::Bound;
use meshlib_namerd::api::Branch;
use meshlib_namerd::api::Tree;
use meshlib_namerd::server::Fault;
use meshlib_namerd::server::NamerdServer;
use meshlib_namerd::server::Recorded;
use meshlib_namerd::server::Step;
use tokio::time;
use tokio::time::Instant;

use crate::process::Program;
use crate::process::SOON;
use crate::talk;
use crate::talk::NAME;
use crate::talk::ask;
use crate::talk::exchange;
use crate::talk::metrics;
use crate::talk::proxies;
use crate::talk::routers;
use crate::talk::set;
use crate::talk::sum;
use crate::talk::until;

fn polls(namerd: &NamerdServer) -> Vec<Recorded> {
    let mut requests = namerd.requests();
    requests.retain(|request| !request.target.contains("watch="));
    requests
}

/// What the original sent, byte for byte, and one request more that it did not send: the watch.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_poll_is_sent_as_the_original_sent_it() {
    let backend = Echo::start().await;
    let namerd = talk::namerd(&[backend.addr()]).await;
    let host = namerd.addr();
    let poll = format!("GET /api/1/resolve/default?path=%2Fsvc%2Fweb HTTP/1.1\r\nhost: {host}\r\n\r\n");
    let by_addr = proxies("", "").replace("url: ''", &format!("addr: '{host}'"));
    let configs = [
        proxies(&namerd.url(), ""),
        proxies(&format!("{}/", namerd.url()), ""),
        by_addr,
        routers(&namerd.url(), "", ""),
        routers(&format!("{}//", namerd.url()), "", ""),
    ];

    for config in configs {
        namerd.clear_requests();
        let program = Program::start(&config);
        exchange(program.addr()).await.unwrap();
        until("it was polled", async || !polls(&namerd).is_empty()).await;

        let polls = polls(&namerd);
        assert_eq!(polls.len(), 1, "{polls:?}");
        let head = String::from_utf8_lossy(&polls[0].head);
        assert_eq!(head.replace("Host:", "host:"), poll);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_and_namespaces_are_put_into_the_request_as_they_must() {
    let namerd = talk::namerd(&[]).await;
    let config = routers(&namerd.url(), "", "")
        .replace("dstName: /svc/web", "dstName: '/#/io.l5d.fs/a_b:c-1.x'")
        .replace("namespace: default", "namespace: my/space");

    let _program = Program::start(&config);

    until("it was polled", async || !polls(&namerd).is_empty()).await;
    let target = &polls(&namerd)[0].target;
    let path = "%2F%23%2Fio.l5d.fs%2Fa_b%3Ac-1.x";
    assert_eq!(*target, format!("/api/1/resolve/my/space?path={path}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn polls_follow_each_other_at_the_period_over_one_connection() {
    let namerd = talk::namerd(&[]).await;
    let config = routers(&namerd.url(), "", "").replace("periodSecs: 20", "periodSecs: 1, watch: never");
    let _program = Program::start(&config);

    until("four polls", async || polls(&namerd).len() >= 4).await;

    let polls = polls(&namerd);
    for pair in polls.windows(2) {
        let gap = pair[1].at - pair[0].at;
        assert!(gap > Duration::from_millis(880) && gap < Duration::from_millis(1_300), "{gap:?}");
        assert_eq!(pair[0].connection, pair[1].connection);
    }
    assert_eq!(namerd.requests().len(), polls.len(), "nothing was watched");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_reaches_new_connections_within_a_tenth_of_a_second() {
    for first_generation in [true, false] {
        let (old, new) = (Echo::start().await, Echo::start().await);
        let namerd = talk::namerd(&[old.addr()]).await;
        let url = namerd.url();
        let program =
            Program::start(&if first_generation { proxies(&url, "") } else { routers(&url, "", "") });
        exchange(program.addr()).await.unwrap();
        until("the watch is open", async || namerd.watches() == 1).await;
        exchange(program.addr()).await.unwrap();

        let mut best = Duration::MAX;
        for (now, then) in [(&new, &old), (&old, &new), (&new, &old)] {
            let before = (now.accepted(), then.accepted());
            set(&namerd, &[now.addr()]);
            let began = Instant::now();
            until("a connection reaches the new endpoint", async || {
                exchange(program.addr()).await.unwrap();
                now.accepted() > before.0
            })
            .await;
            best = best.min(began.elapsed());
        }

        // The machine may be busy with other things once, not three times.
        assert!(best < Duration::from_millis(100), "{best:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_watch_a_change_takes_a_period() {
    let (old, new) = (Echo::start().await, Echo::start().await);
    let namerd = talk::namerd(&[old.addr()]).await;
    let config = routers(&namerd.url(), "", "").replace("periodSecs: 20", "periodSecs: 1, watch: never");
    let program = Program::start(&config);
    exchange(program.addr()).await.unwrap();

    set(&namerd, &[new.addr()]);

    let began = Instant::now();
    until("a connection reaches the new endpoint", async || {
        exchange(program.addr()).await.unwrap();
        new.accepted() > 0
    })
    .await;
    assert!(began.elapsed() < Duration::from_millis(1_500), "{:?}", began.elapsed());
}

/// Opens a connection every few milliseconds, whatever the others do, until it is told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<Vec<std::io::Error>>,
}

impl Load {
    fn start(addr: SocketAddr) -> Self {
        let (stop, done) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&done));
        let task = tokio::spawn(async move {
            let mut ticks = time::interval(Duration::from_millis(10));
            let mut clients = tokio::task::JoinSet::new();
            while !stopped.load(Ordering::SeqCst) {
                ticks.tick().await;
                let counted = Arc::clone(&counted);
                clients.spawn(async move {
                    let result = exchange(addr).await;
                    counted.fetch_add(1, Ordering::SeqCst);
                    result
                });
            }
            clients.join_all().await.into_iter().filter_map(Result::err).collect()
        });
        Self { stop, done, task }
    }

    /// Lets so many more clients be served.
    async fn go_on(&self, clients: usize) {
        let wanted = self.done.load(Ordering::SeqCst) + clients;
        until("clients are served", async || self.done.load(Ordering::SeqCst) >= wanted).await;
    }

    async fn finish(self) {
        self.stop.store(true, Ordering::SeqCst);
        let errors = time::timeout(SOON, self.task).await.expect("in time").unwrap();
        assert!(errors.is_empty(), "{} errors: {errors:?}", errors.len());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_trouble_of_the_name_server_reaches_a_client() {
    let backends = [Echo::start().await, Echo::start().await];
    let endpoints = backends.each_ref().map(Echo::addr);
    let namerd = talk::namerd(&endpoints).await;
    // Both ways of asking, and polls that are frequent enough to meet each trouble.
    let config = routers(&namerd.url(), "", "").replace("periodSecs: 20", "periodSecs: 1");
    let program = Program::start(&config);
    let load = Load::start(program.addr());
    load.go_on(20).await;

    let lie = "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n{\"type\":\"bound\",\"addrs\":[],\"meta\":{}}\n";
    let faults = [
        Fault::Hold,
        Fault::Status(500),
        Fault::Status(404),
        Fault::NotJson,
        Fault::Truncated,
        Fault::LengthTooLong,
        Fault::LengthTooShort,
        Fault::SplitNumber,
        Fault::TwoLines,
        Fault::IgnoreWatch,
        Fault::CloseBefore,
        Fault::ResetBefore,
        Fault::CloseDuring,
        Fault::ResetDuring,
        Fault::Raw(vec![Step::Send(Bytes::from_static(lie.as_bytes())), Step::Close]),
        Fault::Raw(vec![Step::Send(Bytes::from_static(b"\x00\xffnonsense")), Step::Hang]),
    ];
    for fault in faults {
        namerd.fault("default", NAME, fault.clone()).unwrap();
        namerd.reset_connections();
        let asked = namerd.requests().len();
        // A failed poll is repeated soon.
        until(&format!("it is asked again during {fault:?}"), async || namerd.requests().len() >= asked + 2)
            .await;
        load.go_on(10).await;
        namerd.fault("default", NAME, None).unwrap();
    }

    for addr in [Addr::Neg, Addr::failed("no reason"), Addr::Pending] {
        namerd.set("default", NAME, addr).unwrap();
        namerd.close_connections();
        load.go_on(50).await;
    }
    namerd.remove("default", NAME).unwrap();
    load.go_on(50).await;

    namerd.stop().await;
    load.go_on(100).await;
    set(&namerd, &endpoints);
    namerd.start().await.unwrap();
    let found = backends[0].accepted();
    load.go_on(100).await;
    assert!(backends[0].accepted() > found);
    load.finish().await;

    let metrics = metrics(program.admin()).await;
    assert_eq!(sum(&metrics, "l5d:srv:failures", ""), 0.0);
    assert_eq!(sum(&metrics, "l5d:srv:connect:failure", ""), 0.0);
    assert!(sum(&metrics, "l5d:resolver:failure_count", "") >= 10.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_recovers_from_troubles_and_follows_again() {
    let (old, new) = (Echo::start().await, Echo::start().await);
    let namerd = talk::namerd(&[old.addr()]).await;
    let program = Program::start(&routers(&namerd.url(), "", "").replace("periodSecs: 20", "periodSecs: 2"));
    exchange(program.addr()).await.unwrap();

    namerd.stop().await;
    set(&namerd, &[new.addr()]);
    for _ in 0..20 {
        exchange(program.addr()).await.unwrap();
    }
    assert_eq!(new.accepted(), 0);
    namerd.start().await.unwrap();

    until("the new endpoint is used", async || {
        exchange(program.addr()).await.unwrap();
        new.accepted() > 0
    })
    .await;
    until("it watches again", async || namerd.watches() == 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_wait_for_a_name_server_that_is_late() {
    for first_generation in [true, false] {
        let backend = Echo::start().await;
        let namerd = NamerdServer::reserve("127.0.0.1:0").await.unwrap();
        set(&namerd, &[backend.addr()]);
        let url = namerd.url();
        let program =
            Program::start(&if first_generation { proxies(&url, "") } else { routers(&url, "", "") });
        let early: Vec<_> = (0..5).map(|_| tokio::spawn(exchange(program.addr()))).collect();
        let ready = ask(program.admin(), "GET", "/ready").await.unwrap();
        assert_eq!(ready.status, 503, "{ready:?}");
        time::sleep(Duration::from_millis(500)).await;

        namerd.start().await.unwrap();

        for client in early {
            client.await.unwrap().unwrap();
        }
        let ready = ask(program.admin(), "GET", "/ready").await.unwrap();
        assert_eq!(ready.status, 200, "{ready:?}");
    }
}

/// `resolve` throws the dice once per request; `bind` tells the shares, which then hold for each connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_bind_mode_the_shares_of_a_union_hold_per_connection() {
    const CONNECTIONS: usize = 1_000;
    let (old, new) = (Echo::start().await, Echo::start().await);
    let namerd = NamerdServer::bind("127.0.0.1:0").await.unwrap();
    let leaf = |id: &str, echo: &Echo| {
        let addr = Addr::bound([Address::new(echo.addr())]);
        Tree::Leaf(Bound::new(id.parse().unwrap(), addr))
    };
    let branch = |weight, tree| Branch::new(Weight::new(weight).unwrap(), tree);
    let union = Tree::Union(vec![
        branch(0.8, leaf("/#/io.l5d.fs/old", &old)),
        branch(0.2, leaf("/#/io.l5d.fs/new", &new)),
    ]);
    namerd.set("default", NAME, union).unwrap();
    let config = routers(&namerd.url(), "", "").replace("periodSecs: 20", "periodSecs: 20, mode: bind");
    let program = Program::start(&config);

    for _ in 0..CONNECTIONS {
        exchange(program.addr()).await.unwrap();
    }

    let share = new.accepted() as f64 / CONNECTIONS as f64;
    assert!((share - 0.2).abs() < 0.05, "{share}");
    assert!(namerd.requests().iter().any(|request| request.target.starts_with("/api/1/bind/default?path=")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn addresses_that_make_no_sense_are_left_out() {
    let backend = Echo::start().await;
    let namerd = talk::namerd(&[]).await;
    let port = backend.addr().port();
    let body = format!(
        r#"{{"type":"bound","x":[1],"meta":{{"authority":"a","n":{{}}}},"addrs":[
        {{"ip":"not an ip","port":{port},"meta":{{}}}},
        {{"ip":"127.0.0.1","port":0,"meta":{{}}}},
        {{"ip":"127.0.0.1","port":{port},"meta":{{"endpoint_addr_weight":"0.5","nodeName":"n"}}}},
        {{"ip":"127.0.0.1","port":{port}}}]}}"#
    );
    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    namerd.fault("default", NAME, Fault::Raw(vec![Step::Send(answer.into())])).unwrap();
    let program = Program::start(&routers(&namerd.url(), "", ""));

    for _ in 0..20 {
        exchange(program.addr()).await.unwrap();
    }

    assert_eq!(backend.accepted(), 20);
    let state = ask(program.admin(), "GET", "/state.json").await.unwrap();
    let state: serde_json::Value = serde_json::from_str(&state.body).unwrap();
    let endpoints = state["destinations"][0]["endpoints"].as_array().unwrap();
    assert_eq!(endpoints.len(), 1, "{state}");
    assert_eq!(endpoints[0]["weight"], 1.5, "one endpoint named twice has the sum of the weights");
}

/// A `bound` answer that was applied is a success; whatever else there is, is a failure.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_are_counted_by_whether_they_could_be_applied() {
    let namerd = talk::namerd(&[]).await;
    namerd.set("default", NAME, Addr::Neg).unwrap();
    let program = Program::start(&routers(&namerd.url(), "", ""));
    talk::metric_is(program.admin(), "l5d:resolver:failure_count", "", 1.0).await;
    assert_eq!(sum(&metrics(program.admin()).await, "l5d:resolver:success_count", ""), 0.0);

    let namerd = talk::namerd(&[]).await;
    let program = Program::start(&routers(&namerd.url(), "", ""));
    talk::metric_is(program.admin(), "l5d:resolver:success_count", "", 1.0).await;
    assert_eq!(sum(&metrics(program.admin()).await, "l5d:resolver:failure_count", ""), 0.0);
}
