//! Ways to Consul: TLS with and without trust, client certificates, tokens.

use std::fs;
use std::path::Path;

use meshlib::test_util::Consul;
use meshlib::test_util::ConsulOptions;
use meshlib::test_util::TestCa;
use meshlib::test_util::or_skip;

use crate::ask::Client;
use crate::ask::page;
use crate::process::Tricot;
use crate::process::command;
use crate::site::Site;

const HOST: &str = "app.example.com";
const TOKEN: &str = "b1gs33d0-0000-4000-8000-0000000000aa";

async fn served(options: ConsulOptions) -> Option<(Consul, Site)> {
    let consul = or_skip(Consul::start(options).await)?;
    let site = Site::start("one").await;
    consul.service("n1", "web", "web-1", site.port(), &["tricot app.example.com"]).await;
    Some((consul, site))
}

async fn finds_the_site(tricot: &Tricot) {
    tricot.has_table().await;
    assert_eq!(Client::lenient(tricot.https).status(HOST, "/").await, Some(200));
}

fn write(dir: &Path, name: &str, text: &str) -> String {
    let path = dir.join(name);
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[tokio::test]
async fn an_agent_may_want_a_client_certificate() {
    let ca = TestCa::new();
    let Some((consul, _site)) = served(ConsulOptions::default().with_tls(&ca).verifying_clients()).await
    else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let own = ca.issue(["client.dc1.consul"]);
    let host = format!("https://{}", consul.https_addr());
    let trust = write(dir.path(), "ca.pem", &ca.pem());
    let (cert, key) =
        (write(dir.path(), "cert.pem", &own.chain_pem()), write(dir.path(), "key.pem", &own.key_pem()));

    let mut with = command(consul.addr());
    with.env("TRICOT_CONSUL_HOST", &host)
        .env("TRICOT_CONSUL_CA_CERT", &trust)
        .env("TRICOT_CONSUL_CLIENT_CERT", cert)
        .env("TRICOT_CONSUL_CLIENT_KEY", key);
    finds_the_site(&Tricot::spawn(&mut with)).await;

    let mut without = command(consul.addr());
    let without = Tricot::spawn(without.env("TRICOT_CONSUL_HOST", host).env("TRICOT_CONSUL_CA_CERT", trust));
    without.logs("Consul cannot be relied on").await;
    assert_eq!(page(without.metrics, "/healthz").await.status, 503);
}

#[tokio::test]
async fn an_agent_that_is_not_trusted_is_not_used_unless_nothing_is_verified() {
    let Some((consul, _site)) = served(ConsulOptions::default().with_tls(&TestCa::new())).await else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let other = write(dir.path(), "other.pem", &TestCa::new().pem());
    let host = format!("https://{}", consul.https_addr());

    let mut strict = command(consul.addr());
    let strict = Tricot::spawn(strict.env("TRICOT_CONSUL_HOST", &host).env("TRICOT_CONSUL_CA_CERT", other));
    strict.logs("Consul cannot be relied on").await;
    assert_eq!(page(strict.metrics, "/healthz").await.status, 503);

    let mut lenient = command(consul.addr());
    lenient.env("TRICOT_CONSUL_HOST", host).env("TRICOT_CONSUL_TLS_SKIP_VERIFY", "true");
    finds_the_site(&Tricot::spawn(&mut lenient)).await;
}

#[tokio::test]
async fn the_token_of_other_clients_is_used_if_there_is_no_other() {
    let Some((consul, _site)) = served(ConsulOptions::default().with_acl(TOKEN)).await else { return };
    let dir = tempfile::tempdir().unwrap();
    let file = write(dir.path(), "token", &format!("{TOKEN}\n"));

    for (variable, value) in [
        ("TRICOT_CONSUL_TOKEN", TOKEN),
        ("TRICOT_CONSUL_TOKEN_FILE", &file),
        ("CONSUL_HTTP_TOKEN", TOKEN),
        ("CONSUL_HTTP_TOKEN_FILE", &file),
    ] {
        finds_the_site(&Tricot::spawn(command(consul.addr()).env(variable, value))).await;
    }
}

#[tokio::test]
async fn the_rules_are_written_to_a_file_if_there_is_one() {
    let Some((consul, site)) = served(ConsulOptions::default()).await else { return };
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("rules.json");
    let _tricot = Tricot::start_with(&consul, &[("TRICOT_CONFIG_DUMP", file.to_str().unwrap())]).await;
    let has = |text: &str| fs::read_to_string(&file).is_ok_and(|rules| rules.contains(text));
    crate::process::until("the first rules", async || has("app.example.com 100")).await;

    consul.service("n1", "web", "web-1", site.port(), &["tricot new.example.com"]).await;

    crate::process::until("the next rules", async || has("new.example.com 100")).await;
    assert!(!has("app.example.com"));
    let rules: serde_json::Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    assert_eq!(rules["rules"].as_array().map(Vec::len), Some(1));
}
