//! Settings of the kernel.

use std::fmt;

/// A setting of the kernel that is off (0) or on (1) in each network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Sysctl(&'static str);

impl Sysctl {
    /// What [`Reply::Fwmark`](super::Reply::Fwmark) needs on.
    pub const FWMARK: [Self; 3] = [
        Self("net.ipv4.tcp_fwmark_accept"),
        Self("net.ipv4.fwmark_reflect"),
        Self("net.ipv6.fwmark_reflect"),
    ];

    /// Its name, with dots.
    pub const fn name(self) -> &'static str {
        self.0
    }

    /// The file that holds it.
    pub fn path(self) -> String {
        format!("/proc/sys/{}", self.0.replace('.', "/"))
    }
}

impl fmt::Display for Sysctl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// How a comment among the rules begins that remembers settings.
const RECORD: &str = "switched on: ";

/// The comment that remembers settings.
pub(super) fn record(sysctls: &[Sysctl]) -> Option<String> {
    let names: Vec<_> = sysctls.iter().map(|sysctl| sysctl.name()).collect();
    (!names.is_empty()).then(|| format!("{RECORD}{}", names.join(" ")))
}

/// The settings that rules remember, from what [`iptables-save` or `nft`](super::Listing) shows of them.
pub fn recorded(listing: &str) -> Vec<Sysctl> {
    let comments = listing.lines().filter_map(|line| line.split_once(RECORD));
    let names: Vec<_> =
        comments.filter_map(|(_, rest)| rest.split('"').next()).flat_map(str::split_whitespace).collect();
    Sysctl::FWMARK.into_iter().filter(|sysctl| names.contains(&sysctl.name())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_recorded_is_found_again() {
        let some = &Sysctl::FWMARK[1..];
        let line = format!("-A MESHLIB_OUTPUT -m comment --comment \"{}\" -j CT", record(some).unwrap());

        assert_eq!(recorded(&line), some);
        assert_eq!(recorded("-A MESHLIB_OUTPUT -j CT"), []);
        assert_eq!(record(&[]), None);
    }
}
