//! The command line and the variables, as one whole.
//!
//! An argument comes before a variable, a variable before a default. [`Settings::parse`] gives values that need no further
//! check, or the message and the exit status to end with: 2 for what is wrong, 0 for help and the version.
//!
//! # Examples
//!
//! ```
//! use bins::tricot::args::Settings;
//!
//! let args = ["tricot", "--letsencrypt-email", "admin@example.com", "--http-bind-addr", "[::]:8080"];
//! let settings = Settings::parse_from(args)?;
//!
//! assert_eq!(settings.listen.http, ["[::]:8080".parse().unwrap()]);
//! # Ok::<_, clap::Error>(())
//! ```

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Command;
use clap::Parser;
use clap::ValueEnum;
use clap::error::ContextKind;
use clap::error::ContextValue;
use http::Uri;
use ipnet::IpNet;
use meshlib::http::MediaTypes;

use crate::kit::log::LogFormat;
use crate::kit::units::grace;
use crate::kit::units::listen;

mod address;
mod clash;
mod secret;
mod settings;
#[cfg(test)]
mod tests;
mod token;
mod unknown;
mod values;

pub use secret::Secret;
pub use settings::AcmeSettings;
pub use settings::ClientCert;
pub use settings::ConsulSettings;
pub use settings::ExternalAccount;
pub use settings::ListenSettings;
pub use settings::ProxySettings;
pub use settings::Settings;
pub use token::Token;
pub use token::TokenError;
pub use values::AcmeDirectory;
pub use values::Challenge;
pub use values::ConsulAddress;
pub use values::Health;

/// An HTTPS proxy that takes its routes from Consul.
///
/// Looks at the tags of the services in Consul's catalog, such as `tricot app.example.com`, gets certificates for the
/// hosts that they name, and sends requests to the instances that have these tags. Any number of proxies share their
/// certificates through Consul.
#[derive(Debug, Parser)]
#[command(name = "tricot", version, after_help = AFTER_HELP, disable_help_subcommand = true)]
struct Args {
    /// Your address for mail, which the certificate authority writes to if it has to; required. May be empty if
    /// --acme-directory is set: the account has no address then
    #[arg(long, value_name = "EMAIL", env = "TRICOT_LETSENCRYPT_EMAIL", value_parser = email)]
    #[arg(help_heading = "Certificates")]
    letsencrypt_email: Option<Email>,

    /// Directory of the certificate authority: a URL, or `staging` for tests with Let's Encrypt. Certificates of different
    /// directories are kept apart [default: Let's Encrypt]
    #[arg(long, value_name = "URL", env = "TRICOT_ACME_DIRECTORY", value_parser = values::directory)]
    #[arg(help_heading = "Certificates")]
    acme_directory: Option<AcmeDirectory>,

    /// PEM file with the roots to trust at the directory itself [default: those of the system]
    #[arg(long, value_name = "FILE", env = "TRICOT_ACME_CA_CERT")]
    #[arg(help_heading = "Certificates")]
    acme_ca_cert: Option<PathBuf>,

    /// Key identifier of an account that the authority knows from elsewhere; needs --acme-eab-hmac-key
    #[arg(long, value_name = "ID", env = "TRICOT_ACME_EAB_KID", value_parser = values::name)]
    #[arg(help_heading = "Certificates")]
    acme_eab_kid: Option<String>,

    /// Key of that account, in base64url. Set the variable instead: others can see the arguments of a process
    #[arg(long, value_name = "KEY", env = "TRICOT_ACME_EAB_HMAC_KEY", hide_env_values = true, value_parser = hidden)]
    #[arg(help_heading = "Certificates")]
    acme_eab_hmac_key: Option<Secret<String>>,

    /// How to show that a host is ours: http-01, tls-alpn-01, or both with a comma between; the first that the authority
    /// offers is used
    #[arg(long, value_name = "LIST", env = "TRICOT_ACME_CHALLENGES", default_value = "http-01")]
    #[arg(value_parser = values::challenge, value_delimiter = ',', help_heading = "Certificates")]
    acme_challenges: Vec<Challenge>,

