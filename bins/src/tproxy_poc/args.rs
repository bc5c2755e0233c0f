//! The command line.

use std::net::SocketAddr;
use std::time::Duration;

use clap::ArgMatches;
use clap::FromArgMatches;
use clap::Parser;
use clap::Subcommand;
use clap::ValueEnum;
use meshlib::tproxy::rules::Ports;
use meshlib::tproxy::rules::Subnet;

use super::upstream::Target;
use crate::kit::log::LogFormat;
use crate::kit::units::duration;
use crate::kit::units::grace;
use crate::kit::units::listen;
use crate::kit::units::more_than_none;

/// A transparent proxy that keeps the client's address.
///
/// Takes the TCP connections that arrive for this machine (or pod), and passes each on to its server from the address of
/// the client, so that the server sees whom it really talks to. Sets the packet filter and routing rules that this needs,
/// and removes them when it ends.
#[derive(Debug, Parser)]
#[command(name = "tproxy-poc", version, after_help = AFTER_HELP, disable_help_subcommand = true)]
pub(super) struct Args {
    /// What to do instead of running the proxy.
    #[command(subcommand)]
    pub(super) command: Option<Command>,

    /// What is intercepted and how.
    #[command(flatten)]
    pub(super) intercept: InterceptArgs,

    /// How connections are served.
    #[command(flatten)]
    pub(super) proxy: ProxyArgs,

    /// Check the arguments, then exit: 0 if all is well, 2 if not. Needs no privilege, opens no socket and sets no rule
    #[arg(long)]
    pub(super) check: bool,

    /// Print the arguments that are in force, defaults included, as YAML, then exit
    #[arg(long, conflicts_with = "check")]
    pub(super) print_config: bool,

    /// Ask the program that runs with the same --metrics whether it wants traffic, then exit: 0 if it does, 1 if not. For
    /// health checks in containers
    #[arg(long, conflicts_with_all = ["check", "print_config"], requires = "metrics")]
    pub(super) probe_ready: bool,

    /// How log lines look
    #[arg(long, value_enum, default_value_t, global = true)]
    pub(super) log_format: LogFormat,
}

/// How connections are served: rules do not depend on it.
#[derive(Debug, clap::Args)]
pub(super) struct ProxyArgs {
    /// Which address servers see
    #[arg(long, value_name = "WHAT", value_enum, default_value_t, ignore_case = true)]
    pub(super) source: SourceArg,

    /// What to do with a client whose address cannot be used: reset it, or go on from the proxy's own address
    #[arg(long, value_name = "WHAT", value_enum, default_value_t)]
    pub(super) on_spoof_error: OnSpoofError,

    /// Leave the rules where they are when the proxy ends
    #[arg(long)]
    pub(super) keep_rules: bool,

    /// How long connecting to a server may take
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = some_time)]
    pub(super) connect_timeout: Duration,

    /// How long connections may go on after a signal
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = grace, visible_alias = "drain")]
    pub(super) drain_timeout: Duration,

    /// Connections at a time; those beyond wait [default: unlimited]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) max_connections: Option<u32>,

    /// Connections that may wait in the kernel to be accepted
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=65535))]
    pub(super) backlog: u32,

    /// Begin each connection to a server with a PROXY protocol header; with --source none this needs no privilege
    #[arg(long, value_name = "FORM", value_enum)]
    pub(super) send_proxy_protocol: Option<HeaderArg>,

    /// Serve admin requests such as /metrics, /ready and /state.json at this address [default: off]
    #[arg(long, value_name = "IP:PORT", visible_alias = "admin", value_parser = listen)]
    pub(super) metrics: Option<SocketAddr>,

    /// Threads that serve connections [default: one per processor]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(super) workers: Option<u16>,
}

/// What is intercepted and how: all that rules depend on.
#[derive(Debug, clap::Args)]
pub(super) struct InterceptArgs {
    /// Where to listen; may be repeated, once for each family. `[::]:5000` takes IPv4 as well; rules are set for the
    /// families that are listened on
    #[arg(long, value_name = "IP:PORT", default_value = "0.0.0.0:5000", global = true, value_parser = listen)]
    pub(super) addr: Vec<SocketAddr>,

