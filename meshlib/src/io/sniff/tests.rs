mod wire;

use super::*;

use proptest::prelude::*;
use rustls::pki_types::DnsName;

use wire::*;

/// Sniffs with a scratch buffer of its own and gives owned names back.
fn look(bytes: &[u8]) -> Option<Seen> {
    match sniff(bytes, &mut vec![0xee; 3]) {
        Look::Incomplete => None,
        Look::Decided(Sniffed::Tls { server_name, alpn }) => Some(Seen::Tls(
            server_name.map(str::to_owned),
            alpn.iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect(),
        )),
        Look::Decided(Sniffed::Plaintext) => Some(Seen::Plaintext),
        Look::Decided(Sniffed::Unknown) => Some(Seen::Unknown),
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Seen {
    Tls(Option<String>, Vec<String>),
    Plaintext,
    Unknown,
}

fn tls(name: &str, alpn: &[&str]) -> Option<Seen> {
    let name = (!name.is_empty()).then(|| name.to_owned());
    Some(Seen::Tls(name, alpn.iter().map(|&name| name.to_owned()).collect()))
}

/// Hellos recorded from real clients, with what they show.
fn captures() -> [(&'static [u8], Option<Seen>); 8] {
    [
        (
            include_bytes!("../../../tests/golden/hello/openssl_tls13_sni_alpn.bin"),
            tls("web.example.com", &["h2", "http/1.1"]),
        ),
        (include_bytes!("../../../tests/golden/hello/openssl_tls12_sni.bin"), tls("Web.Example.com", &[])),
        (include_bytes!("../../../tests/golden/hello/openssl_tls12_no_sni.bin"), tls("", &[])),
        (include_bytes!("../../../tests/golden/hello/openssl_tls10.bin"), tls("old.example.com", &[])),
        (
            include_bytes!("../../../tests/golden/hello/curl.bin"),
            tls("shop.example.org", &["h2", "http/1.1"]),
        ),
        (include_bytes!("../../../tests/golden/hello/curl_ip.bin"), tls("", &["h2", "http/1.1"])),
        (include_bytes!("../../../tests/golden/hello/node.bin"), tls("node.example.net", &["http/1.1"])),
        (
            include_bytes!("../../../tests/golden/hello/rustls_mlkem_records.bin"),
            tls("pq.example.com", &["h2"]),
        ),
    ]
}

/// Asserts that every proper prefix is undecided and the whole is decided as `expected`.
fn assert_split_anywhere(wire: &[u8], expected: &Option<Seen>) {
    for end in 0..wire.len() {
        assert_eq!(look(&wire[..end]), None, "after {end} of {} bytes", wire.len());
    }
    assert_eq!(look(wire), *expected);
    assert_eq!(look(&[wire, b"\x14\x03\x03 more"].concat()), *expected);
}

#[test]
fn real_hellos_show_their_names_however_they_are_segmented() {
    for (wire, expected) in captures() {
        assert_split_anywhere(wire, &expected);
    }
}

#[test]
fn post_quantum_hello_of_rustls_shows_its_names() {
    let wire = rustls_hello("pq.example.com", &["h2", "http/1.1"], None);

    assert!(wire.len() > 1200, "no post-quantum key share in {} bytes", wire.len());
    assert_split_anywhere(&wire, &tls("pq.example.com", &["h2", "http/1.1"]));
}

#[test]
fn hello_in_several_records_is_reassembled() {
    let wire = rustls_hello("pq.example.com", &["h2"], Some(64));

    assert!(wire.chunks_exact(64).take(10).all(|record| record[..2] == [22, 3]));
    assert_split_anywhere(&wire, &tls("pq.example.com", &["h2"]));
}

#[test]
fn records_of_one_byte_are_reassembled_up_to_the_limit() {
    let small = message(&vector16(&server_name(b"a.b")));
    let large = message(&vector16(&[server_name(b"a.b"), extension(21, &[0; 200])].concat()));

    assert_eq!(look(&records(&small, 1)), tls("a.b", &[]));
    assert_eq!(look(&records(&large, 1)), tls("", &[]));
    assert_eq!(look(&records(&large, 2)), tls("a.b", &[]));
}

#[test]
fn scratch_is_left_alone_by_a_hello_in_one_record() {
    let mut scratch = b"kept".to_vec();

    sniff(&hello(&[server_name(b"a.b")]), &mut scratch);

    assert_eq!(scratch, b"kept");
}

#[test]
fn reserved_and_unknown_extensions_are_skipped() {
    let wire = hello(&[
        extension(0x0a0a, &[]),
        extension(0xfe0d, &[1; 40]),
        server_name(b"a_b.example"),
        alpn(&["\x0a\x0a", "h2"]),
        extension(0xfafa, &[0]),
    ]);

    assert_eq!(look(&wire), tls("a_b.example", &["\x0a\x0a", "h2"]));
}

#[test]
fn hello_without_extensions_is_tls() {
    assert_eq!(look(&records(&message(&[]), 1 << 14)), tls("", &[]));
    assert_eq!(look(&hello(&[])), tls("", &[]));
}

#[test]
fn only_dns_names_are_names() {
    let long = [&b"a."[..]; 127].concat();
    let longest = &long[..253];
    for good in [
        &b"a"[..],
        b"localhost",
        b"A.b-c.1d",
        b"0xg",
        b"a.00x1",
        b"xn--bcher-kva.example",
        b"1.2.3.4.in-addr.arpa",
        longest,
    ] {
        assert_eq!(look(&hello(&[server_name(good)])), tls(std::str::from_utf8(good).unwrap(), &[]));
    }
    let too_long = [&b"aa."[..], &long[..251]].concat();
    for bad in [
        &b""[..],
        b"10.0.0.1",
        b"127.1",
        b"127.1.",
        b"0",
        b"127.0x1",
        b"0X7F",
        b"0x",
        b"::1",
        b"[::1]",
        b"a.b..",
        b".",
        b".a",
        b"a..b",
        b"b\xc3\xbccher.de",
        b"a b",
        b"*.a",
        b"a\0",
        b"-a.b",
        b"a-.b",
        b"a/b",
        &[b'a'; 64],
        &too_long,
    ] {
        let wire = hello(&[server_name(bad), alpn(&["h2"])]);
        assert_eq!(look(&wire), tls("", &["h2"]), "{}", bad.escape_ascii());
    }
}

#[test]
fn dot_at_the_end_of_a_name_is_dropped() {
    assert_eq!(look(&hello(&[server_name(b"a.example.")])), tls("a.example", &[]));
}

#[test]
fn other_name_types_end_the_list_of_names() {
    let list = |entries: &[&[u8]]| hello(&[extension(0, &vector16(&entries.concat()))]);

    assert_eq!(look(&list(&[b"\0\0\x01a", b"\x07anything"])), tls("a", &[]));
    assert_eq!(look(&list(&[b"\x07anything", b"\0\0\x01a"])), tls("", &[]));
}

#[test]
fn broken_hellos_are_tls_without_names() {
    let good = [server_name(b"a.b"), alpn(&["h2"])];
    let broken_extensions = [
        extension(0, b""),                         // no list
        extension(0, b"\0\0"),                     // empty list
        extension(0, b"\0\x04\0\0\x01ab"),         // bytes after the list
        extension(0, b"\0\x04\0\0\x09a"),          // name beyond the list
        extension(0, b"\0\x08\0\0\x01a\0\0\x01b"), // two host names
        extension(16, b"\0\0"),                    // no protocols
        extension(16, b"\0\x01\0"),                // empty protocol
        extension(16, b"\0\x03\x05h2"),            // protocol beyond the list
        extension(16, b"\0\x03\x02h2h2"),          // bytes after the list
        vec![0, 9, 0],                             // half an extension header
        extension(9, b"1234")[..7].to_vec(),       // extension beyond the list
    ];
    for broken in broken_extensions {
        // Before and after well-formed ones: nothing may be taken from a hello that is broken anywhere.
        let other = if broken[1] == 0 { &good[1] } else { &good[0] };
        assert_eq!(look(&hello(&[other.clone(), broken.clone()])), tls("", &[]), "{broken:02x?}");
    }
    assert_eq!(look(&hello(&[good[0].clone(), good[0].clone()])), tls("", &[]));
    assert_eq!(look(&hello(&[good[1].clone(), good[1].clone()])), tls("", &[]));

    let whole = message(&vector16(&good.concat()));
    assert_eq!(
        look(&records(&message(&[&vector16(&good.concat())[..], b"x"].concat()), 1 << 14)),
        tls("", &[])
    );
    for end in 4..whole.len() {
        let mut cut = whole[..end].to_vec();
        let length = u32::try_from((end - 4) | 1 << 24).unwrap();
        cut[..4].copy_from_slice(&length.to_be_bytes());
        // Cut right behind the compression methods, at 79, it is well-formed again but has no names left.
        assert_eq!(look(&records(&cut, 1 << 14)), tls("", &[]), "cut at {end}");
    }
    for (at, value) in [(38, 33), (72, 3), (72, 0), (77, 0)] {
        let mut changed = whole.clone();
        changed[at] = value;
        assert_eq!(look(&records(&changed, 1 << 14)), tls("", &[]), "byte {at}");
    }
}

#[test]
fn broken_records_are_tls_without_names() {
    assert_eq!(look(b"\x16\x03\x01\x40\x01\x01"), tls("", &[]));
    assert_eq!(look(b"\x16\x03\x01\x40\x00\x01"), None);
    let first = &records(&message(&vector16(&server_name(b"a.b"))), 40)[..45];
    for next in
        [&b"\x16\x03\x01\0\0"[..], b"\x15\x03\x01\0\x02", b"\x16\x02\x01\0\x02", b"\x16\x03\x01\x40\x01"]
    {
        assert_eq!(look(&[first, next].concat()), tls("", &[]));
    }
}

#[test]
fn oversized_hello_is_decided_by_its_length_field() {
    assert_eq!(look(b"\x16\x03\x01\x40\0\x01\0\xff\xf8"), tls("", &[]));
    assert_eq!(look(b"\x16\x03\x01\x40\0\x01\0\xff\xf7"), None);
}

#[test]
fn no_more_than_the_limit_is_asked_for() {
    // Five records of the largest size announce more than fits once their headers are counted.
    let mut wire = records(&[&b"\x01\0\xff\xf7"[..], &vec![0; 0xfff7]].concat(), 1 << 14);
    assert!(wire.len() > MAX_HELLO);
    wire.truncate(MAX_HELLO);

    assert_eq!(look(&wire[..MAX_HELLO - 1]), None);
    assert_eq!(look(&wire), tls("", &[]));
}

#[test]
fn record_versions_of_tls_are_accepted() {
    let mut wire = hello(&[server_name(b"a.b")]);
    for minor in 0..=4 {
        wire[2] = minor;
        assert_eq!(look(&wire), tls("a.b", &[]));
    }
    wire[2] = 5;
    assert_eq!(look(&wire), Some(Seen::Unknown));
}

#[test]
fn http_is_plaintext_as_soon_as_its_target_begins() {
    let lines =
        ["GET /", "PROPFIND *", "M-SEARCH *", "GET http", "POST HTTP", "CONNECT a", "CONNECT [", "PRI *"];
    for line in lines {
        let whole = format!("{line}://x HTTP/1.1\r\n\r\n");
        for end in 0..whole.len() {
            let expected = (end >= line.len()).then_some(Seen::Plaintext);
            assert_eq!(look(&whole.as_bytes()[..end]), expected, "{}", &whole[..end]);
        }
    }
    assert_eq!(look(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), Some(Seen::Plaintext));
}

#[test]
fn other_protocols_are_unknown() {
    let sslv2 = b"\x80\x2e\x01\x03\x01\0\x15\0\0\0\x10";
    for bytes in [
        &sslv2[..],
        b"\x16\x02",
        b"\x16\x03\x07",
        b"\x16\x03\x01\0\0",
        b"\x16\x03\x01\0\x04\x02",
        b"\x15\x03\x01\0\x02",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"EHLO mail",
        b"get /key",
        b"*1\r\n",
        b"-A /",
        b"\r\n",
        b"\0",
        b"GET  /",
        b"GET\t/",
        b"GET htp",
        b"CONNECT -",
        &[b'A'; 33],
    ] {
        assert_eq!(look(bytes), Some(Seen::Unknown), "{}", bytes.escape_ascii());
    }
}

proptest! {
    #[test]
    fn answers_are_never_taken_back(wire in wires()) {
        let whole = look(&wire);
        for end in 0..wire.len() {
            let part = look(&wire[..end]);
            prop_assert!(part.is_none() || part == whole, "{part:?} after {end} bytes, {whole:?} at the end");
        }
    }

    #[test]
    fn names_are_names_for_rustls_too(host in "[a-zA-Z0-9._:-]{1,20}|[0-9a-gxX.]{1,5}|[0-9.]{1,12}|[a-z]{60,66}(\\.[a-z]{1,63}){0,4}") {
        let wire = hello(&[server_name(host.as_bytes())]);
        match look(&wire) {
            Some(Seen::Tls(Some(name), _)) => prop_assert!(DnsName::try_from(name).is_ok()),
            _ => prop_assert!(DnsName::try_from(host).is_err()),
        }
    }
}
