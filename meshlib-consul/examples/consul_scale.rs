//! How long it takes to learn of many services and of a change of one, and what following them costs.
//!
//! ```text
//! cargo run -p meshlib-consul --example consul_scale -- 10000
//! ```
//!
//! Starts an agent of its own (`./test servers` fetches one), registers the services on 50 nodes with a check each, and
//! follows all of them.

use std::process::ExitCode;
use std::time::Duration;

use futures::StreamExt;
use futures::stream;
use meshlib::test_util::Consul as Agent;
use meshlib::test_util::ConsulOptions;
use meshlib_consul::Config;
use meshlib_consul::Consul;
use meshlib_consul::Services;
use tokio::time;
use tokio::time::Instant;

/// How long the cost of doing nothing is measured.
const IDLE: Duration = Duration::from_secs(20);

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let count: usize = std::env::args().nth(1).and_then(|count| count.parse().ok()).unwrap_or(1000);
    let agent = match Agent::start(ConsulOptions::default()).await {
        Ok(agent) => agent,
        Err(reason) => {
            eprintln!("{reason}");
            return ExitCode::FAILURE;
        }
    };
    let began = Instant::now();
    stream::iter(0..count).for_each_concurrent(16, |n| register(&agent, n)).await;
    println!("registered {count} services in {:.1?}", began.elapsed());

    let consul = match Consul::new(Config::new(format!("http://{}", agent.addr()))) {
        Ok(consul) => consul,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let mut services = consul.services(|_, tags| !tags.is_empty());
    let began = Instant::now();
    until(&mut services, |services| services.all.len() == count).await;
    println!("all of them known after {:.2?}", began.elapsed());
    // What is left of the beginning.
    while time::timeout(Duration::from_secs(5), services.next()).await.is_ok() {}

    for n in [7, count / 2, count - 1] {
        let began = Instant::now();
        agent.check(&node(n), &format!("w{n}"), &format!("c{n}"), "critical").await;
        let name = format!("web{n}");
        until(&mut services, |services| services.changed.iter().any(|changed| **changed == *name)).await;
        println!("a check of {name} known after {:.0?}", began.elapsed());
    }
    // What the changes have set off.
    let _ = time::timeout(Duration::from_secs(30), async { while services.next().await.is_some() {} }).await;

    let before = cpu();
    let _ = time::timeout(IDLE, async { while services.next().await.is_some() {} }).await;
    let share = (cpu() - before) / IDLE.as_secs_f64() * 100.0;
    println!("while nothing changes: {share:.2} % of a core, {} MiB resident", resident() / 1024);
    ExitCode::SUCCESS
}

async fn until(services: &mut (impl StreamExt<Item = Services> + Unpin), passes: impl Fn(&Services) -> bool) {
    while let Some(level) = services.next().await {
        if passes(&level) {
            return;
        }
    }
}

fn node(n: usize) -> String {
    format!("n{}", n % 50)
}

async fn register(agent: &Agent, n: usize) {
    let node = node(n);
    let body = format!(
        r#"{{"Node": "{node}", "Address": "10.0.0.1", "SkipNodeUpdate": true, "Service": {{"Service": "web{n}",
            "ID": "w{n}", "Port": 8001, "Tags": ["tricot {n}.example"]}}, "Check": {{"CheckID": "c{n}", "Name": "c",
            "ServiceID": "w{n}", "Status": "passing"}}}}"#
    );
    agent.register(&body).await;
}

/// Seconds of processor time that this process has used.
fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Fields 14 and 15, in hundredths, counted from behind the name.
    let fields = stat.rsplit(") ").next().unwrap_or_default().split(' ').skip(11).take(2);
    fields.filter_map(|field| field.parse::<f64>().ok()).sum::<f64>() / 100.0
}

/// Kibibytes of memory that this process has.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|kib| kib.parse().ok()).unwrap_or_default()
}
