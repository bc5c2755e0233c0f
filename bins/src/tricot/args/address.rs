//! Where Consul is, and who says so.

use std::ffi::OsStr;
use std::ffi::OsString;

use super::Args;
use super::values;
use super::values::ConsulAddress;

/// The address that is given, or the one of Consul's own tools, or the usual one; with the name of the variable that sets it.
pub(super) fn from_args(
    args: &Args,
    variable: impl Fn(&OsStr) -> Option<OsString>,
) -> Result<(ConsulAddress, &'static str), String> {
    if let Some(given) = &args.consul_host {
        return checked(given.clone(), OWN);
    }
    let set = |name: &str| variable(OsStr::new(name)).filter(|value| !value.is_empty());
    let Some(text) = set(OF_CONSUL) else {
        return values::consul(USUAL).map(|address| (address, OWN));
    };
    let text = text.to_string_lossy();
    let ssl = set("CONSUL_HTTP_SSL").map(|ssl| values::switch(&ssl.to_string_lossy()));
    let ssl = ssl.transpose().map_err(|why| format!("CONSUL_HTTP_SSL: {why}"))?;
    let is_tls = ssl == Some(true);
    let text = match text.trim() {
        // As with Consul's own tools: what is to be secret does not go out in plaintext.
        text if is_tls && text.starts_with("http://") => text.replacen("http", "https", 1),
        text if text.contains("://") => text.to_owned(),
        text if is_tls => format!("https://{text}"),
        text => format!("http://{text}"),
    };
    let address = values::consul(&text).map_err(|why| format!("{OF_CONSUL}: {why}"))?;
    checked(address, OF_CONSUL)
}

fn checked(address: ConsulAddress, variable: &'static str) -> Result<(ConsulAddress, &'static str), String> {
    if let ConsulAddress::Url(url) = &address
        && url.authority().is_some_and(|authority| authority.as_str().contains('@'))
    {
        let argument = if variable == OWN { " (--consul-host)" } else { "" };
        return Err(format!(
            "{variable}{argument} must not have a user and a password in it; a token goes into TRICOT_CONSUL_TOKEN"
        ));
    }
    Ok((address, variable))
}

const OWN: &str = "TRICOT_CONSUL_HOST";
const OF_CONSUL: &str = "CONSUL_HTTP_ADDR";
const USUAL: &str = "http://127.0.0.1:8500";
