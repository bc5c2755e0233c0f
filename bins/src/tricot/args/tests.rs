use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::time::Duration;

use clap::CommandFactory;

use super::*;

/// The command without the variables of the process that runs the tests.
fn command() -> Command {
    Args::command().mut_args(|arg| arg.env(None::<&'static str>))
}

fn with(args: &[&str], variables: &[(&str, &str)]) -> Result<Settings, clap::Error> {
    let variables: HashMap<_, _> =
        variables.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))).collect();
    let args = std::iter::once("tricot").chain(args.iter().copied());
    Settings::parse_with(command(), args, |name| variables.get(name).cloned())
}

fn parse(args: &[&str]) -> Result<Settings, clap::Error> {
    let needed = ["--letsencrypt-email", "a@b.example"];
    with(&[&needed[..], args].concat(), &[])
}

fn settings(args: &[&str]) -> Settings {
    parse(args).unwrap_or_else(|error| panic!("{args:?}: {error}"))
}

/// The first line of an error, after checking that it is one of misuse.
fn refused(args: &[&str]) -> String {
    let error = parse(args).expect_err(&format!("{args:?}"));
    assert_eq!(error.exit_code(), 2, "{error}");
    error.to_string().lines().next().unwrap().to_owned()
}

#[test]
fn without_arguments_the_defaults_hold() {
    let settings = settings(&[]);

    assert_eq!(settings.listen.http, ["0.0.0.0:80".parse().unwrap()]);
    assert_eq!(settings.listen.https, ["0.0.0.0:443".parse().unwrap()]);
    assert_eq!(settings.listen.metrics, None);
    assert_eq!(settings.listen.https_public_port, None);
    assert!(settings.listen.trusted_proxies.is_empty() && settings.listen.proxy_protocol.is_empty());
    assert_eq!(settings.consul.address, ConsulAddress::Url("http://127.0.0.1:8500".parse().unwrap()));
    assert_eq!(&*settings.consul.kv_prefix, "tricot/");
    assert_eq!((settings.consul.token, settings.consul.client_cert), (Ok(None), None));
    assert_eq!((settings.consul.node_name, settings.consul.datacenter), (None, None));
    assert!(!settings.consul.skip_verify);
    assert_eq!(settings.acme.email.as_deref(), Some("a@b.example"));
    assert_eq!(settings.acme.directory, AcmeDirectory::Production);
    assert_eq!(settings.acme.challenges, [Challenge::Http01]);
    assert_eq!((settings.acme.external_account, settings.acme.profile), (None, None));
    assert_eq!((settings.acme.on_demand_wait, settings.acme.cache_dir), (None, None));
    assert_eq!(settings.acme.lock_ttl, Duration::from_secs(60));
    assert!(settings.acme.warmup);
    assert!(settings.proxy.compression.is_none());
    assert_eq!(settings.proxy.health, Health::PassingAndWarning);
    assert_eq!((settings.proxy.balancing, settings.proxy.path_match), (Balancing::P2c, PathMatch::Prefix));
    assert_eq!(settings.proxy.forwarded, Forwarded::Off);
    assert_eq!(settings.proxy.connect_timeout, Duration::from_secs(5));
    assert_eq!(settings.proxy.response_timeout, None);
    assert_eq!(settings.proxy.idle_timeout, Duration::from_secs(90));
    assert_eq!(settings.shutdown_grace, Duration::from_secs(30));
    assert_eq!(settings.access_log, AccessLog::Stdout);
    assert_eq!((settings.config_dump, settings.log_format), (None, LogFormat::Text));
    assert!(!settings.check);
    assert_eq!(settings.warnings, [""; 0]);
}

