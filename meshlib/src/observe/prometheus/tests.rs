//! The registry as a whole: what it prints, and that it holds together under threads and odd input.

mod strict;

use std::thread;

use proptest::prelude::*;

use super::*;

const WINDOW: Duration = Duration::from_secs(60);

fn scenario() -> Registry {
    let registry = Registry::new();
    let accepts = registry.counter(
        "l5d:srv:accepts",
        "Connections accepted.",
        &[("srv_addr", "0.0.0.0:80"), ("rt", "web")],
    );
    accepts.add(41);
    registry.counter("l5d:srv:accepts", "ignored", &[("rt", "web"), ("srv_addr", "0.0.0.0:80")]).inc();
    registry.counter("bytes_total", "", &[("direction", "rx"), ("proxy", "p")]).add(7);
    registry.counter("connects_total", "", &[]);
    let gauge = registry.gauge("l5d:srv:active", "Open\nnow, \"all\" of C:\\.", &[("rt", "a\"b\\c\nd")]);
    gauge.add(2);
    gauge.sub(5);
    registry.gauge_fn("load", "", &[], || 0.25);
    registry.gauge_fn("absent", "Never shown.", &[], || f64::NAN);
    let latency = registry.histogram("latency_us", "Time to connect.", &[("rt", "web")], &[0.5, 1.0, 1e3]);
    latency.observe_u64(1);
    latency.observe(12.5);
    latency.observe_u64(2000);
    registry.histogram("latency_us", "", &[("rt", "idle")], &[0.5, 1.0, 1e3]);
    let bytes = registry.stats("bytes", "Bytes of a stream.", &[("proxy", "p")]);
    (1..=10).for_each(|n| bytes.observe_u64(n));
    registry.stats("bytes", "", &[("proxy", "idle")]);
    registry.series_gauge("metrics_count", "Number of series.");
    registry
}

#[test]
fn text_is_as_the_old_programs_wrote_it() {
    let text = scenario().render(Format::Text004);

    assert_eq!(text, include_str!("tests/golden.txt"));
    strict::check(&text, Format::Text004).unwrap();
}

#[test]
fn openmetrics_keeps_the_names_and_obeys_the_standard() {
    let text = scenario().render(Format::OpenMetrics);

    assert_eq!(text, include_str!("tests/golden.openmetrics"));
    strict::check(&text, Format::OpenMetrics).unwrap();
}

#[test]
fn json_has_the_lines_of_the_text() {
    let registry = scenario();
    registry.gauge_fn("infinite", "", &[], || f64::INFINITY);

    let json = registry.render_json();

    assert_eq!(json, include_str!("tests/golden.json"));
    assert_eq!(Registry::new().render_json(), "{}\n");
}

#[test]
fn an_empty_registry_is_valid() {
    let registry = Registry::new();

    assert!(registry.is_empty());
    assert_eq!(registry.render(Format::Text004), "");
    assert_eq!(registry.render(Format::OpenMetrics), "# EOF\n");
}

#[test]
fn forgotten_series_start_again() {
    let registry = Registry::new();
    let old = registry.counter("c", "", &[("dst", "a")]);
    registry.counter("c", "", &[("dst", "b")]);
    registry.gauge("g", "", &[("dst", "a")]);
    old.inc();

    assert_eq!(registry.forget(|_, labels| labels.get("dst") == Some("a")), 2);
    old.inc();

    assert_eq!(registry.render(Format::Text004), "# TYPE c counter\nc{dst=\"b\"} 0\n");
    assert_eq!(registry.counter("c", "", &[("dst", "a")]).get(), 0);
    assert!(registry.remove("c", &[("dst", "a")]));
    assert!(!registry.remove("c", &[("dst", "a")]));
    // A name without series is free for another kind.
    registry.histogram("g", "", &[], SECONDS);
    assert_eq!((registry.len(), registry.rejected()), (2, 0));
}

#[test]
fn a_full_registry_answers_with_unseen_handles() {
    let registry = Registry::with_options(RegistryOptions::default().with_max_series(2));

    let counters: Vec<_> =
        (0..5).map(|n| registry.counter("c", "", &[("peer", n.to_string().as_str())])).collect();
    registry.gauge("g", "", &[]).set(1);
    counters.iter().for_each(Counter::inc);

    assert_eq!((registry.len(), registry.rejected()), (2, 4));
    assert_eq!(registry.counter("c", "", &[("peer", "0")]).get(), 1);
    assert_eq!(counters[4].get(), 1);
}

