//! Certificates, keys and trust as the configuration names them, loaded and kept current.

use std::path::PathBuf;
use std::sync::Arc;

use meshlib::Session;
use meshlib::To;
use meshlib::io::sniff::Sniffed;
use meshlib::tls;
use meshlib::tls::AcceptTls;
use meshlib::tls::CertResolver;
use meshlib::tls::ConnectTls;
use meshlib::tls::Hello;
use meshlib::tls::Inspect;
use meshlib::tls::Reloading;
use meshlib::tls::TlsPolicy;
use meshlib::tls::pem;
use meshlib::tls::pem::PemError;
use meshlib::tls::rustls;
use rustls::AlertDescription;
use rustls::ClientConfig;
use rustls::RootCertStore;
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::ServerName;
use rustls::server::ProducesTickets;
use rustls::server::WebPkiClientVerifier;
use rustls::sign::CertifiedKey;

use super::config::model;
use super::config::model::TlsVersion;
use crate::kit::load::ConfigError;
use crate::kit::load::Place;
use crate::kit::load::Problem;
use crate::kit::load::fields::FileRef;

/// A server's TLS, made anew when one of its files changes.
pub(super) type ServerTls = Reloading<ServerConfigs, ConfigError>;
/// Client TLS, made anew when one of its files changes.
pub(super) type ClientTls = Reloading<tls::ClientTls, ConfigError>;

/// What all TLS of a process shares.
pub(super) struct Shared {
    provider: Arc<CryptoProvider>,
    /// Outlives reloads, so that sessions can be resumed across them.
    tickets: Arc<dyn ProducesTickets>,
}

impl Shared {
    pub(super) fn new() -> Result<Self, tls::TlsError> {
        Ok(Self { provider: tls::provider(), tickets: tls::tickets()? })
    }

    pub(super) fn server(self: &Arc<Self>, config: &model::ServerTls) -> Result<Arc<ServerTls>, ConfigError> {
        let identities = config.identities.iter().map(|(_, identity)| identity);
        let trusted = config.client_auth.iter().flat_map(|auth| &auth.trust_certs);
        let files =
            identities.chain(&config.default_identity).flat_map(files).chain(trusted).map(path).collect();
        let (this, config) = (Arc::clone(self), config.clone());
        Reloading::new(dedup(files), move |_| this.server_configs(&config))
    }

    pub(super) fn client(self: &Arc<Self>, config: &model::ClientTls) -> Result<Arc<ClientTls>, ConfigError> {
        let trusted = config.trust_certs.iter().flatten();
        let files = config.client_auth.iter().flat_map(files).chain(trusted).map(path).collect();
        let (this, config) = (Arc::clone(self), config.clone());
        Reloading::new(dedup(files), move |_| {
            let settings = ClientSettings {
                name: &config.dns_name,
                trusted: config.trust_certs.as_deref(),
                identity: config.client_auth.as_ref(),
                alpn: &config.alpn,
                oldest: config.min_version,
                place: &config.place,
            };
            this.client_tls(&settings)
        })
    }

    /// TLS towards namerd, loaded once: a resolver is not made anew while it runs.
    pub(super) fn resolver(&self, config: &model::Namerd, host: &str) -> Result<tls::ClientTls, ConfigError> {
        let tls = config.tls.as_ref();
        self.client_tls(&ClientSettings {
            name: tls.and_then(|tls| tls.dns_name.as_deref()).unwrap_or(host),
            trusted: tls.and_then(|tls| tls.trust_certs.as_deref()),
            identity: tls.and_then(|tls| tls.client_auth.as_ref()),
            alpn: &[],
            oldest: tls.map(|tls| tls.min_version).unwrap_or_default(),
            place: &config.place,
        })
    }