#[test]
fn arguments_are_read_as_documented() {
    let settings = settings(&[
        "--http-bind-addr=[::]:8080, 127.0.0.1:8081",
        "--https-bind-addr=[::1]:4443",
        "--metrics-bind-addr=[::]:9334",
        "--https-public-port=443",
        "--trusted-proxies=10.0.0.0/9, 10.128.0.0/9,192.0.2.1",
        "--proxy-protocol=fd00::/8",
        "--node-name=a",
        "--consul-addr=https://consul:8501/",
        "--consul-ca-cert=ca.pem",
        "--consul-client-cert=cert.pem",
        "--consul-client-key=key.pem",
        "--consul-kv-prefix=edge/",
        "--consul-token=0b0e",
        "--consul-datacenter=dc2",
        "--acme-directory=staging",
        "--acme-ca-cert=root.pem",
        "--acme-eab-kid=kid-1",
        "--acme-eab-hmac-key=Zm9vYmFy",
        "--acme-challenges=tls-alpn-01, http-01,tls-alpn-01",
        "--acme-profile=shortlived",
        "--on-demand-tls-ask=http://127.0.0.1:3903/check",
        "--on-demand-wait=20s",
        "--cert-cache-dir=/var/cache/tricot",
        "--lock-ttl=2m",
        "--warmup-cert-memory-store=no",
        "--enable-compression",
        "--compress-mime-types=text/html, text/css",
        "--health=passing",
        "--lb=rr",
        "--path-match=segment",
        "--forwarded=rfc7239",
        "--connect-timeout=500ms",
        "--response-timeout=1m",
        "--idle-timeout=10s",
        "--shutdown-grace=0",
        "--access-log=json",
        "--config-dump=/run/rules.json",
        "--log-format=json",
        "--check",
    ]);

    assert_eq!(settings.listen.http.len(), 2);
    assert_eq!(settings.listen.https, ["[::1]:4443".parse().unwrap()]);
    assert_eq!(settings.listen.metrics, Some("[::]:9334".parse().unwrap()));
    assert_eq!(settings.listen.https_public_port, Some(443));
    let trusted: Vec<_> = settings.listen.trusted_proxies.iter().map(ToString::to_string).collect();
    assert_eq!(trusted, ["10.0.0.0/8", "192.0.2.1/32"]);
    assert_eq!(settings.listen.proxy_protocol.len(), 1);
    assert_eq!(settings.consul.address, ConsulAddress::Url("https://consul:8501".parse().unwrap()));
    assert_eq!(settings.consul.ca_cert, Some("ca.pem".into()));
    assert_eq!(
        settings.consul.client_cert,
        Some(ClientCert { cert: "cert.pem".into(), key: "key.pem".into() })
    );
    assert_eq!(&*settings.consul.kv_prefix, "edge/");
    assert_eq!(
        settings.consul.token.unwrap().map(|token| token.secret().expose().clone()).as_deref(),
        Some("0b0e")
    );
    assert_eq!(settings.consul.node_name.as_deref(), Some("a"));
    assert_eq!(settings.consul.datacenter.as_deref(), Some("dc2"));
    assert_eq!(settings.acme.directory, AcmeDirectory::Staging);
    assert_eq!(settings.acme.ca_cert, Some("root.pem".into()));
    let account = settings.acme.external_account.unwrap();
    assert_eq!((&*account.kid, &account.hmac_key.expose()[..]), ("kid-1", &b"foobar"[..]));
    assert_eq!(settings.acme.challenges, [Challenge::TlsAlpn01, Challenge::Http01]);
    assert_eq!(settings.acme.profile.as_deref(), Some("shortlived"));
    assert_eq!(settings.acme.ask, Some("http://127.0.0.1:3903/check".parse().unwrap()));
    assert_eq!(settings.acme.on_demand_wait, Some(Duration::from_secs(20)));
    assert_eq!(settings.acme.cache_dir, Some("/var/cache/tricot".into()));
    assert_eq!(settings.acme.lock_ttl, Duration::from_secs(120));
    assert!(!settings.acme.warmup);
    assert_eq!(settings.proxy.compression.unwrap().types.to_string(), "text/html,text/css");
    assert_eq!(settings.proxy.health, Health::Passing);
    assert_eq!((settings.proxy.balancing, settings.proxy.path_match), (Balancing::Rr, PathMatch::Segment));
    assert_eq!(settings.proxy.forwarded, Forwarded::Rfc7239);
    assert_eq!(settings.proxy.connect_timeout, Duration::from_millis(500));
    assert_eq!(settings.proxy.response_timeout, Some(Duration::from_secs(60)));
    assert_eq!(settings.proxy.idle_timeout, Duration::from_secs(10));
    assert_eq!(settings.shutdown_grace, Duration::ZERO);
    assert_eq!(settings.access_log, AccessLog::Json);
    assert_eq!(settings.config_dump, Some("/run/rules.json".into()));
    assert_eq!(settings.log_format, LogFormat::Json);
    assert!(settings.check);
    assert_eq!(settings.warnings, [""; 0]);
}

