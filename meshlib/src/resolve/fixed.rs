//! A list that is known beforehand.

use std::net::SocketAddr;
use std::sync::Arc;

use super::Resolution;
use super::Resolver;
use super::Update;
use crate::endpoint::Endpoint;

/// Resolves every name to the same endpoints.
///
/// # Examples
///
/// ```
/// use meshlib::{Endpoint, Static, Weight};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let even = Static::new(["10.0.0.1:443".parse()?, "10.0.0.2:443".parse()?]);
/// let canary = Static::endpoints([
///     Endpoint::new("10.0.0.1:443".parse()?),
///     Endpoint::new("10.0.0.2:443".parse()?).with_weight(Weight::new(0.1)?),
/// ]);
/// # let _ = (even, canary);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Static {
    endpoints: Arc<[Endpoint]>,
}

impl Static {
    /// Addresses of equal weight.
    pub fn new(addrs: impl IntoIterator<Item = SocketAddr>) -> Self {
        Self::endpoints(addrs.into_iter().map(Endpoint::new))
    }

    /// Endpoints with weights and metadata.
    pub fn endpoints(endpoints: impl IntoIterator<Item = Endpoint>) -> Self {
        Self { endpoints: endpoints.into_iter().collect() }
    }
}

impl<T> Resolver<T> for Static {
    fn resolve(&self, _: T) -> Resolution {
        Resolution::fixed(Update::Endpoints(Arc::clone(&self.endpoints)))
    }
}