#[test]
fn mistakes_are_told_apart() {
    let registry = scenario();
    let attempt = |kind, name: &str, labels: &[(&str, &str)]| {
        let fresh = Series::Counter(Counter::default());
        registry.inner.try_register(kind, name, "", labels, fresh).map(drop)
    };
    let taken = |name: &str| Err(MetricError::Taken { name: name.into() });

    assert_eq!(attempt(Kind::Counter, "a b", &[]), Err(MetricError::Name { name: "a b".into() }));
    assert_eq!(attempt(Kind::Counter, "a", &[("b:c", "")]), Err(MetricError::Label { label: "b:c".into() }));
    assert_eq!(
        attempt(Kind::Histogram(SECONDS), "a", &[("le", "")]),
        Err(MetricError::Label { label: "le".into() })
    );
    assert_eq!(
        attempt(Kind::Distribution, "a", &[("stat", "")]),
        Err(MetricError::Label { label: "stat".into() })
    );
    assert_eq!(
        attempt(Kind::Histogram(&[1.0, 1.0]), "a", &[]),
        Err(MetricError::Bounds { name: "a".into() })
    );
    assert_eq!(
        attempt(Kind::Histogram(&[f64::NAN]), "a", &[]),
        Err(MetricError::Bounds { name: "a".into() })
    );
    assert_eq!(attempt(Kind::Gauge, "l5d:srv:accepts", &[]), taken("l5d:srv:accepts"));
    assert_eq!(attempt(Kind::Gauge, "load", &[]), taken("load"));
    assert_eq!(attempt(Kind::Histogram(SECONDS), "latency_us", &[]), taken("latency_us"));
    assert_eq!(attempt(Kind::Counter, "latency_us_count", &[]), taken("latency_us_count"));
    assert_eq!(attempt(Kind::Histogram(SECONDS), "metrics", &[]), taken("metrics"));
}

#[cfg(debug_assertions)]
#[test]
#[should_panic(expected = "is not a metric name")]
fn mistakes_panic_while_developing() {
    Registry::new().counter("not-valid", "", &[]);
}

#[test]
fn functions_may_use_the_registry_and_be_replaced() {
    let registry = Registry::new();
    let held = registry.clone();
    registry.gauge_fn("f", "", &[], move || held.len() as f64 + 1.0);
    assert_eq!(registry.render(Format::Text004), "# TYPE f gauge\nf 2\n");

    registry.gauge_fn("f", "", &[], || -1.5);

    assert_eq!(registry.render(Format::Text004), "# TYPE f gauge\nf -1.5\n");
    assert_eq!(registry.len(), 1);
}

#[test]
fn what_a_function_owns_may_use_the_registry_when_dropped() {
    struct Leaves(Registry);
    impl Drop for Leaves {
        fn drop(&mut self) {
            self.0.counter("left", "", &[]).inc();
        }
    }
    let registry = Registry::with_options(RegistryOptions::default().with_max_series(2));
    let owner = || {
        let leaves = Leaves(registry.clone());
        move || leaves.0.len() as f64
    };

    registry.gauge_fn("f", "", &[], owner());
    registry.gauge_fn("f", "", &[], owner());
    registry.gauge_fn("refused", "", &[], owner());
    registry.remove("f", &[]);

    assert_eq!(registry.counter("left", "", &[]).get(), 3);
}

#[test]
fn threads_lose_nothing() {
    const THREADS: u64 = 8;
    const ROUNDS: u64 = 5_000;
    let registry = Registry::new();

    thread::scope(|scope| {
        for thread in 0..THREADS {
            let registry = &registry;
            scope.spawn(move || {
                let gauge = registry.gauge("g", "", &[]);
                let histogram = registry.histogram("h", "", &[], MILLISECONDS);
                let stats = registry.stats("s", "", &[]);
                for round in 0..ROUNDS {
                    registry.counter("c", "", &[("mod", (round % 7).to_string().as_str())]).inc();
                    let _tracked = gauge.track();
                    histogram.observe_u64(round);
                    stats.observe_u64(round);
                    if round % 1000 == thread {
                        strict::check(&registry.render(Format::Text004), Format::Text004).unwrap();
                        strict::check(&registry.render(Format::OpenMetrics), Format::OpenMetrics).unwrap();
                    }
                }
            });
        }
    });

    let counted: u64 =
        (0..7).map(|n| registry.counter("c", "", &[("mod", n.to_string().as_str())]).get()).sum();
    let histogram = registry.histogram("h", "", &[], MILLISECONDS);
    let stats = registry.stats("s", "", &[]);
    assert_eq!(counted, THREADS * ROUNDS);
    assert_eq!(histogram.count(), THREADS * ROUNDS);
    assert_eq!(histogram.sum(), (THREADS * ROUNDS * (ROUNDS - 1) / 2) as f64);
    assert_eq!(stats.count(), THREADS * ROUNDS);
    assert_eq!(registry.gauge("g", "", &[]).get(), 0);
    assert_eq!(stats.percentile(100.0), Some((ROUNDS - 1) as f64));
}

