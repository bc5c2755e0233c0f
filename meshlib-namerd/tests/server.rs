//! The server against the tables of namerd's documentation, byte for byte.

#![cfg(feature = "server")]
#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

#[path = "server/dtabs.rs"]
mod dtabs;
#[path = "server/faults.rs"]
mod faults;
#[path = "server/life.rs"]
mod life;
#[path = "server/raw.rs"]
mod raw;

use std::net::SocketAddr;

use meshlib::Weight;
use meshlib_namerd::api::Addr;
use meshlib_namerd::api::Address;
use meshlib_namerd::api::Bound;
use meshlib_namerd::api::Branch;
use meshlib_namerd::api::Meta;
use meshlib_namerd::api::Tree;
use meshlib_namerd::server::Name;
use meshlib_namerd::server::NamerdServer;
use raw::Raw;
use raw::ask;

const WEB: &str = "/api/1/resolve/default?path=%2Fsvc%2Fweb";
const WATCH: &str = "/api/1/resolve/default?path=%2Fsvc%2Fweb&watch=true";
const NEG: &str = "{\"type\":\"neg\"}\n";

async fn server() -> NamerdServer {
    NamerdServer::bind("127.0.0.1:0").await.unwrap()
}

fn at(addr: &str) -> Address {
    Address::new(addr.parse::<SocketAddr>().unwrap())
}

fn leaf(id: &str, addr: Addr) -> Tree {
    Tree::Leaf(Bound::new(id.parse().unwrap(), addr))
}

fn one_line(port: u16) -> String {
    let addrs = format!("[{{\"ip\":\"127.0.0.1\",\"port\":{port},\"meta\":{{}}}}]");
    format!("{{\"type\":\"bound\",\"addrs\":{addrs},\"meta\":{{}}}}\n")
}

fn one(port: u16) -> Addr {
    Addr::bound([SocketAddr::from(([127, 0, 0, 1], port))])
}

#[tokio::test]
async fn a_bound_name_is_answered_to_the_byte() {
    let namerd = server().await;
    let second = Meta::new().with_text(Meta::NODE_NAME, "n2").with_number(Meta::WEIGHT, 0.5);
    let addrs = [at("10.0.0.5:6379"), at("10.0.0.6:6379").with_meta(second)];
    namerd.set("default", "/svc/web", Addr::bound(addrs)).unwrap();
    let mut raw = Raw::connect(&namerd).await;
    let line = concat!(
        r#"{"type":"bound","addrs":[{"ip":"10.0.0.5","port":6379,"meta":{}},"#,
        r#"{"ip":"10.0.0.6","port":6379,"meta":{"nodeName":"n2","endpoint_addr_weight":0.5}}],"meta":{}}"#,
        "\n"
    );

    // Twice, because connections are kept.
    for _ in 0..2 {
        raw.get(WEB).await;
        let (head, body) = raw.answer().await;

        assert_eq!(body, line);
        let expected = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            line.len()
        );
        assert_eq!(head, expected);
    }
}