    fn server_configs(&self, config: &model::ServerTls) -> Result<ServerConfigs, ConfigError> {
        let mut certs = CertResolver::builder();
        let mut problems = Vec::new();
        for (name, identity) in &config.identities {
            match self.identity(identity) {
                Ok(key) => certs = certs.with_name(name, key),
                Err(mut found) => problems.append(&mut found),
            }
        }
        match config.default_identity.as_ref().map(|identity| self.identity(identity)) {
            Some(Ok(key)) => certs = certs.with_default(key),
            Some(Err(mut found)) => problems.append(&mut found),
            None => {}
        }
        let mut authorities = None;
        if let Some(auth) = &config.client_auth {
            match roots(&auth.trust_certs) {
                Ok(roots) => authorities = Some((roots, auth.required)),
                Err(problem) => problems.push(problem),
            }
        }
        ConfigError::unless_none(problems)?;

        let names = certs.build();
        let refused = |text: String| ConfigError::new(Problem::new(config.place.clone(), text), []);
        let resolver = Arc::clone(&names) as Arc<dyn rustls::server::ResolvesServerCert>;
        let mut plain = match authorities {
            None => tls::server_config(Arc::clone(&self.provider), resolver, Some(Arc::clone(&self.tickets)))
                .map_err(|error| refused(error.to_string()))?,
            Some((roots, required)) => {
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(roots.into(), Arc::clone(&self.provider));
                let verifier = if required { verifier } else { verifier.allow_unauthenticated() };
                let verifier = verifier.build().map_err(|error| refused(error.to_string()))?;
                let builder = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
                    .with_safe_default_protocol_versions()
                    .map_err(|error| refused(error.to_string()))?;
                // No tickets of other servers: theirs were given to clients that showed no certificate.
                builder.with_client_cert_verifier(verifier).with_cert_resolver(resolver)
            }
        };
        plain.alpn_protocols.clear();
        let mut alpn = plain.clone();
        alpn.alpn_protocols = config.alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Ok(ServerConfigs { names, plain: Arc::new(plain), alpn: Arc::new(alpn) })
    }

    fn client_tls(&self, settings: &ClientSettings<'_>) -> Result<tls::ClientTls, ConfigError> {
        let refused = |text: String| ConfigError::new(Problem::new(settings.place.clone(), text), []);
        let roots = match settings.trusted {
            Some(files) => roots(files).map_err(|problem| ConfigError::new(problem, []))?,
            None => tls::native_roots().map_err(|error| refused(error.to_string()))?,
        };
        let versions: &[_] = match settings.oldest {
            TlsVersion::V12 => &[&rustls::version::TLS13, &rustls::version::TLS12],
            TlsVersion::V13 => &[&rustls::version::TLS13],
        };
        let builder = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(versions)
            .map_err(|error| refused(error.to_string()))?
            .with_root_certificates(roots);
        let mut config = match settings.identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let key = self.identity(identity).map_err(|problems| {
                    let mut problems = problems.into_iter();
                    problems.next().map_or_else(
                        || refused("an identity is no good".into()),
                        |first| ConfigError::new(first, problems),
                    )
                })?;
                builder.with_client_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(key)))
            }
        };
        config.alpn_protocols = settings.alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        let name = ServerName::try_from(settings.name.to_owned())
            .map_err(|_| refused(format!("{:?} is neither a host name nor an address", settings.name)))?;
        Ok(tls::ClientTls::new(Arc::new(config), name))
    }

    fn identity(&self, identity: &model::Identity) -> Result<Arc<CertifiedKey>, Vec<Problem>> {
        // What is missing is said of all of them. Not by opening them, which waits where one is a pipe.
        let missing = files(identity).filter_map(|file| {
            let error = std::fs::metadata(&file.path).err()?;
            Some(file.problem(format!("cannot read {}: {error}", file.path.display())))
        });
        let missing: Vec<_> = missing.collect();
        if missing.len() > 1 {
            return Err(missing);
        }
        let certs = identity.certs.iter().map(path);
        pem::certified_key(&self.provider, certs, path(&identity.private_key)).map_err(|error| {
            if let PemError::Unusable { source: rustls::Error::InconsistentKeys(_), .. } = &error
                && let Some(certs) = identity.certs.first()
            {
                let key = &identity.private_key;
                let (key_file, certs) = (key.path.display(), certs.path.display());
                return vec![key.problem(format!("{key_file} is not the key of the certificate in {certs}"))];
            }
            let file = identity.certs.iter().find(|file| path(file) == error.path());
            vec![problem(file.unwrap_or(&identity.private_key), &error)]
        })
    }
}

