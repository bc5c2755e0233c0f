//! A terminal, and what somebody sees on it.

use std::fs::File;
use std::io::Read;
use std::io::Write;
use std::os::fd::AsFd;
use std::process::Child;
use std::process::Command;
use std::process::ExitStatus;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::Mutex;
use std::thread;

use rustix::process::Pid;
use rustix::process::Signal;
use rustix::process::kill_process;
use rustix::pty;
use rustix::pty::OpenptFlags;
use rustix::termios;
use rustix::termios::Winsize;

use crate::child::eventually;

/// A program on a terminal of its own. Killed when dropped.
pub(crate) struct OnTerminal {
    child: Child,
    terminal: File,
    keys: File,
    printed: Arc<Mutex<Vec<u8>>>,
    size: (usize, usize),
    before: String,
}

impl OnTerminal {
    /// Starts a program on a terminal with so many columns and rows.
    pub(crate) fn start(command: &Command, columns: u16, rows: u16) -> Self {
        let keys = pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        pty::grantpt(&keys).unwrap();
        pty::unlockpt(&keys).unwrap();
        let path = pty::ptsname(&keys, Vec::new()).unwrap();
        let terminal = File::options().read(true).write(true).open(path.to_str().unwrap()).unwrap();
        let size = Winsize { ws_col: columns, ws_row: rows, ws_xpixel: 0, ws_ypixel: 0 };
        termios::tcsetwinsize(&terminal, size).unwrap();
        let before = modes(&terminal);
        let end = || Stdio::from(terminal.try_clone().unwrap());
        // It becomes the program, with the terminal as the one that it is controlled from.
        let mut child = Command::new("setsid");
        child.arg("--ctty").arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => child.env(name, value),
                None => child.env_remove(name),
            };
        }
        let child = child.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
        let keys = File::from(keys);
        let (mut shown, printed) = (keys.try_clone().unwrap(), Arc::new(Mutex::new(Vec::new())));
        let of_thread = Arc::clone(&printed);
        // Ends when nobody has the terminal any more.
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(read @ 1..) = shown.read(&mut bytes) {
                of_thread.lock().unwrap().extend_from_slice(&bytes[..read]);
            }
        });
        Self { child, terminal, keys, printed, size: (columns.into(), rows.into()), before }
    }

    /// Presses keys.
    pub(crate) fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().try_into().unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// What was printed, as it is.
    pub(crate) fn printed(&self) -> String {
        String::from_utf8_lossy(&self.printed.lock().unwrap()).into_owned()
    }

    /// What is on the screen.
    pub(crate) fn screen(&self) -> Screen {
        Screen::of(&self.printed(), self.size)
    }

    /// Waits until something is on the screen.
    pub(crate) fn sees(&self, text: &str) -> Screen {
        self.waits(text, |screen| screen.text().contains(text))
    }

    /// Waits until the screen is as it should be.
    pub(crate) fn waits(&self, what: &str, wanted: impl Fn(&Screen) -> bool) -> Screen {
        let mut seen = self.screen();
        eventually(&format!("{what} on the screen"), || {
            seen = self.screen();
            wanted(&seen)
        });
        seen
    }

    /// Whether the modes of the terminal are those that it had.
    pub(crate) fn is_as_before(&self) -> bool {
        modes(&self.terminal) == self.before
    }

    /// Waits until the program has ended.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        let mut status = None;
        eventually("the program ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }
}

impl Drop for OnTerminal {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("{:#?}", self.screen());
        }
    }
}

fn modes(terminal: impl AsFd) -> String {
    format!("{:?}", termios::tcgetattr(terminal).unwrap())
}

/// A screen after what was printed on it.
#[derive(Debug)]
pub(crate) struct Screen {
    /// What is in each line.
    pub(crate) lines: Vec<String>,
    /// Whether it is the one beside the usual one.
    pub(crate) is_other: bool,
    /// Whether the cursor is shown.
    pub(crate) has_cursor: bool,
    /// Whether the terminal is told to wait for more.
    pub(crate) is_held: bool,
    /// How often anything was coloured.
    pub(crate) colours: usize,
}

impl Screen {
    /// All lines.
    pub(crate) fn text(&self) -> String {
        self.lines.join("\n")
    }

    /// Does what a terminal does, as far as the programs ask for it. All characters are as wide as one column.
    fn of(printed: &str, (columns, rows): (usize, usize)) -> Self {
        let mut cells = vec![vec![' '; columns]; rows];
        let mut screen =
            Self { lines: Vec::new(), is_other: false, has_cursor: true, is_held: false, colours: 0 };
        let (mut x, mut y) = (0, 0);
        let mut chars = printed.chars().peekable();
        while let Some(c) = chars.next() {
            match c {
                '\r' => x = 0,
                '\n' if y + 1 < rows => y += 1,
                '\n' => {
                    cells.remove(0);
                    cells.push(vec![' '; columns]);
                }
                '\x1b' => {
                    // What was printed may end in the middle.
                    if chars.next() != Some('[') {
                        continue;
                    }
                    let mut parameters = String::new();
                    while let Some(c) = chars.next_if(|c| !c.is_ascii_alphabetic()) {
                        parameters.push(c);
                    }
                    let numbers: Vec<usize> = parameters.split(';').map(|n| n.parse().unwrap_or(0)).collect();
                    match (chars.next(), &*parameters) {
                        (Some('H'), _) => {
                            (y, x) = (numbers[0].max(1) - 1, numbers.get(1).map_or(0, |n| n.max(&1) - 1));
                        }
                        (Some('K'), _) => cells[y][x.min(columns)..].fill(' '),
                        (Some('J'), "2") => cells.iter_mut().for_each(|line| line.fill(' ')),
                        (Some('J'), _) => {
                            cells[y][x.min(columns)..].fill(' ');
                            cells[y + 1..].iter_mut().for_each(|line| line.fill(' '));
                        }
                        (Some('m'), _) if numbers.iter().any(|n| matches!(n, 30..=38 | 90..=97)) => {
                            screen.colours += 1;
                        }
                        (Some(set @ ('h' | 'l')), "?1049") => {
                            screen.is_other = set == 'h';
                            cells.iter_mut().for_each(|line| line.fill(' '));
                        }
                        (Some(set @ ('h' | 'l')), "?25") => screen.has_cursor = set == 'h',
                        (Some(set @ ('h' | 'l')), "?2026") => screen.is_held = set == 'h',
                        _ => {}
                    }
                }
                c => {
                    if x == columns {
                        (x, y) = (0, (y + 1).min(rows - 1));
                    }
                    cells[y][x] = c;
                    x += 1;
                }
            }
        }
        screen.lines =
            cells.iter().map(|line| line.iter().collect::<String>().trim_end().to_owned()).collect();
        screen
    }
}