#[test]
fn a_bare_switch_means_yes() {
    for (args, on) in [
        (&["--enable-compression"][..], true),
        (&["--enable-compression", "--check"], true),
        (&["--enable-compression", "ON"], true),
        (&["--enable-compression=1"], true),
        (&["--enable-compression", "off"], false),
        (&["--enable-compression=No"], false),
    ] {
        assert_eq!(settings(args).proxy.compression.is_some(), on, "{args:?}");
    }
}

#[test]
fn each_variable_belongs_to_its_argument() {
    let command = Args::command();
    let mut known: Vec<_> = command
        .get_arguments()
        .filter_map(|arg| {
            let variable = arg.get_env()?.to_str()?.to_owned();
            let default = arg.get_default_values().join(OsStr::new(",")).into_string().ok()?;
            Some((variable, arg.get_long()?.to_owned(), default))
        })
        .collect();
    known.sort();

    let mut documented = [
        ("TRICOT_LETSENCRYPT_EMAIL", ""),
        ("TRICOT_NODE_NAME", ""),
        ("TRICOT_CONSUL_HOST", ""),
        ("TRICOT_CONSUL_CA_CERT", ""),
        ("TRICOT_CONSUL_CLIENT_CERT", ""),
        ("TRICOT_CONSUL_CLIENT_KEY", ""),
        ("TRICOT_CONSUL_TLS_SKIP_VERIFY", "false"),
        ("TRICOT_CONSUL_KV_PREFIX", "tricot/"),
        ("TRICOT_HTTP_BIND_ADDR", "0.0.0.0:80"),
        ("TRICOT_HTTPS_BIND_ADDR", "0.0.0.0:443"),
        ("TRICOT_METRICS_BIND_ADDR", ""),
        ("TRICOT_ENABLE_COMPRESSION", "false"),
        (
            "TRICOT_COMPRESS_MIME_TYPES",
            "text/html,text/plain,text/css,text/javascript,text/xml,application/javascript,application/json,\
             application/xml,image/svg+xml,font/ttf",
        ),
        ("TRICOT_WARMUP_CERT_MEMORY_STORE", "true"),
        ("TRICOT_CONSUL_TOKEN", ""),
        ("TRICOT_CONSUL_TOKEN_FILE", ""),
        ("TRICOT_CONSUL_DATACENTER", ""),
        ("TRICOT_ACME_DIRECTORY", ""),
        ("TRICOT_ACME_CA_CERT", ""),
        ("TRICOT_ACME_EAB_KID", ""),
        ("TRICOT_ACME_EAB_HMAC_KEY", ""),
        ("TRICOT_ACME_CHALLENGES", "http-01"),
        ("TRICOT_ACME_PROFILE", ""),
        ("TRICOT_ON_DEMAND_TLS_ASK", ""),
        ("TRICOT_HEALTH", "passing,warning"),
        ("TRICOT_LB", "p2c"),
        ("TRICOT_PATH_MATCH", "prefix"),
        ("TRICOT_HTTPS_PUBLIC_PORT", ""),
        ("TRICOT_TRUSTED_PROXIES", ""),
        ("TRICOT_PROXY_PROTOCOL", ""),
        ("TRICOT_SHUTDOWN_GRACE", "30s"),
        ("TRICOT_WORKERS", ""),
        ("TRICOT_ACCESS_LOG", "stdout"),
        ("TRICOT_LOG_FORMAT", "text"),
        ("TRICOT_CONNECT_TIMEOUT", "5s"),
        ("TRICOT_RESPONSE_TIMEOUT", "0"),
        ("TRICOT_IDLE_TIMEOUT", "90s"),
        ("TRICOT_CONFIG_DUMP", ""),
        ("TRICOT_ON_DEMAND_WAIT", "off"),
        ("TRICOT_FORWARDED", "off"),
        ("TRICOT_CERT_CACHE_DIR", "off"),
        ("TRICOT_LOCK_TTL", "60s"),
    ]
    .map(|(variable, default)| {
        let long = variable.strip_prefix("TRICOT_").unwrap().to_lowercase().replace('_', "-");
        (variable.to_owned(), long, default.to_owned())
    });
    documented.sort();
    assert_eq!(known, documented);
}

