use proptest::prelude::*;

use super::*;

fn of(table: &Table<&'static str>, host: &str, path: &str) -> Vec<&'static str> {
    // The path must live as long as the table's borrow.
    let path = path.to_owned();
    table.find(host, &path).copied().collect()
}

#[test]
fn priority_comes_before_the_path_and_the_path_before_the_host() {
    let table = Table::builder()
        .rule(Host::exact("a.example"), "", 100, "host")
        .rule(Host::suffix("example"), "/long", 100, "path")
        .rule(Host::Any, "", 200, "priority")
        .build();

    assert_eq!(of(&table, "a.example", "/long/x"), ["priority", "path", "host"]);
    assert_eq!(of(&table, "b.example", "/long"), ["priority", "path"]);
    assert_eq!(of(&table, "example", "/long"), ["priority"], "a suffix is not for itself");
}

#[test]
fn of_several_suffixes_the_longer_is_better() {
    let table = Table::builder()
        .rule(Host::suffix("example"), "", 1, "short")
        .rule(Host::suffix("b.example"), "", 1, "long")
        .rule(Host::suffix("c.b.example"), "", 1, "longer")
        .rule(Host::pattern("[ab]*", |host| host.starts_with(['a', 'b'])), "", 1, "pattern")
        .rule(Host::Any, "", 1, "any")
        .build();

    assert_eq!(of(&table, "a.c.b.example", "/"), ["longer", "long", "short", "pattern", "any"]);
    assert_eq!(of(&table, "x.b.example", "/"), ["long", "short", "any"]);
}

#[test]
fn a_path_is_below_a_prefix_by_bytes_or_by_segments() {
    let rule = || Table::builder().rule(Host::Any, "/api", 1, "api").rule(Host::Any, "/end/", 1, "end");
    let (bytes, segments) = (rule().build(), rule().paths(Paths::Segments).build());

    assert_eq!(of(&bytes, "x", "/apix"), ["api"]);
    assert!(of(&segments, "x", "/apix").is_empty());
    for path in ["/api", "/api/", "/api/x"] {
        assert_eq!(of(&segments, "x", path), ["api"]);
    }
    assert_eq!(of(&segments, "x", "/end/x"), ["end"]);
}

#[test]
fn a_host_is_compared_without_port_case_and_final_dot() {
    let table = Table::builder()
        .rule(Host::exact("WWW.Example"), "", 1, "name")
        .rule(Host::exact("[::1]"), "", 1, "address")
        .build();

    for host in ["www.example", "wWw.eXample:8443", "www.example.", "www.example.:80"] {
        assert_eq!(of(&table, host, "/"), ["name"]);
    }
    assert_eq!(of(&table, "[::1]", "/"), ["address"]);
    assert_eq!(of(&table, "[::1]:443", "/"), ["address"]);
}

/// What a table must say, found the slow way.
fn naive(rules: &[(Host, String, u32)], host: &str, path: &str, paths: Paths) -> Vec<usize> {
    let specificity = |rule: &Host| match rule {
        Host::Exact(_) => usize::MAX,
        Host::Suffix(parent) => 2 + parent.len(),
        Host::Pattern { .. } => 1,
        Host::Any => 0,
    };
    let matches = |rule: &Host| match rule {
        Host::Exact(exact) => **exact == *host,
        Host::Suffix(parent) => host.ends_with(&format!(".{parent}")),
        Host::Pattern { matches, .. } => matches(host),
        Host::Any => true,
    };
    let mut found: Vec<_> =
        (0..rules.len()).filter(|&at| matches(&rules[at].0) && paths.is_below(path, &rules[at].1)).collect();
    found.sort_by_key(|&at| {
        let (host, path, priority) = &rules[at];
        Reverse((*priority, path.len(), specificity(host)))
    });
    found
}

fn hosts() -> impl Strategy<Value = Host> {
    let name = prop::sample::select(vec!["a", "b", "a.b", "b.a", "a.a.b", "b.b.a", "a.b.a.b.a.b"]);
    (0..4, name).prop_map(|(kind, name)| match kind {
        0 => Host::exact(name),
        1 => Host::suffix(name),
        2 => Host::pattern("a*", |host| host.starts_with('a')),
        _ => Host::Any,
    })
}

proptest! {
    #[test]
    fn a_table_says_what_looking_at_every_rule_says(
        rules in prop::collection::vec((hosts(), "(/[ab]{0,2}){0,2}", 0_u32..3), 0..30),
        host in prop::sample::select(vec!["a", "b", "a.b", "b.a", "a.a.b", "x.b.b.a", "a.b.a.b.a.b.a.b"]),
        path in "(/[ab]{0,2}){1,3}",
        segments: bool,
    ) {
        let paths = if segments { Paths::Segments } else { Paths::Bytes };
        let mut builder = Table::builder().paths(paths);
        for (at, (host, path, priority)) in rules.iter().enumerate() {
            builder = builder.rule(host.clone(), path.as_str(), *priority, at);
        }
        let table = builder.build();

        let found: Vec<_> = table.find(host, &path).copied().collect();

        prop_assert_eq!(found, naive(&rules, host, &path, paths));
        prop_assert_eq!(table.values().count(), rules.len());
    }
}
