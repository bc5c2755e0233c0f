//! Cables between namespaces.

use std::fs;
use std::thread;
use std::time::Duration;

use tokio::time::Instant;

use super::namespace::Namespace;

use crate::test_util::Unavailable;

/// How long the kernel may take to give an interface its link-local address. It takes milliseconds.
const SETTLED: Duration = Duration::from_secs(10);

/// Far above the indices that the kernel gives by itself.
const INDEX: usize = 1000;

/// How often it is looked at.
const LOOK: Duration = Duration::from_millis(2);

impl Namespace {
    /// Lays a cable to another namespace: a pair of interfaces, one in each, up and with addresses.
    ///
    /// An address is as `ip addr add` takes it, for example `10.77.0.2/24`. When this returns, the interfaces have
    /// link-local addresses, too, and all addresses can be used. Blocks the thread.
    ///
    /// # Errors
    ///
    /// [`Unavailable::Script`], for example if the kernel has no `veth`.
    ///
    /// # Panics
    ///
    /// If the kernel gives no link-local address within 10 s.
    pub fn link(
        &self,
        (interface, addrs): (&str, &[&str]),
        other: &Self,
        (other_interface, other_addrs): (&str, &[&str]),
    ) -> Result<(), Unavailable> {
        // Linux 6.18: ends of the same index, which is usual in two namespaces, are to the kernel no ends of a cable.
        // It then notices that they are connected with the next look at all interfaces, up to a second later.
        let index = INDEX + self.try_sh("ip -o link")?.lines().count();
        let path = other.path().display();
        self.try_sh(&format!(
            "ip link add {interface} index {index} type veth peer name {other_interface} netns {path}\n{}",
            set_up(interface, addrs)
        ))?;
        other.try_sh(&set_up(other_interface, other_addrs))?;
        self.settle(interface);
        other.settle(other_interface);
        Ok(())
    }

    /// Waits until an interface that has just come up can use IPv6. Until then packets would wait, up to a second.
    fn settle(&self, interface: &str) {
        let until = Instant::now() + SETTLED;
        let name = interface.to_owned();
        let is_settled = move || {
            let addrs = fs::read_to_string("/proc/thread-self/net/if_inet6");
            is_settled(&addrs.unwrap_or_default(), &name)
        };
        while !self.run(is_settled.clone()) {
            assert!(Instant::now() < until, "{interface} lacks an IPv6 address: {}", self.sh("ip addr"));
            thread::sleep(LOOK);
        }
    }
}

fn set_up(interface: &str, addrs: &[&str]) -> String {
    let mut script = String::new();
    for addr in addrs {
        let nodad = if addr.contains(':') { " nodad" } else { "" };
        script.push_str(&format!("ip addr add {addr} dev {interface}{nodad}\n"));
    }
    script + &format!("ip link set {interface} up\n")
}

/// Whether the interface has a link-local address and none of its addresses is tentative.
fn is_settled(if_inet6: &str, interface: &str) -> bool {
    // Address, index, prefix length, scope, flags, name; the numbers are hexadecimal.
    let fields = if_inet6.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let own: Vec<_> = fields.filter(|fields| fields.last() == Some(&interface)).collect();
    let has_flag = |text: &str, flag: u32| u32::from_str_radix(text, 16).is_ok_and(|bits| bits & flag != 0);
    let is_link_local = |fields: &Vec<&str>| has_flag(fields[3], IPV6_ADDR_LINKLOCAL);
    let is_tentative = |fields: &Vec<&str>| has_flag(fields[4], IFA_F_TENTATIVE);
    own.iter().any(is_link_local) && !own.iter().any(is_tentative)
}

/// Of the kernel's `include/net/ipv6.h`.
const IPV6_ADDR_LINKLOCAL: u32 = 0x20;

/// Of the kernel's `include/uapi/linux/if_addr.h`.
const IFA_F_TENTATIVE: u32 = 0x40;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settled_is_an_interface_with_a_usable_link_local_address() {
        let global = "fd770000000000000000000000000002 02 40 00 80 eth0\n";
        let tentative = "fe80000000000000000000fffe000001 02 40 20 c0 eth0\n";
        let usable = "fe80000000000000000000fffe000001 02 40 20 80 eth0\n";

        assert!(!is_settled(global, "eth0"));
        assert!(!is_settled(&format!("{global}{tentative}"), "eth0"));
        assert!(is_settled(&format!("{global}{usable}"), "eth0"));
        assert!(!is_settled(usable, "eth1"));
    }
}
