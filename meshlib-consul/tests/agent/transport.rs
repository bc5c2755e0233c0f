//! Ways to an agent: TLS, sockets in the file system.

use std::time::Duration;

use futures::StreamExt;
use meshlib::test_util::Consul as Agent;
use meshlib::test_util::ConsulOptions;
use meshlib::test_util::TestCa;
use meshlib::test_util::or_skip;
use meshlib_consul::Config;
use meshlib_consul::ConfigError;
use meshlib_consul::Consistency;
use meshlib_consul::Consul;
use meshlib_consul::ConsulError;
use meshlib_consul::PutOptions;
use meshlib_consul::TlsOptions;
use meshlib_consul::Verify;

use crate::rig::LONG;
use crate::rig::find;

/// An agent that speaks TLS, and options that trust it.
async fn secure(ca: &TestCa, verifying: bool) -> Option<(Agent, TlsOptions)> {
    let options = ConsulOptions::default().with_tls(ca);
    let options = if verifying { options.verifying_clients() } else { options };
    let agent = or_skip(Agent::start(options).await)?;
    let file = agent.dir().join("trusted.pem");
    std::fs::write(&file, ca.pem()).unwrap();
    Some((agent, TlsOptions::new().with_ca_file(file)))
}

fn consul(agent: &Agent, tls: TlsOptions) -> Consul {
    Consul::new(Config::new(format!("https://{}", agent.https_addr())).with_tls(tls)).unwrap()
}

async fn works(consul: &Consul) -> Result<(), ConsulError> {
    consul.kv_put("a", "1".into(), PutOptions::new()).await?;
    let value = consul.kv_get_raw("a", Consistency::Leader).await?;
    assert_eq!(value.as_deref(), Some(&b"1"[..]));
    Ok(())
}

#[tokio::test]
async fn https_is_spoken_with_who_is_trusted_only() {
    let ca = TestCa::new();
    let Some((agent, trusting)) = secure(&ca, false).await else { return };

    works(&consul(&agent, trusting.clone())).await.unwrap();
    works(&consul(&agent, trusting.clone().with_server_name("server.dc1.consul"))).await.unwrap();
    let wrong_name = works(&consul(&agent, trusting.clone().with_server_name("other.example"))).await;
    assert!(matches!(wrong_name, Err(ConsulError::Unreachable { .. })), "{wrong_name:?}");
    let stranger = agent.dir().join("stranger.pem");
    std::fs::write(&stranger, TestCa::new().pem()).unwrap();
    let untrusted = works(&consul(&agent, TlsOptions::new().with_ca_file(&stranger))).await;
    assert!(matches!(untrusted, Err(ConsulError::Unreachable { .. })), "{untrusted:?}");
    let blind = TlsOptions::new().with_ca_file(&stranger).with_verify(Verify::Nothing);
    works(&consul(&agent, blind)).await.unwrap();
}

#[tokio::test]
async fn an_agent_that_wants_to_know_its_clients_is_shown_a_certificate() {
    let ca = TestCa::new();
    let Some((agent, trusting)) = secure(&ca, true).await else { return };
    let (cert, key) = ca.issue(["client.dc1.consul"]).write_to(agent.dir()).unwrap();

    works(&consul(&agent, trusting.clone().with_certificate(&cert, &key))).await.unwrap();

    let nobody = works(&consul(&agent, trusting.clone())).await;
    assert!(matches!(nobody, Err(ConsulError::Unreachable { .. })), "{nobody:?}");
    let mut half = trusting;
    half.cert_file = Some(cert);
    let config = Config::new(format!("https://{}", agent.https_addr())).with_tls(half);
    assert!(matches!(Consul::new(config), Err(ConfigError::HalfCertificate)));
}

#[tokio::test]
async fn a_certificate_that_is_replaced_is_used_from_then_on() {
    let ca = TestCa::new();
    let Some((agent, trusting)) = secure(&ca, false).await else { return };
    let file = agent.dir().join("trusted.pem");
    std::fs::write(&file, TestCa::new().pem()).unwrap();
    let consul = consul(&agent, trusting);
    let mut key = consul.kv_watch("k").unwrap();
    let first = tokio::time::timeout(LONG, key.next()).await.unwrap().unwrap();
    assert!(first.value.is_none() && first.degraded.is_some(), "{first:?}");

    std::fs::write(&file, ca.pem()).unwrap();

    let _ = find(&mut key, LONG, |level| level.value.is_some() && level.degraded.is_none()).await;
}

#[tokio::test]
async fn plain_http_to_the_port_of_https_is_told_so() {
    let ca = TestCa::new();
    let Some((agent, _)) = secure(&ca, false).await else { return };
    let consul = Consul::new(Config::new(format!("http://{}", agent.https_addr()))).unwrap();

    let error = works(&consul).await.unwrap_err();

    assert!(
        matches!(&error, ConsulError::Status { status: 400, reason, .. } if reason.contains("HTTPS")),
        "{error:?}"
    );
}

#[cfg(not(feature = "native-roots"))]
#[test]
fn nobody_to_trust_is_refused_beforehand() {
    let result = Consul::new(Config::new("https://127.0.0.1:1"));

    assert!(matches!(result, Err(ConfigError::NoAuthority)), "{result:?}");
}

#[tokio::test]
async fn an_agent_is_asked_through_a_socket_in_the_file_system() {
    let Some(mut agent) = or_skip(Agent::start(ConsulOptions::default()).await) else { return };
    // A relay, since an agent has no socket beside its port.
    let path = agent.dir().join("consul.sock");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let addr = agent.addr();
    tokio::spawn(async move {
        while let Ok((mut unix, _)) = listener.accept().await {
            tokio::spawn(async move {
                let Ok(mut tcp) = tokio::net::TcpStream::connect(addr).await else { return };
                let _ = tokio::io::copy_bidirectional(&mut unix, &mut tcp).await;
            });
        }
    });
    let consul = Consul::new(Config::new(format!("unix://{}", path.display()))).unwrap();

    works(&consul).await.unwrap();
    let mut key = consul.kv_watch("a").unwrap();
    let _ = find(&mut key, LONG, |level| level.value.is_some()).await;

    agent.kill();
    let failed = find(&mut key, LONG, |level| level.degraded.is_some()).await;
    assert!(failed.value.is_some());
}

#[tokio::test]
async fn an_agent_that_hangs_is_noticed() {
    let Some(agent) = or_skip(Agent::start(ConsulOptions::default()).await) else { return };
    let config = Config::new(format!("http://{}", agent.addr()));
    let config = config.with_read_timeout(Duration::from_secs(1)).with_wait(Duration::from_secs(1));
    let consul = Consul::new(config).unwrap();
    let mut key = consul.kv_watch("k").unwrap();
    let _ = find(&mut key, LONG, |level| level.value.is_some()).await;

    agent.pause();
    let _ = find(&mut key, LONG, |level| level.degraded.is_some()).await;
    agent.resume();

    let _ = find(&mut key, LONG, |level| level.degraded.is_none()).await;
}
