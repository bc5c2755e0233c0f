//! Which columns there is room for.

use unicode_width::UnicodeWidthStr;

use crate::meshctl::row::COLUMNS;
use crate::meshctl::table::Align;

/// What stands between columns.
pub(super) const BETWEEN: u16 = 2;
/// The least that names are made for want of room before columns are left out.
const LEAST: u16 = 14;
/// What is left out where there is no room for all, the first one first: all but address and state.
const LEAVE: [&str; 7] = ["WEIGHT", "ROUTER", "LATENCY", "DST", "FAILED", "INFLIGHT", "RPS"];

/// The columns that are shown, by their places in [`COLUMNS`], and how wide they are.
pub(super) fn fitting(rows: &[[String; 9]], room: u16) -> Vec<(usize, u16)> {
    let width = |n: usize| {
        let cells = rows.iter().map(|row| row[n].width());
        let width = cells.chain([COLUMNS[n].0.len()]).max().unwrap_or_default();
        u16::try_from(width).unwrap_or(u16::MAX)
    };
    let mut columns: Vec<_> = (0..COLUMNS.len()).map(|n| (n, width(n))).collect();
    let mut leave = LEAVE.iter();
    loop {
        let wanted = columns.iter().map(|(_, width)| u32::from(width + BETWEEN)).sum::<u32>();
        let missing = wanted.saturating_sub(u32::from(BETWEEN) + u32::from(room));
        if missing == 0 {
            return columns;
        }
        let is_name = |(n, _): &&mut (usize, u16)| COLUMNS[*n].1 == Align::Left;
        let widest = columns.iter_mut().filter(is_name).max_by_key(|(_, width)| *width);
        if let Some((_, width)) = widest.filter(|(_, width)| *width > LEAST) {
            // Bit by bit, so that others are cut too once they are the widest.
            *width -= 1;
            continue;
        }
        match leave.next() {
            Some(left) => columns.retain(|(n, _)| COLUMNS[*n].0 != *left),
            // What is left is cut off at the edge.
            None => return columns,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn titles(room: u16) -> Vec<(&'static str, u16)> {
        let row = [
            "default",
            "/svc/a-rather-long-name",
            "10.0.0.10:8080",
            "cooling_down",
            "1",
            "3",
            "1.0",
            "1.0ms",
            "0",
        ];
        let columns = fitting(&[row.map(str::to_owned)], room);
        columns.into_iter().map(|(n, width)| (COLUMNS[n].0, width)).collect()
    }

    #[test]
    fn columns_are_as_wide_as_what_is_in_them_where_there_is_room() {
        let widths = titles(200);

        assert_eq!(widths.len(), 9);
        assert_eq!(widths[1..4], [("DST", 23), ("ENDPOINT", 14), ("STATE", 12)]);
    }

    #[test]
    fn long_names_are_cut_before_columns_are_left_out() {
        assert_eq!(titles(100)[..3], [("ROUTER", 7), ("DST", 21), ("ENDPOINT", 14)]);
        assert_eq!(titles(92).len(), 8);
        assert_eq!(titles(30), [("ENDPOINT", 14), ("STATE", 12)]);
        assert_eq!(titles(1), [("ENDPOINT", 14), ("STATE", 12)]);
    }
}