    /// How connections come here: their destination is rewritten (nat), or their packets are handed over as they are
    /// (tproxy); required
    #[arg(long, value_enum, ignore_case = true, global = true)]
    pub(super) mode: Option<ModeArg>,

    /// Where the server is; HOST: `original` (as dialled), `loopback` or an IP, PORT: `original` or a number [default:
    /// original:3000 with nat, loopback:3000 with tproxy, original:original with a gateway]
    #[arg(long, value_name = "HOST:PORT", global = true)]
    pub(super) server: Option<Target>,

    /// Whose connections are taken: those to this pod, or those that are routed through this gateway (tproxy only)
    #[arg(long, value_enum, default_value_t, global = true)]
    pub(super) topology: TopologyArg,

    /// What sets the rules; `none`: somebody else has, for example `tproxy-poc rules apply` in an init container. `auto`:
    /// iptables if it is there, else nft
    #[arg(long, value_name = "TOOL", value_enum, default_value_t, global = true)]
    pub(super) rules: ToolArg,

    /// How answers of the server stay in the pod
    #[arg(long, value_name = "HOW", value_enum, default_value_t, global = true)]
    pub(super) reply: ReplyArg,

    /// Ports that are taken, as dialled, such as 80,8000-8010 [default: all]
    #[arg(long, value_name = "LIST", global = true)]
    pub(super) ports: Option<Ports>,

    /// Ports that are not taken, as dialled
    #[arg(long, value_name = "LIST", global = true)]
    pub(super) skip_ports: Option<Ports>,

    /// Clients that are not taken, such as 10.0.0.0/8,fd00::/8
    #[arg(long, value_name = "LIST", value_delimiter = ',', global = true)]
    pub(super) skip_subnets: Vec<Subnet>,

    /// Where clients come in [default: every interface but lo]
    #[arg(long, value_name = "NAME", value_parser = interface, global = true)]
    pub(super) interface: Option<String>,

    /// Firewall mark, which is its own mask
    #[arg(long, value_name = "N", default_value = "1", value_parser = mark, global = true)]
    pub(super) mark: u32,

    /// Routing table
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = table, global = true)]
    pub(super) table: u32,

    /// Priority of the routing rules
    #[arg(long, value_name = "N", default_value_t = 7089, value_parser = clap::value_parser!(u32).range(1..32766), global = true)]
    pub(super) rule_priority: u32,
}

/// What to do instead of running the proxy.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Handle rules only; what is for the proxy alone, such as --metrics, may stand behind it and means nothing
    Rules {
        /// What to do with them.
        #[command(subcommand)]
        command: RulesCommand,

        /// What stands there for the proxy only.
        #[command(flatten)]
        _meaningless: Meaningless,
    },
}

/// The arguments of [`ProxyArgs`], which may stand behind a subcommand. Help does not show them there.
#[derive(Debug)]
pub(super) struct Meaningless(());

impl clap::Args for Meaningless {
    fn augment_args(command: clap::Command) -> clap::Command {
        let proxy = ProxyArgs::augment_args(clap::Command::new("proxy"));
        command.args(proxy.get_arguments().map(|arg| arg.clone().global(true).hide(true)))
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Meaningless {
    fn from_arg_matches(_: &ArgMatches) -> Result<Self, clap::Error> {
        Ok(Self(()))
    }

    fn update_from_arg_matches(&mut self, _: &ArgMatches) -> Result<(), clap::Error> {
        Ok(())
    }
}

/// What to do with rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Subcommand)]
pub(super) enum RulesCommand {
    /// Print the commands that set the rules, for `sh -e`; needs no privilege and touches nothing
    Print {
        /// Print those that remove every rule of ours instead
        #[arg(long)]
        remove: bool,
    },
    /// Set the rules, once or again
    Apply,
    /// Remove the rules of either mode; succeeds when there are none
    Remove,
    /// Compare the rules with those that are set; 0: they are the same, 1: they differ
    Check,
}

/// How connections come to the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum ModeArg {
    /// By REDIRECT
    Nat,
    /// By TPROXY
    Tproxy,
}

/// Whose connections are taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum TopologyArg {
    /// Those to this machine or pod
    #[default]
    Pod,
    /// Those that are routed through this machine
    Gateway,
}

