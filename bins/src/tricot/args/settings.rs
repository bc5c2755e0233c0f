//! What was asked for, checked as a whole.

use std::env;
use std::ffi::OsStr;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use clap::Command;
use clap::CommandFactory;
use clap::FromArgMatches;
use clap::error::ErrorKind;
use http::Uri;
use ipnet::IpNet;
use meshlib::http::CompressOptions;

use super::AccessLog;
use super::Args;
use super::Balancing;
use super::Forwarded;
use super::PathMatch;
use super::address;
use super::clash;
use super::secret::Secret;
use super::token;
use super::token::Token;
use super::unknown;
use super::values::AcmeDirectory;
use super::values::Challenge;
use super::values::ConsulAddress;
use super::values::Health;
use super::values::base64url;
use super::with_variable;
use super::without_empty;
use crate::kit::about;
use crate::kit::cli;
use crate::kit::log::LogFormat;

/// Everything that the program is told by its arguments and variables.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Settings {
    /// Where to listen, and whom to believe there.
    pub listen: ListenSettings,
    /// How Consul is reached.
    pub consul: ConsulSettings,
    /// How certificates are got.
    pub acme: AcmeSettings,
    /// What happens to requests.
    pub proxy: ProxySettings,
    /// How long requests may go on after a signal. Default 30 s.
    pub shutdown_grace: Duration,
    /// How many threads serve connections; `None` for one per processor.
    pub workers: Option<usize>,
    /// What becomes of the line about each request.
    pub access_log: AccessLog,
    /// Where the rules are written as JSON when they change.
    pub config_dump: Option<PathBuf>,
    /// How log lines look. Default: for people.
    pub log_format: LogFormat,
    /// Whether to end now, with everything found right.
    pub check: bool,
    /// Whether to print what is [in force](Self::given) and end.
    pub print_config: bool,
    /// Ask the running program whether it wants traffic, then exit.
    pub probe_ready: bool,
    /// The arguments and variables that are in force, by the names of the arguments, for people. Secrets are left out.
    pub given: serde_json::Value,
    /// What is allowed and may not be what was meant, for the log.
    pub warnings: Vec<String>,
}

/// Where to listen, and whom to believe there.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ListenSettings {
    /// For HTTP; at least one. Default `0.0.0.0:80`.
    pub http: Vec<SocketAddr>,
    /// For HTTPS; at least one. Default `0.0.0.0:443`.
    pub https: Vec<SocketAddr>,
    /// For metrics.
    pub metrics: Option<SocketAddr>,
    /// The port of HTTPS in redirects; `None` if it is that of the first address of [`https`](Self::https).
    pub https_public_port: Option<u16>,
    /// Whose `X-Forwarded` headers are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Who must begin connections with a PROXY protocol header.
    pub proxy_protocol: Vec<IpNet>,
}

/// How Consul is reached.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ConsulSettings {
    /// Where it is. Default `http://127.0.0.1:8500`.
    pub address: ConsulAddress,
    /// The variable that is to be set to something else if that is wrong.
    pub address_from: &'static str,
    /// A PEM file with the roots to trust; `None` for those of the system.
    pub ca_cert: Option<PathBuf>,
    /// The certificate to show.
    pub client_cert: Option<ClientCert>,
    /// Whether its certificate is left unchecked, whatever [`ca_cert`](Self::ca_cert) says.
    pub skip_verify: bool,
    /// What stands before each key. Default `tricot/`.
    pub kv_prefix: Box<str>,
    /// The token to show, or why its file gives none: a reason not to start, though the file may be there a moment later.
    pub token: Result<Option<Token>, String>,
    /// The datacenter whose services are served; `None` for the agent's own.
    pub datacenter: Option<Box<str>>,
    /// The name of this node; `None` if the agent is to be asked.
    pub node_name: Option<Box<str>>,
}

/// PEM files with a certificate and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClientCert {
    /// The file with the certificate and those between it and a root.
    pub cert: PathBuf,
    /// The file with the key.
    pub key: PathBuf,
}

/// How certificates are got.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct AcmeSettings {
    /// The account's address for mail; `None` only with a directory that was named.
    pub email: Option<Box<str>>,
    /// Whose certificates. Default [`AcmeDirectory::Production`].
    pub directory: AcmeDirectory,
    /// A PEM file with the roots to trust at the directory; `None` for those of the system.
    pub ca_cert: Option<PathBuf>,
    /// The account that the authority knows from elsewhere.
    pub external_account: Option<ExternalAccount>,
    /// What may be offered, best first; at least one, each once. Default [`Challenge::Http01`].
    pub challenges: Vec<Challenge>,
    /// The profile of certificates; `None` for the authority's choice.
    pub profile: Option<Box<str>>,
    /// Whom to ask about hosts of wildcards, where no tag says so.
    pub ask: Option<Uri>,
    /// How long a first client may wait for a certificate; `None` for not at all.
    pub on_demand_wait: Option<Duration>,
    /// Whether all stored certificates are loaded at the start. Default true.
    pub warmup: bool,
    /// Where copies of certificates are kept.
    pub cache_dir: Option<PathBuf>,
    /// The time to live of the session that orders, from 10 s to 24 h. Default 60 s.
    pub lock_ttl: Duration,
}

