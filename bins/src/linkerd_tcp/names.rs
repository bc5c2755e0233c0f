//! Where a router's endpoints come from.

use std::collections::BTreeMap;
use std::fs::File;
use std::hash::BuildHasher;
use std::hash::BuildHasherDefault;
use std::hash::DefaultHasher;
use std::io;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use meshlib::Endpoint;
use meshlib::Resolution;
use meshlib::Resolver;
use meshlib::Update;
use meshlib::Weight;
use meshlib::observe::Observer;
use meshlib::resolve::Keep;
use meshlib_namerd::Mode;
use meshlib_namerd::Namerd;
use meshlib_namerd::Watch;

use super::config::model;
use super::config::model::ResolverConfig;
use super::tls;
use crate::kit::load;
use crate::kit::load::ConfigError;
use crate::kit::load::Problem;

/// A resolver that is made but for whom it reports to.
pub(super) enum Names {
    /// With a digest of the files that TLS towards it is made of.
    Namerd(Namerd, u64),
    Static(Arc<BTreeMap<String, Update>>),
}

impl Names {
    pub(super) fn new(config: &ResolverConfig, shared: &tls::Shared) -> Result<Self, ConfigError> {
        match config {
            ResolverConfig::Namerd(config) => {
                // First, since it refuses what is no file of keys and certificates.
                let made = namerd(config, shared)?;
                let files = config.tls.iter().flat_map(tls::files_of).map(|file| content(&file.path).ok());
                let digest =
                    BuildHasherDefault::<DefaultHasher>::default().hash_one(files.collect::<Vec<_>>());
                Ok(Self::Namerd(made, digest))
            }
            ResolverConfig::Static(names) => {
                let names = names.iter().map(|(name, endpoints)| (name.clone(), update(endpoints)));
                Ok(Self::Static(Arc::new(names.collect())))
            }
        }
    }

    /// Another one means that files have changed, and with them what was made of them.
    pub(super) fn digest(&self) -> u64 {
        match self {
            Self::Namerd(_, digest) => *digest,
            Self::Static(_) => 0,
        }
    }

    /// The resolver, reporting to an observer. What it knows of a name is known at once to others who ask for it.
    pub(super) fn observed(&self, observer: Arc<dyn Observer>) -> Arc<dyn Resolver<String>> {
        match self {
            Self::Namerd(namerd, _) => Arc::new(Keep::new(namerd.clone().observe(observer))),
            Self::Static(names) => {
                let names = Arc::clone(names);
                Arc::new(move |name: String| {
                    let update = names.get(&name).cloned().unwrap_or(Update::NotFound);
                    Resolution::fixed(update)
                })
            }
        }
    }
}

/// As much of a file as is compared.
fn content(path: &Path) -> io::Result<Vec<u8>> {
    // A pipe would be waited for, a device read without an end.
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut content = Vec::new();
    File::open(path)?.take(load::MAX_BYTES).read_to_end(&mut content)?;
    Ok(content)
}

fn namerd(config: &model::Namerd, shared: &tls::Shared) -> Result<Namerd, ConfigError> {
    let refused = |text: String| ConfigError::new(Problem::new(config.place.clone(), text), []);
    let mut namerd = Namerd::new(&config.base_url)
        .map_err(|error| refused(error.to_string()))?
        .namespace(config.namespace.as_str())
        .period(config.period)
        .watch(match config.watch {
            model::Watch::Always => Watch::Always,
            model::Watch::Never => Watch::Never,
            _ => Watch::Auto,
        })
        .mode(match config.mode {
            model::ResolveMode::Bind => Mode::Bind,
            _ => Mode::Resolve,
        })
        .request_timeout(config.patience());
    let uri: Option<http::Uri> = config.base_url.parse().ok();
    if let Some(uri) = uri.filter(|uri| uri.scheme() == Some(&http::uri::Scheme::HTTPS)) {
        let host = uri.host().unwrap_or_default();
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        namerd = namerd.tls(shared.resolver(config, host)?);
    }
    Ok(namerd)
}

fn update(endpoints: &[model::StaticEndpoint]) -> Update {
    Update::endpoints(endpoints.iter().map(|endpoint| {
        // Checked when the file was parsed.
        let weight = Weight::new(endpoint.weight).unwrap_or_default();
        Endpoint::new(endpoint.addr).with_weight(weight)
    }))
}
