//! Which instance is chosen: the worked examples of the documentation.

use std::collections::BTreeSet;

use meshlib::test_util::Consul;
use meshlib::test_util::ConsulOptions;
use meshlib::test_util::or_skip;

use crate::ask::Client;
use crate::process::Tricot;
use crate::process::command;
use crate::process::until;
use crate::site::Site;

/// Enough that each of three takes its turn.
const REQUESTS: usize = 6;
/// The sites of all examples, with the numbers of their instances.
const SITES: usize = 7;

/// One example: instances of a host of its own, and who of them answers.
struct Example {
    what: &'static str,
    host: String,
    path: &'static str,
    instances: Vec<Instance>,
    chosen: &'static [usize],
}

struct Instance {
    number: usize,
    node: &'static str,
    tags: Vec<String>,
    critical: bool,
}

impl Example {
    /// The five instances that most examples begin with.
    fn usual(what: &'static str, path: &'static str, chosen: &'static [usize]) -> Self {
        let host = format!("{}.example.com", what.replace(' ', "-"));
        let instance = |number, node, more: &str| Instance {
            number,
            node,
            tags: vec![format!("tricot {host}{more}")],
            critical: false,
        };
        let instances = vec![
            instance(1, "a", ""),
            instance(2, "b", ""),
            instance(3, "c", ""),
            instance(4, "c", "/api"),
            instance(5, "d", " 10"),
        ];
        Self { what, host, path, instances, chosen }
    }

    /// Makes instances unfit.
    fn critical(mut self, numbers: &[usize]) -> Self {
        let of_them = self.instances.iter_mut().filter(|instance| numbers.contains(&instance.number));
        of_them.for_each(|instance| instance.critical = true);
        self
    }

    /// Gives instances another tag.
    fn tagged(mut self, numbers: &[usize], tag: &str) -> Self {
        let of_them = self.instances.iter_mut().filter(|instance| numbers.contains(&instance.number));
        of_them.for_each(|instance| instance.tags.push(tag.into()));
        self
    }

    /// Moves the first three to nodes without a site.
    fn without_sites(mut self) -> Self {
        for (instance, node) in self.instances.iter_mut().zip(["p", "q", "r"]) {
            instance.node = node;
        }
        self
    }

    /// Adds the seventh, on a far node.
    fn seventh(mut self, tag: String) -> Self {
        self.instances.push(Instance { number: 7, node: "d", tags: vec![tag], critical: false });
        self
    }

    async fn register(&self, consul: &Consul, sites: &[Site]) {
        for Instance { number, node, tags, critical } in &self.instances {
            let (service, id) = (self.host.replace('.', "-"), format!("{}-{number}", self.host));
            let tags: Vec<&str> = tags.iter().map(String::as_str).collect();
            consul.service(node, &service, &id, sites[number - 1].port(), &tags).await;
            if *critical {
                consul.check(node, &id, &id, "critical").await;
            }
        }
    }

    async fn check(&self, tricot: &Tricot) {
        let mut conn = Client::lenient(tricot.https).connect(&self.host).await.unwrap();
        let mut chosen = BTreeSet::new();
        for _ in 0..REQUESTS {
            chosen.insert(conn.get(&self.host, self.path).await.unwrap().text());
        }
        let wanted: BTreeSet<String> = self.chosen.iter().map(usize::to_string).collect();
        assert_eq!(chosen, wanted, "{}: {}{}", self.what, self.host, self.path);
    }
}

