//! What was asked for, found possible.

use std::net::SocketAddr;
use std::path::Path;

use meshlib::tproxy::Intercept;
use meshlib::tproxy::rules::Reply;
use meshlib::tproxy::rules::Rules;
use meshlib::tproxy::rules::Tool;
use meshlib::tproxy::rules::Topology;

use super::args::InterceptArgs;
use super::args::ModeArg;
use super::args::ReplyArg;
use super::args::ToolArg;
use super::args::TopologyArg;
use super::upstream::Target;
use crate::kit::cli;
use crate::kit::cli::Failure;

/// What is intercepted and how.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) addrs: Vec<SocketAddr>,
    pub(super) rules: Rules,
    pub(super) server: Target,
}

impl Plan {
    pub(super) fn new(args: &InterceptArgs) -> Result<Self, Failure> {
        let mut problems: Vec<&str> = Vec::new();
        let intercept = match args.mode {
            Some(ModeArg::Nat) => Intercept::Redirect,
            Some(ModeArg::Tproxy) => Intercept::Tproxy,
            None => {
                problems.push("--mode is missing: nat or tproxy");
                Intercept::Tproxy
            }
        };
        let topology = match args.topology {
            TopologyArg::Pod => Topology::Pod,
            TopologyArg::Gateway => Topology::Gateway,
        };
        let reply = match args.reply {
            ReplyArg::Connmark => Reply::Connmark,
            ReplyArg::Fwmark => Reply::Fwmark,
            ReplyArg::SourceRule => Reply::SourceRule,
        };
        let server = args.server.unwrap_or(match (topology, intercept) {
            (Topology::Gateway, _) => Target::ORIGINAL,
            (_, Intercept::Redirect) => Target::original(3000),
            _ => Target::loopback(3000),
        });
        if topology == Topology::Gateway && intercept == Intercept::Redirect {
            problems.push("--topology gateway works with --mode tproxy only");
        }
        if topology == Topology::Pod && reply == Reply::SourceRule && !server.is_loopback() {
            problems
                .push("--reply source-rule knows answers by their loopback address: --server must be at one");
        }
        let mut rules = Rules::new(intercept)
            .with_topology(topology)
            .with_reply(reply)
            .with_ports(args.ports.clone())
            .with_skip_ports(args.skip_ports.clone())
            .with_skip_subnets(args.skip_subnets.iter().copied())
            .with_interface(args.interface.clone())
            .with_numbers(args.mark, args.table, args.rule_priority);
        // IPv4 first, so that `[::]` stands for IPv6 only where both are given.
        let mut addrs = args.addr.clone();
        addrs.sort_by_key(|addr| !addr.is_ipv4());
        for addr in &addrs {
            if addr.port() == 0 {
                problems.push("--addr needs a port: the rules lead to it");
            }
            if intercept == Intercept::Redirect && addr.ip().is_loopback() {
                problems.push(
                    "--mode nat cannot lead to a loopback address: use another --addr, or --mode tproxy",
                );
            }
            let known = if addr.is_ipv4() { rules.v4 } else { rules.v6 };
            if known.is_some_and(|known| known.port() != addr.port()) {
                problems.push("--addr is given twice for one family: the rules can lead to one port only");
            }
            if known.is_none() {
                rules = rules.with_listener(*addr);
            }
        }
        problems.dedup();
        if !problems.is_empty() {
            return Err(Failure::Usage(problems.join(cli::AND)));
        }
        Ok(Self { addrs, rules, server })
    }
}

/// The tool that is to set rules. `None`: somebody else does.
pub(super) fn tool(arg: ToolArg) -> Result<Option<Tool>, Failure> {
    let tool = match arg {
        ToolArg::None => return Ok(None),
        ToolArg::Iptables => Tool::Iptables,
        ToolArg::IptablesLegacy => Tool::IptablesLegacy,
        ToolArg::Nft => Tool::Nft,
        ToolArg::Auto if is_here("iptables") => Tool::Iptables,
        ToolArg::Auto if is_here("nft") => Tool::Nft,
        ToolArg::Auto => {
            let text = "neither iptables nor nft is on PATH: install one, or have the rules set elsewhere and say --rules none";
            return Err(Failure::Runtime(text.into()));
        }
    };
    Ok(Some(tool))
}

/// Where programs are looked for: in PATH, and where system administration has its own.
pub(super) fn search_path() -> String {
    let path = std::env::var("PATH").unwrap_or_default();
    format!("{path}:/usr/sbin:/sbin")
}

pub(super) fn is_here(program: &str) -> bool {
    search_path().split(':').any(|dir| !dir.is_empty() && Path::new(dir).join(program).is_file())
}