    /// Profile of certificates, if the directory has any [default: the authority's choice]
    #[arg(long, value_name = "NAME", env = "TRICOT_ACME_PROFILE", value_parser = values::name)]
    #[arg(help_heading = "Certificates")]
    acme_profile: Option<String>,

    /// URL that is asked with `?domain=HOST` before a certificate is ordered for a host that only a wildcard names; a
    /// status of 2xx allows it. Services may name their own with a tag [default: nobody is asked, and few are ordered]
    #[arg(long, value_name = "URL", env = "TRICOT_ON_DEMAND_TLS_ASK", value_parser = values::ask)]
    #[arg(help_heading = "Certificates")]
    on_demand_tls_ask: Option<Uri>,

    /// How long the first client of such a host may wait for its certificate; `off`: it gets a self-signed one at once
    #[arg(long, value_name = "TIME", env = "TRICOT_ON_DEMAND_WAIT", default_value = "off")]
    #[arg(value_parser = values::time_or_off, help_heading = "Certificates")]
    on_demand_wait: Duration,

    /// Load all stored certificates at the start, not each with its first client
    #[arg(long, value_name = "BOOL", env = "TRICOT_WARMUP_CERT_MEMORY_STORE", default_value = "true")]
    #[arg(num_args = 0..=1, default_missing_value = "true", value_parser = values::switch, help_heading = "Certificates")]
    #[arg(action = clap::ArgAction::Set)]
    warmup_cert_memory_store: bool,

    /// Directory with copies of the certificates, so that a start without Consul can serve; `off`: nothing is written
    #[arg(long, value_name = "DIR", env = "TRICOT_CERT_CACHE_DIR", default_value = "off")]
    #[arg(help_heading = "Certificates")]
    cert_cache_dir: PathBuf,

    /// How long a node that orders a certificate may be silent before another one takes over, from 10s to 24h
    #[arg(long, value_name = "TIME", env = "TRICOT_LOCK_TTL", default_value = "60s", value_parser = values::ttl)]
    #[arg(help_heading = "Certificates")]
    lock_ttl: Duration,

    /// Name in Consul of the node that this proxy runs on; instances on the same node and site come first [default: the
    /// agent is asked]
    #[arg(long, value_name = "NAME", env = "TRICOT_NODE_NAME", value_parser = values::name, help_heading = "Consul")]
    node_name: Option<String>,

    /// Where Consul's agent is: http://HOST:PORT, https://HOST:PORT or unix:///PATH; the port is 8500 for http and 8501 for
    /// https unless given [default: CONSUL_HTTP_ADDR, or http://127.0.0.1:8500]
    #[arg(long, value_name = "URL", env = "TRICOT_CONSUL_HOST", value_parser = values::consul)]
    #[arg(alias = "consul-addr", help_heading = "Consul")]
    consul_host: Option<ConsulAddress>,

    /// PEM file with the roots to trust at Consul [default: those of the system]
    #[arg(long, value_name = "FILE", env = "TRICOT_CONSUL_CA_CERT", help_heading = "Consul")]
    consul_ca_cert: Option<PathBuf>,

    /// PEM file with the certificate to show to Consul; needs --consul-client-key
    #[arg(long, value_name = "FILE", env = "TRICOT_CONSUL_CLIENT_CERT", help_heading = "Consul")]
    consul_client_cert: Option<PathBuf>,

    /// PEM file with the key of that certificate: PKCS#8, SEC1 or PKCS#1
    #[arg(long, value_name = "FILE", env = "TRICOT_CONSUL_CLIENT_KEY", help_heading = "Consul")]
    consul_client_key: Option<PathBuf>,

    /// Talk to whatever answers as Consul, without looking at its certificate
    #[arg(long, value_name = "BOOL", env = "TRICOT_CONSUL_TLS_SKIP_VERIFY", default_value = "false")]
    #[arg(num_args = 0..=1, default_missing_value = "true", value_parser = values::switch, help_heading = "Consul")]
    #[arg(action = clap::ArgAction::Set)]
    consul_tls_skip_verify: bool,

