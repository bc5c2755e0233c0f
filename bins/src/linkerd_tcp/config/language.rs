//! The fields of both languages, with what they mean.

use crate::kit::load::language::Field;
use crate::kit::load::language::Table;
use crate::kit::load::language::Takes;

const ADDR: Takes = Takes::Text("`IP:PORT`");
const IP: Takes = Takes::Text("an IP address");
const PORT: Takes = Takes::Integer(0, 65_535);
const LABEL: Takes = Takes::Text("a text");
const PATH: Takes = Takes::Text("a path such as `/svc/web`");
const NAME: Takes = Takes::Text("a DNS name or IP address");
const FILES: Takes = Takes::Many(1, &Takes::File);
const FROM_0: Takes = Takes::Integer(0, u64::MAX);
const FROM_1: Takes = Takes::Integer(1, u64::MAX);
const KIND: &str = "Which kind this is.";

const WORKERS: Field =
    Field::new("workers", FROM_1, "Threads that serve connections.").or("one for each processor");
const BUFFER: &str = "Bytes of a buffer for streams that cannot be spliced, one for each worker. From 1024 to 16777216: others are taken as the nearer end.";

pub(super) const IDENTITY: Table = Table::new(
    "identity",
    "A certificate and its key. Both are followed: new ones are used when the files change.",
    &[&[
        Field::new("certs", FILES, "PEM files that form the chain in this order, the certificate first.")
            .required()
            .also(&["certPaths"]),
        Field::new("privateKey", Takes::File, "PEM file with exactly one key.")
            .required()
            .also(&["privateKeyPath"]),
    ]],
);

pub(super) const CLIENT_AUTH: Table = Table::new(
    "client authentication",
    "Which certificates clients may show.",
    &[&[
        Field::new("trustCerts", FILES, "PEM files with the authorities of clients.").required(),
        Field::new("required", Takes::Flag, "Whether a client without a certificate is refused.")
            .or("`true`"),
    ]],
);

const ALPN: Takes = Takes::Many(0, &Takes::Text("a protocol such as `h2`"));
const DEFAULT_IDENTITY: &str = "What clients are shown that ask for no name, or for one that is not in `identities`. Without it their handshakes fail. Either it or an entry in `identities` must be there.";
const IDENTITIES: Takes =
    Takes::Map("server names, of which the first label may be `*`,", &Takes::One(&IDENTITY));
const IDENTITIES_ABOUT: &str = "What clients are shown, by the name that they ask for.";
const AUTH_ABOUT: &str = "Asks clients for a certificate.";
const ALPN_ABOUT: &str = "Protocols that are agreed on with clients, in order of preference.";

const LIMITS: &[Field] = &[
    Field::new("idleTimeoutMs", FROM_1, "How long neither side may send before a stream is closed.")
        .or("no limit"),
    Field::new("handshakeTimeoutMs", FROM_1, "How long a client's TLS handshake may take.").or("10000"),
    Field::new("halfCloseTimeoutMs", FROM_1, "How long one direction may go on after the other has ended.")
        .or("no limit"),
];

pub(super) const CLIENT_TLS: Table = Table::new(
    "client tls",
    "TLS towards endpoints.",
    &[&[
        Field::new("dnsName", NAME, "The name that an endpoint's certificate must have.")
            .required()
            .also(&["name"]),
        Field::new("trustCerts", FILES, "PEM files with the authorities of endpoints.")
            .or("those of the system")
            .also(&["trustCertPaths"]),
        Field::new(
            "clientAuth",
            Takes::One(&IDENTITY),
            "What endpoints are shown that ask for a certificate.",
        ),
        Field::new("alpnProtocols", ALPN, "Protocols that endpoints are offered."),
        MIN_VERSION,
    ]],
);
const MIN_VERSION: Field =
    Field::new("minVersion", Takes::Version(&["1.2", "1.3"]), "The oldest version of TLS that is accepted.")
        .or("`1.2`");

pub(super) const RESOLVER_TLS: Table = Table::new(
    "resolver tls",
    "TLS towards namerd.",
    &[&[
        Field::new("dnsName", NAME, "The name that its certificate must have.").or("the host of the URL"),
        Field::new("trustCerts", FILES, "PEM files with its authorities.").or("those of the system"),
        Field::new("clientAuth", Takes::One(&IDENTITY), "What it is shown if it asks for a certificate."),
        MIN_VERSION,
    ]],
);

