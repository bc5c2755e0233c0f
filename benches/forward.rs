//! What forwarding costs, from socket to socket.
//!
//! Client, proxy and server are tasks of one thread, so a figure is the processor time of all three and no other core,
//! no wake-up across cores and no idle waiting is in it. `direct` is client and server without a proxy: what is above
//! it is the proxy's share.

use std::io;
use std::time::Duration;

use criterion::BenchmarkGroup;
use criterion::BenchmarkId;
use criterion::Criterion;
use criterion::Throughput;
use criterion::measurement::WallTime;
use meshlib::ForwardOptions;
use meshlib::Io;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::time::Instant;

/// Who moves the bytes.
#[derive(Clone, Copy)]
enum Proxy {
    /// Nobody: the client is connected to the server.
    Direct,
    /// meshlib, inside the kernel once a direction is bulky.
    Splice,
    /// meshlib, never inside the kernel.
    Copy,
    /// tokio, with a buffer of 8 KiB per direction.
    Tokio,
    /// tokio, with buffers as large as ours.
    TokioLarge,
}

const PROXIES: [(&str, Proxy); 5] = [
    ("direct", Proxy::Direct),
    ("meshlib-splice", Proxy::Splice),
    ("meshlib-copy", Proxy::Copy),
    ("tokio-8k", Proxy::Tokio),
    ("tokio-64k", Proxy::TokioLarge),
];

const MESSAGE: usize = 64;
const BLOCK: usize = 64 * 1024;
const BULK: usize = 16 * 1024 * 1024;

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");

    let mut group = criterion.benchmark_group("forward-64B-and-back");
    group.throughput(Throughput::Elements(1));
    each_proxy(&mut group, &runtime, async |client, server, rounds| {
        let mut message = [0; MESSAGE];
        for _ in 0..rounds {
            client.write_all(&[1; MESSAGE]).await?;
            server.read_exact(&mut message).await?;
            server.write_all(&message).await?;
            client.read_exact(&mut message).await?;
        }
        Ok(())
    });
    group.finish();

    let mut group = criterion.benchmark_group("forward-64KiB");
    group.throughput(Throughput::Bytes(BLOCK as u64));
    each_proxy(&mut group, &runtime, async |client, server, rounds| {
        let (sent, mut received) = (vec![1; BLOCK], vec![0; BLOCK]);
        for _ in 0..rounds {
            tokio::try_join!(client.write_all(&sent), server.read_exact(&mut received))?;
        }
        Ok(())
    });
    group.finish();

    let mut group = criterion.benchmark_group("forward-bulk-16MiB");
    group.throughput(Throughput::Bytes(BULK as u64));
    each_proxy(&mut group, &runtime, async |client, server, rounds| {
        let (sent, mut received) = (vec![1; 4 * BLOCK], vec![0; 4 * BLOCK]);
        let bytes = rounds * BULK as u64;
        let send = async {
            for _ in 0..bytes / sent.len() as u64 {
                client.write_all(&sent).await?;
            }
            Ok(())
        };
        let receive = async {
            let mut left = bytes;
            while left > 0 {
                match server.read(&mut received).await? {
                    0 => return Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
                    read => left -= read as u64,
                }
            }
            Ok(())
        };
        tokio::try_join!(send, receive).map(|_| ())
    });
    group.finish();

    criterion.final_summary();
}

/// Runs one conversation of so many rounds through each proxy.
fn each_proxy(
    group: &mut BenchmarkGroup<'_, WallTime>,
    runtime: &Runtime,
    talk: impl AsyncFn(&mut TcpStream, &mut TcpStream, u64) -> io::Result<()>,
) {
    for (name, proxy) in PROXIES {
        group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
            let chain = runtime.block_on(connect(proxy)).expect("loopback works");
            let (mut client, mut server) = chain;
            bencher.iter_custom(|rounds| {
                runtime.block_on(async {
                    let since = Instant::now();
                    talk(&mut client, &mut server, rounds).await.expect("a proxy that keeps its connections");
                    since.elapsed()
                })
            });
        });
    }
}

/// A client's and a server's end with the proxy between them. It ends with them.
async fn connect(proxy: Proxy) -> io::Result<(TcpStream, TcpStream)> {
    let (client, inbound) = pair().await?;
    if let Proxy::Direct = proxy {
        return Ok((client, inbound));
    }
    let (outbound, server) = pair().await?;
    tokio::spawn(relay(proxy, inbound, outbound));
    Ok((client, server))
}

async fn relay(proxy: Proxy, mut inbound: TcpStream, mut outbound: TcpStream) {
    let mut options = ForwardOptions::default();
    if let Proxy::Copy = proxy {
        options = options.with_splice_after(None);
    }
    // An error here is the end of a connection that the bench has closed; one that it needs shows there.
    match proxy {
        Proxy::Splice | Proxy::Copy => {
            let (mut inbound, mut outbound) = (Io::from(inbound), Io::from(outbound));
            let _ = meshlib::forward(&mut inbound, &mut outbound, &options).await;
        }
        Proxy::Direct | Proxy::Tokio => {
            let _ = tokio::io::copy_bidirectional(&mut inbound, &mut outbound).await;
        }
        Proxy::TokioLarge => {
            let (a, b) = (&mut inbound, &mut outbound);
            let _ = tokio::io::copy_bidirectional_with_sizes(a, b, BLOCK, BLOCK).await;
        }
    }
}

/// Two ends of one connection, without Nagle's delay.
async fn pair() -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let ours = TcpStream::connect(listener.local_addr()?).await?;
    let (theirs, _) = listener.accept().await?;
    ours.set_nodelay(true)?;
    theirs.set_nodelay(true)?;
    Ok((ours, theirs))
}
