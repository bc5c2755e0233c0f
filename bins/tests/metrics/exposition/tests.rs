use super::Format;
use super::parse;

const GOOD: &str = "\
# HELP a_seconds How \\\"long\\\"\\n\\\\.
# TYPE a_seconds histogram
a_seconds_bucket{le=\"0.5\",x=\"\\\"\\\\\\n\"} 1
a_seconds_bucket{le=\"+Inf\",x=\"\\\"\\\\\\n\"} 2
a_seconds_sum{x=\"\\\"\\\\\\n\"} 3.5
a_seconds_count{x=\"\\\"\\\\\\n\"} 2
# HELP b What is counted.
# TYPE b counter
b_total{x=\"1\",y=\"2\"} 1e3
b_total{x=\"1\",y=\"3\"} 0
# EOF
";

#[test]
fn what_is_right_is_read() {
    let families = parse(GOOD, Format::Open).expect("it is right");

    assert_eq!((families.len(), &*families[0].help), (2, "How \"long\"\n\\."));
    assert_eq!(families[0].samples[0].label("x"), Some("\"\\\n"));
    assert_eq!(families[1].samples[0].value, 1000.0);
}

#[test]
fn what_is_wrong_is_refused() {
    for (from, to) in [
        ("# EOF\n", ""),
        ("# EOF\n", "# EOF\n\n"),
        ("# EOF\n", "# EOF"),
        ("# HELP b What is counted.\n", ""),
        ("# HELP b What is counted.\n", "# HELP c What is counted.\n"),
        ("# TYPE b counter\n", ""),
        ("# TYPE b counter", "# TYPE b untyped"),
        ("# TYPE b counter", "# TYPE b gauge"),
        ("# HELP b What", "# HELP b \\What"),
        ("# HELP b What", "# HELP b \"What"),
        ("b_total{x=\"1\",y=\"3\"}", "b{x=\"1\",y=\"3\"}"),
        ("b_total{x=\"1\",y=\"3\"}", "b_total{x=\"1\",y=\"2\"}"),
        ("b_total{x=\"1\",y=\"3\"}", "b_total{y=\"2\",x=\"1\"}"),
        ("b_total{x=\"1\",y=\"3\"}", "b_total{x=\"1\",x=\"3\"}"),
        ("b_total{x=\"1\",y=\"3\"}", "b_total{x=\"1\", y=\"3\"}"),
        ("b_total{x=\"1\",y=\"3\"}", "b_total{x=\"1\",y=\"3\",}"),
        ("b_total{x=\"1\",y=\"3\"}", "b_total{x=\"1\"}"),
        ("b_total{x=\"1\",y=\"3\"}", "b_total{x=\"1\",1=\"3\"}"),
        ("b_total{x=\"1\",y=\"3\"}", "b_total{x=\"1\",__y=\"3\"}"),
        ("y=\"3\"} 0", "y=\"3\"} -1"),
        ("y=\"3\"} 0", "y=\"3\"} NaN"),
        ("y=\"3\"} 0", "y=\"3\"}  0"),
        ("y=\"3\"} 0", "y=\"3\"} 0 1700000000"),
        ("y=\"3\"} 0", "y=\"\\3\"} 0"),
        ("le=\"0.5\"", "le=\"1\""),
        ("le=\"0.5\"", "le=\"+Inf\""),
        (
            "a_seconds_bucket{le=\"0.5\",x=\"\\\"\\\\\\n\"} 1",
            "a_seconds_bucket{le=\"0.5\",x=\"\\\"\\\\\\n\"} 3",
        ),
        ("a_seconds_count{x=\"\\\"\\\\\\n\"} 2", "a_seconds_count{x=\"\\\"\\\\\\n\"} 3"),
        ("a_seconds_sum{x=\"\\\"\\\\\\n\"} 3.5\n", ""),
        ("# HELP b What is counted.\n# TYPE b counter", "# HELP a_seconds Again.\n# TYPE a_seconds counter"),
    ] {
        let text = GOOD.replace(from, to);
        assert_ne!(text, GOOD, "{from:?}");
        assert!(parse(&text, Format::Open).is_err(), "{to:?} in place of {from:?}");
    }
    let clash =
        "# HELP a A.\n# TYPE a histogram\na_count 0\n# HELP a_count B.\n# TYPE a_count gauge\na_count 0\n";
    assert!(parse(clash, Format::Text).is_err());
}