pub(super) const BALANCER: Table = Table::new(
    "load balancer",
    "How an endpoint is chosen for a connection.",
    &[&[Field::new(
        "kind",
        Takes::Choice(&["p2c", "ewma"]),
        "`p2c`: the less loaded of two that are drawn by weight. `ewma`: of these the one with the shorter time to the first \
         byte of an answer.",
    )
    .required()]],
);
const LOAD_BALANCER: Field =
    Field::new("loadBalancer", Takes::One(&BALANCER), "How an endpoint is chosen.").or("`p2c`");

const NAMESPACE: Field =
    Field::new("namespace", Takes::Text("a text"), "The namespace of dtabs that names are looked up in.")
        .or("`default`");
const NAMERD: &[Field] = &[
    Field::new(
        "watch",
        Takes::Choice(&["auto", "always", "never"]),
        "Whether changes are waited for between two polls: as long as namerd can, always, or never.",
    )
    .or("`auto`"),
    Field::new("requestTimeoutMs", FROM_1, "How long an answer may take.")
        .or("10 s, or the time between two polls if that is longer"),
    Field::new("tls", Takes::One(&RESOLVER_TLS), "TLS towards namerd, whose URL is `https` then."),
    Field::new(
        "mode",
        Takes::Choice(&["resolve", "bind"]),
        "`resolve`: namerd makes one list of a name. `bind`: weights and alternatives of dtabs are applied to each \
         connection.",
    )
    .or("`resolve`"),
];

// Generation A.

/// A whole file of generation A.
pub(super) const PROXIES: Table = Table::new(
    "file with proxies",
    "The language of linkerd-tcp up to 0.0.3.",
    &[&[
        Field::new("admin", Takes::One(&PROXIES_ADMIN), "The admin server."),
        Field::new("proxies", Takes::Many(0, &Takes::One(&PROXY)), "The proxies.").required(),
        Field::new("bufferSize", FROM_0, BUFFER).or("65536"),
        Field::new(
            "metricsIntervalSecs",
            FROM_0,
            "Has no effect: the field of the same name in `admin` has.",
        ),
        WORKERS,
    ]],
);

pub(super) const PROXIES_ADMIN: Table = Table::new(
    "admin of proxies",
    "The admin server of a file with proxies.",
    &[&[
        Field::new(
            "addr",
            ADDR,
            "Where it listens. Without it, `/shutdown` and `/abort` are for this machine only.",
        )
        .or("`0.0.0.0:9989`"),
        Field::new("metricsIntervalSecs", FROM_1, "How far minima, maxima and percentiles look back.")
            .or("10"),
    ]],
);

pub(super) const PROXY: Table = Table::new(
    "proxy",
    "Servers whose connections go to the endpoints of one name.",
    &[&[
        Field::new("label", LABEL, "Its name in logs and metrics, once in the file.")
            .or("`default`, `default-2` and so on"),
        Field::new(
            "servers",
            Takes::Many(0, &Takes::Either(&[&PROXY_TCP, &PROXY_TLS])),
            "Where it listens.",
        )
        .required(),
        Field::new("namerd", Takes::One(&PROXY_NAMERD), "The name, and who knows its endpoints.").required(),
        Field::new("client", Takes::One(&PROXY_CLIENT), "How endpoints are connected."),
        Field::new(
            "maxWaiters",
            FROM_0,
            "Connections that may wait for an endpoint; when there are as many no more are accepted. 0 is taken as 1.",
        )
        .or("8"),
    ]],
);

pub(super) const PROXY_TCP: Table = Table::new(
    "tcp server",
    "A server of a proxy without TLS.",
    &[
        &[
            Field::new("kind", Takes::Choice(&["io.l5d.tcp"]), KIND).required(),
            Field::new("addr", ADDR, "Where it listens. Port 0 is any free port.").required(),
        ],
        LIMITS,
    ],
);

pub(super) const PROXY_TLS: Table = Table::new(
    "tls server",
    "A server of a proxy with TLS.",
    &[
        &[
            Field::new("kind", Takes::Choice(&["io.l5d.tls"]), KIND).required(),
            Field::new("addr", ADDR, "Where it listens. Port 0 is any free port.").required(),
            Field::new("alpnProtocols", ALPN, ALPN_ABOUT).also(&["alpn_protocols"]),
            Field::new("defaultIdentity", Takes::One(&IDENTITY), DEFAULT_IDENTITY)
                .also(&["default_identity"]),
            Field::new("identities", IDENTITIES, IDENTITIES_ABOUT),
            Field::new("clientAuth", Takes::One(&CLIENT_AUTH), AUTH_ABOUT),
        ],
        LIMITS,
    ],
);

