//! What is looked at, and what keys do to it.

use std::cmp::Ordering;
use std::net::SocketAddr;
use std::time::Duration;

use clap::ValueEnum;
use ratatui::crossterm::event::KeyCode;
use ratatui::crossterm::event::KeyEvent;
use ratatui::crossterm::event::KeyEventKind;
use ratatui::crossterm::event::KeyModifiers;
use tokio::time::Instant;

use crate::kit::state::Point;
use crate::kit::state::State;
use crate::kit::units::is_harmful;
use crate::meshctl::clean;
use crate::meshctl::row::Row;

/// What rows are sorted by. The largest comes first, of names the smallest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(in super::super) enum Sort {
    /// Picks per second.
    #[default]
    Rate,
    /// How often it failed.
    Failures,
    /// The answer time.
    Latency,
    /// Connections or requests on their way.
    InFlight,
    /// Router, destination, address.
    Name,
}

/// Whether to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flow {
    Stay,
    Quit,
}

/// A program, and how somebody looks at it.
#[derive(Debug)]
pub(super) struct View {
    pub(super) admin: String,
    pub(super) state: State,
    pub(super) history: Vec<Point>,
    pub(super) sort: Sort,
    pub(super) filter: String,
    pub(super) mode: Mode,
    pub(super) is_paused: bool,
    /// Why there is no newer answer.
    pub(super) failure: Option<String>,
    answered: Instant,
    /// How many rows are above those that are shown.
    above: usize,
    /// For how many rows there was room.
    room: usize,
}

/// What keys mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Rows,
    /// They are letters of the filter.
    Filter,
    /// They close the help.
    Help,
}

/// Most characters of a filter.
const FILTER: usize = 100;

impl View {
    /// Looks at what was just found at an address.
    pub(super) fn new(admin: String, state: State, history: Vec<Point>) -> Self {
        Self {
            admin,
            state,
            history,
            sort: Sort::default(),
            filter: String::new(),
            mode: Mode::Rows,
            is_paused: false,
            failure: None,
            answered: Instant::now(),
            above: 0,
            room: 1,
        }
    }

    /// Sorts rows, and shows only those with a text.
    #[must_use]
    pub(super) fn with_rows(mut self, sort: Sort, filter: &str) -> Self {
        self.sort = sort;
        self.filter = clean::line(filter).chars().take(FILTER).collect();
        self
    }

    /// Looks at what was found now.
    pub(super) fn update(&mut self, state: State, history: Vec<Point>, now: Instant) {
        (self.failure, self.answered) = (None, now);
        if !self.is_paused {
            (self.state, self.history) = (state, history);
        }
    }

    /// Keeps what is known, since nothing was found. It is said since when.
    pub(super) fn missed(&mut self, say: impl FnOnce(Duration) -> String) {
        self.failure = Some(say(self.answered.elapsed()));
    }

    /// Does what a key is for.
    pub(super) fn press(&mut self, key: KeyEvent) -> Flow {
        if key.kind == KeyEventKind::Release {
            return Flow::Stay;
        }
        let has_control = key.modifiers.contains(KeyModifiers::CONTROL);
        if has_control && key.code == KeyCode::Char('c') {
            return Flow::Quit;
        }
        match self.mode {
            Mode::Help => self.mode = Mode::Rows,
            Mode::Filter => self.write(key.code, has_control),
            Mode::Rows => return self.command(key.code, has_control),
        }
        Flow::Stay
    }

    fn command(&mut self, code: KeyCode, has_control: bool) -> Flow {
        match code {
            KeyCode::Esc => return Flow::Quit,
            KeyCode::Up => self.above = self.above.saturating_sub(1),
            KeyCode::Down => self.above = self.above.saturating_add(1),
            KeyCode::PageUp => self.above = self.above.saturating_sub(self.room),
            KeyCode::PageDown => self.above = self.above.saturating_add(self.room),
            KeyCode::Home => self.above = 0,
            KeyCode::End => self.above = usize::MAX,
            KeyCode::Char(c) if !has_control => match c {
                'q' => return Flow::Quit,
                'r' => self.sort_by(Sort::Rate),
                'f' => self.sort_by(Sort::Failures),
                'l' => self.sort_by(Sort::Latency),
                'i' => self.sort_by(Sort::InFlight),
                'n' => self.sort_by(Sort::Name),
                'p' => self.is_paused = !self.is_paused,
                '/' => self.mode = Mode::Filter,
                '?' => self.mode = Mode::Help,
                _ => {}
            },
            _ => {}
        }
        Flow::Stay
    }

