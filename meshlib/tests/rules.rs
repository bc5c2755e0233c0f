//! The commands of rules, compared with files that were tried in network namespaces.
//!
//! `UPDATE_GOLDEN=1` writes the files again.

#![cfg(feature = "tproxy")]
#![expect(clippy::unwrap_used, reason = "what helps tests panics like tests")]

use std::env;
use std::fs;
use std::path::Path;

use meshlib::tproxy::Intercept;
use meshlib::tproxy::rules;
use meshlib::tproxy::rules::Command;
use meshlib::tproxy::rules::Listing;
use meshlib::tproxy::rules::Reply;
use meshlib::tproxy::rules::Rules;
use meshlib::tproxy::rules::Run;
use meshlib::tproxy::rules::Sysctl;
use meshlib::tproxy::rules::Tool;
use meshlib::tproxy::rules::Topology;

#[test]
fn each_mode_tool_and_way_of_replies_has_its_rules() {
    for (mode, intercept) in [("nat", Intercept::Redirect), ("tproxy", Intercept::Tproxy)] {
        for (reply, how) in
            [("connmark", Reply::Connmark), ("fwmark", Reply::Fwmark), ("source-rule", Reply::SourceRule)]
        {
            let rules = Rules::new(intercept).with_listener(addr("[::]:5000")).with_reply(how);
            compare(&format!("{mode}-{reply}"), &rules);
        }
    }
}

#[test]
fn one_family_leaves_the_other_alone() {
    compare("tproxy-v4", &Rules::new(Intercept::Tproxy).with_listener(addr("127.0.0.1:5000")));
    compare("nat-v6", &Rules::new(Intercept::Redirect).with_listener(addr("[fd77::3]:6000")));
}

#[test]
fn what_is_left_out_is_never_intercepted() {
    for (mode, intercept) in [("nat", Intercept::Redirect), ("tproxy", Intercept::Tproxy)] {
        let subnets = ["10.0.0.0/8", "192.0.2.1", "fd00::/8"].map(|text| text.parse().unwrap());
        let rules = Rules::new(intercept)
            .with_listener(addr("0.0.0.0:5000"))
            .with_listener(addr("[::]:5001"))
            .with_ports("80,443,8000-8010".parse().ok())
            .with_skip_ports("9990".parse().ok())
            .with_skip_subnets(subnets)
            .with_interface(Some("eth0".into()));
        compare(&format!("{mode}-filters"), &rules);
    }
}

#[test]
fn a_gateway_marks_what_it_takes() {
    let rules = Rules::new(Intercept::Tproxy)
        .with_topology(Topology::Gateway)
        .with_listener(addr("[::]:5000"))
        .with_interface(Some("eth0".into()));
    compare("gateway", &rules);
}

#[test]
fn numbers_are_free_and_settings_are_remembered() {
    let rules = Rules::new(Intercept::Redirect)
        .with_listener(addr("0.0.0.0:4143"))
        .with_reply(Reply::Fwmark)
        .with_numbers(0x100, 4143, 99)
        .with_guard_loopback(true)
        .with_switched_on(Sysctl::FWMARK.to_vec());
    compare("numbers", &rules);
}

#[test]
fn removal_knows_every_rule_of_ours() {
    for (name, tool) in
        [("iptables", Tool::Iptables), ("iptables-legacy", Tool::IptablesLegacy), ("nft", Tool::Nft)]
    {
        golden(&format!("remove-{name}.sh"), &lines(&rules::remove(tool, 100, 7089)));
    }
}

#[test]
fn the_guard_is_shown_as_it_is_set() {
    let rules = Rules::new(Intercept::Tproxy)
        .with_listener(addr("0.0.0.0:5000"))
        .with_reply(Reply::SourceRule)
        .with_guard_loopback(true);
    let saved = "\
*mangle
:MESHLIB_GUARD - [0:0]
:MESHLIB_PRE - [0:0]
-A PREROUTING -j MESHLIB_GUARD
-A PREROUTING -p tcp -j MESHLIB_PRE
-A MESHLIB_GUARD -d 127.0.0.0/8 ! -i lo -j DROP
-A MESHLIB_PRE -i lo -j RETURN
-A MESHLIB_PRE -m addrtype ! --dst-type LOCAL -j RETURN
-A MESHLIB_PRE -p tcp -m tcp ! --tcp-flags FIN,SYN,RST,ACK SYN -m socket -j ACCEPT
-A MESHLIB_PRE -p tcp -j TPROXY --on-port 5000 --on-ip 0.0.0.0 --tproxy-mark 0x0/0x0
COMMIT
";

    assert_eq!(rules.listings(Tool::Iptables)[0].compare(saved), []);
}

#[test]
fn without_ipv6_rules_for_ipv4_can_be_looked_at() {
    let v4 = Rules::new(Intercept::Tproxy).with_listener(addr("0.0.0.0:5000"));
    let both = Rules::new(Intercept::Tproxy).with_listener(addr("[::]:5000"));
    let needed = |listings: Vec<Listing>| {
        let commands = listings.into_iter().map(|listing| listing.command);
        lines(&commands.filter(|command| command.run == Run::Must).collect::<Vec<_>>())
    };

    let only_v4 = "iptables-save\nip -4 rule show pref 7089\n";
    assert_eq!(needed(v4.listings(Tool::Iptables)), only_v4);
    assert_eq!(needed(rules::leftovers(Tool::Iptables, 100, 7089)), only_v4);
    assert!(needed(both.listings(Tool::Iptables)).contains("ip6tables-save\n"));
    assert!(needed(both.listings(Tool::Iptables)).contains("ip -6 rule"));
}

fn compare(name: &str, rules: &Rules) {
    for (tool_name, tool) in [("iptables", Tool::Iptables), ("nft", Tool::Nft)] {
        let mut text = String::from("# apply\n");
        text.push_str(&lines(&rules.apply(tool)));
        text.push_str("# tidy\n");
        text.push_str(&lines(&rules.tidy(tool)));
        text.push_str("# release\n");
        text.push_str(&lines(&rules.release(tool)));
        golden(&format!("{name}.{tool_name}.sh"), &text);
    }
}

fn lines(commands: &[Command]) -> String {
    commands.iter().map(|command| format!("{command}\n")).collect()
}

fn golden(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/rules").join(name);
    if env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, text).unwrap();
    }
    let wanted = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(text, wanted, "{name}: see the head of this test");
}

fn addr(text: &str) -> std::net::SocketAddr {
    text.parse().unwrap()
}
