//! A terminal that is lent to the program, and given back however it ends.

use std::fs::File;
use std::io;
use std::io::Write;
use std::os::fd::AsFd;
use std::panic;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use rustix::termios;
use rustix::termios::OptionalActions;
use rustix::termios::Termios;

/// Another screen without a cursor, so that what was there stays as it is.
const ENTER: &[u8] = b"\x1b[?1049h\x1b[?25l";
/// The end of a picture that was interrupted, the usual colours, the cursor, and what was there before.
const LEAVE: &[u8] = b"\x1b[?2026l\x1b[0m\x1b[?25h\x1b[?1049l";
/// What is between them appears at once, where the terminal knows of it.
const BEGIN: &[u8] = b"\x1b[?2026h";
const END: &[u8] = b"\x1b[?2026l";

/// A terminal where keys come one by one and pictures are drawn. Given back when dropped, and before a panic is told.
#[derive(Debug)]
pub(super) struct Screen {
    terminal: Terminal<CrosstermBackend<Output>>,
    lent: Arc<Lent>,
}

/// A terminal as it was.
#[derive(Debug)]
struct Lent {
    terminal: File,
    before: Termios,
    is_back: AtomicBool,
}

/// Keeps what is written until all of a picture is there. What is not flushed is dropped: after a panic it would be drawn on
/// the wrong screen.
#[derive(Debug)]
struct Output {
    terminal: File,
    kept: Vec<u8>,
}

impl Screen {
    /// Takes a terminal.
    ///
    /// # Errors
    ///
    /// If it is none, or cannot be written to. It is as before then.
    pub(super) fn enter(terminal: &impl AsFd) -> io::Result<Self> {
        let lent = Lent::take(terminal)?;
        let output = lent.terminal.try_clone().map(|terminal| Output { terminal, kept: Vec::new() });
        let terminal = output.and_then(|output| Terminal::new(CrosstermBackend::new(output)));
        let terminal = terminal.inspect_err(|_| lent.give_back())?;
        Ok(Self { terminal, lent })
    }

    /// Draws a picture.
    ///
    /// # Errors
    ///
    /// If the terminal cannot be written to.
    pub(super) fn draw(&mut self, draw: impl FnOnce(Rect, &mut Buffer)) -> io::Result<()> {
        self.terminal.backend_mut().write_all(BEGIN)?;
        self.terminal.draw(|frame| draw(frame.area(), frame.buffer_mut()))?;
        self.terminal.backend_mut().write_all(END)?;
        Write::flush(self.terminal.backend_mut())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.lent.give_back();
    }
}

impl Lent {
    fn take(terminal: &impl AsFd) -> io::Result<Arc<Self>> {
        let terminal = File::from(terminal.as_fd().try_clone_to_owned()?);
        let before = termios::tcgetattr(&terminal)?;
        let mut raw = before.clone();
        raw.make_raw();
        termios::tcsetattr(&terminal, OptionalActions::Now, &raw)?;
        let lent = Arc::new(Self { terminal, before, is_back: AtomicBool::new(false) });
        // It says what went wrong, which would be lost with the other screen.
        let (of_panic, previous) = (Arc::clone(&lent), panic::take_hook());
        panic::set_hook(Box::new(move |panic| {
            of_panic.give_back();
            previous(panic);
        }));
        (&lent.terminal).write_all(ENTER).inspect_err(|_| lent.give_back())?;
        Ok(lent)
    }

    /// Once only: later the terminal may be somebody else's. If it is gone there is nothing to be done about it.
    fn give_back(&self) {
        if !self.is_back.swap(true, Ordering::Relaxed) {
            let _ = (&self.terminal).write_all(LEAVE);
            let _ = termios::tcsetattr(&self.terminal, OptionalActions::Now, &self.before);
        }
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.kept.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let flushed = self.terminal.write_all(&self.kept);
        self.kept.clear();
        flushed
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::panic::AssertUnwindSafe;

    use rustix::pty;
    use rustix::pty::OpenptFlags;
    use rustix::termios::LocalModes;

    use super::*;

    /// A terminal, and what somebody sees of it.
    fn terminal() -> (File, File) {
        let seen = pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        pty::grantpt(&seen).unwrap();
        pty::unlockpt(&seen).unwrap();
        let path = pty::ptsname(&seen, Vec::new()).unwrap();
        let terminal = File::options().read(true).write(true).open(path.to_str().unwrap()).unwrap();
        (terminal, File::from(seen))
    }

    fn modes(terminal: &File) -> (LocalModes, String) {
        let modes = termios::tcgetattr(terminal).unwrap();
        (modes.local_modes, format!("{modes:?}"))
    }

    fn seen(mut of: &File) -> Vec<u8> {
        let mut bytes = [0; 256];
        let read = of.read(&mut bytes).unwrap();
        bytes[..read].to_vec()
    }

    #[test]
    fn a_terminal_is_given_back_as_it_was_and_only_once() {
        let (terminal, master) = terminal();
        let before = modes(&terminal);

        let lent = Lent::take(&terminal).unwrap();
        assert!(!modes(&terminal).0.intersects(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG));
        assert_eq!(seen(&master), ENTER);

        lent.give_back();
        assert_eq!((modes(&terminal), seen(&master)), (before.clone(), LEAVE.to_vec()));

        let mut others = termios::tcgetattr(&terminal).unwrap();
        others.local_modes.remove(LocalModes::ECHO);
        termios::tcsetattr(&terminal, OptionalActions::Now, &others).unwrap();
        lent.give_back();
        assert_ne!(modes(&terminal), before);
    }

    #[test]
    fn a_panic_gives_the_terminal_back_before_it_is_told() {
        let (terminal, master) = terminal();
        let before = modes(&terminal);

        // Nothing is dropped here that would give it back.
        let lent = panic::catch_unwind(AssertUnwindSafe(|| {
            std::mem::forget(Lent::take(&terminal).unwrap());
            panic!("on purpose");
        }));

        assert!(lent.is_err());
        assert_eq!(modes(&terminal), before);
        assert_eq!(seen(&master), [ENTER, LEAVE].concat());
    }

    #[test]
    fn what_is_no_terminal_is_refused() {
        let file = tempfile::tempfile().unwrap();

        assert!(Screen::enter(&file).is_err());
        assert_eq!(file.metadata().unwrap().len(), 0);
    }
}
