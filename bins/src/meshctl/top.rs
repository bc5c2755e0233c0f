//! The live view.

use std::io;
use std::io::IsTerminal;
use std::str::FromStr;
use std::thread;
use std::time::Duration;

use clap::ValueEnum;
use http::StatusCode;
use ratatui::crossterm::event;
use ratatui::crossterm::event::Event;
use tokio::sync::mpsc;
use tokio::time;
use tokio::time::Instant;

use super::ask::AskError;
use super::ask::Client;
use super::pretty;
use super::watch::Ended;
use super::watch::unanswered;
use crate::kit::cli;
use crate::kit::cli::Failure;
use crate::kit::state::Point;
use crate::kit::state::State;
use crate::kit::units::some_time;

mod columns;
mod draw;
mod screen;
mod view;

use draw::Palette;
use screen::Screen;
use view::Flow;
use view::Sort;
use view::View;

#[derive(Debug, clap::Args)]
pub(super) struct TopArgs {
    /// How often to look
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = some_time)]
    every: Duration,

    /// What the rows are sorted by at first
    #[arg(long, value_name = "KEY", value_enum, default_value_t)]
    sort: Sort,

    /// Show only rows with this text in a name, an address or a state
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    filter: String,

    /// Look once, print what is found, and exit: needs no terminal
    #[arg(long)]
    once: bool,

    /// With --once: what to print
    #[arg(short, long, value_name = "FORM", value_enum, default_value_t, requires = "once")]
    output: Form,

    /// With --once: how large the picture is
    #[arg(long, value_name = "COLUMNSxROWS", default_value = "120x40", requires = "once")]
    size: Size,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Form {
    /// The picture that a terminal would show.
    #[default]
    Text,
    /// The documents that the program gives: an object with `state` and `history`.
    Json,
}

/// The size of a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Size {
    columns: u16,
    rows: u16,
}

pub(super) const HELP: &str = "\
Keys:
  r f l i n       sort by rate, failures, latency, in flight, name
  arrows, PgUp, PgDn, Home, End
                  scroll
  /               show only rows with a text; Enter keeps it, Esc drops it
  p               pause, and go on
  ?               help
  q, Esc, Ctrl-C  quit

Examples:
  meshctl top
  meshctl top --sort failures --filter web
  meshctl top --once --size 80x24
  meshctl top --once -o json | jq '.history[-1].rate'

The terminal is as before after every end but one: KILL leaves it no time. `reset` helps then.";

/// Looks again and again, until somebody has enough.
///
/// # Errors
///
/// If there is no answer at first, or no terminal.
pub(super) async fn run(client: &Client, args: &TopArgs) -> Result<(), Failure> {
    if !args.once && !io::stdout().is_terminal() {
        return Err(Failure::Usage(
            "`top` wants a terminal; without one there is `top --once` or `stat`".into(),
        ));
    }
    if args.output == Form::Json {
        cli::print(&documents(client).await.map_err(Failure::runtime)?);
        return Ok(());
    }
    let (state, history) = look(client).await.map_err(Failure::runtime)?;
    let mut view = View::new(client.admin().to_string(), state, history).with_rows(args.sort, &args.filter);
    if args.once {
        let Size { columns, rows } = args.size;
        cli::print(&draw::text(&mut view, columns, rows));
        return Ok(());
    }
    show(client, view, args.every).await.map_err(Failure::runtime)
}

async fn show(client: &Client, mut view: View, every: Duration) -> io::Result<()> {
    let palette = Palette::from_variable();
    // Before the terminal is changed, so that none of them ends the process in between.
    let mut ended = Box::pin(Ended::install()?.wait());
    let mut keys = keys();
    let mut looks = looks(client.clone(), every);
    let mut screen = Screen::enter(&io::stdout())?;
    loop {
        screen.draw(|area, buffer| draw::draw(&mut view, palette, area, buffer))?;
        tokio::select! {
            biased;
            () = &mut ended => break,
            key = keys.recv() => match key {
                Some(Ok(Event::Key(key))) if view.press(key) == Flow::Quit => break,
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error),
                None => break,
            },
            found = looks.recv() => match found {
                Some(Ok((state, history))) => view.update(state, history, Instant::now()),
                Some(Err(error)) => view.missed(|since| unanswered(since, &error)),
                // It has panicked, which was told on the usual screen.
                None => return Err(io::Error::other("nobody looks any more")),
            },
        }
    }
    Ok(())
}

/// Keys that wait to be heeded: as many as somebody can press while a picture is drawn.
const KEYS: usize = 64;

/// What is typed, and changes of the size.
fn keys() -> mpsc::Receiver<io::Result<Event>> {
    let (heard, keys) = mpsc::channel(KEYS);
    // Ends with the process: nothing else ends a wait for keys.
    thread::spawn(move || {
        loop {
            let event = event::read();
            let is_last = event.is_err();
            if heard.blocking_send(event).is_err() || is_last {
                return;
            }
        }
    });
    keys
}

type Look = (State, Vec<Point>);

/// What is found every so often.
fn looks(client: Client, every: Duration) -> mpsc::Receiver<Result<Look, AskError>> {
    // What nobody has taken yet is not followed by more.
    let (found, looks) = mpsc::channel(1);
    // Ends when nobody listens any more.
    tokio::spawn(async move {
        loop {
            time::sleep(every).await;
            if found.send(look(&client).await).await.is_err() {
                return;
            }
        }
    });
    looks
}

async fn look(client: &Client) -> Result<Look, AskError> {
    let state = client.json("/state.json").await?;
    let history = match client.json("/history.json").await {
        // The charts are empty then.
        Err(AskError::Status { status: StatusCode::NOT_FOUND, .. }) => Vec::new(),
        history => history?,
    };
    Ok((state, history))
}

async fn documents(client: &Client) -> Result<String, AskError> {
    let (state, history) = (client.text("/state.json").await?, client.text("/history.json").await?);
    let both = format!("{{\"state\":{state},\"history\":{history}}}");
    pretty::pretty(&both).map_err(|error| client.foreign("/state.json", &error))
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let side = |text: &str| text.parse().ok().filter(|side| (1..=1_000).contains(side));
        text.split_once('x')
            .and_then(|(columns, rows)| Some(Self { columns: side(columns)?, rows: side(rows)? }))
            .ok_or_else(|| "columns and rows are wanted, up to 1000x1000, such as 80x24".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_columns_and_rows() {
        assert_eq!("80x24".parse(), Ok(Size { columns: 80, rows: 24 }));
        for text in ["", "80", "80x", "0x1", "1x1001", "80x24x2", "-1x2"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
    }
}
