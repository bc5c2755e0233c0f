//! `linkerd-tcp`: a TCP and TLS load balancer fed by namerd.
//!
//! [`Prepared`] holds a configuration whose files were loaded; [`Bound`] has every socket it needs; running it serves
//! until the drain has finished. Each step fails without having begun the next, so a bad configuration never starts half
//! a server.

use std::sync::Arc;

use crate::load::ConfigError;
use crate::load::Problem;

mod admin;
mod bound;
pub mod config;
mod metrics;
mod names;
mod program;
mod tls;
mod wire;

pub use bound::Bound;
pub use program::Args;
pub use program::main;

use config::Config;
use config::model::ResolverConfig;
use config::model::Server;

/// A configuration with everything that its files hold.
pub struct Prepared {
    config: Config,
    routers: Vec<Router>,
}

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
        let shared = Arc::new(shared);
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
        let mut problems = problems.into_iter();
        match problems.next() {
            Some(first) => Err(ConfigError::new(first, problems)),
            None => Ok(Self { config, routers }),
        }
    }

    /// One line about what the configuration makes.
    pub fn summary(&self) -> String {
        let servers: usize = self.config.routers.iter().map(|router| router.servers.len()).sum();
        let kind = match self.config.generation {
            config::Generation::Proxies => plural(self.config.routers.len(), "proxy", "proxies"),
            _ => plural(self.config.routers.len(), "router", "routers"),
        };
        format!("{kind}, {}", plural(servers, "server", "servers"))
    }

    fn servers(&self) -> impl Iterator<Item = (usize, usize, &Server)> {
        self.config
            .routers
            .iter()
            .enumerate()
            .flat_map(|(r, router)| router.servers.iter().enumerate().map(move |(s, server)| (r, s, server)))
    }
}

impl std::fmt::Debug for Prepared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Prepared").field("config", &self.config).finish_non_exhaustive()
    }
}

fn plural(n: usize, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}

/// A problem of no place in particular.
fn whole(config: &Config, text: String) -> ConfigError {
    let place =
        config.routers.iter().flat_map(|router| &router.servers).map(|server| server.place.clone()).next();
    let place = place.or_else(|| config.admin.place.clone()).unwrap_or_else(crate::load::Place::nowhere);
    ConfigError::new(Problem::new(place, text), [])
}

/// The namespace that a router's names are looked up in, for labels.
fn namespace(resolver: &ResolverConfig) -> Option<&str> {
    match resolver {
        ResolverConfig::Namerd(namerd) => Some(&namerd.namespace),
        _ => None,
    }
}
