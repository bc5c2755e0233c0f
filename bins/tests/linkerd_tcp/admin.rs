//! The admin server.

use std::io;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use meshlib::test_util::Echo;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time;
use tokio::time::Instant;

use crate::process::Program;
use crate::process::SOON;
use crate::process::has;
use crate::process::program as run_program;
use crate::process::run;
use crate::talk;
use crate::talk::ask;
use crate::talk::exchange;
use crate::talk::fixed;
use crate::talk::proxies;
use crate::talk::routers;

async fn programs() -> (meshlib_namerd::server::NamerdServer, Echo, [Program; 2]) {
    let backend = Echo::start().await;
    let namerd = talk::namerd(&[backend.addr()]).await;
    let first = Program::start(&proxies(&namerd.url(), ""));
    let second = Program::start(&routers(&namerd.url(), "", ""));
    for program in [&first, &second] {
        exchange(program.addr()).await.unwrap();
    }
    (namerd, backend, [first, second])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_are_found_by_method_and_path_and_nothing_else_is() {
    let (_namerd, _backend, programs) = programs().await;
    for program in &programs {
        let admin = program.admin();
        for path in ["/metrics", "/live", "/ready", "/state.json"] {
            let get = ask(admin, "GET", path).await.unwrap();
            let length = format!("content-length: {}", get.body.len());
            assert_eq!(get.status, 200, "{path}: {get:?}");
            assert!(!get.body.is_empty() && get.head.contains(&length), "{path}: {get:?}");
            let head = ask(admin, "HEAD", path).await.unwrap();
            assert_eq!((head.status, head.body.as_str()), (200, ""), "{path}: {head:?}");
            assert!(head.head.contains("content-length: "), "{path}: {head:?}");
            assert_eq!(ask(admin, "POST", path).await.unwrap().status, 404, "{path}");
        }
        let others = [
            ("GET", "/"),
            ("GET", "/shutdown"),
            ("HEAD", "/abort"),
            ("GET", "/abort"),
            ("GET", "/metrics/"),
            ("POST", "/nonsense"),
            ("PUT", "/shutdown"),
            ("DELETE", "/metrics"),
            ("OPTIONS", "/"),
        ];
        for (method, path) in others {
            let answer = ask(admin, method, path).await.unwrap();
            assert_eq!((answer.status, answer.body.as_str()), (404, ""), "{method} {path}");
            assert!(method == "HEAD" || answer.head.contains("content-length: 0"), "{answer:?}");
        }
        let metrics = ask(admin, "GET", "/metrics").await.unwrap();
        assert!(
            metrics.head.contains("content-type: text/plain; version=0.0.4; charset=utf-8"),
            "{metrics:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_state_shows_each_destination_with_its_endpoints() {
    let (_namerd, backend, programs) = programs().await;
    for program in &programs {
        let state = ask(program.admin(), "GET", "/state.json").await.unwrap();
        let state: serde_json::Value = serde_json::from_str(&state.body).unwrap();
        let destination = &state["destinations"][0];
        assert_eq!(destination["dst"], talk::NAME);
        assert_eq!(destination["answer"], "bound");
        assert!(destination["age_ms"].as_u64().unwrap() < 60_000);
        let endpoint = &destination["endpoints"][0];
        assert_eq!(endpoint["addr"], backend.addr().to_string());
        assert_eq!(endpoint["weight"], 1.0);
        assert_eq!(endpoint["state"], "ready");
        assert_eq!(endpoint["picked"], 1);
    }
}

#[test]
fn curl_keeps_its_connection_for_several_requests() {
    if !has("curl") {
        return;
    }
    let program = Program::start(&fixed(&[], "", ""));
    let admin = program.admin();
    let page = |path: &str| format!("http://{admin}{path}");
    let mut curl = Command::new("curl");
    curl.args(["-sS", "-w", "%{http_code} %{num_connects}\n", "-o", "/dev/null", &page("/metrics")]);
    curl.args(["-o", "/dev/null", &page("/live"), "-o", "/dev/null", &page("/nothing")]);

    let ended = run(&mut curl, b"");

    assert_eq!((ended.stdout.as_str(), ended.stderr.as_str()), ("200 1\n200 0\n404 0\n", ""));
}

async fn says(program: &Program, bytes: &[u8]) -> io::Result<String> {
    let mut io = TcpStream::connect(program.admin()).await?;
    io.write_all(bytes).await?;
    let mut answer = Vec::new();
    // A reset after the answer is a close.
    let read = time::timeout(SOON, io.read_to_end(&mut answer)).await?;
    if answer.is_empty() {
        read?;
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_is_answered_with_400_and_survived() {
    let mut program = Program::start(&fixed(&[], "", ""));
    let huge = [b"GET / HTTP/1.1\r\nx: ".as_slice(), &vec![b'a'; 200_000]].concat();
    for garbage in [
        b"nonsense\r\n\r\n".as_slice(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET /metrics\r\n\r\n",
        b"GET / HTTP/1.1\r\nbad header\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\0\0\0\0\r\n\r\n",
    ] {
        let answer = says(&program, garbage).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 400"), "{:?}: {answer}", String::from_utf8_lossy(garbage));
    }
    // The connection may be reset before the answer to more than is ever read.
    if let Ok(answer) = says(&program, &huge).await {
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    }

    assert_eq!(ask(program.admin(), "GET", "/live").await.unwrap().status, 200);
    assert!(program.is_alive());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_takes_too_long_for_its_request_is_cut_off() {
    let program = Program::start(&fixed(&[], "", ""));
    let began = Instant::now();
    let mut io = TcpStream::connect(program.admin()).await.unwrap();
    io.write_all(b"GET /metrics HTTP/1.1\r\n").await.unwrap();
    // One more byte now and then must not keep it alive.
    let mut bytes = time::interval(Duration::from_secs(1));
    loop {
        bytes.tick().await;
        let mut answer = [0; 64];
        match io.try_read(&mut answer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            _ => break,
        }
        assert!(began.elapsed() < SOON, "it is still open");
        let _ = io.write_all(b"x").await;
    }
    assert!(began.elapsed() > Duration::from_secs(5), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_hold_connections_keep_nobody_out() {
    let program = Program::start(&fixed(&[], "", ""));
    let mut held = Vec::new();
    // More than twice as many as it keeps, and few enough for the usual limit of descriptors.
    for _ in 0..600 {
        held.push(TcpStream::connect(program.admin()).await.unwrap());
    }

    let began = Instant::now();
    assert_eq!(ask(program.admin(), "GET", "/metrics").await.unwrap().status, 200);

    // Well before the first of them is cut off for its silence.
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    let newest = held.last_mut().unwrap();
    newest.write_all(b"GET /live HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut answer = [0; 15];
    time::timeout(SOON, newest.read_exact(&mut answer)).await.expect("in time").unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200 OK");
}

/// Silent ones, ones in the middle of a request, garbage, and ones that ask and never read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_bad_admin_clients_leave_traffic_untouched() {
    const SAID: [&[u8]; 4] = [
        b"",
        b"GET /metrics HTTP/1.1\r\nHost: ",
        b"\x16\x03\x01\xff\xff\x00GET",
        b"GET /state.json HTTP/1.1\r\nHost: x\r\n\r\nGET /metrics HTTP/1.1\r\nHost: x\r\n\r\n",
    ];
    let backend = Echo::start().await;
    let program = Program::start(&fixed(&[backend.addr()], "", ""));
    let (addr, admin) = (program.addr(), program.admin());
    let stop = std::sync::Arc::<std::sync::atomic::AtomicBool>::default();
    let stopped = std::sync::Arc::clone(&stop);
    let traffic = tokio::spawn(async move {
        let mut served = 0;
        while !stopped.load(std::sync::atomic::Ordering::SeqCst) {
            exchange(addr).await?;
            served += 1;
        }
        Ok::<_, io::Error>(served)
    });

    let mut held = std::collections::VecDeque::new();
    for n in 0..10_000 {
        let mut io = TcpStream::connect(admin).await.unwrap();
        // It may have been turned out for a later one already.
        let _ = io.write_all(SAID[n % SAID.len()]).await;
        held.push_back(io);
        if held.len() > 300 {
            held.pop_front();
        }
    }

    assert_eq!(ask(admin, "GET", "/live").await.unwrap().status, 200);
    stop.store(true, std::sync::atomic::Ordering::SeqCst);
    let served = traffic.await.unwrap().unwrap();
    assert!(served > 100, "{served}");
    let now = talk::metrics(admin).await;
    assert_eq!(talk::sum(&now, "linkerd_tcp_connections_total", "result=\"failed\""), 0.0);
    assert!(talk::sum(&now, "process_open_fds", "") < 200.0, "{now:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_takes_no_answers_is_cut_off() {
    let program = Program::start(&fixed(&[], "", ""));
    let io = tokio::net::TcpSocket::new_v4().unwrap();
    // So that answers soon fill it.
    io.set_recv_buffer_size(4096).unwrap();
    let mut io = io.connect(program.admin()).await.unwrap();

    // The program stops reading when it cannot write, and then there is no room for more requests either.
    let ask_on = async { while io.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await.is_ok() {} };

    time::timeout(SOON, ask_on).await.expect("it is closed");
    assert_eq!(ask(program.admin(), "GET", "/live").await.unwrap().status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_ready_when_every_name_is_resolved() {
    let namerd = meshlib_namerd::server::NamerdServer::reserve("127.0.0.1:0").await.unwrap();
    let config = routers(&namerd.url(), "", "");
    let program = Program::start(&config);
    let admin = program.admin().to_string();
    let probe = || run_program(Path::new("/"), &["--probe-ready", "--admin", &admin, "-"], &config);
    let unready = ask(program.admin(), "GET", "/ready").await.unwrap();
    assert_eq!(unready.status, 503);
    assert!(unready.body.contains(talk::NAME), "{unready:?}");
    let probed = probe();
    assert_eq!(probed.code, Some(1));
    assert!(
        probed.stderr.starts_with("linkerd-tcp: not ready: ") && probed.stderr.contains(talk::NAME),
        "{probed:?}"
    );
    assert_eq!(ask(program.admin(), "GET", "/live").await.unwrap().status, 200);

    talk::set(&namerd, &[]);
    namerd.start().await.unwrap();

    talk::until("it is ready", async || ask(program.admin(), "GET", "/ready").await.unwrap().status == 200)
        .await;
    for probed in [probe(), run_program(Path::new("/"), &["--probe-ready", "--admin", &admin], "")] {
        assert_eq!((probed.code, &*probed.stdout), (Some(0), "ready\n"), "{probed:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_abort_ends_the_program_with_1() {
    let (_namerd, _backend, programs) = programs().await;
    for mut program in programs {
        let _held = TcpStream::connect(program.addr()).await.unwrap();
        // There may be an answer or none.
        let _ = ask(program.admin(), "POST", "/abort").await;

        assert_eq!(program.exit(Duration::from_secs(5)).await.code(), Some(1));
    }
}
