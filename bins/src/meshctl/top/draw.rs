//! A picture of a view.

use std::env;

use ratatui::buffer::Buffer;
use ratatui::layout::Constraint;
use ratatui::layout::Rect;
use ratatui::style::Color;
use ratatui::style::Modifier;
use ratatui::style::Style;
use ratatui::text::Line;
use ratatui::text::Span;
use ratatui::text::Text;
use ratatui::widgets::RenderDirection;
use ratatui::widgets::Row;
use ratatui::widgets::Sparkline;
use ratatui::widgets::Table;
use ratatui::widgets::Widget;
use unicode_width::UnicodeWidthStr;

use super::HELP;
use super::columns;
use super::columns::BETWEEN;
use super::view::Mode;
use super::view::View;
use crate::kit::state::Point;
use crate::meshctl::figures;
use crate::meshctl::row::COLUMNS;
use crate::meshctl::stat;
use crate::meshctl::table;
use crate::meshctl::table::Align;

/// Whether there is colour. All that it says is said in words too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Palette {
    Colour,
    Plain,
}

/// Most lines about what is wrong.
const PROBLEMS: usize = 3;
/// Rows of a picture with room for charts, and how high these are.
const CHARTED: u16 = 14;
const CHART: u16 = 2;
/// How many steps a chart has from nothing to the most.
const FINE: u32 = 10_000;
/// The place of the state in [`COLUMNS`].
const STATE: usize = 3;

impl Palette {
    /// What `NO_COLOR` says: if it is set and not empty, there is none.
    pub(super) fn from_variable() -> Self {
        match env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()) {
            true => Self::Colour,
            false => Self::Plain,
        }
    }

    fn style(self, color: Color) -> Style {
        match self {
            Self::Colour => Style::new().fg(color),
            Self::Plain => Style::new(),
        }
    }

    fn good(self) -> Style {
        self.style(Color::Green)
    }

    fn bad(self) -> Style {
        self.style(Color::Red).add_modifier(Modifier::BOLD)
    }

    fn of_state(self, state: &str) -> Style {
        match state.split('(').next().unwrap_or_default() {
            "ready" | "bound" => self.good(),
            "cooling_down" | "probation" | "pending" => self.style(Color::Yellow),
            "ejected" | "neg" => self.bad(),
            _ => Style::new().add_modifier(Modifier::DIM),
        }
    }
}

/// Draws a view, and remembers in it how much of it there was room for.
pub(super) fn draw(view: &mut View, palette: Palette, area: Rect, buffer: &mut Buffer) {
    let mut page = Page { area, buffer };
    head(view, palette, &mut page);
    if area.height >= CHARTED {
        charts(&view.history, palette, &mut page);
    }
    let foot = page.cut_foot();
    if view.mode == Mode::Help {
        page.cut(1);
        // The keys; what follows is for whoever has not started yet.
        for line in HELP.lines().take_while(|line| !line.is_empty()) {
            page.line(Line::raw(line));
        }
    } else {
        rows(view, palette, &mut page);
    }
    page.line_at(foot, Line::styled(keys(view), Style::new().add_modifier(Modifier::REVERSED)));
}

/// The picture as text, without spaces at the ends of lines.
pub(super) fn text(view: &mut View, columns: u16, rows: u16) -> String {
    let area = Rect::new(0, 0, columns, rows);
    let mut buffer = Buffer::empty(area);
    draw(view, Palette::Plain, area, &mut buffer);
    let line = |y| {
        let mut line = String::new();
        let mut x = 0;
        while x < columns {
            let symbol = buffer[(x, y)].symbol();
            line.push_str(symbol);
            // What a wide character covers is not a cell of its own.
            x += u16::try_from(symbol.width()).unwrap_or(1).max(1);
        }
        line.truncate(line.trim_end().len());
        line
    };
    (0..rows).map(line).collect::<Vec<_>>().join("\n")
}

/// A part of the screen that is filled from above.
struct Page<'a> {
    /// What is still empty.
    area: Rect,
    buffer: &'a mut Buffer,
}

