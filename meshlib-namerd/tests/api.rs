//! Answers of namerd, read and written.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use meshlib::Weight;
use meshlib_namerd::api::Addr;
use meshlib_namerd::api::Address;
use meshlib_namerd::api::DecodeError;
use meshlib_namerd::api::MAX_DEPTH;
use meshlib_namerd::api::Meta;
use meshlib_namerd::api::Skipped;
use meshlib_namerd::api::Tree;
use proptest::prelude::*;

fn read(json: &str) -> (Result<Addr, DecodeError>, Skipped) {
    let mut skipped = Skipped::default();
    (Addr::from_json(json.as_bytes(), &mut skipped), skipped)
}

/// Reads what must be understood without loss.
fn addr(json: &str) -> Addr {
    let (addr, skipped) = read(json);
    assert!(skipped.is_empty(), "{skipped:?}");
    addr.unwrap()
}

fn address(addr: &str) -> Address {
    Address::new(addr.parse().unwrap())
}

#[test]
fn every_form_is_written_as_it_is_read() {
    for json in [
        r#"{"type":"neg"}"#,
        r#"{"type":"pending"}"#,
        r#"{"type":"failed"}"#,
        r#"{"type":"failed","cause":"a \"text\""}"#,
        r#"{"type":"bound","addrs":[],"meta":{}}"#,
        r#"{"type":"bound","addrs":[],"meta":{"authority":"web","x":{"y":[1,null]}}}"#,
        r#"{"type":"bound","addrs":[{"ip":"10.0.0.6","port":6379,"meta":{"authority":"a","nodeName":"n2","endpoint_addr_weight":0.5,"a":1}}],"meta":{}}"#,
        r#"{"type":"bound","addrs":[{"ip":"fe80:0:0:0:0:0:a:1%2","port":65535,"meta":{"endpoint_addr_weight":1.0}}],"meta":{}}"#,
    ] {
        assert_eq!(addr(json).to_json(), json);
    }
}