#[test]
fn an_argument_comes_before_a_variable_before_a_default() {
    // Set wherever tests run, and nobody's secret.
    let path = std::env::var("PATH").unwrap();
    let from_path = || command().mut_arg("consul_kv_prefix", |arg| arg.env("PATH"));
    let needed = ["tricot", "--letsencrypt-email=a@b"];

    let prefix = |command, args: &[&str]| {
        let settings = Settings::parse_with(command, needed.iter().chain(args).copied(), |_| None).unwrap();
        settings.consul.kv_prefix.into_string()
    };
    assert_eq!(prefix(command(), &[]), "tricot/");
    assert_eq!(prefix(from_path(), &[]), path);
    assert_eq!(prefix(from_path(), &["--consul-kv-prefix=own/"]), "own/");
}

#[test]
fn what_is_wrong_is_named_with_its_variable() {
    for (args, text) in [
        (
            &["--http-bind-addr=localhost:80"][..],
            "invalid value 'localhost:80' for '--http-bind-addr <IP:PORT>': an address and a port are wanted, such as 127.0.0.1:8080 or [::]:443",
        ),
        (
            &["--consul-host=127.0.0.1"],
            "invalid value '127.0.0.1' for '--consul-host <URL>': http://HOST:PORT, https://HOST:PORT or unix:///PATH is wanted",
        ),
        (
            &["--consul-host=http://127.0.0.1:8500/v1"],
            "invalid value 'http://127.0.0.1:8500/v1' for '--consul-host <URL>': http://HOST:PORT or https://HOST:PORT is wanted without \"/v1\" at its end",
        ),
        (
            &["--enable-compression=maybe"],
            "invalid value 'maybe' for '--enable-compression [<BOOL>]': true, 1, yes, on, false, 0, no or off is wanted",
        ),
        (
            &["--compress-mime-types=html"],
            "invalid value 'html' for '--compress-mime-types <LIST>': \"html\" is no media type; one looks like text/html, without parameters and without *",
        ),
        (
            &["--trusted-proxies=10.0.0.0/8,x"],
            "invalid value 'x' for '--trusted-proxies <LIST>': a network is wanted, such as 10.0.0.0/8, fd00::/8 or 192.0.2.1",
        ),
        (
            &["--acme-directory=prod"],
            "invalid value 'prod' for '--acme-directory <URL>': a URL that begins with https:// is wanted, or `staging`",
        ),
        (
            &["--acme-challenges=dns-01"],
            "invalid value 'dns-01' for '--acme-challenges <LIST>': http-01 or tls-alpn-01 is wanted",
        ),
        (
            &["--on-demand-tls-ask=x"],
            "invalid value 'x' for '--on-demand-tls-ask <URL>': a URL that begins with http:// or https:// is wanted",
        ),
        (
            &["--health=any"],
            "invalid value 'any' for '--health <LIST>': passing or passing,warning is wanted",
        ),
        (
            &["--connect-timeout=0"],
            "invalid value '0' for '--connect-timeout <TIME>': more than no time is wanted",
        ),
        (
            &["--idle-timeout=90"],
            "invalid value '90' for '--idle-timeout <TIME>': a number and a unit is wanted, such as 500ms, 5s, 2m or 1h",
        ),
        (
            &["--lock-ttl=5s"],
            "invalid value '5s' for '--lock-ttl <TIME>': a time from 10s to 24h is wanted, as Consul has it",
        ),
        (
            &["--https-public-port=0"],
            "invalid value '0' for '--https-public-port <PORT>': 0 is not in 1..=65535",
        ),
        (
            &["--node-name=a b"],
            "invalid value 'a b' for '--node-name <NAME>': a name without blanks is wanted",
        ),
        (&["--lb=random"], "invalid value 'random' for '--lb <HOW>'"),
    ] {
        assert_eq!(refused(args), format!("error: {text}"));
        // Without its variable an argument has no tip; with it the tip names it.
        let long = args[0].trim_start_matches('-').split('=').next().unwrap();
        let id = long.replace('-', "_");
        let command = command().mut_arg(&id, |arg| arg.env("PATH"));
        let args = ["tricot", "--letsencrypt-email=a@b", args[0]];
        let error = Settings::parse_with(command, args, |_| None).unwrap_err().to_string();
        assert!(error.contains("tip: this is also what the variable PATH sets"), "{error}");
    }
}

