//! Certificates by name, of clients, and new ones while the server runs.

use std::path::Path;
use std::sync::Arc;

use meshlib::test_util::TestCa;
use meshlib::test_util::TestCert;
use meshlib::test_util::echo;
use meshlib::tls;
use meshlib::tls::CertResolver;
use meshlib::tls::CertResolverBuilder;
use meshlib::tls::ClientTls;
use meshlib::tls::Reloading;
use meshlib::tls::Terminate;
use meshlib::tls::TlsError;
use meshlib::tls::identity::OtherName;
use meshlib::tls::identity::Pinned;
use meshlib::tls::identity::Unverified;
use meshlib::tls::pem;
use meshlib::tls::pem::PemError;
use meshlib::tls::rustls::ClientConfig;
use meshlib::tls::rustls::RootCertStore;
use meshlib::tls::rustls::ServerConfig;
use meshlib::tls::rustls::client::danger::ServerCertVerifier;
use meshlib::tls::rustls::pki_types::PrivatePkcs8KeyDer;
use meshlib::tls::rustls::server::WebPkiClientVerifier;
use meshlib::tls::rustls::sign::CertifiedKey;

use crate::rig::Accepting;
use crate::rig::connect_tls;
use crate::rig::tls_error;

fn serve(certs: Arc<CertResolver>) -> Terminate {
    Terminate::new(tls::server_config(tls::provider(), certs, None).unwrap())
}

/// The names of an authority, each with a certificate of its own.
fn named(ca: &TestCa, names: &[&str]) -> CertResolverBuilder {
    names.iter().fold(CertResolver::builder(), |builder, name| {
        builder.with_name(name, ca.issue([*name]).certified_key())
    })
}

/// Asks for a certificate that `clients` has issued.
fn asking(ca: &TestCa, clients: &TestCa) -> Terminate {
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(clients.roots()), tls::provider())
        .build()
        .unwrap();
    let config = ServerConfig::builder_with_provider(tls::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(named(ca, &["a.example"]).build());
    Terminate::new(config)
}

/// A certificate in files below `dir`.
fn in_files(cert: &TestCert, dir: &Path) -> Arc<Reloading<Arc<CertifiedKey>, PemError>> {
    let (chain, key) = cert.write_to(dir).unwrap();
    let made =
        Reloading::new([chain, key], |files| pem::certified_key(&tls::provider(), [&files[0]], &files[1]));
    made.unwrap()
}

#[tokio::test]
async fn each_name_gets_its_certificate() {
    let ca = TestCa::new();
    let certs = named(&ca, &["a.example", "*.b.example", "special.b.example"])
        .with_default(ca.issue(["default.example"]).certified_key())
        .build();
    let server = Accepting::start(serve(certs)).await;

    for name in ["a.example", "A.Example", "x.b.example", "special.b.example", "default.example"] {
        let mut io = connect_tls(server.addr, ca.client_tls(name)).await.unwrap();
        assert_eq!(echo(&mut io, b"x").await.unwrap(), b"x", "{name}");
    }
    let error = tls_error(connect_tls(server.addr, ca.client_tls("b.example")).await);
    assert_eq!(error.reason(), "cert_name", "it gets the default one");
}

#[tokio::test]
async fn without_a_default_an_unknown_name_is_refused() {
    let ca = TestCa::new();
    let server = Accepting::start(serve(named(&ca, &["a.example"]).build())).await;

    let error = tls_error(connect_tls(server.addr, ca.client_tls("c.example")).await);

    assert!(matches!(error, TlsError::Alert(_)), "{error:?}");
}

#[tokio::test]
async fn certificates_can_be_replaced_while_connections_live() {
    let (old, new) = (TestCa::new(), TestCa::new());
    let certs = named(&old, &["a.example"]).build();
    let server = Accepting::start(serve(Arc::clone(&certs))).await;
    let mut io = connect_tls(server.addr, old.client_tls("a.example")).await.unwrap();

    certs.replace(named(&new, &["a.example"]));

    assert!(connect_tls(server.addr, new.client_tls("a.example")).await.is_ok());
    assert!(connect_tls(server.addr, old.client_tls("a.example")).await.is_err());
    assert_eq!(echo(&mut io, b"still here").await.unwrap(), b"still here");
}

#[tokio::test]
async fn a_server_follows_the_files_of_its_certificate() {
    let (old, new) = (TestCa::new(), TestCa::new());
    let dir = tempfile::tempdir().unwrap();
    let certs = in_files(&old.issue(["a.example"]), dir.path());
    let config = tls::server_config(tls::provider(), certs.clone(), None).unwrap();
    let server = Accepting::start(Terminate::new(config)).await;
    assert!(connect_tls(server.addr, old.client_tls("a.example")).await.is_ok());

    new.issue(["a.example"]).write_to(dir.path()).unwrap();
    assert!(certs.check().unwrap());

    assert!(connect_tls(server.addr, new.client_tls("a.example")).await.is_ok());
    assert!(connect_tls(server.addr, old.client_tls("a.example")).await.is_err());
}