/// What sets rules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum ToolArg {
    /// iptables if it is there, else nft
    #[default]
    Auto,
    /// iptables and ip6tables
    Iptables,
    /// iptables-legacy and ip6tables-legacy
    IptablesLegacy,
    /// nft
    Nft,
    /// Nothing
    None,
}

/// How answers of the server stay in the pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum ReplyArg {
    /// By marks that connection tracking remembers
    #[default]
    Connmark,
    /// By marks that sockets inherit; no connection tracking, three sysctls
    Fwmark,
    /// By their loopback address; for a server at one
    SourceRule,
}

/// Which address servers see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum SourceArg {
    /// The client's address, and its port where that cannot collide
    #[default]
    Auto,
    /// The client's address and port
    Client,
    /// The client's address with any port
    ClientIp,
    /// The proxy's
    None,
}

/// What to do with a client whose address cannot be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum OnSpoofError {
    /// Reset it
    #[default]
    Refuse,
    /// Connect from the proxy's own address
    Local,
}

/// A form of the PROXY protocol's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum HeaderArg {
    /// Text
    V1,
    /// Binary
    V2,
}

const AFTER_HELP: &str = "\
Privileges:
  CAP_NET_RAW    for as long as the proxy runs: transparent sockets, the client's address, marks
  CAP_NET_ADMIN  to set, look at and remove rules, with no effect in between, but kept to the end,
                 also with --keep-rules; not with --rules none, where somebody else sets them,
                 such as an init container that runs `tproxy-poc rules apply`
  Neither is needed with --mode nat --rules none --source none; the server can be told the client
  with --send-proxy-protocol then.

Sysctls:
  None is changed, except with --reply fwmark, which switches these on, and off again at the end:
  net.ipv4.tcp_fwmark_accept, net.ipv4.fwmark_reflect, net.ipv6.fwmark_reflect

Signals:
  TERM, INT, QUIT
             send no more connections here, let those that are here end within --drain-timeout,
             remove the rules, exit 0; a second one removes the rules and exits at once with 1
  HUP        set the rules again, if somebody has changed or removed them; nothing with --rules none
  USR1       nothing

Environment:
  RUST_LOG   what to log to stdout, such as tproxy_poc=debug or trace [default: tproxy_poc=info]
  NO_COLOR   if set, log lines have no colour; CLICOLOR_FORCE gives them some without a terminal

Exit status:
  0 ended by a signal, 1 failed, 2 misused, 77 a privilege is missing

Examples:
  tproxy-poc --mode tproxy --addr '[::]:5000' --server original:original
  tproxy-poc rules print --mode nat";

fn some_time(text: &str) -> Result<Duration, String> {
    duration(text).and_then(more_than_none)
}

fn interface(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    match text.len() {
        _ if text == "lo" => Err("what comes in by lo is never taken".into()),
        1..=15 if text.chars().all(plain) => Ok(text.to_owned()),
        _ => Err("the name of a network interface is wanted".into()),
    }
}

fn mark(text: &str) -> Result<u32, String> {
    let number = match text.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16),
        None => text.parse(),
    };
    match number {
        Ok(number) if number != 0 => Ok(number),
        _ => Err("a number above 0 is wanted, such as 1 or 0x100".into()),
    }
}

fn table(text: &str) -> Result<u32, String> {
    match text.parse() {
        // The kernel's own: default, main and local.
        Ok(253..=255) => Err("253 to 255 are the kernel's own tables".into()),
        Ok(number) if number != 0 => Ok(number),
        _ => Err("a number above 0 is wanted".into()),
    }
}
