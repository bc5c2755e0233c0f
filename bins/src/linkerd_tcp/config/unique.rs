//! Values that may occur only once in a file.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::kit::load::Place;
use crate::kit::load::fields::Item;
use crate::kit::load::fields::Reader;
use crate::kit::sockets::overlap;

/// Remembers labels and listening addresses and reports the second use of one.
#[derive(Debug, Default)]
pub(super) struct Unique {
    labels: BTreeMap<String, Place>,
    /// By port.
    addrs: BTreeMap<u16, Vec<(SocketAddr, Place)>>,
}

impl Unique {
    /// Takes a label that is written in the file.
    pub(super) fn label(&mut self, reader: &mut Reader<'_>, item: &Item<'_>, label: &str) {
        match self.labels.get(label) {
            None => {
                self.labels.insert(label.into(), reader.place(item));
            }
            Some(first) => {
                let text =
                    format!("the label {label:?} is taken by {}; expected a label of its own", named(first));
                reader.problem(item, text);
            }
        }
    }

    /// Makes up a label: `default`, or `default-2` and so on if it is taken.
    pub(super) fn make_label(&self, others: &[String]) -> String {
        let taken = |label: &String| self.labels.contains_key(label) || others.contains(label);
        let numbered = (2_u64..).map(|n| format!("default-{n}"));
        std::iter::once("default".to_string()).chain(numbered).find(|label| !taken(label)).unwrap_or_default()
    }

    /// Takes an address to listen on. Port 0 is a different port each time.
    pub(super) fn addr(&mut self, reader: &mut Reader<'_>, item: &Item<'_>, addr: SocketAddr) {
        let of_port = self.addrs.entry(addr.port()).or_default();
        let others = of_port.iter().filter(|(other, _)| overlap(*other, addr));
        // The same one rather than one that is more or less than it.
        match others.max_by_key(|(other, _)| *other == addr) {
            Some((other, first)) if *other == addr => {
                let text = format!("{addr} is taken by {}; expected another address or port", named(first));
                reader.problem(item, text);
                return;
            }
            Some((other, first)) => {
                let text = format!(
                    "{addr} and {other} of {} overlap: only passed sockets may be both",
                    named(first)
                );
                reader.warning(item, text);
            }
            None => {}
        }
        of_port.push((addr, reader.place(item)));
    }
}

fn named(place: &Place) -> String {
    match place.position {
        Some(at) => format!("`{}` in line {}", place.path, at.line),
        None => format!("`{}`", place.path),
    }
}