/// Nodes of two sites and of none, a site for each number, and an instance that serves all hosts.
async fn cluster() -> Option<(Consul, Vec<Site>)> {
    let consul = or_skip(Consul::start(ConsulOptions::default()).await)?;
    for (node, meta) in [
        ("a", r#""site": "north""#),
        ("b", r#""site": "north""#),
        ("c", r#""site": "south""#),
        ("d", r#""site": "south""#),
        ("p", ""),
        ("q", ""),
        ("r", ""),
    ] {
        let node = format!(r#"{{"Node": "{node}", "Address": "127.0.0.1", "NodeMeta": {{{meta}}}}}"#);
        consul.register(&node).await;
    }
    let mut sites = Vec::new();
    for number in 1..=SITES {
        sites.push(Site::start(&number.to_string()).await);
    }
    consul.service("d", "all", "all-6", sites[5].port(), &["tricot * 1"]).await;
    Some((consul, sites))
}

async fn tricot(consul: &Consul, node: &str, variables: &[(&str, &str)]) -> Tricot {
    // In turn, so that few requests show all who are chosen.
    let usual = [("TRICOT_LB", "rr"), ("TRICOT_NODE_NAME", node)];
    let tricot = Tricot::start_with(consul, &[&usual, variables].concat()).await;
    if matches!(node, "a" | "b") {
        until_site_is_known(&tricot).await;
    }
    tricot
}

/// Where the proxy is comes by another way than the rules: the example for it has to hold.
async fn until_site_is_known(tricot: &Tricot) {
    let client = Client::lenient(tricot.https);
    until("the proxy's own site", async || {
        let page = client.get("settled.example.com", "/").await;
        page.is_ok_and(|page| page.text() == "1")
    })
    .await;
}

/// An example that holds only when the proxy knows its own site.
fn settled() -> Example {
    let mut example = Example::usual("settled", "/", &[1]);
    example.instances.retain(|instance| matches!(instance.number, 1 | 3));
    example.tagged(&[1, 3], "tricot-site-lb")
}

#[tokio::test]
async fn the_worked_examples_hold() {
    let usual = Example::usual;
    let all: &[usize] = &[1, 2, 3];
    let wildcard = |what, path, chosen, rule: &str| {
        let mut example = usual(what, path, chosen);
        let tag = format!("tricot *.{}{rule}", example.host);
        let below = format!("app.{}", example.host);
        for instance in &mut example.instances {
            instance.tags[0] = instance.tags[0].replace(&example.host, &below);
        }
        example.host = below;
        example.seventh(tag)
    };
    let examples = [
        settled(),
        usual("same node", "/", &[1]),
        usual("longer path", "/api/x", &[4]),
        usual("bytes of a path", "/apix", &[4]),
        usual("same site", "/", &[2]).critical(&[1]),
        usual("nothing local", "/", &[3]).critical(&[1, 2]),
        usual("next priority", "/", &[5]).critical(all),
        usual("path beside next priority", "/api", &[4]).critical(all),
        usual("catch all", "/", &[6]).critical(&[1, 2, 3, 4, 5]),
        usual("site lb", "/", &[1, 2]).tagged(all, "tricot-site-lb"),
        usual("global lb", "/", all).tagged(all, "tricot-global-lb"),
        usual("one site lb", "/", &[1, 2]).tagged(&[1], "tricot-site-lb"),
        usual("other global lb", "/", &[1]).tagged(&[2], "tricot-global-lb"),
        usual("both flags", "/", all).tagged(all, "tricot-global-lb").tagged(all, "tricot-site-lb"),
        wildcard("exact before wildcard", "/", &[1], ""),
        wildcard("path before wildcard", "/api/v2", &[7], "/api/v2"),
    ];
    let Some((consul, sites)) = cluster().await else { return };
    for example in &examples {
        example.register(&consul, &sites).await;
    }
    let other = Example { host: "other.example.org".into(), ..usual("unknown host", "/", &[6]) };

    let tricot = tricot(&consul, "a", &[]).await;

    for example in examples.iter().chain([&other]) {
        example.check(&tricot).await;
    }
}

#[tokio::test]
async fn without_sites_the_tag_for_sites_is_the_one_for_everywhere() {
    let all: &[usize] = &[1, 2, 3];
    let example = Example::usual("no sites", "/", all).without_sites().tagged(all, "tricot-site-lb");
    let Some((consul, sites)) = cluster().await else { return };
    example.register(&consul, &sites).await;

    example.check(&tricot(&consul, "p", &[]).await).await;
}

#[tokio::test]
async fn a_proxy_that_is_nowhere_prefers_nobody() {
    let example = Example::usual("nowhere", "/", &[1, 2, 3]);
    let Some((consul, sites)) = cluster().await else { return };
    example.register(&consul, &sites).await;

    example.check(&tricot(&consul, "no-such-node", &[]).await).await;
    // The agent is asked, whose node has none of the instances and no site.
    let mut command = command(consul.addr());
    let asks = Tricot::spawn(command.env("TRICOT_LB", "rr"));
    asks.has_table().await;
    example.check(&asks).await;
}

#[tokio::test]
async fn paths_may_be_compared_by_segments() {
    let examples = [
        settled(),
        Example::usual("inside a segment", "/apix", &[1]),
        Example::usual("a segment", "/api", &[4]),
        Example::usual("below a segment", "/api/x", &[4]),
    ];
    let Some((consul, sites)) = cluster().await else { return };
    for example in &examples {
        example.register(&consul, &sites).await;
    }

    let tricot = tricot(&consul, "a", &[("TRICOT_PATH_MATCH", "segment")]).await;

    for example in &examples {
        example.check(&tricot).await;
    }
}

/// A rule of an instance, read as the documentation says.
struct Rule {
    site: usize,
    node: &'static str,
    host: &'static str,
    path: &'static str,
    priority: u32,
    flags: Vec<&'static str>,
    critical: bool,
}

/// All that decides between two rules, larger first: priority, path, host, own node, own site.
type Rank = (u32, usize, (u8, usize), bool, bool);

impl Rule {
    fn random(random: &mut fastrand::Rng, site: usize) -> Self {
        let hosts = [
            "a.example.com",
            "b.example.com",
            "x.a.example.com",
            "*.example.com",
            "*.a.example.com",
            "?.example.*",
            "*",
        ];
        let flags: [&[&str]; 5] =
            [&[], &[], &["tricot-site-lb"], &["tricot-global-lb"], &["tricot-site-lb", "tricot-global-lb"]];
        Self {
            site,
            node: ["a", "b", "c", "p"][random.usize(..4)],
            host: hosts[random.usize(..hosts.len())],
            path: ["", "", "/a", "/a/b", "/ab"][random.usize(..5)],
            priority: [1, 100, 100, 200][random.usize(..4)],
            flags: flags[random.usize(..flags.len())].to_vec(),
            critical: random.u8(..3) == 0,
        }
    }

    fn site_of(node: &str) -> Option<&'static str> {
        match node {
            "a" | "b" => Some("north"),
            "c" => Some("south"),
            _ => None,
        }
    }

    /// How a host is meant, and how closely; nothing if the rule is not for it.
    fn host_rank(&self, host: &str) -> Option<(u8, usize)> {
        match self.host {
            "*" => Some((0, 0)),
            "?.example.*" => {
                let rest = host.get(1..).and_then(|rest| rest.strip_prefix(".example."));
                rest.is_some().then_some((1, 0))
            }
            own => match own.strip_prefix('*') {
                Some(suffix) => host.ends_with(suffix).then_some((2, suffix.len())),
                None => (own == host).then_some((3, 0)),
            },
        }
    }

    /// Where it stands among the rules for a request to a proxy on a node; nothing if it is none of them.
    fn rank(&self, host: &str, path: &str, node: &str) -> Option<Rank> {
        let by_host = self.host_rank(host)?;
        let global = self.flags.contains(&"tricot-global-lb");
        let own_node = self.node == node && self.flags.is_empty();
        let own_site =
            Self::site_of(self.node).is_some() && Self::site_of(self.node) == Self::site_of(node) && !global;
        path.starts_with(self.path).then_some((self.priority, self.path.len(), by_host, own_node, own_site))
    }
}

/// Which sites may answer a request, or the status if none may.
fn allowed(rules: &[Rule], host: &str, path: &str) -> Result<BTreeSet<usize>, u16> {
    let ranked: Vec<(Rank, &Rule)> =
        rules.iter().filter_map(|rule| Some((rule.rank(host, path, "a")?, rule))).collect();
    let usable = ranked.iter().filter(|(_, rule)| !rule.critical);
    let Some(best) = usable.clone().map(|(rank, _)| *rank).max() else {
        return Err(if ranked.is_empty() { 404 } else { 503 });
    };
    Ok(usable.filter(|(rank, _)| *rank == best).map(|(_, rule)| rule.site).collect())
}

#[tokio::test]
async fn random_tables_are_read_as_a_naive_reader_would() {
    let seed =
        std::env::var("TRICOT_TEST_SEED").map_or_else(|_| fastrand::u64(..), |seed| seed.parse().unwrap());
    println!("TRICOT_TEST_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let Some((consul, examples)) = cluster().await else { return };
    consul.deregister(r#"{"Node": "d", "ServiceID": "all-6"}"#).await;
    let mut sites = vec![];
    let mut rules = vec![];
    for n in 0..60 {
        let site = Site::start(&n.to_string()).await;
        let rule = Rule::random(&mut random, n);
        let frontend = format!("tricot {}{} {}", rule.host, rule.path, rule.priority);
        let tags = [&[frontend.as_str()], rule.flags.as_slice()].concat();
        let id = format!("site-{n}");
        consul.service(rule.node, &format!("s{}", n % 7), &id, site.port(), &tags).await;
        if rule.critical {
            consul.check(rule.node, &id, &id, "critical").await;
        }
        sites.push(site);
        rules.push(rule);
    }
    let mut settled = settled();
    // Before all that is random.
    settled.instances.iter_mut().for_each(|instance| instance.tags[0].push_str(" 999"));
    settled.register(&consul, &examples).await;
    let tricot = Tricot::start_with(&consul, &[("TRICOT_NODE_NAME", "a")]).await;
    let client = Client::lenient(tricot.https);
    until_site_is_known(&tricot).await;

    for host in
        ["a.example.com", "b.example.com", "x.a.example.com", "y.b.example.com", "c.example.org", "other.org"]
    {
        let mut conn = client.connect(host).await.unwrap();
        for path in ["/", "/a", "/a/b/c", "/ab", "/b"] {
            for _ in 0..8 {
                let page = conn.get(host, path).await.unwrap();
                match allowed(&rules, host, path) {
                    Ok(allowed) => {
                        assert_eq!(page.status, 200, "{host}{path}");
                        let site: usize = page.text().parse().unwrap();
                        assert!(allowed.contains(&site), "{host}{path}: {site} is none of {allowed:?}");
                    }
                    Err(status) => assert_eq!(page.status, status, "{host}{path}"),
                }
            }
        }
    }
}
