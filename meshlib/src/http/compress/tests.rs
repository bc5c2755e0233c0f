use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use async_compression::tokio::bufread::BrotliDecoder;
use async_compression::tokio::bufread::GzipDecoder;
#[cfg(feature = "compress-zstd")]
use async_compression::tokio::bufread::ZstdDecoder;
use bytes::Bytes;
use futures::FutureExt;
use http::HeaderMap;
use http::HeaderName;
use http::StatusCode;
use http_body::Body as _;
use http_body::Frame;
use http_body_util::BodyExt;
use http_body_util::StreamBody;
use proptest::prelude::*;
use tokio::io::AsyncRead;
use tokio::io::AsyncReadExt;
use tokio::io::BufReader;
use tokio::io::ReadBuf;
use tokio::sync::mpsc;
use tokio::time;
use tokio::time::Instant;
use tower::BoxError;
use tower::ServiceExt;

use super::*;
use crate::error::Error;

/// Frames as a test sends them.
type Frames = mpsc::UnboundedSender<Result<Frame<Bytes>, BoxError>>;

fn codings() -> Vec<&'static str> {
    let mut codings = vec!["gzip", "br"];
    if cfg!(feature = "compress-zstd") {
        codings.push("zstd");
    }
    codings
}

/// A body that is what a test sends.
fn scripted() -> (Frames, Body) {
    let (frames, mut rx) = mpsc::unbounded_channel();
    let stream = futures::stream::poll_fn(move |cx| rx.poll_recv(cx));
    (frames, Body::new(StreamBody::new(stream)))
}

fn data(text: &'static str) -> Result<Frame<Bytes>, BoxError> {
    Ok(Frame::data(Bytes::from_static(text.as_bytes())))
}

/// A page that is compressed unless something speaks against it.
fn page(body: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(body.into());
    response.headers_mut().insert("content-type", HeaderValue::from_static("text/html; charset=utf-8"));
    response
}

fn long() -> String {
    "<p>hello</p>".repeat(1000)
}

async fn ask(method: Method, accept: &str, answer: Response<Body>) -> Response<Body> {
    ask_with(CompressOptions::default(), method, accept, answer).await
}

async fn ask_with(
    options: CompressOptions,
    method: Method,
    accept: &str,
    answer: Response<Body>,
) -> Response<Body> {
    let mut request = Request::new(Body::empty());
    *request.method_mut() = method;
    if !accept.is_empty() {
        request.headers_mut().insert("accept-encoding", HeaderValue::from_str(accept).unwrap());
    }
    let mut answer = Some(answer);
    let inner = tower::service_fn(move |_: Request<Body>| {
        std::future::ready(Ok::<_, Error>(answer.take().expect("the service is asked once")))
    });
    CompressLayer::new(options).layer(inner).oneshot(request).await.unwrap()
}

async fn decoded(coding: &str, bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut plain = Vec::new();
    match coding {
        "gzip" => GzipDecoder::new(bytes).read_to_end(&mut plain).await?,
        "br" => BrotliDecoder::new(bytes).read_to_end(&mut plain).await?,
        #[cfg(feature = "compress-zstd")]
        "zstd" => ZstdDecoder::new(bytes).read_to_end(&mut plain).await?,
        other => panic!("{other} is not expected"),
    };
    Ok(plain)
}

/// What a decoder makes of the beginning of a body.
async fn decoded_so_far(coding: &str, bytes: &[u8]) -> Vec<u8> {
    let bytes = BufReader::new(bytes.chain(Silence));
    let mut decoder: Box<dyn AsyncRead + Unpin> = match coding {
        "gzip" => Box::new(GzipDecoder::new(bytes)),
        "br" => Box::new(BrotliDecoder::new(bytes)),
        #[cfg(feature = "compress-zstd")]
        "zstd" => Box::new(ZstdDecoder::new(bytes)),
        other => panic!("{other} is not expected"),
    };
    let mut plain = Vec::new();
    while let Some(read) = decoder.read_buf(&mut plain).now_or_never() {
        assert_ne!(read.unwrap(), 0, "the end is there");
    }
    plain
}

/// A peer that sends nothing more.
struct Silence;

impl AsyncRead for Silence {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Poll::Pending
    }
}

fn header<'a>(response: &'a Response<Body>, name: &str) -> Option<&'a str> {
    let mut values = response.headers().get_all(name).into_iter();
    let value = values.next().map(|value| value.to_str().unwrap());
    assert_eq!(values.next(), None, "{name} is there twice");
    value
}