#[tokio::test]
async fn a_client_follows_the_files_of_its_certificate() {
    let (ca, wrong, right) = (TestCa::new(), TestCa::new(), TestCa::new());
    let server = Accepting::start(asking(&ca, &right)).await;
    let dir = tempfile::tempdir().unwrap();
    let certs = in_files(&wrong.issue(["client.example"]), dir.path());
    let mut client = ca.client_tls("a.example");
    Arc::make_mut(&mut client.config).client_auth_cert_resolver = certs.clone();
    // In TLS 1.3 a client has finished before the server has looked at its certificate.
    let mut io = connect_tls(server.addr, client.clone()).await.unwrap();
    assert!(echo(&mut io, b"x").await.is_err());

    right.issue(["client.example"]).write_to(dir.path()).unwrap();
    assert!(certs.check().unwrap());

    let mut io = connect_tls(server.addr, client).await.unwrap();
    assert_eq!(echo(&mut io, b"x").await.unwrap(), b"x");
}

#[tokio::test]
async fn clients_can_be_asked_for_certificates() {
    let (ca, clients, others) = (TestCa::new(), TestCa::new(), TestCa::new());
    let server = Accepting::start(asking(&ca, &clients)).await;
    let with_cert = |issuer: &TestCa| {
        let cert = issuer.issue(["client.example"]);
        let config = ClientConfig::builder_with_provider(tls::provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(ca.roots())
            .with_client_auth_cert(vec![cert.certificate()], cert.key_der())
            .unwrap();
        let mut client = ca.client_tls("a.example");
        client.config = Arc::new(config);
        (cert, client)
    };

    let (cert, client) = with_cert(&clients);
    let mut io = connect_tls(server.addr, client).await.unwrap();
    echo(&mut io, b"x").await.unwrap();
    let shown = server.session().tls.unwrap().peer_certificate.clone().unwrap();
    assert_eq!(*shown, *cert.certificate());

    // In TLS 1.3 a client has finished before the server has looked at its certificate.
    for client in [with_cert(&others).1, ca.client_tls("a.example")] {
        let mut io = connect_tls(server.addr, client).await.unwrap();
        assert!(echo(&mut io, b"x").await.is_err());
    }
}

/// What `openssl req -x509` makes: its own issuer, and entitled to be others'.
#[tokio::test]
async fn an_authority_that_is_its_own_server_is_told_what_to_do() {
    let mut params = rcgen::CertificateParams::new(["a.example".to_owned()]).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = rcgen::KeyPair::generate().unwrap();
    let cert = params.self_signed(&key).unwrap();
    let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
    let shown = CertifiedKey::from_der(vec![cert.der().clone()], key, &tls::provider()).unwrap();
    let server = Accepting::start(serve(CertResolver::builder().with_default(shown).build())).await;
    let mut roots = RootCertStore::empty();
    roots.add(cert.der().clone()).unwrap();
    let config = Arc::new(tls::client_config(tls::provider(), roots).unwrap());
    let trusting = ClientTls::new(config, "a.example".try_into().unwrap());

    let error = tls_error(connect_tls(server.addr, trusting.clone()).await);
    assert_eq!(error.reason(), "cert_untrusted");
    assert!(error.to_string().contains("CaUsedAsEndEntity): pin it, or let"), "{error}");

    let mut pinning = trusting;
    let pinned = Pinned::new(tls::provider(), [cert.der().clone()]);
    Arc::make_mut(&mut pinning.config).dangerous().set_certificate_verifier(pinned);
    let mut io = connect_tls(server.addr, pinning).await.unwrap();
    assert_eq!(echo(&mut io, b"x").await.unwrap(), b"x");
}

#[tokio::test]
async fn verifiers_of_other_kinds_believe_what_they_say() {
    let (ca, other) = (TestCa::new(), TestCa::new());
    let cert = ca.issue(["real.example"]);
    let server = Accepting::start(Terminate::new(cert.server_config())).await;
    let provider = tls::provider;
    let name = |name: &'static str| name.try_into().unwrap();
    let verifiers: [(Arc<dyn ServerCertVerifier>, bool); 6] = [
        (OtherName::new(provider(), ca.roots(), name("real.example")).unwrap(), true),
        (OtherName::new(provider(), ca.roots(), name("asked.example")).unwrap(), false),
        (OtherName::new(provider(), other.roots(), name("real.example")).unwrap(), false),
        (Pinned::new(provider(), [cert.certificate()]), true),
        (Pinned::new(provider(), [other.issue(["real.example"]).certificate()]), false),
        (Unverified::new(provider(), "test"), true),
    ];

    for (verifier, believed) in verifiers {
        let debug = format!("{verifier:.20?}");
        let mut client = ca.client_tls("asked.example");
        Arc::make_mut(&mut client.config).dangerous().set_certificate_verifier(verifier);
        assert_eq!(connect_tls(server.addr, client).await.is_ok(), believed, "{debug}");
    }
}
