//! An instance of a service, as Consul knows it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::Arc;

use meshlib::Endpoint;
use meshlib::Metadata;
use meshlib::Weight;

use crate::api::Check;
use crate::api::HealthEntry;

/// An instance of a service, as Consul knows it.
///
/// Told apart from others by datacenter, node, id, address and port: ids are unique on their node only.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Instance {
    /// The datacenter of its node.
    pub datacenter: Arc<str>,
    /// Its node.
    pub node: Arc<str>,
    /// Where the node stands: the value of [`Config::site_key`](crate::Config::site_key) in its metadata, else the zone
    /// that newer servers know.
    pub site: Option<Arc<str>>,
    /// The metadata of its node.
    pub node_meta: Arc<BTreeMap<String, String>>,
    /// The service.
    pub service: Arc<str>,
    /// Its id, unique on the node.
    pub id: Arc<str>,
    /// Its address as registered, or else that of its node: an IP address or a host name.
    pub address: Arc<str>,
    /// Its port, never 0.
    pub port: u16,
    /// Its tags.
    pub tags: Arc<[Arc<str>]>,
    /// Its metadata.
    pub meta: Arc<BTreeMap<String, String>>,
    /// Its weights.
    pub weights: Weights,
    /// The worst of all its checks and those of its node.
    pub status: Status,
}

/// The instances of a service, by node and id. A clone is the same list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Instances(Arc<[Arc<Instance>]>);

impl Deref for Instances {
    type Target = [Arc<Instance>];

    fn deref(&self) -> &[Arc<Instance>] {
        &self.0
    }
}

impl FromIterator<Arc<Instance>> for Instances {
    fn from_iter<I: IntoIterator<Item = Arc<Instance>>>(instances: I) -> Self {
        Self(instances.into_iter().collect())
    }
}

/// How much traffic an instance is meant to get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Weights {
    /// While it is passing. Default 1.
    pub passing: u32,
    /// While a check warns. Default 1; 0 means that it must not be used then.
    pub warning: u32,
}

impl Default for Weights {
    fn default() -> Self {
        Self { passing: 1, warning: 1 }
    }
}

/// How an instance is, the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Status {
    /// It or its node is under maintenance.
    Maintenance,
    /// A check is critical, or in a state that is not known.
    Critical,
    /// A check warns.
    Warning,
    /// All checks pass, or there are none.
    Passing,
}

impl Status {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Maintenance => "maintenance",
            Self::Critical => "critical",
            Self::Warning => "warning",
            Self::Passing => "passing",
        }
    }

    fn of(check: &Check) -> Self {
        if check.check_id == "_node_maintenance" || check.check_id.starts_with("_service_maintenance:") {
            return Self::Maintenance;
        }
        match check.status.as_str() {
            "passing" => Self::Passing,
            "warning" => Self::Warning,
            _ => Self::Critical,
        }
    }
}

impl Instance {
    /// Makes sense of an entry, or says why it cannot be used.
    pub(crate) fn new(entry: HealthEntry, site_key: &str, foreign: bool) -> Result<Self, Skipped> {
        let HealthEntry { node, service, checks } = entry;
        let wan = if foreign { node.tagged_addresses.get("wan").map(String::as_str) } else { None };
        let address = [service.address.as_str(), wan.unwrap_or_default(), node.address.as_str()];
        let address = address.into_iter().map(str::trim).find(|address| !address.is_empty());
        let skipped = |reason| Skipped {
            node: Arc::clone(&node.node),
            service: Arc::clone(&service.service),
            id: Arc::clone(&service.id),
            reason,
        };
        let Some(address) = address else { return Err(skipped("it has no address")) };
        let port = u16::try_from(service.port).ok().filter(|port| *port > 0);
        let Some(port) = port else { return Err(skipped("it has no port between 1 and 65535")) };
        let site = node.site(site_key);
        let weights = service.weights.map_or_else(Weights::default, |weights| Weights {
            passing: clamped(weights.passing),
            warning: clamped(weights.warning),
        });
        Ok(Self {
            datacenter: node.datacenter,
            site,
            node_meta: Arc::new(node.meta),
            address: address.into(),
            node: node.node,
            service: service.service,
            id: service.id,
            port,
            tags: service.tags.into(),
            meta: Arc::new(service.meta),
            weights,
            status: checks.iter().map(Status::of).min().unwrap_or(Status::Passing),
        })
    }