    /// What stands before each key in Consul's key-value store
    #[arg(long, value_name = "PREFIX", env = "TRICOT_CONSUL_KV_PREFIX", default_value = "tricot/")]
    #[arg(help_heading = "Consul")]
    consul_kv_prefix: String,

    /// Token for Consul. Set the variable or use a file instead: others can see the arguments of a process [default:
    /// CONSUL_HTTP_TOKEN]
    #[arg(long, value_name = "TOKEN", env = "TRICOT_CONSUL_TOKEN", hide_env_values = true, value_parser = hidden)]
    #[arg(help_heading = "Consul")]
    consul_token: Option<Secret<String>>,

    /// File with the token, read again with every HUP [default: CONSUL_HTTP_TOKEN_FILE]
    #[arg(long, value_name = "FILE", env = "TRICOT_CONSUL_TOKEN_FILE", help_heading = "Consul")]
    consul_token_file: Option<PathBuf>,

    /// Datacenter whose services are served [default: the agent's own, where certificates always are]
    #[arg(long, value_name = "NAME", env = "TRICOT_CONSUL_DATACENTER", value_parser = values::name)]
    #[arg(help_heading = "Consul")]
    consul_datacenter: Option<String>,

    /// Where to listen for HTTP, which answers challenges and redirects to HTTPS; commas between several. `[::]:80` takes
    /// IPv4, too
    #[arg(long, value_name = "IP:PORT", env = "TRICOT_HTTP_BIND_ADDR", default_value = "0.0.0.0:80")]
    #[arg(value_delimiter = ',', value_parser = listen, help_heading = "Listening")]
    http_bind_addr: Vec<SocketAddr>,

    /// Where to listen for HTTPS; commas between several
    #[arg(long, value_name = "IP:PORT", env = "TRICOT_HTTPS_BIND_ADDR", default_value = "0.0.0.0:443")]
    #[arg(value_delimiter = ',', value_parser = listen, help_heading = "Listening")]
    https_bind_addr: Vec<SocketAddr>,

    /// Where to serve admin requests such as /metrics, /ready, /rules and /state.json [default: nowhere]
    #[arg(long, value_name = "IP:PORT", env = "TRICOT_METRICS_BIND_ADDR", value_parser = listen)]
    #[arg(help_heading = "Listening", visible_alias = "admin")]
    metrics_bind_addr: Option<SocketAddr>,

    /// Port of HTTPS as clients see it, for redirects [default: the one of the first --https-bind-addr]
    #[arg(long, value_name = "PORT", env = "TRICOT_HTTPS_PUBLIC_PORT", help_heading = "Listening")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..))]
    https_public_port: Option<u16>,

    /// Networks of proxies before this one, whose X-Forwarded headers are believed; commas between [default: none]
    #[arg(long, value_name = "LIST", env = "TRICOT_TRUSTED_PROXIES", value_delimiter = ',')]
    #[arg(value_parser = values::network, help_heading = "Listening")]
    trusted_proxies: Vec<IpNet>,

    /// Networks whose connections must begin with a PROXY protocol header, version 1 or 2; commas between [default: none]
    #[arg(long, value_name = "LIST", env = "TRICOT_PROXY_PROTOCOL", value_delimiter = ',')]
    #[arg(value_parser = values::network, help_heading = "Listening")]
    proxy_protocol: Vec<IpNet>,

    /// Compress answers for clients that can read them so: zstd, brotli or gzip
    #[arg(long, value_name = "BOOL", env = "TRICOT_ENABLE_COMPRESSION", default_value = "false")]
    #[arg(num_args = 0..=1, default_missing_value = "true", value_parser = values::switch, help_heading = "Proxying")]
    #[arg(action = clap::ArgAction::Set)]
    enable_compression: bool,