impl Page<'_> {
    /// Takes the uppermost lines, or as many as there are.
    fn cut(&mut self, height: u16) -> Rect {
        let height = height.min(self.area.height);
        let cut = Rect { height, ..self.area };
        self.area.y += height;
        self.area.height -= height;
        cut
    }

    /// Takes the last line.
    fn cut_foot(&mut self) -> Rect {
        let height = self.area.height.min(1);
        self.area.height -= height;
        Rect { y: self.area.bottom(), height, ..self.area }
    }

    fn line(&mut self, line: Line<'_>) {
        let area = self.cut(1);
        self.line_at(area, line);
    }

    fn line_at(&mut self, area: Rect, line: Line<'_>) {
        line.render(area, self.buffer);
    }
}

fn head(view: &View, palette: Palette, page: &mut Page<'_>) {
    let View { state, admin, .. } = view;
    let readiness = match state.unready.is_empty() {
        true => ("ready", palette.good()),
        false => ("NOT READY", palette.bad()),
    };
    let mut first = Line::default().style(Style::new().add_modifier(Modifier::BOLD));
    first.push_span(format!(
        "{} {}  {admin}  up {}  ",
        state.tool,
        state.version,
        figures::time(state.uptime_ms)
    ));
    first.push_span(Span::styled(readiness.0, readiness.1));
    page.line(first);

    let traffic = &state.traffic;
    let mut parts = stat::recent(traffic).to_vec();
    parts.push(format!("in flight {}", traffic.in_flight));
    parts.push(format!("failed {} of {}", traffic.failed, traffic.ended));
    for line in wrapped(&parts, page.area.width) {
        page.line(Line::raw(line));
    }
    let problems = stat::problems(state);
    for problem in view.failure.iter().chain(problems.iter().take(PROBLEMS)) {
        page.line(Line::styled(problem.clone(), palette.bad()));
    }
    if problems.len() > PROBLEMS {
        page.line(Line::styled(format!("... and {} more", problems.len() - PROBLEMS), palette.bad()));
    }
}

/// Parts in as few lines as there is room for; one that is wider than that has a line of its own.
fn wrapped(parts: &[String], room: u16) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for part in parts {
        match lines.last_mut() {
            Some(line) if line.width() + part.width() + usize::from(BETWEEN) <= room.into() => {
                line.extend(["  ", part]);
            }
            _ => lines.push(part.clone()),
        }
    }
    lines
}

fn charts(history: &[Point], palette: Palette, page: &mut Page<'_>) {
    page.cut(1);
    let (titles, bars) = (page.cut(1), page.cut(CHART));
    let half = titles.width.saturating_sub(BETWEEN) / 2;
    let left = |area: Rect| Rect { width: half, ..area };
    let right = |area: Rect| Rect { x: area.right() - half, width: half, ..area };
    let shown = history.iter().rev().take(half.into());
    let span = shown.clone().next_back().map_or(0, |point| point.ago_ms);

    let rates = shown.clone().map(|point| point.rate);
    let title =
        format!("rate, the last {}, up to {}/s", figures::time(span), figures::rate(most(rates.clone())));
    page.line_at(left(titles), Line::raw(title));
    sparkline(rates, palette.style(Color::Cyan)).render(left(bars), page.buffer);

    let latencies = shown.map(|point| point.p99_ms);
    let title =
        format!("p99, the last {}, up to {}", figures::time(span), figures::latency(most(latencies.clone())));
    page.line_at(right(titles), Line::raw(title));
    sparkline(latencies, palette.style(Color::Magenta)).render(right(bars), page.buffer);
}

fn most(values: impl Iterator<Item = Option<f64>>) -> Option<f64> {
    values.flatten().reduce(f64::max)
}

/// A chart with the first value at its right.
fn sparkline(values: impl Iterator<Item = Option<f64>>, style: Style) -> Sparkline<'static> {
    let values: Vec<_> = values.collect();
    let most = most(values.iter().copied()).unwrap_or_default().max(f64::MIN_POSITIVE);
    // Whole numbers are drawn, which are multiplied for that.
    let scaled = |value: f64| (value / most * f64::from(FINE)) as u64;
    let data = values.into_iter().map(|value| value.map(scaled));
    Sparkline::default().data(data).max(FINE.into()).direction(RenderDirection::RightToLeft).style(style)
}

