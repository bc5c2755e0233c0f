//! IPv6 on every side.

use std::net::Ipv6Addr;
use std::net::SocketAddr;
use std::net::TcpListener;

use meshlib::test_util::Echo;
use meshlib::test_util::EchoOptions;
use meshlib_namerd::server::NamerdServer;

use crate::process::Program;
use crate::talk::exchange;
use crate::talk::metric_is;
use crate::talk::proxies;
use crate::talk::routers;
use crate::talk::set;

/// An endpoint with an IPv6 address, unless the machine has none; says so then.
async fn backend() -> Option<Echo> {
    let addr = SocketAddr::from((Ipv6Addr::LOCALHOST, 0));
    if let Err(error) = TcpListener::bind(addr) {
        eprintln!("skipped: no IPv6 here: {error}");
        return None;
    }
    Some(EchoOptions::default().with_addr(addr).start().await.unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_endpoints_and_the_name_server_may_be_at_ipv6_addresses() {
    let Some(backend) = backend().await else { return };
    let namerd = NamerdServer::bind("[::1]:0").await.unwrap();
    set(&namerd, &[backend.addr()]);
    let (url, host) = (namerd.url(), namerd.addr());
    assert!(url.starts_with("http://[::1]:"), "{url}");
    let first = proxies(&url, "").replace("127.0.0.1:0", "[::1]:0");
    let by_addr = first.replace(&format!("url: '{url}'"), &format!("addr: '{host}'"));
    let second = routers(&url, "ip: '::1'", "").replace("{port: 0,", "{port: 0, ip: '::1',");

    for (config, accepts, label) in
        [(first, "connects", "srv"), (by_addr, "connects", "srv"), (second, "l5d:srv:accepts", "srv_addr")]
    {
        let program = Program::start(&config);
        let addr = program.addr();
        assert!(addr.is_ipv6() && program.admin().is_ipv6(), "{config}");

        exchange(addr).await.unwrap();

        metric_is(program.admin(), accepts, &format!("{label}=\"{addr}\""), 1.0).await;
    }
    assert_eq!(backend.accepted(), 3);
}

/// What comes in by one family may go out by the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn families_may_be_mixed() {
    let Some(v6) = backend().await else { return };
    let v4 = Echo::start().await;
    let both = [v6.addr(), v4.addr()];
    for ip in ["'::1'", "127.0.0.1"] {
        let config = crate::talk::fixed(&both, &format!("ip: {ip}"), "");
        let program = Program::start(&config);
        let before = [v6.accepted(), v4.accepted()];

        // A draw that leaves one of two out forty times comes once in 2^39 runs.
        for _ in 0..40 {
            exchange(program.addr()).await.unwrap();
        }

        assert!(v6.accepted() > before[0] && v4.accepted() > before[1]);
    }
}