    /// The share of traffic that its status leaves it: none that is critical or under maintenance, and none that warns
    /// and has no weight for that.
    pub fn weight(&self) -> Option<Weight> {
        let weight = match self.status {
            Status::Passing => self.weights.passing,
            Status::Warning if self.weights.warning > 0 => self.weights.warning,
            Status::Warning | Status::Critical | Status::Maintenance => return None,
        };
        Weight::new(f64::from(weight)).ok()
    }

    /// Its address, if it is registered with an IP address.
    pub fn addr(&self) -> Option<SocketAddr> {
        let bare = self.address.trim_start_matches('[').trim_end_matches(']');
        bare.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, self.port))
    }

    /// The endpoint at one of its addresses, which is [`addr`](Self::addr) or what its host name stands for. An instance
    /// that should get no traffic has weight zero.
    ///
    /// The metadata has the service as its name, the node, the site as its zone, and as labels: `datacenter`, `id`,
    /// `status`, `tags` (separated by commas), `meta.KEY` and `node_meta.KEY`.
    pub fn endpoint(&self, addr: SocketAddr) -> Endpoint {
        let mut metadata = Metadata::new()
            .with_name(Arc::clone(&self.service))
            .with_node(Arc::clone(&self.node))
            .with_label("datacenter", &*self.datacenter)
            .with_label("id", &*self.id)
            .with_label("status", self.status.as_str());
        if let Some(site) = &self.site {
            metadata = metadata.with_zone(Arc::clone(site));
        }
        if !self.tags.is_empty() {
            metadata = metadata.with_label("tags", self.tags.join(","));
        }
        for (key, value) in &*self.meta {
            metadata = metadata.with_label(format!("meta.{key}"), value);
        }
        for (key, value) in &*self.node_meta {
            metadata = metadata.with_label(format!("node_meta.{key}"), value);
        }
        Endpoint::new(addr)
            .with_instance(format!("{}/{}/{}", self.datacenter, self.node, self.id))
            .with_weight(self.weight().unwrap_or(Weight::ZERO))
            .with_metadata(metadata)
    }
}

/// A registration that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Skipped {
    pub(crate) node: Arc<str>,
    pub(crate) service: Arc<str>,
    pub(crate) id: Arc<str>,
    pub(crate) reason: &'static str,
}

