//! What is shown, in order. Each part says what it does, does it, and claims what it measured.

use std::error::Error;
use std::time::Duration;

use serde_json::Value;
use tokio::time;
use tokio::time::Instant;

use crate::backend::Backend;
use crate::page::Page;
use crate::stage::Stage;
use crate::traffic;
use crate::traffic::Steady;
use crate::traffic::Stream;

/// How far a measured share may be from the ideal one, in points. Chance alone makes about one.
const POINTS: f64 = 5.0;
/// How soon a change at the name server must have taken effect.
const UPDATE: Duration = Duration::from_secs(1);
/// How long a backend is dead: long enough to be ejected, and not longer than its penalty.
const DEAD: Duration = Duration::from_millis(900);
/// How long to wait for a client to be sent to the dead backend; a few milliseconds usually.
const REFUSED: Duration = Duration::from_secs(5);
/// How soon a backend that came back must be used: the penalty may have doubled meanwhile.
const USED_AGAIN: Duration = Duration::from_secs(10);

type Told = Result<(), Box<dyn Error>>;

/// Tells the whole story.
pub(crate) async fn tell(page: &mut Page, stage: &mut Stage) -> Told {
    who_is_there(page, stage);
    weights(page, stage).await?;
    death(page, stage).await?;
    update(page, stage).await?;
    about_itself(page, stage).await
}

fn who_is_there(page: &Page, stage: &Stage) {
    page.heading("1. Who is there");
    page.line("linkerd-tcp runs in this process, with this configuration:\n");
    page.quote(&stage.config);
    page.line("\nIt resolves /svc/web at the name server and spreads connections over what that is:\n");
    page.line(&format!("  name server  {}   /svc/web is /blue/web", stage.names.url()));
    for backend in &stage.blue {
        page.line(&format!(
            "  backend {}    {}   /blue/web, weight {}",
            backend.name, backend.addr, backend.weight
        ));
    }
    let green = &stage.green;
    page.line(&format!("  backend {}    {}   /green/web, for later", green.name, green.addr));
    page.line(&format!("  proxy        {}", stage.proxy));
    page.line(&format!("  its admin    http://{}", stage.admin));
}

async fn weights(page: &mut Page, stage: &Stage) -> Told {
    const CONNECTIONS: usize = 2_000;
    const AT_A_TIME: usize = 20;

    page.heading("2. Connections are spread by weight");
    page.line(&format!("Opening 2,000 connections, {AT_A_TIME} at a time ..."));
    let began = Instant::now();
    let counts = traffic::spread(stage.proxy, CONNECTIONS, AT_A_TIME).await?;
    page.line(&format!("... done in {:.1} s.\n", began.elapsed().as_secs_f64()));

    page.line("  backend  weight  connections   share   ideal");
    let total: f64 = stage.blue.iter().map(|backend| backend.weight).sum();
    let mut worst = 0.0_f64;
    for Backend { name, weight, .. } in &stage.blue {
        let count = counts.get(*name).copied().unwrap_or_default();
        let share = 100.0 * count as f64 / CONNECTIONS as f64;
        let ideal = 100.0 * weight / total;
        worst = worst.max((share - ideal).abs());
        page.line(&format!("  {name:7}  {weight:6.1}  {count:11}  {share:4.1} %  {ideal:4.1} %"));
    }
    page.line("");
    page.claim(worst <= POINTS, &format!("every share is within {POINTS} points of the ideal"));
    Ok(())
}

