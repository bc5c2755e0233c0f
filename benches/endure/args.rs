//! The command line: a run, and options that are a name and a value each.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io;
use std::str::FromStr;

/// The options that nobody has asked for yet.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Args {
    values: BTreeMap<String, String>,
}

impl Args {
    /// Understands `--name value` and `--name=value`.
    pub(crate) fn parse(args: impl IntoIterator<Item = String>) -> io::Result<Self> {
        let mut values = BTreeMap::new();
        let mut args = args.into_iter();
        while let Some(arg) = args.next() {
            let Some(option) = arg.strip_prefix("--") else {
                return Err(mistake(format!("unknown argument {arg}")));
            };
            let (name, value) = match option.split_once('=') {
                Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                None => (option.to_owned(), args.next()),
            };
            let value = value.ok_or_else(|| mistake(format!("--{name} needs a value")))?;
            values.insert(name, value);
        }
        Ok(Self { values })
    }

    /// Takes the value of an option, or its default.
    pub(crate) fn take<T: FromStr<Err: Display>>(&mut self, name: &str, default: T) -> io::Result<T> {
        let Some(text) = self.values.remove(name) else {
            return Ok(default);
        };
        text.parse().map_err(|error| mistake(format!("--{name} {text}: {error}")))
    }

    /// Takes a number above zero, or its default.
    pub(crate) fn number(&mut self, name: &str, default: usize) -> io::Result<usize> {
        match self.take(name, default)? {
            0 => Err(mistake(format!("--{name} wants a number above zero"))),
            n => Ok(n),
        }
    }

    /// Refuses what no run has asked for.
    pub(crate) fn finish(&self) -> io::Result<()> {
        match self.values.keys().next() {
            None => Ok(()),
            Some(name) => Err(mistake(format!("this run has no option --{name}"))),
        }
    }
}

fn mistake(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("{text}; --help shows what there is"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> io::Result<Args> {
        Args::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn values_follow_or_are_joined() {
        let mut args = parse("--megabytes 4 --seed=7").unwrap();

        assert_eq!(args.number("megabytes", 400).unwrap(), 4);
        assert_eq!(args.take("seed", 0_u64).unwrap(), 7);
        assert_eq!(args.number("rounds", 5).unwrap(), 5);
        args.finish().unwrap();
    }

    #[test]
    fn mistakes_say_what_is_wrong() {
        assert!(parse("fast").unwrap_err().to_string().contains("fast"));
        assert!(parse("--seed").unwrap_err().to_string().contains("needs a value"));
        let mut args = parse("--rounds 0 --seed soon --fast 1").unwrap();
        assert!(args.number("rounds", 5).unwrap_err().to_string().contains("above zero"));
        assert!(args.take("seed", 0_u64).unwrap_err().to_string().contains("soon"));
        assert!(args.finish().unwrap_err().to_string().contains("--fast"));
    }
}
