//! The hybrid key exchange X25519MLKEM768, which older `openssl` does not know.

use std::sync::Arc;

use meshlib::test_util::Echo;
use meshlib::test_util::TestCa;
use meshlib::test_util::echo;
use meshlib::tls::rustls::ClientConfig;
use meshlib::tls::rustls::NamedGroup;
use meshlib::tls::rustls::ServerConfig;
use meshlib::tls::rustls::crypto::CryptoProvider;
use meshlib::tls::rustls::crypto::SupportedKxGroup;
use meshlib::tls::rustls::crypto::aws_lc_rs;
use meshlib::tls::rustls::crypto::aws_lc_rs::kx_group;
use meshlib::tls::rustls::pki_types::ServerName;
use tempfile::tempdir;
use tokio::net::TcpStream;
use tokio::time;
use tokio_rustls::TlsConnector;

use crate::process::Program;
use crate::process::SOON;
use crate::talk::exchange;
use crate::talk::fixed;

fn only(groups: &[&'static dyn SupportedKxGroup]) -> Arc<CryptoProvider> {
    let provider = CryptoProvider { kx_groups: groups.to_vec(), ..aws_lc_rs::default_provider() };
    Arc::new(provider)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_get_the_hybrid_group_if_they_know_it() {
    let backend = Echo::start().await;
    let (ca, dir) = (TestCa::new(), tempdir().unwrap());
    ca.issue(["proxy"]).write_to(dir.path()).unwrap();
    let tls = "tls: {defaultIdentity: {certs: [cert.pem], privateKey: key.pem}}";
    let program = Program::start_in(dir, &fixed(&[backend.addr()], tls, ""), &[]);
    let hybrid = kx_group::X25519MLKEM768;

    for (offered, agreed) in [
        (&[hybrid][..], NamedGroup::X25519MLKEM768),
        (&[hybrid, kx_group::X25519], NamedGroup::X25519MLKEM768),
        (&[kx_group::X25519], NamedGroup::X25519),
        (&[kx_group::SECP256R1], NamedGroup::secp256r1),
        (&[kx_group::SECP384R1], NamedGroup::secp384r1),
    ] {
        let config = ClientConfig::builder_with_provider(only(offered)).with_safe_default_protocol_versions();
        let config = config.unwrap().with_root_certificates(ca.roots()).with_no_client_auth();
        let io = TcpStream::connect(program.addr()).await.unwrap();
        let name = ServerName::try_from("proxy").unwrap();
        let io = TlsConnector::from(Arc::new(config)).connect(name, io);
        let mut io = time::timeout(SOON, io).await.expect("in time").unwrap();

        let group = io.get_ref().1.negotiated_key_exchange_group().map(SupportedKxGroup::name);
        assert_eq!(group, Some(agreed));
        assert_eq!(time::timeout(SOON, echo(&mut io, b"x")).await.expect("in time").unwrap(), b"x");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endpoints_may_know_no_other_group() {
    let ca = TestCa::new();
    let cert = ca.issue(["backend"]);
    let config = ServerConfig::builder_with_provider(only(&[kx_group::X25519MLKEM768]))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.certificate()], cert.key_der())
        .unwrap();
    let backend = Echo::start_tls(Arc::new(config)).await;
    let dir = tempdir().unwrap();
    std::fs::write(dir.path().join("ca.pem"), ca.pem()).unwrap();
    let client = "tls: {dnsName: backend, trustCerts: [ca.pem]}";
    let program = Program::start_in(dir, &fixed(&[backend.addr()], "", client), &[]);

    exchange(program.addr()).await.unwrap();
}