    /// Types of content that are compressed; commas between
    #[arg(
        long,
        value_name = "LIST",
        env = "TRICOT_COMPRESS_MIME_TYPES",
        default_value_t,
        help_heading = "Proxying"
    )]
    compress_mime_types: MediaTypes,

    /// States of checks with which instances get requests: passing, or passing,warning
    #[arg(long, value_name = "LIST", env = "TRICOT_HEALTH", default_value = "passing,warning")]
    #[arg(value_parser = values::health, help_heading = "Proxying")]
    health: Health,

    /// How requests are spread over instances that are equally near
    #[arg(
        long,
        value_name = "HOW",
        env = "TRICOT_LB",
        value_enum,
        default_value_t,
        help_heading = "Proxying"
    )]
    lb: Balancing,

    /// What it means that a path begins with the one of a tag
    #[arg(long, value_name = "HOW", env = "TRICOT_PATH_MATCH", value_enum, default_value_t)]
    #[arg(help_heading = "Proxying")]
    path_match: PathMatch,

    /// Headers about the client that are sent beside X-Forwarded-For, -Proto, -Host and X-Real-IP
    #[arg(long, value_name = "WHICH", env = "TRICOT_FORWARDED", value_enum, default_value_t)]
    #[arg(help_heading = "Proxying")]
    forwarded: Forwarded,

    /// How long connecting to an instance may take
    #[arg(long, value_name = "TIME", env = "TRICOT_CONNECT_TIMEOUT", default_value = "5s")]
    #[arg(value_parser = values::some_time, help_heading = "Proxying")]
    connect_timeout: Duration,

    /// How long an instance may take to begin its answer; 0: as long as it likes
    #[arg(long, value_name = "TIME", env = "TRICOT_RESPONSE_TIMEOUT", default_value = "0")]
    #[arg(value_parser = values::time_or_off, help_heading = "Proxying")]
    response_timeout: Duration,

    /// How long a connection to an instance is kept for the next request
    #[arg(long, value_name = "TIME", env = "TRICOT_IDLE_TIMEOUT", default_value = "90s")]
    #[arg(value_parser = values::some_time, help_heading = "Proxying")]
    idle_timeout: Duration,

    /// How long requests may go on after a signal
    #[arg(long, value_name = "TIME", env = "TRICOT_SHUTDOWN_GRACE", default_value = "30s")]
    #[arg(value_parser = grace, help_heading = "Running", visible_alias = "drain")]
    shutdown_grace: Duration,

    /// Threads that serve connections [default: one per processor]
    #[arg(long, value_name = "N", env = "TRICOT_WORKERS", value_parser = clap::value_parser!(u16).range(1..=1024))]
    #[arg(help_heading = "Running")]
    workers: Option<u16>,

    /// What becomes of the line about each request
    #[arg(long, value_name = "HOW", env = "TRICOT_ACCESS_LOG", value_enum, default_value_t)]
    #[arg(help_heading = "Running")]
    access_log: AccessLog,

    /// File to which the rules are written as JSON when they change [default: none]
    #[arg(long, value_name = "FILE", env = "TRICOT_CONFIG_DUMP", help_heading = "Running")]
    config_dump: Option<PathBuf>,

    /// How log lines look
    #[arg(long, value_name = "HOW", env = "TRICOT_LOG_FORMAT", value_enum, default_value_t)]
    #[arg(help_heading = "Running")]
    log_format: LogFormat,

    /// Check the arguments, the variables and the files that they name, then exit: 0 if all is well, 2 if not. Asks nobody
    /// and opens no socket
    #[arg(long, help_heading = "Running")]
    check: bool,

    /// Print the arguments and variables that are in force, defaults included, as YAML, then exit
    #[arg(long, conflicts_with = "check", help_heading = "Running")]
    print_config: bool,

    /// Ask the program that runs with the same arguments and variables whether it wants traffic, then exit: 0 if it does, 1 if not. For
    /// health checks in containers
    #[arg(long, conflicts_with_all = ["check", "print_config"], help_heading = "Running")]
    probe_ready: bool,
}

/// How requests are spread over instances that are equally near.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
#[non_exhaustive]
pub enum Balancing {
    /// Two are drawn by weight, the one with less to do is taken
    #[default]
    P2c,
    /// Two are drawn by weight, the one expected to answer sooner is taken
    Ewma,
    /// In turn, by weight
    Rr,
}