fn rows(view: &mut View, palette: Palette, page: &mut Page<'_>) {
    page.cut(1);
    if let Some(none) = stat::none(&view.state) {
        return page.line(Line::raw(none));
    }
    let rows: Vec<_> = view.rows().into_iter().map(|row| row.cells().map(table::bounded)).collect();
    let left_off = view.state.left_off;
    let room = usize::from(page.area.height.saturating_sub(1 + u16::from(left_off > 0)));
    let first = view.first(rows.len(), room);
    let columns = columns::fitting(&rows, page.area.width);
    let cell = |n: usize, text: String| {
        let style = if n == STATE { palette.of_state(&text) } else { Style::new() };
        let text = Text::styled(text, style);
        if COLUMNS[n].1 == Align::Right { text.right_aligned() } else { text }
    };
    let header = columns.iter().map(|(n, _)| cell(*n, COLUMNS[*n].0.to_owned()).style(Style::new()));
    let header = Row::new(header).style(Style::new().add_modifier(Modifier::BOLD));
    let shown = rows.iter().skip(first).take(room);
    let shown = shown.map(|row| Row::new(columns.iter().map(|(n, _)| cell(*n, row[*n].clone()))));
    let widths = columns.iter().map(|(_, width)| Constraint::Length(*width));
    let table = Table::new(shown, widths).header(header).column_spacing(BETWEEN);
    let height = u16::try_from(rows.len().min(room) + 1).unwrap_or(u16::MAX);
    let area = page.cut(height);
    Widget::render(table, area, page.buffer);
    if left_off > 0 {
        page.line(Line::raw(format!("... and {left_off} more endpoints")));
    }
}

/// The last line: how rows are chosen, and which keys there are.
fn keys(view: &View) -> String {
    let mut parts = Vec::new();
    if view.is_paused {
        parts.push("PAUSED".to_owned());
    }
    parts.push(format!("sorted by {}", view.sort.name()));
    match (view.mode, &*view.filter) {
        (Mode::Filter, filter) => parts.push(format!("/{filter}_")),
        (_, "") => {}
        (_, filter) => parts.push(format!("/{filter}")),
    }
    parts.push(match view.mode {
        Mode::Rows => "r f l i n: sort  /: filter  p: pause  ?: help  q: quit".into(),
        Mode::Filter => "Enter: keep  Esc: drop".into(),
        Mode::Help => "any key: back".into(),
    });
    parts.join("  ")
}

#[cfg(test)]
mod tests {
    use super::super::view::Sort;
    use super::*;

    fn view() -> View {
        let state = include_str!("../../../tests/meshctl/golden/state.json");
        let history = include_str!("../../../tests/meshctl/golden/history.json");
        let (state, history) = (serde_json::from_str(state).unwrap(), serde_json::from_str(history).unwrap());
        View::new("127.0.0.1:9989".into(), state, history)
    }

    #[tokio::test]
    async fn no_size_is_too_small() {
        for (columns, rows) in (0..70).step_by(6).flat_map(|columns| (0..20).map(move |rows| (columns, rows)))
        {
            let mut view = view();
            text(&mut view, columns, rows);
            view.mode = Mode::Help;
            text(&mut view, columns, rows);
        }
    }

    #[tokio::test]
    async fn states_have_colours_unless_there_is_none() {
        let area = Rect::new(0, 0, 120, 20);
        let styles = |palette| {
            let mut buffer = Buffer::empty(area);
            draw(&mut view(), palette, area, &mut buffer);
            let y = (0..20)
                .find(|y| (0..120).map(|x| buffer[(x, *y)].symbol()).collect::<String>().contains("ejected"));
            let x = (0..120).find(|x| buffer[(*x, y.unwrap())].style().add_modifier.contains(Modifier::BOLD));
            buffer[(x.unwrap(), y.unwrap())].fg
        };

        assert_eq!((styles(Palette::Colour), styles(Palette::Plain)), (Color::Red, Color::Reset));
    }

    #[tokio::test]
    async fn wide_characters_are_two_columns() {
        let mut view = view().with_rows(Sort::Name, "");
        view.state.tool = "大小".into();

        assert!(text(&mut view, 60, 20).starts_with("大小 0.1.0  127.0.0.1:9989"));
    }

    #[test]
    fn parts_are_wrapped_between_and_never_within() {
        let parts = ["aa", "bb", "cccccc", "d"].map(str::to_owned);

        assert_eq!(wrapped(&parts, 6), ["aa  bb", "cccccc", "d"]);
        assert_eq!(wrapped(&parts, 0), ["aa", "bb", "cccccc", "d"]);
    }
}
