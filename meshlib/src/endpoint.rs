//! What discovery finds: addresses with a weight and facts about them.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

/// One address that can serve a name.
///
/// Two endpoints of one set are the same if their [`EndpointKey`] is the same; everything else may change from one
/// update to the next without losing what a balancer has learnt about them.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Endpoint {
    /// Where to connect to.
    pub addr: SocketAddr,
    /// Tells registrations apart that share an address. Default: none.
    pub instance: Option<Arc<str>>,
    /// Share of the traffic, relative to the other endpoints of the set. Default: [`Weight::ONE`].
    pub weight: Weight,
    /// What else discovery knows. Default: nothing.
    pub metadata: Arc<Metadata>,
}

impl Endpoint {
    /// An endpoint of weight one without metadata.
    pub fn new(addr: SocketAddr) -> Self {
        Self { addr, instance: None, weight: Weight::ONE, metadata: Arc::default() }
    }

    /// Sets the share of the traffic.
    #[must_use]
    pub fn with_weight(mut self, weight: Weight) -> Self {
        self.weight = weight;
        self
    }

    /// Names the registration, where several share one address.
    #[must_use]
    pub fn with_instance(mut self, instance: impl Into<Arc<str>>) -> Self {
        self.instance = Some(instance.into());
        self
    }

    /// Adds what discovery knows about the endpoint.
    #[must_use]
    pub fn with_metadata(mut self, metadata: impl Into<Arc<Metadata>>) -> Self {
        self.metadata = metadata.into();
        self
    }

    /// The identity of this endpoint inside a set.
    pub fn key(&self) -> EndpointKey {
        EndpointKey { addr: self.addr, instance: self.instance.clone() }
    }
}

impl From<SocketAddr> for Endpoint {
    fn from(addr: SocketAddr) -> Self {
        Self::new(addr)
    }
}

/// Identity of an endpoint inside a set of endpoints.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub struct EndpointKey {
    /// The address.
    pub addr: SocketAddr,
    /// The registration at that address, where discovery tells several apart.
    pub instance: Option<Arc<str>>,
}

/// Relative share of traffic: a finite number from zero up.
///
/// An endpoint of weight zero is used only when no endpoint with a weight can be.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Weight(f64);

impl Weight {
    /// The weight of an endpoint that has none of its own.
    pub const ONE: Self = Self(1.0);
    /// The weight of an endpoint that is used only as a last resort.
    pub const ZERO: Self = Self(0.0);

    /// Accepts any finite value from zero up.
    ///
    /// # Errors
    ///
    /// [`InvalidWeight`] for negative numbers, infinities and NaN.
    pub fn new(value: f64) -> Result<Self, InvalidWeight> {
        if value.is_finite() && value >= 0.0 { Ok(Self(value)) } else { Err(InvalidWeight(value)) }
    }

    /// The number.
    pub const fn get(self) -> f64 {
        self.0
    }

    /// The weight of two registrations of one address: the sum, as far as numbers reach.
    pub(crate) fn saturating_add(self, other: Self) -> Self {
        Self((self.0 + other.0).min(f64::MAX))
    }
}

impl Default for Weight {
    fn default() -> Self {
        Self::ONE
    }
}

/// A number that cannot be a [`Weight`].
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error("{0} is not a weight: it must be finite and not negative")]
pub struct InvalidWeight(f64);

/// Facts about an endpoint that are not needed to reach it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metadata {
    /// The bound name this endpoint was found under.
    pub name: Option<Arc<str>>,
    /// The name its certificate must carry.
    pub identity: Option<Arc<str>>,
    /// The machine it runs on.
    pub node: Option<Arc<str>>,
    /// The zone, site or data centre it runs in.
    pub zone: Option<Arc<str>>,
    /// The protocol it speaks. Default: unknown.
    pub protocol: Option<Protocol>,
    /// Whatever else the source says, by its own keys.
    pub labels: BTreeMap<String, String>,
    /// What whoever made the endpoint wants to find at it again. Default: nothing.
    pub attachment: Option<Attachment>,
}

impl Metadata {
    /// Metadata that says nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the bound name.
    #[must_use]
    pub fn with_name(mut self, name: impl Into<Arc<str>>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Sets the name that the endpoint's certificate must carry.
    #[must_use]
    pub fn with_identity(mut self, identity: impl Into<Arc<str>>) -> Self {
        self.identity = Some(identity.into());
        self
    }

    /// Sets the machine.
    #[must_use]
    pub fn with_node(mut self, node: impl Into<Arc<str>>) -> Self {
        self.node = Some(node.into());
        self
    }

    /// Sets the zone, site or data centre.
    #[must_use]
    pub fn with_zone(mut self, zone: impl Into<Arc<str>>) -> Self {
        self.zone = Some(zone.into());
        self
    }

    /// Sets the protocol.
    #[must_use]
    pub fn with_protocol(mut self, protocol: Protocol) -> Self {
        self.protocol = Some(protocol);
        self
    }

    /// Adds one of the source's own facts.
    #[must_use]
    pub fn with_label(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(key.into(), value.into());
        self
    }

    /// Adds a value of one's own.
    #[must_use]
    pub fn with_attachment<T: Any + Send + Sync>(mut self, value: Arc<T>) -> Self {
        self.attachment = Some(Attachment::new(value));
        self
    }

    /// The value of one's own, if there is one of this type.
    pub fn attached<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        self.attachment.as_ref()?.get()
    }
}

/// A value of any type that travels with an endpoint. Two are equal if they are the same value.
#[derive(Clone)]
pub struct Attachment(Arc<dyn Any + Send + Sync>);

impl Attachment {
    /// Attaches a value.
    pub fn new<T: Any + Send + Sync>(value: Arc<T>) -> Self {
        Self(value)
    }

    /// The value, if it is of this type.
    pub fn get<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        Arc::clone(&self.0).downcast().ok()
    }
}

impl PartialEq for Attachment {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Attachment {}

impl fmt::Debug for Attachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Attachment")
    }
}

/// What an endpoint speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
    /// Bytes that nobody looks into.
    Opaque,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_finite_and_not_negative() {
        assert_eq!(Weight::new(0.5).unwrap().get(), 0.5);
        for bad in [-0.1, f64::NAN, f64::INFINITY] {
            assert!(Weight::new(bad).is_err());
        }
    }

    #[test]
    fn adding_weights_stays_finite() {
        let huge = Weight::new(f64::MAX).unwrap();

        assert!(huge.saturating_add(huge).get().is_finite());
    }

    #[test]
    fn an_attachment_is_found_again_and_equal_to_itself_only() {
        let value = Arc::new(String::from("mine"));
        let attached = |value: &Arc<String>| Metadata::new().with_attachment(Arc::clone(value));

        let metadata = attached(&value);

        assert!(Arc::ptr_eq(&metadata.attached::<String>().unwrap(), &value));
        assert!(metadata.attached::<u8>().is_none());
        assert_eq!(metadata, attached(&value));
        assert_ne!(metadata, attached(&Arc::new(String::from("mine"))));
    }
}