    fn sort_by(&mut self, sort: Sort) {
        (self.sort, self.above) = (sort, 0);
    }

    fn write(&mut self, code: KeyCode, has_control: bool) {
        match code {
            KeyCode::Enter => self.mode = Mode::Rows,
            KeyCode::Esc => {
                self.filter.clear();
                self.mode = Mode::Rows;
            }
            KeyCode::Backspace => {
                self.filter.pop();
            }
            KeyCode::Char(c) if !has_control && !is_harmful(c) && self.filter.chars().count() < FILTER => {
                self.filter.push(c);
            }
            _ => {}
        }
        self.above = 0;
    }

    /// The rows with the filter's text, sorted.
    pub(super) fn rows(&self) -> Vec<Row<'_>> {
        let wanted = self.filter.to_lowercase();
        let has = |text: &str| text.to_lowercase().contains(&wanted);
        let is_wanted = |row: &Row<'_>| {
            let names = [&row.destination.router, &row.destination.dst];
            let of_endpoint = row.endpoint.into_iter().flat_map(|it| it.node.iter().chain([&it.addr]));
            wanted.is_empty()
                || names.into_iter().chain(of_endpoint).any(|text| has(text))
                || has(&row.state())
        };
        let mut rows: Vec<_> = Row::all(&self.state).filter(is_wanted).collect();
        rows.sort_by(|a, b| self.sort.order(a, b));
        rows
    }

    /// The first of so many rows that is shown where there is room for some.
    pub(super) fn first(&mut self, rows: usize, room: usize) -> usize {
        self.room = room.max(1);
        self.above = self.above.min(rows.saturating_sub(room));
        self.above
    }
}

