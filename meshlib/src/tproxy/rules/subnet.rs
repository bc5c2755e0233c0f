//! Sets of addresses with a common beginning.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// A subnet in the notation of CIDR: `10.0.0.0/8`, `fd00::/8`; one address is a subnet of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subnet {
    addr: IpAddr,
    length: u8,
}

impl Subnet {
    /// The addresses that share the first `length` bits of one.
    ///
    /// # Errors
    ///
    /// If the address has not so many bits.
    pub fn new(addr: IpAddr, length: u8) -> Result<Self, InvalidSubnet> {
        let bits = if addr.is_ipv4() { 32 } else { 128 };
        if length > bits {
            return Err(InvalidSubnet(format!("{addr}/{length}")));
        }
        Ok(Self { addr: masked(addr, length), length })
    }

    /// Whether it is one of IPv4.
    pub fn is_v4(&self) -> bool {
        self.addr.is_ipv4()
    }

    /// Whether every address of another is in it.
    fn covers(&self, other: &Self) -> bool {
        self.is_v4() == other.is_v4()
            && self.length <= other.length
            && masked(other.addr, self.length) == self.addr
    }

    /// Sorted, without those that others cover: nft refuses sets that overlap.
    pub(super) fn reduced(subnets: impl IntoIterator<Item = Self>) -> Vec<Self> {
        let mut all: Vec<_> = subnets.into_iter().collect();
        // A subnet comes before those it covers.
        all.sort();
        let mut kept: Vec<Self> = Vec::new();
        for subnet in all {
            if !kept.iter().any(|wider| wider.covers(&subnet)) {
                kept.push(subnet);
            }
        }
        kept
    }
}

/// An address with all bits behind the first `length` zero.
fn masked(addr: IpAddr, length: u8) -> IpAddr {
    match addr {
        IpAddr::V4(ip) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
            IpAddr::V4((ip.to_bits() & mask).into())
        }
        IpAddr::V6(ip) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
            IpAddr::V6((ip.to_bits() & mask).into())
        }
    }
}

impl FromStr for Subnet {
    type Err = InvalidSubnet;

    fn from_str(text: &str) -> Result<Self, InvalidSubnet> {
        let invalid = || InvalidSubnet(text.to_owned());
        let (addr, length) = match text.split_once('/') {
            Some((addr, length)) => (addr, Some(length)),
            None => (text, None),
        };
        let addr: IpAddr = addr.parse().map_err(|_| invalid())?;
        let whole = if addr.is_ipv4() { 32 } else { 128 };
        let length = length.map_or(Ok(whole), str::parse).map_err(|_| invalid())?;
        Self::new(addr, length).map_err(|_| invalid())
    }
}

/// As packet filters show it, always with its length.
impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.length)
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
    fn what_another_covers_is_left_out() {
        assert_eq!(
            Subnet::reduced(subnets("10.2.0.0/16 10.0.0.0/8 10.0.0.0/8 fd00::/8 fd77::/64 11.0.0.0/8")),
            subnets("10.0.0.0/8 11.0.0.0/8 fd00::/8")
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