#[tokio::test]
async fn each_coding_is_read_by_its_decoder() {
    for coding in codings() {
        let response = ask(Method::GET, coding, page(long())).await;

        assert_eq!(header(&response, "content-encoding"), Some(coding));
        assert_eq!(response.body().size_hint().exact(), None);
        let bytes = response.into_body().collect(1 << 20).await.unwrap();
        assert!(bytes.len() < 500, "{coding}: {}", bytes.len());
        assert_eq!(decoded(coding, &bytes).await.unwrap(), long().as_bytes());
    }
}

#[tokio::test]
async fn headers_say_what_is_sent() {
    let mut answer = page(long());
    for (name, value) in [
        ("content-length", "12000"),
        ("accept-ranges", "bytes"),
        ("etag", "\"v1\""),
        ("content-digest", "sha-256=:AA==:"),
        ("content-encoding", "identity"),
        ("vary", "Cookie"),
        ("x-own", "kept"),
    ] {
        answer.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }

    let response = ask(Method::POST, "gzip", answer).await;

    assert_eq!(header(&response, "content-encoding"), Some("gzip"));
    for name in ["content-length", "accept-ranges", "content-digest"] {
        assert_eq!(header(&response, name), None, "{name}");
    }
    assert_eq!(header(&response, "etag"), Some("W/\"v1\""));
    assert_eq!(header(&response, "x-own"), Some("kept"));
    let vary: Vec<_> = response.headers().get_all("vary").into_iter().collect();
    assert_eq!(vary, ["Cookie", "Accept-Encoding"]);
}

#[tokio::test]
async fn a_weak_tag_and_a_sufficient_vary_stay() {
    for vary in ["*", "cookie, ACCEPT-encoding"] {
        let mut answer = page(long());
        answer.headers_mut().insert("etag", HeaderValue::from_static("W/\"v1\""));
        answer.headers_mut().insert("vary", HeaderValue::from_static(vary));

        let response = ask(Method::GET, "gzip", answer).await;

        assert_eq!(header(&response, "content-encoding"), Some("gzip"));
        assert_eq!(header(&response, "etag"), Some("W/\"v1\""));
        assert_eq!(header(&response, "vary"), Some(vary));
    }
}

#[tokio::test]
async fn what_is_eligible_varies_even_if_it_stays_as_it_is() {
    for (method, accept) in
        [(Method::GET, ""), (Method::GET, "deflate"), (Method::GET, "gzip;q=0"), (Method::HEAD, "gzip")]
    {
        let mut answer = page(long());
        answer.headers_mut().insert("etag", HeaderValue::from_static("\"v1\""));
        answer.headers_mut().insert("content-length", HeaderValue::from_static("12000"));

        let response = ask(method.clone(), accept, answer).await;

        assert_eq!(header(&response, "content-encoding"), None, "{method} {accept}");
        assert_eq!(header(&response, "vary"), Some("Accept-Encoding"), "{method} {accept}");
        assert_eq!(header(&response, "etag"), Some("\"v1\""));
        assert_eq!(header(&response, "content-length"), Some("12000"));
        assert_eq!(response.into_body().collect(1 << 20).await.unwrap(), long());
    }
}

#[tokio::test]
async fn a_head_is_judged_by_the_length_it_tells() {
    for (length, vary) in [("12000", Some("Accept-Encoding")), ("12", None)] {
        let mut answer = page(Body::empty());
        answer.headers_mut().insert("content-length", HeaderValue::from_static(length));

        let response = ask(Method::HEAD, "gzip", answer).await;

        assert_eq!(header(&response, "vary"), vary, "{length}");
    }
}

#[tokio::test]
async fn what_is_not_eligible_stays_as_it_is() {
    for status in [101, 204, 205, 206, 301, 304, 404, 500] {
        let mut answer = page(long());
        *answer.status_mut() = StatusCode::from_u16(status).unwrap();

        let response = ask(Method::GET, "gzip", answer).await;

        assert_eq!(header(&response, "content-encoding"), None, "{status}");
        assert_eq!(header(&response, "vary"), None, "{status}");
    }
    for (name, value) in [
        ("content-type", "image/png"),
        ("content-type", "text/event-stream"),
        ("content-type", ""),
        ("content-encoding", "br"),
        ("content-encoding", "identity, br"),
        ("cache-control", "max-age=1, No-Transform"),
        ("content-range", "bytes 0-1/2"),
        ("content-length", "1023"),
    ] {
        let mut answer = page(long());
        answer.headers_mut().insert(name, HeaderValue::from_static(value));
        let before = answer.headers().clone();

        let response = ask(Method::GET, "gzip", answer).await;

        assert_eq!(*response.headers(), before, "{name}: {value}");
        assert_eq!(response.into_body().collect(1 << 20).await.unwrap(), long());
    }
    let mut untyped = page(long());
    untyped.headers_mut().remove("content-type");
    assert_eq!(ask(Method::GET, "gzip", untyped).await.headers().len(), 0);
    assert_eq!(ask(Method::CONNECT, "gzip", page(long())).await.headers().len(), 1);
}