async fn death(page: &mut Page, stage: &mut Stage) -> Told {
    const CLIENTS: usize = 8;
    const PAUSE: Duration = Duration::from_millis(10);

    page.heading("3. A backend dies and comes back");
    page.line(&format!(
        "{CLIENTS} clients open a connection, exchange a line, close, and pause for 10 ms.\n"
    ));
    let traffic = Steady::start(stage.proxy, CLIENTS, PAUSE);
    let began = Instant::now();
    let say =
        |page: &Page, text: &str| page.line(&format!("  {:4.1} s  {text}", began.elapsed().as_secs_f64()));
    say(page, "all is well");
    time::sleep(Duration::from_millis(500)).await;

    // Bytes that are with a backend when it crashes are lost: no proxy can send them again, because it cannot
    // know what was done with them.
    let pause = traffic.between_exchanges().await;
    stage.blue[1].die().await;
    drop(pause);
    say(
        page,
        "b dies, between two exchanges (one that is cut off midway cannot be made good); its port refuses",
    );
    time::sleep(DEAD).await;
    // On a machine that is busy with other things the clients may not have got that far.
    let is_refused = async {
        while refused(stage).await? == 0 {
            time::sleep(Duration::from_millis(5)).await;
        }
        Ok::<_, Box<dyn Error>>(())
    };
    let is_refused = time::timeout(REFUSED, is_refused).await.is_ok_and(|asked| asked.is_ok());
    say(page, &format!("meanwhile the proxy has found out: {}", states(stage).await?));

    stage.blue[1].revive().await?;
    let revived = Instant::now();
    say(page, "b listens again");
    let is_used = async {
        // One connection may be a probe; then it has its share again.
        while stage.blue[1].accepted() < 10 {
            time::sleep(Duration::from_millis(5)).await;
        }
    };
    let is_used = time::timeout(USED_AGAIN, is_used).await.is_ok();
    let after = revived.elapsed().as_secs_f64();
    say(page, &format!("the proxy says: {}", states(stage).await?));
    let tally = traffic.end().await;
    let refused = refused(stage).await?;

    page.line(&format!(
        "\n  {} exchanges, the slowest took {:.0} ms. b refused {refused} connections; others took them.",
        tally.exchanges,
        tally.slowest.as_secs_f64() * 1e3
    ));
    let seen = match tally.errors.first() {
        None => "not one error reached a client".to_owned(),
        Some(first) => format!("not one error reached a client (there were {}: {first})", tally.errors.len()),
    };
    page.claim(tally.errors.is_empty() && tally.exchanges > 0, &seen);
    page.claim(is_refused, "clients wanted b while it was dead");
    page.claim(is_used, &format!("b was used again, {after:.1} s after it came back"));
    Ok(())
}

async fn update(page: &mut Page, stage: &Stage) -> Told {
    const AFTERWARDS: usize = 100;

    page.heading("4. The name server says something else");
    let mut kept = Stream::open(stage.proxy).await?;
    page.line(&format!("A client opens a connection and keeps it. It is with {}.", kept.backend));
    page.line("The rule \"/svc => /blue\" is replaced by \"/svc => /green\", where there is only d ...");
    let took = until_reached(stage, "/svc => /green;", &["d"]).await?;
    let now = traffic::spread(stage.proxy, AFTERWARDS, 10).await?;
    let all = now.get("d") == Some(&AFTERWARDS);
    page.line("");
    page.claim(took < UPDATE, &format!("a new connection reached d {} ms later", took.as_millis()));
    page.claim(all, &format!("so did all of the next {AFTERWARDS}"));
    let is_alive = kept.say("are you still there?\n").await.is_ok();
    page.claim(is_alive, &format!("the connection to {} goes on undisturbed", kept.backend));
    let took = until_reached(stage, "/svc => /blue;", &["a", "b", "c"]).await?;
    page.claim(took < UPDATE, &format!("changed back, which took {} ms", took.as_millis()));
    Ok(())
}

/// Changes the rule and connects until one of these backends answers. Gives up after five times the limit.
async fn until_reached(
    stage: &Stage,
    dtab: &'static str,
    backends: &[&str],
) -> Result<Duration, Box<dyn Error>> {
    let began = Instant::now();
    stage.put_dtab(dtab).await?;
    loop {
        let backend = traffic::exchange(stage.proxy).await?;
        let took = began.elapsed();
        if backends.contains(&&*backend) || took > 5 * UPDATE {
            return Ok(took);
        }
    }
}