pub(super) const PROXY_NAMERD: Table = Table::new(
    "namerd of a proxy",
    "A name, and the namerd that knows its endpoints. Either `addr` or `url` must be there.",
    &[
        &[
            Field::new("addr", Takes::Text("`IP:PORT` or `HOST:PORT`"), "Where namerd is."),
            Field::new("url", Takes::Text("a URL"), "The same, with `http` or `https`, and perhaps a path."),
            Field::new("path", PATH, "The name.").required(),
            NAMESPACE,
            Field::new("intervalSecs", FROM_1, "Time between two polls.").or("60"),
        ],
        NAMERD,
    ],
);

pub(super) const PROXY_CLIENT: Table = Table::new(
    "client of a proxy",
    "How endpoints of a proxy are connected.",
    &[&[Field::new("tls", Takes::One(&CLIENT_TLS), "TLS towards endpoints.").or("none"), LOAD_BALANCER]],
);

// Generation B.

/// A whole file of generation B.
pub(super) const ROUTERS: Table = Table::new(
    "file with routers",
    "The language of linkerd-tcp from 0.1.0 on.",
    &[&[
        Field::new("admin", Takes::One(&ROUTERS_ADMIN), "The admin server."),
        Field::new("routers", Takes::Many(0, &Takes::One(&ROUTER)), "The routers.").required(),
        Field::new("bufferSizeBytes", FROM_0, BUFFER).or("65536"),
        WORKERS,
    ]],
);

pub(super) const ROUTERS_ADMIN: Table = Table::new(
    "admin of routers",
    "The admin server of a file with routers.",
    &[&[
        Field::new("port", PORT, "Its port.").or("9989"),
        Field::new("ip", IP, "Its address.").or("`127.0.0.1`"),
        Field::new("metricsIntervalSecs", FROM_1, "How far minima, maxima and percentiles look back.")
            .or("60"),
        Field::new("graceSecs", FROM_0, "How long streams may go on when the program is told to end.")
            .or("10"),
    ]],
);

pub(super) const ROUTER: Table = Table::new(
    "router",
    "Servers that find their endpoints in the same way.",
    &[&[
        Field::new("label", LABEL, "Its name in logs and metrics, once in the file.").required(),
        Field::new("servers", Takes::Many(0, &Takes::One(&SERVER)), "Where it listens.").required(),
        Field::new(
            "interpreter",
            Takes::Either(&[&INTERPRETER_NAMERD, &INTERPRETER_STATIC]),
            "Who knows the endpoints of names.",
        )
        .required(),
        Field::new(
            "client",
            Takes::Either(&[&CLIENT_GLOBAL, &CLIENT_STATIC]),
            "How endpoints are connected: all in one way, or by prefixes of names.",
        ),
    ]],
);

pub(super) const SERVER: Table = Table::new(
    "server of a router",
    "An address whose connections go to the endpoints of a name.",
    &[
        &[
            Field::new("port", PORT, "Its port; 0 is any free port.").required(),
            Field::new("ip", IP, "Its address.").or("`127.0.0.1`"),
            Field::new(
                "dstName",
                PATH,
                "The name. With `tls` it may have `{sni}` in it, which stands for the name that the client asks for.",
            )
            .required()
            .also(&["dstPath"]),
            Field::new("tls", Takes::One(&SERVER_TLS), "TLS towards clients.").or("none"),
            Field::new("connectTimeoutMs", FROM_1, "How long it may take from accept until both sides are ready.")
                .or("no limit but those of the parts"),
            Field::new("connectionLifetimeSecs", FROM_1, "How long a stream may last.").or("no limit"),
            Field::new(
                "connectionLifetimeJitterSecs",
                FROM_0,
                "How much longer than that a stream may last at most, drawn for each; needs `connectionLifetimeSecs`.",
            )
            .or("0"),
            Field::new(
                "maxConcurrency",
                FROM_1,
                "Connections at a time; when there are as many no more are accepted.",
            )
            .or("100000"),
        ],
        LIMITS,
    ],
);