#[test]
fn what_does_not_fit_together_is_named() {
    let key = "TRICOT_ACME_EAB_HMAC_KEY";
    for (args, text) in [
        (&["--consul-client-cert=c"][..], "TRICOT_CONSUL_CLIENT_CERT is set, and TRICOT_CONSUL_CLIENT_KEY, its key, is not".to_owned()),
        (&["--consul-client-key=k"], "TRICOT_CONSUL_CLIENT_KEY is set, and TRICOT_CONSUL_CLIENT_CERT, its certificate, is not".into()),
        (&["--acme-eab-kid=k"], format!("TRICOT_ACME_EAB_KID is set, and {key} is not")),
        (&["--acme-eab-hmac-key=hunter2"], format!("{key} is set, and TRICOT_ACME_EAB_KID is not")),
        (&["--acme-eab-kid=k", "--acme-eab-hmac-key=hunter2!"], format!("{key} is not in base64url")),
        (&["--consul-token=hunter2", "--consul-token-file=f"], "TRICOT_CONSUL_TOKEN and TRICOT_CONSUL_TOKEN_FILE are both set; one is wanted".into()),
        (&["--consul-token=hunter 2"], "TRICOT_CONSUL_TOKEN: this is no token: it has blanks or other characters in it, or is too long".into()),
        (&["--consul-host=http://u:hunter2@h"], "TRICOT_CONSUL_HOST (--consul-host) must not have a user and a password in it; a token goes into TRICOT_CONSUL_TOKEN".into()),
    ] {
        let error = refused(args);
        assert_eq!(error, format!("error: {text}"));
        assert!(!parse(args).unwrap_err().to_string().contains("hunter"), "{error}");
    }
}

#[test]
fn two_listeners_need_two_addresses() {
    for (http, https, metrics, names) in [
        ("0.0.0.0:443", "0.0.0.0:443", "127.0.0.1:1", "HTTP HTTPS"),
        ("127.0.0.1:80", "[::]:80", "127.0.0.1:1", "HTTP HTTPS"),
        ("10.0.0.1:80,0.0.0.0:81", "127.0.0.1:82,127.0.0.1:81", "127.0.0.1:1", "HTTP HTTPS"),
        ("[::]:80", "[::]:443", "0.0.0.0:80", "HTTP METRICS"),
        ("[::1]:80", "[::]:443", "[::1]:443", "HTTPS METRICS"),
        ("[::ffff:127.0.0.1]:80", "[::1]:443", "127.0.0.1:80", "HTTP METRICS"),
    ] {
        let addrs = ["--http-bind-addr", http, "--https-bind-addr", https, "--metrics-bind-addr", metrics];
        let text = refused(&addrs);
        for name in names.split(' ') {
            assert!(text.contains(&format!("TRICOT_{name}_BIND_ADDR")), "{addrs:?}: {text}");
        }
    }
    for (http, https, metrics) in [
        ("127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"),
        ("127.0.0.1:80", "127.0.0.2:80", "[::1]:80"),
        ("0.0.0.0:80", "[::1]:80", "0.0.0.0:81"),
    ] {
        settings(&["--http-bind-addr", http, "--https-bind-addr", https, "--metrics-bind-addr", metrics]);
    }
}

#[test]
fn an_address_for_mail_is_needed() {
    let missing = with(&[], &[]).unwrap_err();
    assert_eq!(missing.exit_code(), 2);
    assert!(
        missing.to_string().starts_with("error: TRICOT_LETSENCRYPT_EMAIL (--letsencrypt-email) is not set;")
    );

    let empty = with(&["--letsencrypt-email="], &[]).unwrap_err();
    assert_eq!(empty.exit_code(), 2);
    assert!(empty.to_string().starts_with("error: TRICOT_LETSENCRYPT_EMAIL (--letsencrypt-email) is empty;"));

    let with_directory =
        with(&["--letsencrypt-email=", "--acme-directory=https://ca.example/dir"], &[]).unwrap();
    assert_eq!(with_directory.acme.email, None);
    assert!(with(&["--acme-directory=https://ca.example/dir"], &[]).is_err());
}

