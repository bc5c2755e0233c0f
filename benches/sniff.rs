//! What it costs to look at the first bytes of a connection.
//!
//! The hellos are captures of real clients. rustls' own acceptor reads the same bytes beside it, since it is what a
//! proxy would use that terminates TLS anyway.

use std::hint::black_box;
use std::path::Path;
use std::time::Duration;

use criterion::BatchSize;
use criterion::BenchmarkId;
use criterion::Criterion;
use criterion::Throughput;
use meshlib::io::sniff::Look;
use meshlib::io::sniff::Sniffed;
use meshlib::io::sniff::sniff;
use rustls::server::Acceptor;

const HELLOS: [&str; 4] = ["curl", "openssl_tls13_sni_alpn", "rustls_mlkem", "rustls_mlkem_records"];

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(500))
        .configure_from_args();
    whole(&mut criterion);
    pieces(&mut criterion);
    criterion.final_summary();
}

/// Everything is there at once, as nearly always.
fn whole(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("sniff");
    let mut scratch = Vec::new();
    for name in HELLOS {
        let hello = hello(name);
        assert!(matches!(
            sniff(&hello, &mut scratch),
            Look::Decided(Sniffed::Tls { server_name: Some(_), .. })
        ));
        group.throughput(Throughput::Bytes(hello.len() as u64));
        group.bench_function(BenchmarkId::new("meshlib", name), |bencher| {
            bencher.iter(|| decided(black_box(&hello), &mut scratch));
        });
        group.bench_function(BenchmarkId::new("rustls-acceptor", name), |bencher| {
            bencher.iter_batched_ref(
                Acceptor::default,
                |acceptor| {
                    let mut unread = black_box(&hello[..]);
                    acceptor.read_tls(&mut unread).expect("a slice can be read");
                    let accepted =
                        acceptor.accept().map_err(|(error, _)| error).expect("a hello that rustls takes");
                    let accepted = accepted.expect("a whole hello");
                    black_box(accepted.client_hello().server_name().is_some())
                },
                BatchSize::SmallInput,
            );
        });
    }
    let request = b"GET /index.html HTTP/1.1\r\nhost: example.com\r\n\r\n";
    group.throughput(Throughput::Bytes(request.len() as u64));
    group.bench_function(BenchmarkId::new("meshlib", "http1"), |bencher| {
        bencher.iter(|| decided(black_box(request), &mut scratch));
    });
}

/// The worst that a slow peer can do: one look per byte.
fn pieces(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("sniff-by-byte");
    let mut scratch = Vec::new();
    for name in ["rustls_mlkem", "rustls_mlkem_records"] {
        let hello = hello(name);
        group.throughput(Throughput::Bytes(hello.len() as u64));
        group.bench_function(BenchmarkId::new("meshlib", name), |bencher| {
            bencher.iter(|| (1..=hello.len()).filter(|&read| decided(&hello[..read], &mut scratch)).count());
        });
    }
}

fn decided(bytes: &[u8], scratch: &mut Vec<u8>) -> bool {
    matches!(black_box(sniff(bytes, scratch)), Look::Decided(_))
}

fn hello(name: &str) -> Vec<u8> {
    let captures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../meshlib/tests/golden/hello");
    std::fs::read(captures.join(name).with_extension("bin")).expect("a capture of the repository")
}
