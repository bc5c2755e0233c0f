//! `linkerd-tcp`: a TCP and TLS load balancer fed by namerd.
//!
//! [`Prepared`] holds a configuration whose files were loaded; [`Bound`] has every socket it needs; running it serves
//! until the drain has finished. Each step fails without having begun the next, so a bad configuration never starts half
//! a server.

use std::sync::Arc;
use std::time::SystemTime;

use crate::kit::load::ConfigError;
use crate::kit::load::Problem;
use crate::kit::load::Warning;
use crate::kit::state::Certificate;
use crate::kit::state::unix_ms;

mod admin;
mod bound;
pub mod config;
mod metrics;
mod names;
mod own;
mod program;
mod reload;
mod running;
mod tls;
mod wire;

pub use bound::Bound;
pub use program::Args;
pub use program::main;
pub use reload::Ask;
pub use reload::Reloads;

use config::Config;
use config::model::ResolverConfig;
use config::model::plural;

/// A configuration with everything that its files hold.
pub struct Prepared {
    config: Config,
    routers: Vec<Router>,
    shared: Arc<tls::Shared>,
}

/// What makes sessions of clients outlive a configuration.
pub(crate) struct Sessions(Arc<tls::Shared>);

impl Sessions {
    /// Loads another configuration, as [`Prepared::new`] does.
    pub(crate) fn prepare(&self, config: Config) -> Result<Prepared, ConfigError> {
        Prepared::with(config, Arc::clone(&self.0))
    }
}

/// Certificates that end sooner are warned of: what renews them by itself has done so before.
const SOON_DAYS: u64 = 14;
const DAY_MS: u64 = 24 * 3600 * 1000;

/// What the files of one router hold.
struct Router {
    names: names::Names,
    servers: Vec<Option<Arc<tls::ServerTls>>>,
    /// Client TLS for each server's destination.
    clients: Vec<Option<Arc<tls::ClientTls>>>,
}

impl Prepared {
    /// Loads every file that the configuration names. Opens no socket.
    ///
    /// # Errors
    ///
    /// All files that are no good, each with the place that names it.
    pub fn new(config: Config) -> Result<Self, ConfigError> {
        let shared = tls::Shared::new().map_err(|error| whole(&config, error.to_string()))?;
        Self::with(config, Arc::new(shared))
    }

    /// For configurations that come after this one.
    pub(crate) fn sessions(&self) -> Sessions {
        Sessions(Arc::clone(&self.shared))
    }

    fn with(config: Config, shared: Arc<tls::Shared>) -> Result<Self, ConfigError> {
        let mut routers = Vec::new();
        let mut problems: Vec<Problem> = Vec::new();
        for router in &config.routers {
            let mut keep = |error: ConfigError| problems.extend(error.problems().iter().cloned());
            let names = names::Names::new(&router.resolver, &shared).map_err(&mut keep).ok();
            let mut servers = Vec::new();
            let mut clients = Vec::new();
            for server in &router.servers {
                let tls = server.tls.as_ref().map(|tls| shared.server(tls)).transpose();
                servers.push(tls.map_err(&mut keep).unwrap_or_default());
                let tls = router.client.for_destination(&server.dst).tls;
                let tls = tls.as_ref().map(|tls| shared.client(tls)).transpose();
                clients.push(tls.map_err(&mut keep).unwrap_or_default());
            }
            if let Some(names) = names {
                routers.push(Router { names, servers, clients });
            }
        }
        problems.dedup();
        ConfigError::unless_none(problems)?;
        Ok(Self { config, routers, shared })
    }

    /// Certificates for clients that have ended, or soon will.
    pub fn warnings(&self) -> Vec<Warning> {
        let now = unix_ms(SystemTime::now());
        let mut warnings = Vec::new();
        let all = self.config.routers.iter().zip(&self.routers);
        let all = all.flat_map(|(settings, router)| settings.servers.iter().zip(&router.servers));
        for (settings, tls) in all.filter_map(|(server, tls)| server.tls.as_ref().zip(tls.as_ref())) {
            for (identity, leaf) in tls::shown(settings, tls) {
                let Some(end) = Certificate::of(&leaf, "server", None).not_after_ms else { continue };
                let Some(file) = identity.certs.first() else { continue };
                let days = end.saturating_sub(now) / DAY_MS;
                let text = match end {
                    _ if end < now => "this certificate has ended: clients refuse it".to_owned(),
                    _ if days < SOON_DAYS => {
                        format!("this certificate ends in {}", plural(days, "day", "days"))
                    }
                    _ => continue,
                };
                warnings.push(Warning::new(file.place.clone(), text));
            }
        }
        warnings.dedup();
        warnings
    }

    /// One line about what the configuration makes.
    pub fn summary(&self) -> String {
        self.config.summary()
    }
}

impl std::fmt::Debug for Prepared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Prepared").field("config", &self.config).finish_non_exhaustive()
    }
}

/// A problem of no place in particular.
fn whole(config: &Config, text: String) -> ConfigError {
    Problem::new(config.place.clone(), text).into()
}

/// The namespace that a router's names are looked up in, for labels.
fn namespace(resolver: &ResolverConfig) -> Option<&str> {
    match resolver {
        ResolverConfig::Namerd(namerd) => Some(&namerd.namespace),
        _ => None,
    }
}
