//! The programs, each with some traffic, and what their pages said before and after more of the same.

use std::net::SocketAddr;
use std::sync::OnceLock;

use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::time;
use tokio::time::Instant;

use crate::ask;
use crate::child::LOOK;
use crate::exposition::Family;
use crate::exposition::Format;
use crate::exposition::parse;
use crate::lines::SOON;

#[path = "programs/linkerd_tcp.rs"]
mod linkerd_tcp;
#[path = "programs/tproxy_poc.rs"]
mod tproxy_poc;
#[path = "programs/tricot.rs"]
mod tricot;

/// What a program served.
pub(crate) struct Run {
    /// The program, with what distinguishes this run from others of it.
    pub(crate) name: &'static str,
    /// After clients have done all that they do.
    pub(crate) first: Pages,
    /// After other clients have done the same.
    pub(crate) last: Pages,
    /// Whether all servers were there that it works with.
    pub(crate) is_whole: bool,
}

/// Its metrics in both formats.
pub(crate) struct Pages {
    pub(crate) text: Vec<Family>,
    pub(crate) open: Vec<Family>,
}

/// All programs that have metrics. They run once for all tests here.
pub(crate) fn runs() -> &'static [Run] {
    static RUNS: OnceLock<Vec<Run>> = OnceLock::new();
    RUNS.get_or_init(|| {
        let runtime = Runtime::new().expect("a runtime");
        runtime.block_on(async {
            let (routers, proxies, tproxy, tricot) = tokio::join!(
                linkerd_tcp::routers(),
                linkerd_tcp::proxies(),
                tproxy_poc::run(),
                tricot::run()
            );
            vec![routers, proxies, tproxy, tricot]
        })
    })
}

impl Pages {
    /// Asks for both, in the words of Prometheus, and reads them strictly.
    async fn fetch(admin: SocketAddr) -> Self {
        let open = "application/openmetrics-text; version=1.0.0";
        let text = "text/plain; version=0.0.4";
        Self { text: fetch(admin, text, Format::Text).await, open: fetch(admin, open, Format::Open).await }
    }

    /// The sum of the samples with this name whose labels hold all these.
    pub(crate) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        sum(&self.text, name, labels)
    }

    /// A family by its name in the older format.
    pub(crate) fn family(&self, name: &str) -> Option<&Family> {
        self.text.iter().find(|family| family.name == name)
    }
}

async fn fetch(admin: SocketAddr, accept: &str, format: Format) -> Vec<Family> {
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {admin}\r\nAccept: {accept}\r\n\r\n");
    let page = ask::plain(admin, &request).await.unwrap();
    let content_type = page.field("content-type").unwrap().to_owned();
    assert_eq!((page.status, content_type), (200, format!("{accept}; charset=utf-8")));
    parse(&page.text(), format).unwrap_or_else(|problem| panic!("{problem} in {}", page.text()))
}

fn sum(families: &[Family], name: &str, labels: &[(&str, &str)]) -> f64 {
    let samples = families.iter().flat_map(|family| &family.samples).filter(|sample| sample.name == name);
    let fits = samples.filter(|sample| labels.iter().all(|(key, value)| sample.label(key) == Some(*value)));
    fits.map(|sample| sample.value).sum()
}

/// Waits until a sum of samples has this value.
async fn settles(admin: SocketAddr, name: &str, labels: &[(&str, &str)], wanted: f64) {
    let late = Instant::now() + SOON;
    loop {
        let found = sum(&fetch(admin, "text/plain; version=0.0.4", Format::Text).await, name, labels);
        if found == wanted {
            return;
        }
        assert!(Instant::now() < late, "{name}{labels:?} is {found} and not {wanted}");
        time::sleep(LOOK).await;
    }
}

/// Sends what is no request and no handshake, and reads until the other side has had enough.
async fn nonsense(addr: SocketAddr) {
    // It may be cut off with a reset at any time, even before it knows that it is connected.
    let Ok(mut io) = TcpStream::connect(addr).await else { return };
    let _ = io.write_all(b"this is neither HTTP nor TLS\r\n\r\n").await;
    let _ = io.read_to_end(&mut Vec::new()).await;
}