impl Sort {
    /// Its name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::Failures => "failures",
            Self::Latency => "latency",
            Self::InFlight => "in flight",
            Self::Name => "name",
        }
    }

    fn order(self, a: &Row<'_>, b: &Row<'_>) -> Ordering {
        // What is not known comes last.
        let of = |row: &Row<'_>| {
            row.endpoint.and_then(|endpoint| match self {
                Self::Rate => endpoint.rate,
                Self::Failures => Some(endpoint.failed as f64),
                Self::Latency => endpoint.answer_time_ms,
                Self::InFlight => Some(f64::from(endpoint.in_flight)),
                Self::Name => None,
            })
        };
        let value = |row| of(row).unwrap_or(f64::NEG_INFINITY);
        let addr = |row: &Row<'_>| {
            let addr = row.endpoint.map(|endpoint| endpoint.addr.clone())?;
            // By its numbers, where it has some.
            Some((addr.parse::<SocketAddr>().ok(), addr))
        };
        value(b)
            .total_cmp(&value(a))
            .then_with(|| a.destination.router.cmp(&b.destination.router))
            .then_with(|| a.destination.dst.cmp(&b.destination.dst))
            .then_with(|| addr(a).cmp(&addr(b)))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokio::time;

    use super::*;
    use crate::kit::state::Destination;
    use crate::kit::state::EndpointState;

    fn state() -> State {
        let endpoint = |addr: &str, rate: Option<f64>, failed: u64, in_flight: u32| {
            let mut endpoint = EndpointState::default();
            (endpoint.addr, endpoint.state) = (addr.into(), "ready".into());
            (endpoint.rate, endpoint.failed, endpoint.in_flight) = (rate, failed, in_flight);
            endpoint.answer_time_ms = (in_flight > 0).then(|| 100.0 / f64::from(in_flight));
            endpoint
        };
        let destination = |dst: &str, endpoints| Destination {
            dst: dst.into(),
            answer: "bound".into(),
            endpoints,
            ..Destination::default()
        };
        let document = json!({
            "tool": "x", "version": "1", "commit": "c", "at_ms": 0, "started_ms": 0, "uptime_ms": 0, "unready": [],
            "reload": {"successful": true, "success_ms": 0},
            "traffic": {"unit": "requests", "ended": 0, "failed": 0, "in_flight": 0, "ago_ms": 0},
            "destinations": [], "left_off": 0, "certificates": [],
        });
        let mut state: State = serde_json::from_value(document).unwrap();
        state.destinations = vec![
            destination(
                "/web",
                vec![
                    endpoint("10.0.0.10:1", Some(1.0), 0, 3),
                    endpoint("10.0.0.9:1", Some(2.0), 5, 1),
                    endpoint("10.0.0.8:1", None, 1, 0),
                ],
            ),
            destination("/api", Vec::new()),
        ];
        state
    }

    fn view() -> View {
        View::new("127.0.0.1:1".into(), state(), Vec::new())
    }

    fn shown(view: &View) -> Vec<&str> {
        view.rows().iter().map(|row| row.endpoint.map_or("-", |it| it.addr.trim_end_matches(":1"))).collect()
    }

    fn press(view: &mut View, keys: &str) -> Flow {
        let codes = keys.chars().map(|c| match c {
            '\n' => KeyCode::Enter,
            '\x1b' => KeyCode::Esc,
            '\x08' => KeyCode::Backspace,
            '↓' => KeyCode::Down,
            '↑' => KeyCode::Up,
            '⇓' => KeyCode::PageDown,
            '⇑' => KeyCode::PageUp,
            '⇥' => KeyCode::End,
            '⇤' => KeyCode::Home,
            c => KeyCode::Char(c),
        });
        codes.map(|code| view.press(code.into())).last().unwrap_or(Flow::Stay)
    }

    #[tokio::test]
    async fn keys_sort_rows_with_what_is_not_known_last() {
        let mut view = view();

        assert_eq!(shown(&view), ["10.0.0.9", "10.0.0.10", "-", "10.0.0.8"]);
        for (key, order) in [
            ("f", ["10.0.0.9", "10.0.0.8", "10.0.0.10", "-"]),
            ("l", ["10.0.0.9", "10.0.0.10", "-", "10.0.0.8"]),
            ("i", ["10.0.0.10", "10.0.0.9", "10.0.0.8", "-"]),
            ("n", ["-", "10.0.0.8", "10.0.0.9", "10.0.0.10"]),
            ("r", ["10.0.0.9", "10.0.0.10", "-", "10.0.0.8"]),
        ] {
            assert_eq!(press(&mut view, key), Flow::Stay);
            assert_eq!(shown(&view), order, "{key}");
        }
    }

    #[tokio::test]
    async fn a_filter_is_typed_kept_and_dropped() {
        let mut view = view();

        // Its letters are no commands.
        press(&mut view, "/WEBq\x08");
        assert_eq!((view.mode, &*view.filter, view.rows().len()), (Mode::Filter, "WEB", 3));
        press(&mut view, "\n");
        assert_eq!((view.mode, view.rows().len()), (Mode::Rows, 3));
        press(&mut view, "/\x08\x08\x08bound\n");
        assert_eq!(shown(&view), ["-"]);
        press(&mut view, "/\x1b");
        assert_eq!((view.mode, &*view.filter, view.rows().len()), (Mode::Rows, "", 4));
        press(&mut view, &("/".to_owned() + &"x".repeat(1_000)));
        assert_eq!(view.filter.len(), FILTER);
    }

    #[tokio::test]
    async fn three_keys_end_it() {
        let control_c = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);

        assert_eq!((press(&mut view(), "q"), press(&mut view(), "\x1b")), (Flow::Quit, Flow::Quit));
        for before in ["", "/", "?"] {
            let mut view = view();
            press(&mut view, before);
            assert_eq!(view.press(control_c), Flow::Quit, "after {before}");
        }
        assert_eq!(press(&mut view(), "?q"), Flow::Stay);
        assert_eq!(press(&mut view(), "xyz"), Flow::Stay);
    }

    #[tokio::test]
    async fn scrolling_ends_at_both_ends() {
        let mut view = view();
        for (keys, first) in
            [("", 0), ("↓", 1), ("↓↓↓↓↓↓", 2), ("↑", 1), ("⇑⇑", 0), ("⇓", 2), ("⇤", 0), ("⇥", 2), ("↑", 1)]
        {
            press(&mut view, keys);
            assert_eq!(view.first(4, 2), first, "{keys}");
        }
        assert_eq!(view.first(1, 5), 0);
        assert_eq!(view.first(1, 0), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_known_stays_while_nothing_newer_comes() {
        let mut view = view();
        time::advance(Duration::from_secs(7)).await;

        view.missed(|since| format!("{since:?}"));
        assert_eq!((view.failure.as_deref(), view.rows().len()), (Some("7s"), 4));

        let mut newer = state();
        newer.destinations.pop();
        press(&mut view, "p");
        view.update(newer.clone(), Vec::new(), Instant::now());
        assert_eq!((view.failure.as_deref(), view.rows().len()), (None, 4));

        press(&mut view, "p");
        view.update(newer, Vec::new(), Instant::now());
        assert_eq!(view.rows().len(), 3);
    }
}