#[tokio::test]
async fn each_state_has_its_answer() {
    let namerd = server().await;
    let meta = Meta::new().with_text("authority", "web.example").with_json("n", "[1]").unwrap();
    let cases: [(Name, &str); 8] = [
        (Addr::bound::<Address>([]).into(), r#"{"type":"bound","addrs":[],"meta":{}}"#),
        (
            Addr::bound::<Address>([]).with_meta(meta).into(),
            r#"{"type":"bound","addrs":[],"meta":{"authority":"web.example","n":[1]}}"#,
        ),
        (
            Addr::bound([at("[::1]:80").with_weight(1.0)]).into(),
            concat!(
                r#"{"type":"bound","addrs":[{"ip":"0:0:0:0:0:0:0:1","port":80,"#,
                r#""meta":{"endpoint_addr_weight":1.0}}],"meta":{}}"#
            ),
        ),
        (Addr::Neg.into(), r#"{"type":"neg"}"#),
        (Tree::Fail.into(), r#"{"type":"neg"}"#),
        (Tree::Empty.into(), r#"{"type":"neg"}"#),
        (Addr::failed("text").into(), r#"{"type":"failed","cause":"text"}"#),
        (
            Tree::Alt(vec![Tree::Neg, leaf("/#/a", Addr::Neg), leaf("/#/b", one(1))]).into(),
            r#"{"type":"neg"}"#,
        ),
    ];
    for (name, expected) in cases {
        namerd.set("default", "/svc/web", name).unwrap();

        let (head, body) = ask(&namerd, WEB).await;

        assert_eq!(body, format!("{expected}\n"));
        assert!(head.starts_with("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"), "{head}");
    }
}

#[tokio::test]
async fn what_cannot_be_answered_has_its_status() {
    let namerd = server().await;
    namerd.set("default", "/svc/bad", Name::Throws("java.lang.Exception: bad".into())).unwrap();
    let empty = |status| format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
    for (target, status) in [
        ("/api/1/resolve/default?path=/svc/bad", "500 Internal Server Error"),
        ("/api/1/resolve/default", "500 Internal Server Error"),
        ("/api/1/resolve/default?watch=true", "500 Internal Server Error"),
        ("/api/1/resolve/default?path=/svc/web&dtab=/svc", "500 Internal Server Error"),
        ("/api/1/resolve/?path=/svc/web", "404 Not Found"),
        ("/api/1/resolve?path=/svc/web", "404 Not Found"),
        ("//api/1/resolve/default?path=/svc/web", "404 Not Found"),
        ("/api/1/nothing", "404 Not Found"),
        ("/", "404 Not Found"),
    ] {
        assert_eq!(ask(&namerd, target).await, (empty(status), String::new()), "{target}");
    }
    for door in ["resolve", "bind", "addr"] {
        let (head, body) = ask(&namerd, &format!("/api/1/{door}/default?path=invalid")).await;

        assert_eq!(body, "Invalid path: invalid / '/' expected but 'i' found at '[i]nvalid'");
        assert_eq!(head, "HTTP/1.1 400 Bad Request\r\ncontent-length: 65\r\n\r\n");
    }
}

#[tokio::test]
async fn parameters_are_decoded_and_in_any_order() {
    let namerd = server().await;
    namerd.set("a/b", "/svc/web", one(1)).unwrap();

    for target in [
        "/api/1/resolve/a/b?path=/svc/web",
        "/api/1/resolve/a/b?x=1&path=%2Fsvc/web",
        "/api/1/resolve/a/b?path=+/svc/web+&path=/other",
    ] {
        assert_eq!(ask(&namerd, target).await.1, one_line(1), "{target}");
    }
    assert_eq!(ask(&namerd, "/api/1/resolve/a%2Fb?path=/svc/web").await.1, NEG);
    let (_, body) = raw::send(&namerd, "POST /api/1/resolve/a/b?path=/svc/web", "", "x").await;
    assert_eq!(body, one_line(1), "the method is not looked at");
}

#[tokio::test]
async fn a_pending_name_is_answered_when_it_is_known() {
    let namerd = server().await;
    namerd.set("default", "/svc/web", Addr::Pending).unwrap();
    let mut raw = Raw::connect(&namerd).await;
    raw.get(WEB).await;
    namerd.requested(1).await;
    raw.is_silent().await;

    namerd.set("default", "/svc/web", one(1)).unwrap();

    assert_eq!(raw.answer().await.1, one_line(1));
}

#[tokio::test]
async fn a_watch_sends_each_state_once() {
    let namerd = server().await;
    namerd.set("default", "/svc/web", Addr::Pending).unwrap();
    let mut raw = Raw::connect(&namerd).await;
    raw.get(WATCH).await;
    let head = raw.until("\r\n\r\n").await;
    assert_eq!(
        head,
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
    );
    raw.is_silent().await;

    namerd.set("default", "/svc/web", one(1)).unwrap();
    assert_eq!(raw.chunk().await, one_line(1));
    namerd.set("default", "/svc/web", one(1)).unwrap();
    namerd.set("default", "/svc/other", Addr::Neg).unwrap();
    raw.is_silent().await;
    namerd.set("default", "/svc/web", Addr::Neg).unwrap();
    assert_eq!(raw.chunk().await, NEG);
    namerd.set("default", "/svc/web", one(2)).unwrap();
    assert_eq!(raw.chunk().await, one_line(2));
    raw.is_silent().await;
}

#[tokio::test]
async fn a_watch_is_asked_for_with_true_t_or_1() {
    let namerd = server().await;
    for (value, chunked) in [("true", true), ("T", true), ("1", true), ("yes", false), ("", false)] {
        let mut raw = Raw::connect(&namerd).await;
        raw.get(&format!("{WEB}&watch={value}")).await;

        let head = raw.until("\r\n\r\n").await;

        assert_eq!(head.contains("chunked"), chunked, "{value}");
    }
}

#[tokio::test]
async fn a_watch_that_fails_ends_with_the_reason() {
    let namerd = server().await;
    namerd.set("default", "/svc/web", one(1)).unwrap();
    let mut raw = Raw::connect(&namerd).await;
    raw.get(WATCH).await;
    raw.until("\r\n\r\n").await;
    assert_eq!(raw.chunk().await, one_line(1));

    namerd.set("default", "/svc/web", Name::Throws("java.lang.Exception: gone".into())).unwrap();

    assert_eq!(raw.chunk().await, "java.lang.Exception: gone\n");
    assert_eq!(raw.chunk().await, "");
    raw.get(WEB).await;
    assert!(raw.answer().await.0.starts_with("HTTP/1.1 500 "), "the connection is kept");
}

#[tokio::test]
async fn bind_shows_the_tree_and_addr_what_its_ids_are() {
    let namerd = server().await;
    namerd.set("default", "/#/io.l5d.fs/web", one(1)).unwrap();
    let union = Tree::Union(vec![
        Branch::new(Weight::new(0.9).unwrap(), leaf("/#/io.l5d.fs/web", Addr::Pending)),
        Branch::new(Weight::ONE, leaf("/#/io.l5d.fs/v2", Addr::Neg)),
    ]);
    let tree = Tree::Alt(vec![union, Tree::Empty, Tree::Neg, Tree::Fail]);
    namerd.set("default", "/svc/web", tree).unwrap();
    let addr = one_line(1);

    let (head, body) = ask(&namerd, "/api/1/bind/default?path=/svc/web").await;

    let addr = addr.trim_end();
    let expected = [
        r#"{"type":"alt","alt":[{"type":"union","union":[{"weight":0.9,"tree":{"type":"leaf","bound":{"addr":"#,
        addr,
        r#","id":"/#/io.l5d.fs/web","path":"/"}}},{"weight":1.0,"tree":{"type":"leaf","bound":{"addr":"#,
        r#"{"type":"neg"},"id":"/#/io.l5d.fs/v2","path":"/"}}}]},{"type":"empty"},{"type":"neg"},{"type":"fail"}]}"#,
        "\n",
    ];
    assert_eq!(body, expected.concat());
    assert_eq!(head, format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len()));
    let ids = [("/%23/io.l5d.fs/web", &*one_line(1)), ("/%23/io.l5d.fs/v2", NEG), ("/%23/none", NEG)];
    for (id, expected) in ids {
        let (head, body) = ask(&namerd, &format!("/api/1/addr/default?path={id}")).await;
        assert_eq!(body, expected, "{id}");
        assert!(!head.contains("content-type"));
    }
    let through = "/api/1/addr/default?path=/%25/io.l5d.port/4141/%23/io.l5d.fs/web";
    assert_eq!(ask(&namerd, through).await.1, one_line(1));
    assert_eq!(ask(&namerd, "/api/1/bind/default?path=/svc/none").await.1, NEG);
}

#[tokio::test]
async fn a_path_set_to_addresses_is_a_leaf_whose_id_is_watched() {
    let namerd = server().await;
    namerd.set("default", "/svc/web", one(1)).unwrap();
    let (_, tree) = ask(&namerd, "/api/1/bind/default?path=/svc/web").await;
    assert!(tree.ends_with("\"id\":\"/#/io.l5d.fs/svc/web\",\"path\":\"/\"}}\n"), "{tree}");
    let mut raw = Raw::connect(&namerd).await;
    raw.get("/api/1/addr/default?path=/%23/io.l5d.fs/svc/web&watch=1").await;
    raw.until("\r\n\r\n").await;
    assert_eq!(raw.chunk().await, one_line(1));

    namerd.set("default", "/svc/web", one(2)).unwrap();

    assert_eq!(raw.chunk().await, one_line(2));
}

#[tokio::test]
async fn bind_waits_for_pending_leaves() {
    let namerd = server().await;
    namerd.set("default", "/svc/web", leaf("/#/web", Addr::Pending)).unwrap();
    let mut raw = Raw::connect(&namerd).await;
    raw.get("/api/1/bind/default?path=/svc/web&watch=t").await;
    let head = raw.until("\r\n\r\n").await;
    assert_eq!(head, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
    raw.is_silent().await;

    namerd.set("default", "/#/web", Addr::Neg).unwrap();

    let leaf = r#"{"type":"leaf","bound":{"addr":{"type":"neg"},"id":"/#/web","path":"/"}}"#;
    assert_eq!(raw.chunk().await, format!("{leaf}\n"));
}

#[tokio::test]
async fn a_union_is_drawn_by_weight_for_each_request_and_once_for_a_watch() {
    let namerd = server().await;
    let branch = |weight, port| {
        let id = format!("/#/{port}");
        namerd.set("default", &id, one(port)).unwrap();
        Branch::new(Weight::new(weight).unwrap(), leaf(&id, Addr::Pending))
    };
    let union = vec![branch(0.9, 1), branch(0.1, 2), branch(0.0, 3)];
    namerd.set("default", "/svc/web", Tree::Union(union)).unwrap();
    let mut raw = Raw::connect(&namerd).await;
    let mut drawn = [0; 3];
    for _ in 0..600 {
        raw.get(WEB).await;
        let (_, body) = raw.answer().await;
        drawn[(0..3).position(|port| body == one_line(port + 1)).unwrap()] += 1;
    }
    assert!((480..=590).contains(&drawn[0]) && drawn[2] == 0, "{drawn:?}");

    raw.get(WATCH).await;
    raw.until("\r\n\r\n").await;
    let first = raw.chunk().await;
    let port = if first == one_line(1) { 1 } else { 2 };
    for n in 10..30 {
        namerd.set("default", &format!("/#/{port}"), one(n)).unwrap();
        assert_eq!(raw.chunk().await, one_line(n), "a change of addresses draws no other branch");
    }
}