/// What it means that a path begins with another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
#[non_exhaustive]
pub enum PathMatch {
    /// Its bytes do: /apix begins with /api
    #[default]
    Prefix,
    /// Its segments do: /api/x begins with /api, /apix does not
    Segment,
}

/// Which headers about the client are sent beside the usual ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
#[non_exhaustive]
pub enum Forwarded {
    /// None
    #[default]
    Off,
    /// Forwarded (RFC 7239) and X-Forwarded-Port
    Rfc7239,
}

/// What becomes of the line about each request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
#[non_exhaustive]
pub enum AccessLog {
    /// It is a line of the log, at level info
    #[default]
    Stdout,
    /// It is a line of JSON on stdout, whatever the log's level
    Json,
    /// It is a line of text on stdout, whatever the log's level
    Text,
    /// Nothing
    Off,
}

/// An address for mail, which may be left empty.
#[derive(Clone, Debug)]
struct Email(Option<Box<str>>);

const AFTER_HELP: &str = "\
Values:
  Lengths of time have a unit: 500ms, 5s, 2m, 1h. 0 needs none, and --shutdown-grace may be
  seconds without one.
  A variable that is set but empty is as good as unset where there is no default, except for
  TRICOT_LETSENCRYPT_EMAIL.
  A variable that begins with TRICOT_ and is none of these is warned of, and refused by --check.

Signals:
  TERM, INT, QUIT
             stop accepting, let requests end within --shutdown-grace, exit 0;
             a second one exits at once with 1
  HUP        read the file with the token for Consul again; certificates and keys for Consul are
             followed without it
  USR1       try orders for certificates that have failed again at once

Environment:
  RUST_LOG   what to log to stdout, such as tricot=debug or trace [default: tricot=info]
  NO_COLOR   if set, log lines have no colour; CLICOLOR_FORCE gives them some without a terminal
  CONSUL_HTTP_ADDR, CONSUL_HTTP_SSL
             as for consul itself, unless --consul-host is given
  CONSUL_HTTP_TOKEN, CONSUL_HTTP_TOKEN_FILE
             as for consul itself, unless a token is given with a variable or an argument of tricot

Exit status:
  0 ended by a signal, 1 failed, 2 misused

Examples:
  tricot --letsencrypt-email admin@example.com
  TRICOT_LETSENCRYPT_EMAIL=admin@example.com TRICOT_ACME_DIRECTORY=staging \\
    tricot --http-bind-addr '[::]:80'";

fn email(text: &str) -> Result<Email, String> {
    values::email(text).map(Email)
}

/// Anything. What is wrong with a secret is said later, without showing it.
fn hidden(text: &str) -> Result<Secret<String>, std::convert::Infallible> {
    Ok(Secret::new(text.to_owned()))
}

/// Takes away the variables that are empty and stand for an option without default.
///
/// Orchestrators set variables to nothing where a template has nothing to say.
fn without_empty(command: Command, is_empty: impl Fn(&OsStr) -> bool) -> Command {
    command.mut_args(|arg| {
        let has_default = !arg.get_default_values().is_empty() || arg.get_id() == "letsencrypt_email";
        if !has_default && arg.get_env().is_some_and(&is_empty) { arg.env(None::<&'static str>) } else { arg }
    })
}

/// Adds to an error about a value the name of the variable that sets it, too.
fn with_variable(mut error: clap::Error, command: &Command) -> clap::Error {
    let Some(ContextValue::String(shown)) = error.get(ContextKind::InvalidArg) else {
        return error;
    };
    let long = shown.trim_start_matches('-').split([' ', '=', '[', '<']).next().unwrap_or_default();
    let arg = command.get_arguments().find(|arg| arg.get_long() == Some(long));
    if let Some(variable) = arg.and_then(|arg| arg.get_env()) {
        let tip = format!("this is also what the variable {} sets", variable.to_string_lossy());
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
    }
    error
}