#[test]
fn a_token_comes_from_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let (good, empty, binary) =
        (dir.path().join("good"), dir.path().join("empty"), dir.path().join("binary"));
    fs::write(&good, "hunter2\n").unwrap();
    fs::write(&empty, " \n").unwrap();
    fs::write(&binary, "hunter\0").unwrap();

    let read = settings(&["--consul-token-file", good.to_str().unwrap()]).consul.token.unwrap().unwrap();
    assert_eq!(read.secret().expose(), "hunter2");
    assert!(matches!(&read, Token::File { path, .. } if *path == good));
    fs::write(&good, "other").unwrap();
    assert_eq!(Token::read(&good).unwrap().secret().expose(), "other");
    for (path, text) in [(&empty, "the token is empty"), (&binary, "this is no token: it has blanks")] {
        let error = settings(&["--consul-token-file", path.to_str().unwrap()]).consul.token.unwrap_err();
        assert!(error.contains(text) && !error.contains("hunter"), "{error}");
    }
    let missing = settings(&["--consul-token-file=/nonexistent/token"]).consul.token.unwrap_err();
    let why = "cannot read /nonexistent/token: No such file or directory (os error 2)";
    assert_eq!(missing, format!("TRICOT_CONSUL_TOKEN_FILE: {why}"));
    assert!(Token::read("/dev/zero".as_ref()).is_err());
}

#[test]
fn the_token_of_consul_s_own_tools_is_the_default() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    fs::write(&file, "from-file").unwrap();
    let file = ("CONSUL_HTTP_TOKEN_FILE", file.to_str().unwrap());
    let given = ("CONSUL_HTTP_TOKEN", "given");
    let token = |args: &[&str], variables: &[(&str, &str)]| {
        let args = [&["--letsencrypt-email=a@b"], args].concat();
        let token = with(&args, variables).unwrap().consul.token.unwrap();
        token.map(|token| token.secret().expose().clone())
    };

    assert_eq!(token(&[], &[given]).as_deref(), Some("given"));
    assert_eq!(token(&[], &[given, file]).as_deref(), Some("from-file"));
    assert_eq!(token(&["--consul-token=own"], &[given, file]).as_deref(), Some("own"));
    assert_eq!(token(&[], &[("CONSUL_HTTP_TOKEN", ""), ("CONSUL_HTTP_TOKEN_FILE", "")]), None);
    let error = with(&["--letsencrypt-email=a@b"], &[("CONSUL_HTTP_TOKEN", "a b")]).unwrap_err();
    assert!(error.to_string().starts_with("error: CONSUL_HTTP_TOKEN: this is no token"), "{error}");
}

#[test]
fn the_address_of_consul_s_own_tools_is_the_default() {
    let address = |args: &[&str], variables: &[(&str, &str)]| {
        let args = [&["--letsencrypt-email", "a@b.example"], args].concat();
        with(&args, variables).map(|it| (it.consul.address.to_string(), it.consul.address_from))
    };
    for (variables, expected) in [
        (&[("CONSUL_HTTP_ADDR", "10.0.0.1:8500")][..], "http://10.0.0.1:8500"),
        (&[("CONSUL_HTTP_ADDR", "c:8501"), ("CONSUL_HTTP_SSL", "true")], "https://c:8501"),
        (&[("CONSUL_HTTP_ADDR", "http://c:8501"), ("CONSUL_HTTP_SSL", "1")], "https://c:8501"),
        (&[("CONSUL_HTTP_ADDR", "c:8500"), ("CONSUL_HTTP_SSL", "false")], "http://c:8500"),
        (&[("CONSUL_HTTP_ADDR", "https://c:8501/")], "https://c:8501"),
        (&[("CONSUL_HTTP_ADDR", "unix:///run/consul.sock")], "unix:///run/consul.sock"),
    ] {
        assert_eq!(address(&[], variables).unwrap(), (expected.into(), "CONSUL_HTTP_ADDR"));
        let own = address(&["--consul-host", "http://own:1"], variables).unwrap();
        assert_eq!(own, ("http://own:1".into(), "TRICOT_CONSUL_HOST"));
    }
    for empty in [&[][..], &[("CONSUL_HTTP_ADDR", "")]] {
        assert_eq!(address(&[], empty).unwrap(), ("http://127.0.0.1:8500".into(), "TRICOT_CONSUL_HOST"));
    }
    let unclear = [("CONSUL_HTTP_ADDR", "c:1"), ("CONSUL_HTTP_SSL", "perhaps")];
    assert!(address(&[], &unclear).unwrap_err().to_string().contains("CONSUL_HTTP_SSL"));
    for wrong in ["http://c/v1", "http://u:hunter2@c"] {
        let error = address(&[], &[("CONSUL_HTTP_ADDR", wrong)]).unwrap_err();
        assert!(error.to_string().contains("CONSUL_HTTP_ADDR"), "{error}");
    }
}

