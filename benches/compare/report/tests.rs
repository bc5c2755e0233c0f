//! Tests of medians, ratios and number formats.

use super::*;
use crate::workload;

fn sample(values: &[f64]) -> Sample {
    Sample {
        values: values.to_vec(),
        load_busy: 0.5,
        proxy_busy: 1.0,
        foreign: 0.0,
        load_foreign: 0.0,
        errors: 0,
        last_error: None,
    }
}

fn peer(name: &str, kind: Kind) -> Peer {
    Peer { name: name.into(), kind, path: "x".into(), version: String::new() }
}

/// Bulk figures: GB/s, CPU-s/GB.
fn measured(rows: Vec<(Peer, Vec<Sample>)>) -> Measured {
    let workload = workload::select(&["tcp-up1".into()]).unwrap()[0];
    Measured { workload, rows, left_out: vec![("envoy".into(), "not installed".into())] }
}

#[test]
fn ratio_is_above_one_when_ours_is_better() {
    let measured = measured(vec![
        (peer("ours", Kind::Ours), vec![sample(&[4.0, 0.2])]),
        (peer("nginx", Kind::Nginx), vec![sample(&[2.0, 0.25])]),
        (peer("haproxy", Kind::Haproxy), vec![sample(&[3.0, 0.5])]),
    ]);

    let ratios = measured.ratios();

    assert_eq!(ratios[0].rival, "haproxy");
    assert!((ratios[0].ratio - 4.0 / 3.0).abs() < 1e-9);
    assert_eq!(ratios[1].rival, "nginx");
    assert!((ratios[1].ratio - 1.25).abs() < 1e-9);
}

#[test]
fn direct_is_no_rival() {
    let measured = measured(vec![
        (peer("ours", Kind::Ours), vec![sample(&[4.0, 0.2])]),
        (peer("direct", Kind::Direct), vec![sample(&[9.0, 0.1])]),
    ]);

    assert!(measured.ratios().is_empty());
}

#[test]
fn medians_of_odd_and_even_rounds() {
    let odd: Vec<_> = [3.0, 1.0, 2.0].iter().map(|&v| sample(&[v])).collect();
    let even: Vec<_> = [4.0, 1.0, 2.0, 3.0].iter().map(|&v| sample(&[v])).collect();

    assert_eq!(spread(&odd, 0), Some((2.0, 1.0, 3.0)));
    assert_eq!(spread(&even, 0), Some((2.5, 1.0, 4.0)));
    assert_eq!(spread(&[], 0), None);
}

#[test]
fn values_without_meaning_are_no_values() {
    let samples = [sample(&[f64::NAN]), sample(&[f64::INFINITY]), sample(&[7.0])];

    assert_eq!(spread(&samples, 0), Some((7.0, 7.0, 7.0)));
}

#[test]
fn three_significant_digits() {
    let shown = [0.01234, 0.5, 1.234, 12.34, 123.4, 1234.0, 12345.0, 123_456.0, 9.999].map(short);

    assert_eq!(shown, ["0.012", "0.500", "1.23", "12.3", "123", "1234", "12.3k", "123k", "10.0"]);
}

#[test]
fn table_names_everyone_and_reasons() {
    let text =
        measured(vec![(peer("nginx", Kind::Nginx), vec![sample(&[2.0, 0.25]), sample(&[3.0, 0.2])])]).table();

    assert!(text.contains("2.50 (2.00..3.00)"), "{text}");
    assert!(text.contains("left out: envoy: not installed"), "{text}");
}

#[test]
fn columns_line_up() {
    let lines = [vec!["a".to_owned(), "1".to_owned()], vec!["long".to_owned(), "100".to_owned()]];

    assert_eq!(align(&lines), "  a       1\n  long  100\n");
}