pub(super) const SERVER_TLS: Table = Table::new(
    "server tls",
    "TLS towards clients.",
    &[&[
        Field::new("alpnProtocols", ALPN, ALPN_ABOUT),
        Field::new("defaultIdentity", Takes::One(&IDENTITY), DEFAULT_IDENTITY),
        Field::new("identities", IDENTITIES, IDENTITIES_ABOUT),
        Field::new("clientAuth", Takes::One(&CLIENT_AUTH), AUTH_ABOUT),
    ]],
);

pub(super) const INTERPRETER_NAMERD: Table = Table::new(
    "interpreter namerd",
    "Names that namerd knows.",
    &[
        &[
            Field::new("kind", Takes::Choice(&["io.l5d.namerd.http"]), KIND).required(),
            Field::new(
                "baseUrl",
                Takes::Text("a URL"),
                "Where namerd is: `http` or `https`, perhaps with a path.",
            )
            .required(),
            NAMESPACE,
            Field::new("periodSecs", FROM_1, "Time between two polls.").or("20"),
        ],
        NAMERD,
    ],
);

pub(super) const INTERPRETER_STATIC: Table = Table::new(
    "interpreter static",
    "Names that the file itself knows.",
    &[&[
        Field::new("kind", Takes::Choice(&["io.l5d.static"]), KIND).required(),
        Field::new(
            "addrs",
            Takes::Map("names such as `/svc/web`", &Takes::Many(0, &Takes::One(&ENDPOINT))),
            "The endpoints of each name.",
        )
        .required(),
    ]],
);

pub(super) const ENDPOINT: Table = Table::new(
    "endpoint",
    "An endpoint of a name that the file itself knows.",
    &[&[
        Field::new("ip", IP, "Its address.").required(),
        Field::new("port", Takes::Integer(1, 65_535), "Its port.").required(),
        Field::new(
            "weight",
            Takes::Number,
            "Its share relative to others; one of 0 is used when no other can be.",
        )
        .or("1"),
    ]],
);

const CLIENT: &[Field] = &[
    Field::new("tls", Takes::One(&CLIENT_TLS), "TLS towards endpoints.").or("none"),
    Field::new("connectTimeoutMs", FROM_1, "How long connecting may take, with the TLS handshake.")
        .or("5000"),
    Field::new(
        "maxWaiters",
        FROM_0,
        "Connections that may wait for an endpoint; those beyond are closed. 0 is taken as 1.",
    )
    .or("1000000"),
    Field::new("minConnections", FROM_0, "Connections to endpoints that are kept ready.").or("0"),
    Field::new("failFast", Takes::One(&FAIL_FAST), "When an endpoint that fails is left alone."),
    LOAD_BALANCER,
];

pub(super) const CLIENT_GLOBAL: Table = Table::new(
    "client global",
    "How all endpoints are connected.",
    &[
        &[
            Field::new("kind", Takes::Choice(&["io.l5d.global"]), KIND).required(),
            Field::new(
                "prefix",
                Takes::Refused(
                    "a prefix in settings for all destinations; expected none, or the kind `io.l5d.static` with `configs`",
                ),
                "",
            ),
        ],
        CLIENT,
    ],
);

pub(super) const CLIENT_STATIC: Table = Table::new(
    "client static",
    "How endpoints are connected, by prefixes of names.",
    &[&[
        Field::new("kind", Takes::Choice(&["io.l5d.static"]), KIND).required(),
        Field::new(
            "configs",
            Takes::Many(0, &Takes::One(&CLIENT_CONFIG)),
            "All whose prefix fits are applied in this order; a later one overrides the fields that it has.",
        )
        .required(),
    ]],
);

pub(super) const CLIENT_CONFIG: Table = Table::new(
    "client config",
    "How endpoints of names with a prefix are connected.",
    &[
        &[Field::new(
            "prefix",
            Takes::Text("a prefix such as `/svc` or `/svc/*`"),
            "Of the names that it is for: whole segments, of which `*` is any one; `/` is for all.",
        )
        .required()],
        CLIENT,
    ],
);

pub(super) const FAIL_FAST: Table = Table::new(
    "fail fast",
    "When an endpoint that fails is left alone.",
    &[&[
        Field::new("maxConsecutiveFailures", FROM_0, "After so many failures in a row. 0 is taken as 1.")
            .or("5"),
        Field::new(
            "failurePenaltySecs",
            FROM_0,
            "For so long at first; up to five times as long if it fails again.",
        )
        .or("60"),
    ]],
);
