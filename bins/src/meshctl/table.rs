//! Aligned columns.

use unicode_width::UnicodeWidthStr;

/// To which side what is shorter than its column is moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Align {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// Rows with the same columns.
#[derive(Debug)]
pub(super) struct Table {
    columns: Vec<(&'static str, Align)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these titles and no rows.
    pub(super) fn new(columns: impl IntoIterator<Item = (&'static str, Align)>) -> Self {
        Self { columns: columns.into_iter().collect(), rows: Vec::new() }
    }

    /// Adds a row. An empty cell is a dash, so that each line has as many words as any other.
    pub(super) fn push(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().map(bounded).collect());
    }

    /// The lines, the titles first, without spaces at their ends.
    pub(super) fn lines(&self) -> Vec<String> {
        let titles: Vec<_> = self.columns.iter().map(|(title, _)| (*title).to_owned()).collect();
        let all = || std::iter::once(&titles).chain(&self.rows);
        let width = |n: usize| all().map(|row| row[n].width()).max().unwrap_or_default();
        let widths: Vec<_> = (0..self.columns.len()).map(width).collect();
        let line = |row: &Vec<String>| {
            let mut line = String::new();
            for ((cell, width), (_, align)) in row.iter().zip(&widths).zip(&self.columns) {
                let space = " ".repeat(width - cell.width());
                match align {
                    Align::Left => line.extend([cell, &*space]),
                    Align::Right => line.extend([&*space, cell]),
                }
                line.push_str(BETWEEN);
            }
            line.truncate(line.trim_end().len());
            line
        };
        all().map(line).collect()
    }
}

/// What stands between columns.
const BETWEEN: &str = "  ";
/// Most characters of a cell. All others in its column are made as wide.
const WIDEST: usize = 200;

/// A cell that is neither empty nor endless.
pub(super) fn bounded(cell: String) -> String {
    if cell.is_empty() {
        return "-".into();
    }
    match cell.char_indices().nth(WIDEST) {
        None => cell,
        Some((end, _)) => format!("{}...", &cell[..end]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_what_is_in_them() {
        let mut table = Table::new([("NAME", Align::Left), ("N", Align::Right), ("WHY", Align::Left)]);
        table.push(["大小".into(), "100".into(), String::new()]);
        table.push(["longer".into(), "1".into(), "a b".into()]);

        table.push(["c".into(), "1".into(), "x".repeat(1_000)]);

        assert_eq!(table.lines().pop().map(|line| line.len()), Some(13 + 203));
        table.rows.pop();
        assert_eq!(table.lines(), ["NAME      N  WHY", "大小    100  -", "longer    1  a b"]);
    }
}
