//! Rules of others that compete with ours.

/// The rules of others that bring TCP connections to a listener, from what `iptables-save` shows: those of `REDIRECT` and
/// `TPROXY`, such as other service meshes set, in `PREROUTING` or a chain that it leads to. Each with its table.
pub fn competing(listing: &str) -> Vec<String> {
    let mut table = "";
    let mut rules = Vec::new();
    for line in listing.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('*') {
            table = name;
        } else if let Some(rule) = Rule::of(table, line).filter(|rule| !rule.chain.starts_with(OURS)) {
            rules.push(rule);
        }
    }
    let mut reached: Vec<_> = rules.iter().map(|rule| (rule.table, "PREROUTING")).collect();
    reached.dedup();
    let mut next = 0;
    while let Some(&(table, chain)) = reached.get(next) {
        next += 1;
        for rule in rules.iter().filter(|rule| (rule.table, rule.chain) == (table, chain)) {
            let target = (table, rule.target);
            if !reached.contains(&target) {
                reached.push(target);
            }
        }
    }
    let takes = |rule: &&Rule<'_>| {
        ["REDIRECT", "TPROXY"].contains(&rule.target)
            && !rule.line.contains(" -p udp ")
            && reached.contains(&(rule.table, rule.chain))
    };
    rules.iter().filter(takes).map(|rule| format!("{} {}", rule.table, rule.line)).collect()
}

const OURS: &str = "MESHLIB_";

struct Rule<'a> {
    table: &'a str,
    chain: &'a str,
    /// A chain or a verdict.
    target: &'a str,
    line: &'a str,
}

impl<'a> Rule<'a> {
    /// `None`: it is no rule, or leads nowhere.
    fn of(table: &'a str, line: &'a str) -> Option<Self> {
        let chain = line.strip_prefix("-A ")?.split(' ').next()?;
        let (_, target) = line.split_once(" -j ").or_else(|| line.split_once(" -g "))?;
        Some(Self { table, chain, target: target.split(' ').next()?, line })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAVED: &str = "\
*mangle
:PREROUTING ACCEPT [0:0]
-A PREROUTING -p tcp -j MESHLIB_PRE
-A MESHLIB_PRE -p tcp -j TPROXY --on-port 5000 --on-ip 0.0.0.0 --tproxy-mark 0x0/0x0
-A PREROUTING -p udp -j TPROXY --on-port 53 --on-ip 0.0.0.0 --tproxy-mark 0x0/0x0
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:OTHER_INBOUND - [0:0]
:OTHER_TAKE - [0:0]
:OTHER_OUTPUT - [0:0]
-A PREROUTING -p tcp -j OTHER_INBOUND
-A OUTPUT -p tcp -j OTHER_OUTPUT
-A OTHER_INBOUND -p tcp -m tcp --dport 22 -j RETURN
-A OTHER_INBOUND -p tcp -g OTHER_TAKE
-A OTHER_TAKE -p tcp -j REDIRECT --to-ports 15006
-A OTHER_TAKE -p tcp -j OTHER_INBOUND
-A OTHER_OUTPUT -p tcp -j REDIRECT --to-ports 15001
COMMIT
";

    #[test]
    fn what_others_take_on_its_way_in_is_found() {
        assert_eq!(competing(SAVED), ["nat -A OTHER_TAKE -p tcp -j REDIRECT --to-ports 15006"]);
    }

    #[test]
    fn rules_of_ours_do_not_compete() {
        let ours = SAVED.split("*nat").next().unwrap();

        assert_eq!(competing(ours), [""; 0]);
    }
}