async fn about_itself(page: &mut Page, stage: &Stage) -> Told {
    const SHOWN: [&str; 6] = [
        "l5d:srv:accepts",
        "l5d:srv:failures",
        "l5d:srv:stream:rx_bytes",
        "l5d:balancer:connection:attempts",
        "l5d:balancer:connection:failure",
        "l5d:balancer:endpoint:available",
    ];

    page.heading("5. What the proxy says about itself");
    page.line(&format!("Some lines of http://{}/metrics, for Prometheus:\n", stage.admin));
    let metrics = stage.get("/metrics").await?;
    let of_interest = |line: &&str| SHOWN.iter().any(|name| line.split('{').next() == Some(name));
    let lines: Vec<&str> = metrics.lines().filter(of_interest).collect();
    page.quote(&lines.join("\n"));

    page.line(&format!("\nThe endpoints in http://{}/state.json, for people:\n", stage.admin));
    let endpoints = endpoints(stage).await?;
    for endpoint in &endpoints {
        page.quote(&endpoint.to_string());
    }
    page.line("\nWhat was gone in between, in part 4, counts from 0 again.");
    page.line("");
    let failures = metric(&metrics, "l5d:srv:failures");
    page.claim(failures == 0, "by its own count no connection ended badly either");
    let ready = endpoints.iter().filter(|endpoint| endpoint["state"] == "ready").count();
    page.claim(ready == stage.blue.len(), "all endpoints are ready");
    Ok(())
}

/// What to do now. The proxy goes on meanwhile.
pub(crate) fn try_next(page: &Page, stage: &Stage) {
    page.heading("6. Try it yourself, in another terminal (here Ctrl-C ends it)");
    let (admin, names) = (stage.admin, stage.names.url());
    page.command(
        "talk to a backend through the proxy:",
        &format!("nc {} {}", stage.proxy.ip(), stage.proxy.port()),
    );
    page.command(
        "see what it counts and knows:",
        &format!("curl http://{admin}/metrics http://{admin}/state.json"),
    );
    let put = |rule| {
        format!("curl -X PUT -H 'Content-Type: application/dtab' -d '{rule}' {names}/api/1/dtabs/default")
    };
    page.command("send everybody to d (and back, with /blue):", &put("/svc => /green;"));
    page.command("drain and end it, as by Ctrl-C:", &format!("curl -X POST http://{admin}/shutdown"));
    page.command("check a configuration of your own:", "cargo run --bin linkerd-tcp -- --check example.yml");
    page.command("run it (it wants a namerd at port 4180):", "cargo run --bin linkerd-tcp -- example.yml");
    page.line("\n  Programs that use the library itself are in examples/, each with its command at the top.");
}

/// The state of every endpoint, in a line.
async fn states(stage: &Stage) -> Result<String, Box<dyn Error>> {
    let endpoints = endpoints(stage).await?;
    let state = |backend: &Backend| {
        let addr = backend.addr.to_string();
        let known = endpoints.iter().find(|endpoint| endpoint["addr"] == addr.as_str());
        let state = known.and_then(|endpoint| endpoint["state"].as_str()).unwrap_or("unknown");
        format!("{} is {}", backend.name, state.replace('_', " "))
    };
    Ok(stage.blue.each_ref().map(state).join(", "))
}

/// The endpoints that the proxy uses, as it reports them.
async fn endpoints(stage: &Stage) -> Result<Vec<Value>, Box<dyn Error>> {
    let state: Value = serde_json::from_str(&stage.get("/state.json").await?)?;
    let endpoints = state["destinations"][0]["endpoints"].as_array();
    Ok(endpoints.ok_or("/state.json has no endpoints")?.clone())
}

/// How many connections were refused by endpoints.
async fn refused(stage: &Stage) -> Result<u64, Box<dyn Error>> {
    Ok(metric(&stage.get("/metrics").await?, "l5d:balancer:connection:failure{cause=\"refused\""))
}

/// The sum of the lines that begin so.
fn metric(metrics: &str, prefix: &str) -> u64 {
    let lines = metrics.lines().filter(|line| line.starts_with(prefix));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}
