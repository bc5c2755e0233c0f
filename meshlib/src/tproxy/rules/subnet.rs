//! Sets of addresses with a common beginning.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

/// A subnet in the notation of CIDR: `10.0.0.0/8`, `fd00::/8`; one address is a subnet of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subnet(IpNet);

impl Subnet {
    /// The addresses that share the first `length` bits of one.
    ///
    /// # Errors
    ///
    /// If the address has not so many bits.
    pub fn new(addr: IpAddr, length: u8) -> Result<Self, InvalidSubnet> {
        let net = IpNet::new(addr, length).map_err(|_| InvalidSubnet(format!("{addr}/{length}")))?;
        Ok(Self(net.trunc()))
    }

    /// Whether it is one of IPv4.
    pub fn is_v4(&self) -> bool {
        matches!(self.0, IpNet::V4(_))
    }

    /// As few as there can be, sorted: nft refuses sets that overlap.
    pub(super) fn reduced(subnets: impl IntoIterator<Item = Self>) -> Vec<Self> {
        let all: Vec<_> = subnets.into_iter().map(|subnet| subnet.0).collect();
        let mut few: Vec<_> = IpNet::aggregate(&all).into_iter().map(Self).collect();
        few.sort();
        few
    }
}

impl FromStr for Subnet {
    type Err = InvalidSubnet;

    fn from_str(text: &str) -> Result<Self, InvalidSubnet> {
        let one = || text.parse::<IpAddr>().map(IpNet::from);
        let net = text.parse::<IpNet>().or_else(|_| one()).map_err(|_| InvalidSubnet(text.to_owned()))?;
        Ok(Self(net.trunc()))
    }
}

/// As packet filters show it, always with its length.
impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A text is no subnet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a subnet, such as 10.0.0.0/8 or fd00::/8")]
pub struct InvalidSubnet(String);

#[cfg(test)]
mod tests {
    use super::*;

    fn subnets(text: &str) -> Vec<Subnet> {
        text.split_whitespace().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn bits_behind_the_length_are_cut_off() {
        let shown: Vec<_> = subnets("10.1.2.3/8 192.0.2.1 fd77::3/64 ::1 0.0.0.0/0 ::/0")
            .iter()
            .map(ToString::to_string)
            .collect();

        assert_eq!(shown, ["10.0.0.0/8", "192.0.2.1/32", "fd77::/64", "::1/128", "0.0.0.0/0", "::/0"]);
    }

    #[test]
    fn there_are_as_few_as_can_be() {
        assert_eq!(
            Subnet::reduced(subnets("10.2.0.0/16 10.0.0.0/8 10.0.0.0/8 fd00::/8 fd77::/64 11.0.0.0/8")),
            subnets("10.0.0.0/7 fd00::/8")
        );
        assert_eq!(Subnet::reduced(subnets("0.0.0.0/0 10.0.0.0/8 ::1")), subnets("0.0.0.0/0 ::1"));
    }

    #[test]
    fn what_is_no_subnet_is_refused() {
        for text in
            ["", "10.0.0.0/33", "::/129", "10.0.0/8", "a/8", "10.0.0.0/", "10.0.0.0/-1", "10.0.0.0/8/8"]
        {
            assert!(text.parse::<Subnet>().is_err(), "{text}");
        }
    }
}