#[test]
fn everything_is_send_sync_and_debug() {
    fn check<T: Send + Sync + fmt::Debug>(value: &T) {
        assert!(format!("{value:?}").len() < 300);
    }
    let registry = scenario();
    check(&registry);
    check(&registry.histogram("h", "", &[], BYTES));
    check(&registry.stats("s", "", &[]));
    check(&Counter::default());
    check(&Gauge::default().track());
}

#[test]
fn what_is_read_are_the_numbers_that_are_rendered() {
    let registry = Registry::new();
    for (name, at) in [("a", 1.0), ("b", 3.0), ("b", 100.0)] {
        registry.histogram("seconds", "", &[("of", name)], &[2.0, 4.0]).observe(at);
    }
    registry.gauge("open", "", &[("of", "a")]).set(-2);
    registry.gauge_fn("open", "", &[("of", "b")], || 5.0);
    registry.gauge_fn("open", "", &[("of", "c")], || f64::NAN);

    assert_eq!(registry.buckets("seconds", |_| true), [(2.0, 1), (4.0, 2), (f64::INFINITY, 3)]);
    assert_eq!(
        registry.buckets("seconds", |of| of.get("of") == Some("b")),
        [(2.0, 0), (4.0, 1), (f64::INFINITY, 2)]
    );
    assert_eq!(registry.sum("open", |_| true), 3.0);
    assert_eq!((registry.sum("none", |_| true), registry.buckets("open", |_| true)), (0.0, Vec::new()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_text_survives_escaping(help: String, value: String, other in "[\\\\\"\n{}=, #]{0,8}") {
        let registry = Registry::new();
        registry.counter("c_total", &help, &[("a", value.as_str()), ("b", other.as_str())]).add(3);
        registry.histogram("h", &help, &[("a", other.as_str())], MICROSECONDS).observe(3.0);
        registry.stats("s", &help, &[("a", value.as_str())]).observe(3.0);

        for format in [Format::Text004, Format::OpenMetrics] {
            let samples = strict::check(&registry.render(format), format)
                .map_err(|problem| TestCaseError::fail(format!("{format:?}: {problem}")))?;
            let labels = [("a".to_owned(), value.clone()), ("b".to_owned(), other.clone())];
            prop_assert!(samples.iter().any(|sample| sample.name == "c_total" && sample.labels == labels));
        }
    }

    #[test]
    fn any_registration_renders_validly(
        items in proptest::collection::vec(
            (0_u8..5, "[a-c](_total|_count|_min|_max|_sum|_bucket)?", "[a-z]{0,2}", any::<f64>()), 0..24)
    ) {
        let registry = Registry::new();
        for (kind, name, label, value) in items {
            let labels = [("k", label.as_str())];
            let (kind, series) = match kind {
                0 => (Kind::Counter, Series::Counter(Counter::default())),
                1 => (Kind::Gauge, Series::Gauge(Gauge::default())),
                2 => (Kind::Histogram(BYTES), Series::Histogram(Histogram::new(BYTES, WINDOW))),
                3 => (Kind::Distribution, Series::Distribution(Distribution::new(WINDOW))),
                _ => (Kind::Gauge, Series::Function(ValueFn::new(move || value))),
            };
            if let Series::Histogram(histogram) = &series {
                histogram.observe(value);
            }
            if let Series::Distribution(distribution) = &series {
                distribution.observe(value);
            }
            // Overlapping names are refused here; whatever is let in must print validly.
            let _refused = registry.inner.try_register(kind, &name, "", &labels, series);
        }

        for format in [Format::Text004, Format::OpenMetrics] {
            strict::check(&registry.render(format), format)
                .map_err(|problem| TestCaseError::fail(format!("{format:?}: {problem}")))?;
        }
    }
}