fn clamped(weight: i64) -> u32 {
    u32::try_from(weight.max(0)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api;

    /// An answer of Consul 1.8.7.
    const WEB: &[u8] = include_bytes!("../tests/golden/health_service_web.json");

    fn instances(body: &[u8]) -> Vec<Result<Instance, Skipped>> {
        let (entries, _) = api::list::<HealthEntry>(body).unwrap();
        entries.into_iter().map(|entry| Instance::new(entry, "site", false)).collect()
    }

    fn one(service: &str, checks: &str) -> Result<Instance, Skipped> {
        let body = format!(
            r#"[{{"Node":{{"Node":"n","Address":"10.0.0.1","Datacenter":"dc1","TaggedAddresses":{{"wan":"192.0.2.1"}}}},
                "Service":{{"ID":"web-1","Service":"web",{service}}},"Checks":{checks}}}]"#
        );
        instances(body.as_bytes()).pop().unwrap()
    }

    #[test]
    fn an_answer_of_the_real_thing_is_understood() {
        let all = instances(WEB);

        let first = all[0].as_ref().unwrap();
        assert_eq!((&*first.node, &*first.id, first.site.as_deref()), ("n2", "web-1", Some("north")));
        assert_eq!(first.addr(), Some(([10, 1, 0, 2], 8080).into()));
        assert_eq!(first.status, Status::Warning);
        assert_eq!(first.weights, Weights { passing: 5, warning: 1 });
        assert_eq!(&*first.tags, ["tricot app.example.test".into(), "tricot-site-lb".into()]);
        assert_eq!(first.meta["v"], "2");
        let second = all[1].as_ref().unwrap();
        assert_eq!(second.addr(), Some(([10, 1, 0, 33], 8081).into()), "its own address, not the node's");
        assert_eq!((second.status, second.weight()), (Status::Passing, Some(Weight::ONE)));
    }

    #[test]
    fn an_endpoint_has_what_is_known() {
        let endpoint = {
            let first = instances(WEB).remove(0).unwrap();
            first.endpoint(first.addr().unwrap())
        };

        assert_eq!(endpoint.instance.as_deref(), Some("dc1/n2/web-1"));
        assert_eq!(endpoint.weight, Weight::ONE);
        assert_eq!(endpoint.metadata.zone.as_deref(), Some("north"));
        assert_eq!(endpoint.metadata.labels["tags"], "tricot app.example.test,tricot-site-lb");
        assert_eq!(endpoint.metadata.labels["meta.v"], "2");
    }

    #[test]
    fn the_worst_check_decides() {
        let status = |checks: &str| one(r#""Port":80"#, checks).unwrap().status;
        let check = |id: &str, status: &str| format!(r#"{{"CheckID":"{id}","Status":"{status}"}}"#);
        let both = |one: String, other: String| format!("[{one},{other}]");

        assert_eq!(status("null"), Status::Passing);
        assert_eq!(status(&both(check("a", "passing"), check("b", "warning"))), Status::Warning);
        assert_eq!(status(&both(check("a", "critical"), check("b", "warning"))), Status::Critical);
        assert_eq!(status(&both(check("a", "odd"), check("b", "passing"))), Status::Critical);
        assert_eq!(
            status(&both(check("_service_maintenance:web-1", "critical"), check("b", "critical"))),
            Status::Maintenance
        );
        assert_eq!(
            status(&both(check("_node_maintenance", "critical"), check("b", "passing"))),
            Status::Maintenance
        );
    }

    #[test]
    fn what_cannot_be_reached_is_skipped() {
        for bad in [r#""Port":70000"#, r#""Port":0"#, r#""Port":-1"#, r#""Port":null"#, r#""Tags":null"#] {
            assert!(one(bad, "[]").is_err(), "{bad}");
        }
        let host = one(r#""Port":80,"Address":"backend.example","Meta":null,"Weights":null"#, "[]").unwrap();
        assert_eq!(
            (host.addr(), &*host.address, host.weights),
            (None, "backend.example", Weights::default())
        );
    }

    #[test]
    fn a_warning_instance_without_a_weight_for_it_is_not_used() {
        let warning = r#"[{"CheckID":"a","Status":"warning"}]"#;

        assert!(one(r#""Port":80,"Weights":{"Passing":2,"Warning":0}"#, warning).unwrap().weight().is_none());
        let zero = one(r#""Port":80,"Weights":{"Passing":2,"Warning":0}"#, "[]").unwrap();
        assert_eq!(zero.weight(), Weight::new(2.0).ok());
    }

    #[test]
    fn broken_answers_break_nothing() {
        let whole = WEB.trim_ascii_end();
        for at in (0..whole.len()).step_by(3) {
            let cut = api::list::<HealthEntry>(&whole[..at]);
            assert!(cut.is_err(), "{at}");
            for byte in [b'"', b'0', 0xFF] {
                let mut odd = whole.to_vec();
                odd[at] = byte;
                if let Ok((entries, _)) = api::list::<HealthEntry>(&odd) {
                    for entry in entries {
                        let _ = Instance::new(entry, "site", false);
                    }
                }
            }
        }
    }

    #[test]
    fn from_elsewhere_the_address_for_elsewhere_is_taken() {
        let body = br#"[{"Node":{"Node":"n","Address":"10.0.0.1","TaggedAddresses":{"wan":"192.0.2.1"}},
            "Service":{"ID":"a","Service":"web","Port":80}}]"#;
        let (mut entries, _) = api::list::<HealthEntry>(body).unwrap();

        let far = Instance::new(entries.remove(0), "site", true).unwrap();

        assert_eq!(&*far.address, "192.0.2.1");
    }
}