/// An account that the authority knows from elsewhere, RFC 8555 section 7.3.4.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExternalAccount {
    /// The identifier of its key.
    pub kid: Box<str>,
    /// Its key.
    pub hmac_key: Secret<Vec<u8>>,
}

/// What happens to requests.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ProxySettings {
    /// Which answers are compressed; `None` for none, the default.
    pub compression: Option<CompressOptions>,
    /// Which instances get requests.
    pub health: Health,
    /// How requests are spread.
    pub balancing: Balancing,
    /// How paths are compared.
    pub path_match: PathMatch,
    /// Which further headers are sent.
    pub forwarded: Forwarded,
    /// How long connecting may take; more than none. Default 5 s.
    pub connect_timeout: Duration,
    /// How long an answer may take to begin; `None` for ever, the default.
    pub response_timeout: Option<Duration>,
    /// How long connections are kept; more than none. Default 90 s.
    pub idle_timeout: Duration,
}

impl Settings {
    /// The command line as it is parsed.
    pub fn command() -> Command {
        about::with_about(Args::command())
    }

    /// Reads the arguments and variables of the process, and the files with tokens.
    ///
    /// # Errors
    ///
    /// What to print and how to end: [`clap::Error::exit`] does both. Help and the version are errors, too.
    pub fn parse() -> Result<Self, clap::Error> {
        Self::parse_from(env::args_os())
    }

    /// The same with other arguments; the first is the name of the program.
    ///
    /// # Errors
    ///
    /// As of [`parse`](Self::parse).
    pub fn parse_from(args: impl IntoIterator<Item: Into<OsString> + Clone>) -> Result<Self, clap::Error> {
        let mut settings = Self::parse_with(Self::command(), args, |name| env::var_os(name))?;
        let unknown = unknown::variables(env::vars_os().map(|(name, _)| name));
        if settings.check && !unknown.is_empty() {
            return Err(Args::command().error(ErrorKind::ValueValidation, unknown.join("\n")));
        }
        settings.warnings.extend(unknown);
        Ok(settings)
    }

    /// The same with other variables, as far as the command does not know them itself.
    pub(super) fn parse_with(
        command: Command,
        args: impl IntoIterator<Item: Into<OsString> + Clone>,
        variable: impl Fn(&OsStr) -> Option<OsString>,
    ) -> Result<Self, clap::Error> {
        let mut command = without_empty(command, |name| variable(name).is_some_and(|value| value.is_empty()));
        let parsed = cli::matches(&mut command, args, with_variable);
        let args = parsed.and_then(|matches| {
            let given = cli::given(&command, &matches);
            Ok((Args::from_arg_matches(&matches).map_err(|error| error.format(&mut command))?, given))
        });
        let (args, given) = args?;
        let settings =
            Self::new(args, variable).map_err(|text| command.error(ErrorKind::ValueValidation, text))?;
        Ok(Self { given, ..settings })
    }

    fn new(args: Args, variable: impl Fn(&OsStr) -> Option<OsString>) -> Result<Self, String> {
        let mut warnings = Vec::new();
        let mut problems = Vec::new();
        let consul = consul(&args, variable, &mut warnings).map_err(|problem| problems.push(problem));
        let acme = acme(&args).map_err(|mut found| problems.append(&mut found));
        if !args.consul_kv_prefix.ends_with('/') {
            warnings.push(format!(
                "TRICOT_CONSUL_KV_PREFIX is {:?} and does not end in /: keys begin like {:?}",
                args.consul_kv_prefix,
                format!("{}certs", args.consul_kv_prefix)
            ));
        }
        let listen = ListenSettings {
            http: args.http_bind_addr,
            https: args.https_bind_addr,
            metrics: args.metrics_bind_addr,
            https_public_port: args.https_public_port,
            trusted_proxies: IpNet::aggregate(&args.trusted_proxies),
            proxy_protocol: IpNet::aggregate(&args.proxy_protocol),
        };
        problems.extend(clash::check(&listen).err());
        let (Ok(consul), Ok(acme)) = (consul, acme) else { return Err(problems.join(cli::AND)) };
        if !problems.is_empty() {
            return Err(problems.join(cli::AND));
        }
        Ok(Self {
            consul,
            acme,
            listen,
            proxy: ProxySettings {
                compression: args
                    .enable_compression
                    .then(|| CompressOptions::default().with_types(args.compress_mime_types)),
                health: args.health,
                balancing: args.lb,
                path_match: args.path_match,
                forwarded: args.forwarded,
                connect_timeout: args.connect_timeout,
                response_timeout: some(args.response_timeout),
                idle_timeout: args.idle_timeout,
            },
            shutdown_grace: args.shutdown_grace,
            workers: args.workers.map(usize::from),
            access_log: args.access_log,
            config_dump: args.config_dump,
            log_format: args.log_format,
            check: args.check,
            print_config: args.print_config,
            probe_ready: args.probe_ready,
            given: serde_json::Value::Null,
            warnings,
        })
    }
}

