//! Why Consul cannot be relied on, in words that say what can be set to something else.

use meshlib_consul::ConsulError;
use meshlib_consul::Services;
use meshlib_consul::watch::Degraded;

use super::args::ConsulSettings;
use crate::kit::log;
use crate::kit::moment::rfc3339;
use crate::kit::state::unix_ms;

/// The address of Consul, and the variable that says it.
#[derive(Clone, Debug)]
pub(super) struct Source {
    address: String,
    variable: &'static str,
    ca: String,
}

impl Source {
    pub(super) fn new(settings: &ConsulSettings) -> Self {
        let ca = match &settings.ca_cert {
            Some(ca) => format!("TRICOT_CONSUL_CA_CERT is {}", ca.display()),
            None => "TRICOT_CONSUL_CA_CERT is not set: the authorities of the system are trusted".into(),
        };
        Self { address: settings.address.to_string(), variable: settings.address_from, ca }
    }

    /// One line.
    pub(super) fn reason(&self, degraded: &Degraded) -> String {
        let Self { address, variable, ca } = self;
        match degraded {
            Degraded::NoLeader => format!("its servers have no leader ({variable} is {address})"),
            Degraded::Lagging(by) => {
                format!("its server has not heard of the leader for {by:?} ({variable} is {address})")
            }
            Degraded::SuspiciousEmpty => {
                "it shows this token no service, not even itself, or none of their instances".into()
            }
            Degraded::Forgotten { services, until } => {
                let until = rfc3339(unix_ms(*until));
                format!(
                    "it has lost all services with tags for tricot (still missing: {services}); \
                     their rules stay until they are back, or until {until}"
                )
            }
            Degraded::Failing(error) => {
                let text = log::chain(error);
                match error {
                    ConsulError::Denied { .. } => format!("{text} (see the token and its policy)"),
                    _ if is_untrusted(&text) => format!("{text} ({variable} is {address}; {ca})"),
                    _ => format!("{text} ({variable} is {address})"),
                }
            }
            other => format!("{other:?}"),
        }
    }
}

/// How many services Consul has lost whose rules stay for a while.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Lost(usize);

impl Lost {
    /// Takes note of what Consul says. How many are given up with it: while some are lost, none goes before its time is over.
    pub(super) fn judge(&mut self, services: &Services) -> usize {
        let gone = || services.changed.iter().filter(|name| !services.all.contains_key(*name)).count();
        let given_up = if self.0 > 0 { gone() } else { 0 };
        self.0 = match &services.degraded {
            Some(Degraded::Forgotten { services, .. }) => *services,
            // While Consul fails again they stay.
            Some(_) if given_up == 0 => self.0,
            _ => 0,
        };
        given_up
    }

    pub(super) fn count(self) -> usize {
        self.0
    }
}

/// Whether an error says that a certificate is of nobody who is trusted. The second word is said where an authority has the
/// name of one who is.
pub(super) fn is_untrusted(error: &str) -> bool {
    ["UnknownIssuer", "BadSignature"].iter().any(|word| error.contains(word))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;
    use std::time::SystemTime;

    use super::super::args::Settings;
    use super::*;

    #[test]
    fn services_that_are_lost_are_counted_and_have_a_time() {
        let args = ["tricot", "--letsencrypt-email=a@b"];
        let source = Source::new(&Settings::parse_from(args).unwrap().consul);
        let until = SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_123);
        let lost = Degraded::Forgotten { services: 3, until };

        let reason = source.reason(&lost);

        assert!(reason.contains("all services with tags for tricot (still missing: 3)"), "{reason}");
        assert!(reason.ends_with("or until 2023-11-14T22:13:20Z"), "{reason}");
    }

    #[test]
    fn services_that_are_lost_are_given_up_or_back() {
        let forgotten = |services| Degraded::Forgotten { services, until: SystemTime::UNIX_EPOCH };
        let level = |degraded: Option<Degraded>, gone: &[&str]| {
            let mut level = Services::default();
            level.changed = gone.iter().map(|name| Arc::from(*name)).collect();
            level.degraded = degraded;
            level
        };
        let mut lost = Lost::default();
        let mut after = |level| (lost.judge(&level), lost.count());

        assert_eq!(after(level(None, &["gone"])), (0, 0), "on purpose");
        assert_eq!(after(level(Some(forgotten(3)), &[])), (0, 3));
        assert_eq!(after(level(Some(Degraded::NoLeader), &[])), (0, 3));
        assert_eq!(after(level(Some(forgotten(2)), &[])), (0, 2));
        assert_eq!(after(level(None, &[])), (0, 0));
        assert_eq!(after(level(Some(forgotten(2)), &[])), (0, 2));
        assert_eq!(after(level(None, &["a", "b"])), (2, 0));
        assert_eq!(after(level(Some(forgotten(1)), &[])), (0, 1));
        assert_eq!(after(level(Some(Degraded::NoLeader), &["a"])), (1, 0));
    }

    #[test]
    fn a_reason_is_a_line_that_names_address_and_variable() {
        let args =
            ["tricot", "--letsencrypt-email=a@b", "--consul-host=https://c:1", "--consul-ca-cert=/ca.pem"];
        let source = Source::new(&Settings::parse_from(args).unwrap().consul);
        let failing = |text: &str| {
            let source =
                Arc::new(meshlib::Error::from(Box::<dyn std::error::Error + Send + Sync>::from(text)));
            Degraded::Failing(ConsulError::Unreachable { authority: "c:1".into(), source })
        };
        for (degraded, parts) in [
            (Degraded::NoLeader, &["no leader", "TRICOT_CONSUL_HOST is https://c:1"][..]),
            (Degraded::Lagging(Duration::from_secs(9)), &["9s", "TRICOT_CONSUL_HOST is https://c:1"]),
            (failing("refused"), &["c:1 unreachable: ", "refused", "(TRICOT_CONSUL_HOST is https://c:1)"]),
            (failing("UnknownIssuer"), &["TRICOT_CONSUL_CA_CERT is /ca.pem"]),
            (
                Degraded::Failing(ConsulError::Denied { what: "x".into(), reason: "ACL not found".into() }),
                &["consul denies x: ACL not found", "token"],
            ),
        ] {
            let reason = source.reason(&degraded);
            assert!(parts.iter().all(|part| reason.contains(part)), "{reason}");
            assert!(!reason.contains('\n') && !reason.contains("Failing"), "{reason}");
        }
    }
}