/// What a client's TLS is made of.
struct ClientSettings<'a> {
    name: &'a str,
    trusted: Option<&'a [FileRef]>,
    identity: Option<&'a model::Identity>,
    alpn: &'a [String],
    oldest: TlsVersion,
    place: &'a Place,
}

fn roots(files: &[FileRef]) -> Result<RootCertStore, Problem> {
    let mut all = RootCertStore::empty();
    for file in files {
        all.extend(pem::authorities([path(file)]).map_err(|error| problem(file, &error))?.roots);
    }
    Ok(all)
}

fn problem(file: &FileRef, error: &PemError) -> Problem {
    use std::error::Error as _;

    let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
    file.problem(format!("{error}{cause}"))
}

fn files(identity: &model::Identity) -> impl Iterator<Item = &FileRef> {
    identity.certs.iter().chain([&identity.private_key])
}

/// What clients may be shown, with what names it.
pub(super) fn shown<'a>(
    settings: &'a model::ServerTls,
    tls: &ServerTls,
) -> Vec<(&'a model::Identity, Vec<u8>)> {
    let configs = tls.load();
    let named = settings.identities.iter().map(|(name, identity)| (Some(&**name), identity));
    let all = named.chain(settings.default_identity.iter().map(|identity| (None, identity)));
    let leaf = |name| Some(configs.names.find(name)?.cert.first()?.to_vec());
    all.filter_map(|(name, identity)| Some((identity, leaf(name)?))).collect()
}

/// The files that TLS towards a resolver is made of.
pub(super) fn files_of(tls: &model::ResolverTls) -> impl Iterator<Item = &FileRef> {
    tls.trust_certs.iter().flatten().chain(tls.client_auth.iter().flat_map(files))
}

fn path(file: &FileRef) -> PathBuf {
    file.path.clone()
}

fn dedup(mut files: Vec<PathBuf>) -> Vec<PathBuf> {
    files.sort();
    files.dedup();
    files
}

/// One server's certificates with two configurations, that differ in whether a protocol is negotiated.
pub(super) struct ServerConfigs {
    names: Arc<CertResolver>,
    plain: Arc<ServerConfig>,
    alpn: Arc<ServerConfig>,
}

/// Terminates TLS with the certificate for the client's name.
pub(super) struct AcceptPolicy {
    pub(super) tls: Arc<ServerTls>,
    pub(super) within: std::time::Duration,
}

impl TlsPolicy for AcceptPolicy {
    fn inspect(&self, _: &Session) -> Inspect {
        Inspect::FirstBytes { within: self.within }
    }

    fn accept(&self, hello: &Hello<'_>) -> AcceptTls {
        let configs = self.tls.load();
        let Sniffed::Tls { server_name, alpn } = &hello.protocol else {
            // Not TLS, or nothing at all: rustls says so in its own words, or its deadline has passed.
            return AcceptTls::Terminate(Arc::clone(&configs.plain));
        };
        if configs.names.find(*server_name).is_none() {
            return AcceptTls::Alert(AlertDescription::UnrecognisedName);
        }
        // A client whose protocols we do not have goes on without one; rustls would refuse it. RFC 7301 section 3.2.
        let ours = &configs.alpn.alpn_protocols;
        let common = ours.iter().any(|ours| alpn.iter().any(|theirs| theirs == ours));
        AcceptTls::Terminate(Arc::clone(if common { &configs.alpn } else { &configs.plain }))
    }
}

/// Speaks TLS to every endpoint, with the files as they are now.
pub(super) struct ConnectPolicy(pub(super) Arc<ClientTls>);

impl TlsPolicy for ConnectPolicy {
    fn connect(&self, _: &To<Session>) -> ConnectTls {
        ConnectTls::Required(tls::ClientTls::clone(&self.0.load()))
    }
}