fn consul(
    args: &Args,
    variable: impl Fn(&OsStr) -> Option<OsString>,
    warnings: &mut Vec<String>,
) -> Result<ConsulSettings, String> {
    let (address, address_from) = address::from_args(args, &variable)?;
    let client_cert = match (&args.consul_client_cert, &args.consul_client_key) {
        (Some(cert), Some(key)) => Some(ClientCert { cert: cert.clone(), key: key.clone() }),
        (None, None) => None,
        (Some(_), None) => {
            return Err(
                "TRICOT_CONSUL_CLIENT_CERT is set, and TRICOT_CONSUL_CLIENT_KEY, its key, is not".into()
            );
        }
        (None, Some(_)) => {
            return Err(
                "TRICOT_CONSUL_CLIENT_KEY is set, and TRICOT_CONSUL_CLIENT_CERT, its certificate, is not"
                    .into(),
            );
        }
    };
    let is_about_tls = args.consul_ca_cert.is_some() || client_cert.is_some() || args.consul_tls_skip_verify;
    if is_about_tls && !address.is_tls() {
        warnings.push(format!(
            "{address_from} is not https: what is set about certificates of Consul has no effect"
        ));
    } else if args.consul_tls_skip_verify && args.consul_ca_cert.is_some() {
        warnings.push("TRICOT_CONSUL_TLS_SKIP_VERIFY is true: TRICOT_CONSUL_CA_CERT has no effect".into());
    }
    Ok(ConsulSettings {
        address,
        address_from,
        ca_cert: args.consul_ca_cert.clone(),
        client_cert,
        skip_verify: args.consul_tls_skip_verify,
        kv_prefix: args.consul_kv_prefix.as_str().into(),
        token: token::from_args(args, variable)?,
        datacenter: boxed(args.consul_datacenter.as_deref()),
        node_name: boxed(args.node_name.as_deref()),
    })
}

/// All that is wrong otherwise.
fn acme(args: &Args) -> Result<AcmeSettings, Vec<String>> {
    let mut problems: Vec<String> = Vec::new();
    let email = args.letsencrypt_email.as_ref();
    match (email.map(|email| &email.0), &args.acme_directory) {
        (None, _) => problems.push(
            "TRICOT_LETSENCRYPT_EMAIL (--letsencrypt-email) is not set; \
             the certificate authority wants an address for mail, such as admin@example.com"
                .into(),
        ),
        (Some(None), None) => problems.push(
            "TRICOT_LETSENCRYPT_EMAIL (--letsencrypt-email) is empty; \
             that is possible only with TRICOT_ACME_DIRECTORY (--acme-directory)"
                .into(),
        ),
        _ => {}
    }
    let mut external_account = None;
    match (&args.acme_eab_kid, &args.acme_eab_hmac_key) {
        (None, None) => {}
        (Some(kid), Some(key)) => match base64url(key.expose()) {
            Some(key) => {
                external_account =
                    Some(ExternalAccount { kid: kid.as_str().into(), hmac_key: Secret::new(key) });
            }
            None => problems.push("TRICOT_ACME_EAB_HMAC_KEY is not in base64url".into()),
        },
        (Some(_), None) => {
            problems.push("TRICOT_ACME_EAB_KID is set, and TRICOT_ACME_EAB_HMAC_KEY is not".into());
        }
        (None, Some(_)) => {
            problems.push("TRICOT_ACME_EAB_HMAC_KEY is set, and TRICOT_ACME_EAB_KID is not".into());
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let mut challenges = Vec::new();
    for challenge in &args.acme_challenges {
        if !challenges.contains(challenge) {
            challenges.push(*challenge);
        }
    }
    Ok(AcmeSettings {
        email: email.and_then(|email| email.0.clone()),
        directory: args.acme_directory.clone().unwrap_or(AcmeDirectory::Production),
        ca_cert: args.acme_ca_cert.clone(),
        external_account,
        challenges,
        profile: boxed(args.acme_profile.as_deref()),
        ask: args.on_demand_tls_ask.clone(),
        on_demand_wait: some(args.on_demand_wait),
        warmup: args.warmup_cert_memory_store,
        cache_dir: (args.cert_cache_dir != Path::new("off")).then(|| args.cert_cache_dir.clone()),
        lock_ttl: args.lock_ttl,
    })
}

fn boxed(text: Option<&str>) -> Option<Box<str>> {
    text.map(Box::from)
}

fn some(time: Duration) -> Option<Duration> {
    (!time.is_zero()).then_some(time)
}
