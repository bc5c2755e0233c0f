//! Reading and writing dtabs, and what they do to names.

use super::NEG;
use super::at;
use super::one;
use super::one_line;
use super::raw::Raw;
use super::raw::ask;
use super::raw::send;
use super::server;
use meshlib_namerd::api::Addr;

const DEFAULT: &str = "/api/1/dtabs/default";
const DTAB: &str = "content-type: application/dtab\r\n";

fn status(answer: &(String, String)) -> u16 {
    answer.0[9..12].parse().unwrap()
}

#[tokio::test]
async fn versions_guard_changes() {
    let namerd = server().await;
    let put = |fields: &str, body: &'static str| {
        let (namerd, fields) = (&namerd, format!("{DTAB}{fields}"));
        async move { status(&send(namerd, &format!("PUT {DEFAULT}"), &fields, body).await) }
    };

    assert_eq!(put("if-match: AAAAAAAAAAE=\r\n", "/a=>/b").await, 404);
    assert_eq!(put("", "/a=>/b").await, 204);
    let (head, body) = ask(&namerd, DEFAULT).await;
    assert_eq!(body, "[{\"prefix\":\"/a\",\"dst\":\"/b\"}]\n");
    assert!(head.contains("\r\ncontent-type: application/json\r\netag: AAAAAAAAAAE=\r\n"), "{head}");

    assert_eq!(put("if-match: AAAAAAAAAAI=\r\n", "/a=>/c").await, 412);
    assert_eq!(put("if-match: AAAA\r\n", "/a=>/c").await, 412);
    assert_eq!(put("if-match: ???\r\n", "/a=>/c").await, 400);
    assert_eq!(put("if-match: AAAAAAAAAAE=\r\n", "/a=>/c").await, 204);
    assert_eq!(put("if-match: \"AAAAAAAAAAI=\"\r\n", "/a=>/c").await, 204);
    assert_eq!(put("if-match: *\r\n", "/a=>/d ; /x => /y;").await, 204);
    assert_eq!(namerd.dtab("default").unwrap(), "/a=>/d;/x=>/y");
}

#[tokio::test]
async fn a_deleted_version_does_not_come_back() {
    let namerd = server().await;
    let delete = format!("DELETE {DEFAULT}");
    namerd.set_dtab("default", "/a=>/b").unwrap();

    assert_eq!(status(&send(&namerd, &delete, "", "").await), 204);
    assert_eq!(status(&send(&namerd, &delete, "", "").await), 404);
    assert_eq!(ask(&namerd, DEFAULT).await.0, "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n");
    namerd.set_dtab("default", "/a=>/b").unwrap();

    let (head, _) = ask(&namerd, DEFAULT).await;
    assert!(head.contains("\r\netag: AAAAAAAAAAI=\r\n"), "{head}");
}

#[tokio::test]
async fn post_creates_and_bodies_are_checked() {
    let namerd = server().await;
    let post = format!("POST {DEFAULT}");
    let put = format!("PUT {DEFAULT}");
    let json = "content-type: application/json; charset=utf-8\r\n";
    for (line, fields, body, expected) in [
        (&post, "", "/a=>/b", 400),
        (&post, json, "[null]", 400),
        (&post, json, "[{\"prefix\":\"/a\"}]", 400),
        (&post, json, "[{\"prefix\":\"/a\",\"dst\":\"/b\"}]", 204),
        (&post, json, "[]", 409),
        (&put, "content-type: text/html\r\n", "/a=>/b", 400),
        (&put, "content-type: text/plain\r\n", "/a=>", 400),
        (&put, "content-type: text/plain\r\n", "/a", 400),
        (&put, "content-type: text/plain\r\n", "", 204),
        (&format!("PATCH {DEFAULT}"), DTAB, "", 404),
        (&"POST /api/1/dtabs".to_owned(), DTAB, "", 405),
        (&"PUT /api/1/dtabs/a/b".to_owned(), DTAB, "", 404),
    ] {
        assert_eq!(status(&send(&namerd, line, fields, body).await), expected, "{line} {body}");
    }
    let refused = send(&namerd, &put, "content-type: text/html\r\n", "").await;
    assert_eq!(refused.1, "Invalid Content-Type \"text/html\". ");
}