#[test]
fn secrets_are_not_shown() {
    let args = ["--consul-token=hunter2", "--acme-eab-kid=k", "--acme-eab-hmac-key=aHVudGVyMg"];

    let shown = format!("{:?}", settings(&args));
    assert!(
        !shown.contains("hunter2") && !shown.contains("aHVudGVyMg") && !shown.contains("104, 117"),
        "{shown}"
    );
    assert!(shown.contains("***"));

    for variable in ["consul_token", "acme_eab_hmac_key"] {
        let command = Args::command();
        let arg = command.get_arguments().find(|arg| arg.get_id() == variable).unwrap();
        assert!(arg.is_hide_env_values_set(), "{variable}");
    }
}

#[test]
fn an_empty_variable_without_default_is_unset() {
    let emptied = without_empty(Args::command(), |_| true);

    let left: Vec<_> = emptied.get_arguments().filter(|arg| arg.get_env().is_some()).collect();
    assert!(left.iter().any(|arg| arg.get_id() == "letsencrypt_email"));
    assert!(left.iter().any(|arg| arg.get_id() == "consul_kv_prefix"));
    for unset in ["node_name", "acme_directory", "metrics_bind_addr", "consul_token", "trusted_proxies"] {
        assert!(left.iter().all(|arg| arg.get_id() != unset), "{unset}");
    }
    let untouched = without_empty(Args::command(), |_| false);
    assert_eq!(untouched.get_arguments().filter(|arg| arg.get_env().is_some()).count(), 42);
}

#[test]
fn what_has_no_effect_is_warned_of() {
    for (args, text) in [
        (
            &["--consul-kv-prefix=edge"][..],
            "TRICOT_CONSUL_KV_PREFIX is \"edge\" and does not end in /: keys begin like \"edgecerts\"",
        ),
        (
            &["--consul-kv-prefix="],
            "TRICOT_CONSUL_KV_PREFIX is \"\" and does not end in /: keys begin like \"certs\"",
        ),
        (
            &["--consul-ca-cert=ca"],
            "TRICOT_CONSUL_HOST is not https: what is set about certificates of Consul has no effect",
        ),
        (
            &["--consul-tls-skip-verify"],
            "TRICOT_CONSUL_HOST is not https: what is set about certificates of Consul has no effect",
        ),
        (
            &["--consul-host=https://c", "--consul-tls-skip-verify", "--consul-ca-cert=ca"],
            "TRICOT_CONSUL_TLS_SKIP_VERIFY is true: TRICOT_CONSUL_CA_CERT has no effect",
        ),
    ] {
        assert_eq!(settings(args).warnings, [text], "{args:?}");
    }
}

#[test]
fn help_and_version_are_no_misuse() {
    for (arg, text) in
        [("--help", "TRICOT_LETSENCRYPT_EMAIL"), ("-h", "--letsencrypt-email"), ("--version", "tricot ")]
    {
        let error = with(&[arg], &[]).unwrap_err();

        assert_eq!((error.exit_code(), error.use_stderr()), (0, false), "{arg}");
        assert!(error.to_string().contains(text), "{error}");
    }
    assert_eq!(refused(&["--lets-encrypt"]), "error: unexpected argument '--lets-encrypt' found");
    assert_eq!(refused(&["config.toml"]), "error: unexpected argument 'config.toml' found");
    Args::command().debug_assert();
}