#[tokio::test]
async fn events_are_not_compressed_even_if_they_are_listed() {
    let types = "text/event-stream,text/html".parse().unwrap();
    let options = CompressOptions::default().with_types(types);
    let mut answer = page(long());
    answer.headers_mut().insert("content-type", HeaderValue::from_static("Text/Event-Stream; x=y"));

    let response = ask_with(options, Method::GET, "gzip", answer).await;

    assert_eq!(header(&response, "content-encoding"), None);
}

#[tokio::test]
async fn the_shortest_that_is_compressed_has_min_bytes() {
    for (bytes, coding) in [(99, None), (100, Some("gzip"))] {
        let options = CompressOptions::default().with_min_bytes(100);

        let response = ask_with(options, Method::GET, "gzip", page("x".repeat(bytes))).await;

        assert_eq!(header(&response, "content-encoding"), coding, "{bytes}");
    }
    let (frames, body) = scripted();
    frames.send(data("short")).unwrap();
    drop(frames);

    let response = ask(Method::GET, "gzip", page(body)).await;

    let bytes = response.into_body().collect(1 << 20).await.unwrap();
    assert_eq!(decoded("gzip", &bytes).await.unwrap(), b"short");
}

#[tokio::test]
async fn trailers_come_after_the_last_byte() {
    for coding in codings() {
        let (frames, body) = scripted();
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        frames.send(data("hello")).unwrap();
        frames.send(Ok(Frame::trailers(trailers.clone()))).unwrap();
        drop(frames);

        let collected = ask(Method::GET, coding, page(body)).await.into_body();
        let collected = BodyExt::collect(collected).await.unwrap();

        assert_eq!(collected.trailers(), Some(&trailers));
        assert_eq!(decoded(coding, &collected.to_bytes()).await.unwrap(), b"hello");
    }
}