#[test]
fn what_is_missing_is_empty_and_what_is_unknown_is_ignored() {
    let empty = Addr::bound::<Address>([]);
    for json in [
        r#"{"type":"bound"}"#,
        r#"{"addrs":null,"meta":null,"type":"bound","more":[{}]}"#,
        r#" {"meta":"text", "type":"bound"} "#,
    ] {
        assert_eq!(addr(json), empty, "{json}");
    }
    let json =
        r#"{"type":"bound","addrs":[{"ip":"1.2.3.4","port":5,"zone":"a"},{"port":6,"ip":"::1","meta":7}]}"#;
    assert_eq!(addr(json), Addr::bound([address("1.2.3.4:5"), address("[::1]:6")]));
    assert_eq!(addr(r#"{"type":"failed","cause":7}"#).to_json(), r#"{"type":"failed"}"#);
    assert_eq!(addr(r#"{"type":"neg","addrs":[],"meta":{}}"#), Addr::Neg);
}

#[test]
fn an_address_that_cannot_be_used_is_skipped() {
    for (bad, reason) in [
        (r#"{"ip":"web.local","port":1}"#, "\"web.local\" is not an ip address"),
        (r#"{"ip":"1.2.3.4%1","port":1}"#, "\"1.2.3.4%1\" is not an ip address"),
        (r#"{"ip":"1.2.3.4","port":0}"#, "1.2.3.4 has no usable port"),
        (r#"{"ip":"1.2.3.4","port":65536}"#, "1.2.3.4 has no usable port"),
        (r#"{"ip":"1.2.3.4","port":-1}"#, "1.2.3.4 has no usable port"),
        (r#"{"ip":"1.2.3.4","port":"80"}"#, "1.2.3.4 has no usable port"),
        (r#"{"port":1}"#, "an address has no ip"),
        ("7", "7 is not an address"),
    ] {
        let (addr, skipped) =
            read(&format!(r#"{{"type":"bound","addrs":[{bad},{{"ip":"1.1.1.1","port":2}},{bad}]}}"#));

        assert_eq!(addr.unwrap(), Addr::bound([address("1.1.1.1:2")]));
        assert_eq!((skipped.count, skipped.first.as_deref()), (2, Some(reason)));
    }
}

#[test]
fn scopes_are_kept_by_number_and_dropped_by_name() {
    let (by_number, skipped) = read(r#"{"type":"bound","addrs":[{"ip":"fe80::1%7","port":1}]}"#);
    assert!(skipped.is_empty());
    let (by_name, skipped) = read(r#"{"type":"bound","addrs":[{"ip":"fe80:0:0:0:0:0:0:1%eth0","port":1}]}"#);
    assert_eq!(skipped.count, 1);

    assert_eq!(by_number.unwrap().endpoints()[0].addr, "[fe80::1%7]:1".parse().unwrap());
    assert_eq!(by_name.unwrap().endpoints()[0].addr, "[fe80::1]:1".parse().unwrap());
    let mapped = addr(r#"{"type":"bound","addrs":[{"ip":"::ffff:1.2.3.4","port":1}]}"#);
    assert_eq!(mapped.endpoints()[0].addr, "1.2.3.4:1".parse().unwrap());
}

#[test]
fn weights_are_numbers_or_texts_and_otherwise_one() {
    for (weight, expected) in [
        ("0.5", 0.5),
        ("2", 2.0),
        ("0", 0.0),
        ("\"0.25\"", 0.25),
        ("\" 3 \"", 3.0),
        ("-1", 1.0),
        ("\"NaN\"", 1.0),
        ("\"inf\"", 1.0),
        ("\"much\"", 1.0),
        ("null", 1.0),
        ("[1]", 1.0),
    ] {
        let meta = format!(r#"{{"endpoint_addr_weight":{weight}}}"#);
        let addr =
            addr(&format!(r#"{{"type":"bound","addrs":[{{"ip":"1.2.3.4","port":5,"meta":{meta}}}]}}"#));

        assert_eq!(addr.endpoints()[0].weight, Weight::new(expected).unwrap(), "{weight}");
    }
}

#[test]
fn facts_become_metadata() {
    let own = Meta::new()
        .with_text(Meta::NODE_NAME, "n1")
        .with_text(Meta::AUTHORITY, "own.example")
        .with_json("tags", "[1, 2]")
        .unwrap()
        .with_number(Meta::WEIGHT, 2.0);
    let set = Meta::new().with_text(Meta::AUTHORITY, "set.example").with_text("a", "b");
    let addr = Addr::bound([address("1.2.3.4:5").with_meta(own), address("1.2.3.4:6")]).with_meta(set);

    let endpoints = addr.endpoints();

    let labels = |at: usize| {
        let labels = endpoints[at].metadata.labels.iter();
        labels.map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>()
    };
    assert_eq!(labels(0), ["a=b", "authority=own.example", "tags=[1,2]"]);
    assert_eq!(labels(1), ["a=b", "authority=set.example"]);
    assert_eq!(endpoints[0].metadata.node.as_deref(), Some("n1"));
    for addr in [Addr::Neg, Addr::Pending, Addr::failed("x")] {
        assert_eq!(addr.endpoints(), []);
    }
}

#[test]
fn what_is_no_answer_is_refused() {
    for (json, message) in [
        ("", "not JSON"),
        ("{\"type\":\"neg\"} x", "not JSON"),
        ("[]", "the answer is not an object"),
        ("{}", "type is not a text"),
        ("{\"type\":1}", "type is not a text"),
        ("{\"type\":\"leaf\"}", "unknown type \"leaf\""),
        ("{\"type\":\"bound\",\"addrs\":{}}", "addrs is not a list"),
    ] {
        assert_eq!(read(json).0.unwrap_err().to_string(), message, "{json}");
    }
}

fn tree(json: &str) -> Result<Tree, DecodeError> {
    Tree::from_json(json.as_bytes(), &mut Skipped::default())
}

#[test]
fn trees_are_written_as_they_are_read() {
    let leaf = |weight: &str| {
        let addr = r#"{"type":"bound","addrs":[{"ip":"10.1.0.7","port":8080,"meta":{}}],"meta":{}}"#;
        let leaf =
            format!(r#"{{"type":"leaf","bound":{{"addr":{addr},"id":"/#/io.l5d.fs/web","path":"/a/b"}}}}"#);
        format!(r#"{{"weight":{weight},"tree":{leaf}}}"#)
    };
    let union = format!(r#"{{"type":"union","union":[{},{}]}}"#, leaf("0.9"), leaf("1.0"));
    let json =
        format!(r#"{{"type":"alt","alt":[{{"type":"neg"}},{{"type":"fail"}},{{"type":"empty"}},{union}]}}"#);

    assert_eq!(tree(&json).unwrap().to_json(), json);
}

#[test]
fn leaves_need_an_id() {
    assert_eq!(
        tree(r#"{"type":"leaf","bound":{"id":"/#/a"}}"#).unwrap().to_json(),
        r#"{"type":"leaf","bound":{"addr":{"type":"pending"},"id":"/#/a","path":"/"}}"#
    );
    for (json, message) in [
        (r#"{"type":"leaf"}"#, "bound is not an object"),
        (r#"{"type":"leaf","bound":{}}"#, "id is not a text"),
        (r#"{"type":"leaf","bound":{"id":"a"}}"#, "id is not a path"),
        (r#"{"type":"leaf","bound":{"id":"/a","path":"b"}}"#, "path is not a path"),
        (r#"{"type":"alt","alt":[7]}"#, "a tree is not an object"),
        (r#"{"type":"union","union":[{"weight":1}]}"#, "a tree is not an object"),
        (r#"{"type":"bound"}"#, "unknown type \"bound\""),
    ] {
        assert_eq!(tree(json).unwrap_err().to_string(), message, "{json}");
    }
}

#[test]
fn trees_have_a_depth() {
    let nested = |depth: usize| {
        let open = r#"{"type":"union","union":[{"weight":1.0,"tree":"#;
        open.repeat(depth - 1) + r#"{"type":"neg"}"# + &"}]}".repeat(depth - 1)
    };

    assert_eq!(tree(&nested(MAX_DEPTH)).unwrap().to_json(), nested(MAX_DEPTH));
    assert!(matches!(tree(&nested(MAX_DEPTH + 1)), Err(DecodeError::TooDeep)));
    assert!(matches!(tree(&nested(100_000)), Err(DecodeError::Json(_))));
}

proptest! {
    #[test]
    fn addresses_survive_writing(
        addrs in prop::collection::vec((any::<std::net::IpAddr>(), 1_u16.., prop::option::of(0.0..1e9)), 0..20),
    ) {
        let addrs = addrs.into_iter().map(|(ip, port, weight)| {
            let address = Address::new((ip.to_canonical(), port).into());
            match weight {
                Some(weight) => address.with_weight(weight),
                None => address,
            }
        });
        let bound = Addr::bound(addrs);

        prop_assert_eq!(addr(&bound.to_json()), bound);
    }
}