#[tokio::test]
async fn the_accepted_form_is_sent() {
    let namerd = server().await;
    namerd.set_dtab("default", "/svc => /#/io.l5d.fs; /a => /b").unwrap();
    for (accept, kind, body) in [
        ("application/dtab", "application/dtab", "/svc=>/#/io.l5d.fs;/a=>/b\n"),
        ("text/html, text/plain;q=0.5", "text/plain", "/svc=>/#/io.l5d.fs;/a=>/b\n"),
        (
            "*/*",
            "application/json",
            "[{\"prefix\":\"/svc\",\"dst\":\"/#/io.l5d.fs\"},{\"prefix\":\"/a\",\"dst\":\"/b\"}]\n",
        ),
    ] {
        let (head, sent) =
            send(&namerd, &format!("GET {DEFAULT}"), &format!("accept: {accept}\r\n"), "").await;

        assert_eq!(sent, body);
        assert!(head.contains(&format!("content-type: {kind}\r\n")), "{head}");
    }
    let mut raw = Raw::connect(&namerd).await;
    raw.send(&format!("HEAD {DEFAULT} HTTP/1.1\r\nhost: x\r\n\r\n")).await;
    assert!(raw.until("\r\n\r\n").await.contains("etag: AAAAAAAAAAE="));
    raw.is_silent().await;
}

#[tokio::test]
async fn lists_and_dtabs_can_be_watched() {
    let namerd = server().await;
    namerd.set_dtab("b", "").unwrap();
    let mut list = Raw::connect(&namerd).await;
    list.get("/api/1/dtabs?watch=true").await;
    list.until("\r\n\r\n").await;
    assert_eq!(list.chunk().await, "[\"b\"]\n");
    let mut dtab = Raw::connect(&namerd).await;
    dtab.send("GET /api/1/dtabs/a?watch=true HTTP/1.1\r\nhost: x\r\naccept: application/dtab\r\n\r\n").await;
    assert!(!dtab.until("\r\n\r\n").await.contains("etag"));
    dtab.is_silent().await;

    namerd.set_dtab("a", "/a=>/b").unwrap();
    assert_eq!(list.chunk().await, "[\"a\",\"b\"]\n");
    assert_eq!(dtab.chunk().await, "/a=>/b\n");
    assert!(namerd.remove_dtab("a"));
    assert_eq!(list.chunk().await, "[\"b\"]\n");
    dtab.is_silent().await;
    assert_eq!(ask(&namerd, "/api/1/dtabs/").await.1, "[\"b\"]\n");
}

#[tokio::test]
async fn a_dtab_shifts_traffic() {
    let namerd = server().await;
    namerd.set("default", "/svc/web", one(1)).unwrap();
    namerd.set("default", "/other/web", one(2)).unwrap();
    let mut raw = Raw::connect(&namerd).await;
    raw.get(super::WATCH).await;
    raw.until("\r\n\r\n").await;
    assert_eq!(raw.chunk().await, one_line(1));

    for (dtab, port) in [
        ("/svc => /other", 2),
        ("/svc => /nowhere", 1),
        ("/svc => /other ; /svc => /nowhere", 2),
        ("/svc => /nowhere ; /*/nope => /other/web", 1),
        ("/svc => /step ; /step => /other", 2),
    ] {
        let answer = send(&namerd, &format!("PUT {DEFAULT}"), DTAB, dtab).await;

        assert_eq!(status(&answer), 204);
        assert_eq!(ask(&namerd, super::WEB).await.1, one_line(port), "{dtab}");
        assert_eq!(raw.chunk().await, one_line(port));
    }
}

#[tokio::test]
async fn entries_of_a_request_come_last() {
    let namerd = server().await;
    namerd.set_dtab("default", "/svc => /other").unwrap();
    namerd.set("default", "/other/web", one(1)).unwrap();
    namerd.set("default", "/mine/web", Addr::bound([at("127.0.0.1:2")])).unwrap();

    let mine = format!("{}&dtab=/svc%3D%3E/mine%3B", super::WEB);

    assert_eq!(ask(&namerd, &mine).await.1, one_line(2));
    assert_eq!(ask(&namerd, super::WEB).await.1, one_line(1));
}

#[tokio::test]
async fn loops_and_blow_ups_end() {
    let namerd = server().await;
    namerd.set_dtab("loop", "/a => /b; /b => /a").unwrap();
    let doubling: Vec<_> = (0..60).map(|n| format!("/{n} => /{0}; /{n} => /{0}", n + 1)).collect();
    namerd.set_dtab("wide", &doubling.join(";")).unwrap();

    assert_eq!(status(&ask(&namerd, "/api/1/resolve/loop?path=/a").await), 500);
    assert_eq!(status(&ask(&namerd, "/api/1/resolve/wide?path=/0").await), 500);
    assert_eq!(ask(&namerd, "/api/1/resolve/wide?path=/x").await.1, NEG);
}
