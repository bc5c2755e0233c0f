//! HTTP/2 requests, made by `h2load`.

use std::io;
use std::process::Stdio;

use tokio::process::Command;
use tokio::time::{Duration, timeout};

use super::{MARGIN, Start, Work};
use crate::tls::NAME;

/// Starts it for the whole sample. What it asks is counted by the backend, what fails by it.
pub(super) async fn run(work: &Work, start: &Start, connections: usize, streams: usize) -> io::Result<()> {
    let Some(path) = work.talk.path() else {
        return Err(io::Error::other("HTTP/2 wants a job that is HTTP"));
    };
    let lasts = work.warm_up + work.window + MARGIN;
    let mut command = Command::new(PROGRAM);
    command
        .args(["--clients", &connections.to_string(), "--max-concurrent-streams", &streams.to_string()])
        // It counts whole seconds.
        .args(["--duration", &(lasts.as_secs() + 1).to_string()])
        .args(["--tls13-ciphers", "TLS_AES_128_GCM_SHA256", "--groups", "X25519", "--npn-list", "h2"])
        .args(["--connect-to", &work.target.to_string()])
        .arg(format!("https://{NAME}{path}"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let child = command.spawn().map_err(|error| io::Error::other(format!("{PROGRAM}: {error}")))?;
    start.now();
    let output = timeout(lasts + GRACE, child.wait_with_output())
        .await
        .map_err(|_| io::Error::other(format!("{PROGRAM} does not end")))??;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    match failures(&text) {
        Some(0) => {}
        Some(_) => {
            work.counters.fail(text.lines().find(|line| line.starts_with(SUMMARY)).unwrap_or_default())
        }
        None => {
            let complaint = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(io::Error::other(format!("{PROGRAM} said nothing of requests: {complaint}")));
        }
    }
    if !text.contains("Application protocol: h2") {
        return Err(io::Error::other("HTTP/2 was not agreed on"));
    }
    Ok(())
}

/// How many requests did not succeed, of those that ended.
fn failures(text: &str) -> Option<u64> {
    let number = |name: &str, line: &str| {
        let part = line.split(", ").find(|part| part.ends_with(name))?;
        part.rsplit(": ").next()?.split(' ').next()?.parse::<u64>().ok()
    };
    let requests = text.lines().find(|line| line.starts_with(SUMMARY))?;
    let codes = text.lines().find(|line| line.starts_with("status codes:"))?;
    let others: u64 = ["3xx", "4xx", "5xx"].iter().filter_map(|name| number(name, codes)).sum();
    Some(
        number(" failed", requests)? + number(" errored", requests)? + number(" timeout", requests)? + others,
    )
}

/// The program.
pub(crate) const PROGRAM: &str = "h2load";
/// How the line of its output begins that counts requests.
const SUMMARY: &str = "requests:";
/// What it may take to end beyond its time.
const GRACE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_failure_is_counted() {
        let text = "finished in 1.00s, 4.00 req/s, 1.00KB/s\n\
            requests: 10 total, 10 started, 10 done, 4 succeeded, 1 failed, 2 errored, 3 timeout\n\
            status codes: 4 2xx, 0 3xx, 5 4xx, 6 5xx\n";

        assert_eq!(failures(text), Some(1 + 2 + 3 + 5 + 6));
        assert_eq!(failures("could not connect"), None);
    }
}