#[tokio::test]
async fn a_body_that_breaks_off_does_not_end_cleanly() {
    for coding in codings() {
        let (frames, body) = scripted();
        frames.send(data("hello")).unwrap();
        frames.send(Err("broken".into())).unwrap();
        let mut body = ask(Method::GET, coding, page(body)).await.into_body();

        let mut sent = Vec::new();
        let error = loop {
            match body.frame().await {
                Some(Ok(frame)) => sent.extend_from_slice(&frame.into_data().unwrap()),
                Some(Err(error)) => break error,
                None => panic!("{coding}: a clean end"),
            }
        };

        assert_eq!(error.to_string(), "broken");
        assert!(decoded(coding, &sent).await.is_err(), "{coding}: the end is there");
        assert!(body.frame().await.is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_more_is_sent_after_a_while() {
    for coding in codings() {
        let (frames, body) = scripted();
        let mut body = ask(Method::GET, coding, page(body)).await.into_body();
        let mut sent = Vec::new();

        for expected in [&b"hello"[..], b"hellohello"] {
            frames.send(data("hello")).unwrap();
            let began = Instant::now();
            while decoded_so_far(coding, &sent).await != expected {
                sent.extend_from_slice(&body.frame().await.unwrap().unwrap().into_data().unwrap());
            }
            assert_eq!(began.elapsed(), Duration::from_millis(50), "{coding}");
        }

        // Nothing is sent for nothing.
        assert!(time::timeout(Duration::from_secs(60), body.frame()).await.is_err());
        drop(frames);
        sent.extend_from_slice(&BodyExt::collect(body).await.unwrap().to_bytes());
        assert_eq!(decoded(coding, &sent).await.unwrap(), b"hellohello");
    }
}

#[tokio::test(start_paused = true)]
async fn a_trickle_is_sent_too() {
    let (frames, body) = scripted();
    let mut body = ask(Method::GET, "gzip", page(body)).await.into_body();
    let trickle = tokio::spawn(async move {
        while frames.send(data("x")).is_ok() {
            time::sleep(Duration::from_millis(40)).await;
        }
    });

    let began = Instant::now();
    let mut sent = Vec::new();
    while decoded_so_far("gzip", &sent).await.is_empty() {
        sent.extend_from_slice(&body.frame().await.unwrap().unwrap().into_data().unwrap());
    }

    let waited = began.elapsed();
    assert!(waited <= Duration::from_millis(1000), "{waited:?}");
    assert!(waited >= Duration::from_millis(900), "{waited:?}");
    drop(body);
    trickle.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn no_time_at_all_and_endless_time_are_possible() {
    for (flush_after, within) in [
        (Duration::ZERO, Some(Duration::ZERO)),
        (Duration::MAX, None),
        (Duration::from_secs(u64::MAX / 8), None),
    ] {
        let (frames, body) = scripted();
        let options = CompressOptions::default().with_flush_after(flush_after);
        let mut body = ask_with(options, Method::GET, "gzip", page(body)).await.into_body();
        frames.send(data("hello")).unwrap();
        let began = Instant::now();

        let frame = time::timeout(Duration::from_secs(3600), body.frame()).await;

        assert_eq!(frame.is_ok().then(|| began.elapsed()), within, "{flush_after:?}");
    }
}

/// Tells when it is dropped.
struct Told(Arc<AtomicBool>);

impl Drop for Told {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[tokio::test]
async fn what_the_body_holds_goes_with_its_end() {
    let dropped = Arc::new(AtomicBool::new(false));
    // What holds it would see its end only if it were asked again after the trailers.
    let (frames, body) = scripted();
    frames.send(data("hello")).unwrap();
    frames.send(Ok(Frame::trailers(HeaderMap::new()))).unwrap();
    let body = body.holding(Told(Arc::clone(&dropped)));
    let mut body = ask(Method::GET, "gzip", page(body)).await.into_body();
    assert!(!body.is_end_stream());

    while body.frame().await.is_some() {}

    assert!(body.is_end_stream());
    assert!(dropped.load(Ordering::Relaxed));
}

#[tokio::test]
async fn a_large_chunk_is_sent_in_pieces_and_lets_others_run() {
    // Noise, so that as much comes out as goes in.
    let mut random = fastrand::Rng::with_seed(7);
    let noise: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(4 << 20).collect();
    for coding in codings() {
        let mut body = ask(Method::GET, coding, page(noise.clone())).await.into_body();
        let (mut sent, mut largest) = (Vec::new(), 0);
        while let Some(frame) = body.frame().await {
            let bytes = frame.unwrap().into_data().unwrap();
            largest = largest.max(bytes.len());
            sent.extend_from_slice(&bytes);
        }

        assert_eq!(decoded(coding, &sent).await.unwrap(), noise, "{coding}");
        // brotli gives what it has when there are two windows of it.
        assert!(largest <= (1 << 20) + 64, "{coding}: {largest}");
    }

    // Zeros, of which nearly nothing comes out.
    let mut body = ask(Method::GET, "gzip", page(vec![0; 16 << 20])).await.into_body();
    let waker = futures::task::noop_waker();
    let first = Pin::new(&mut body).poll_frame(&mut Context::from_waker(&waker));
    assert!(first.is_pending());
    let mut frames = 0;
    while body.frame().await.is_some() {
        frames += 1;
    }
    assert!(frames > 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_chunks_come_out_as_they_went_in(
        chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40_000), 0..8),
        repeat in 1..4_usize,
        effort in prop::sample::select(vec![Effort::Fast, Effort::Balanced, Effort::Small]),
        coding in prop::sample::select(codings()),
        flush_after in prop::sample::select(vec![Duration::ZERO, Duration::from_millis(50)]),
    ) {
        let chunks: Vec<_> = chunks.into_iter().map(|chunk| Bytes::from(chunk.repeat(repeat))).collect();
        let plain = chunks.concat();
        let options = CompressOptions::default().with_effort(effort).with_flush_after(flush_after);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();

        let read = runtime.block_on(async {
            // Every other chunk comes after a pause, in which what is there is flushed if no time may pass.
            let stream = futures::stream::unfold(chunks.into_iter(), async |mut chunks| {
                tokio::task::yield_now().await;
                chunks.next().map(|chunk| (Ok(chunk), chunks))
            });
            let response = ask_with(options, Method::GET, coding, page(Body::from_stream(stream))).await;
            prop_assert_eq!(header(&response, "content-encoding"), Some(coding));
            let bytes = response.into_body().collect(4 << 20).await.unwrap();
            Ok(decoded(coding, &bytes).await.unwrap())
        })?;

        prop_assert_eq!(read, plain);
    }
}
