//! The one place that writes to the terminal: data to stdout, words for people to stderr.
//!
//! Colour is off where the stream is no terminal, `NO_COLOR` is set or the terminal is dumb. A reader of stdout
//! that went away (`autoglm versions list | head -1`) ends the command quietly: [`Failure::ReaderGone`].

mod table;

use std::{
    io::{self, IsTerminal as _, Write},
    sync::Arc,
};

use autoglm_domain::Error;
use parking_lot::Mutex;
use serde::Serialize;

pub(crate) use table::{Table, oneline, printable, shortened, time};

/// Why a command ended early.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// With an error, for the person and the exit code.
    Error(Error),
    /// Nobody reads stdout any more: no error.
    ReaderGone,
}

/// Result of a command and of everything that prints.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

impl<E: Into<Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Error(error.into())
    }
}

/// One of the two streams.
#[derive(Clone)]
struct Stream {
    to: Arc<Mutex<Box<dyn Write + Send>>>,
    terminal: bool,
    colour: bool,
}

impl Stream {
    fn new(to: Box<dyn Write + Send>, terminal: bool) -> Self {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let dumb = set("TERM").is_some_and(|term| term == "dumb");
        let colour = terminal && !dumb && set("NO_COLOR").is_none();
        Self { to: Arc::new(Mutex::new(to)), terminal, colour }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.to.lock().write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.to.lock().flush()
    }
}

/// Looks of words on stderr and in tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    /// Headings.
    Bold,
    /// By the way.
    Faint,
    /// Errors.
    Red,
    /// Hints.
    Cyan,
}

impl Look {
    fn code(self) -> &'static str {
        match self {
            Self::Bold => "\u{1b}[1m",
            Self::Faint => "\u{1b}[2m",
            Self::Red => "\u{1b}[1;31m",
            Self::Cyan => "\u{1b}[36m",
        }
    }

    fn on(self, colour: bool, text: &str) -> String {
        if colour { format!("{}{text}\u{1b}[0m", self.code()) } else { text.to_owned() }
    }
}

/// Writes for one process.
#[derive(Clone)]
pub(crate) struct Printer {
    out: Stream,
    err: Stream,
}

impl Printer {
    /// Writes to the process's stdout and stderr.
    pub(crate) fn of_process() -> Self {
        let (out, err) = (io::stdout(), io::stderr());
        let (out_terminal, err_terminal) = (out.is_terminal(), err.is_terminal());
        Self { out: Stream::new(Box::new(out), out_terminal), err: Stream::new(Box::new(err), err_terminal) }
    }

    /// One line of data, or several.
    pub(crate) fn data(&self, text: &str) -> Outcome {
        let mut line = text.to_owned();
        if !line.ends_with('\n') {
            line.push('\n');
        }
        self.raw(line.as_bytes())
    }

    /// Data as it is, without a line's end; written at once.
    pub(crate) fn raw(&self, bytes: &[u8]) -> Outcome {
        let mut out = self.out.to.lock();
        out.write_all(bytes).and_then(|()| out.flush()).map_err(out_failure)
    }

    /// Data as indented JSON.
    pub(crate) fn json(&self, value: &impl Serialize) -> Outcome {
        let text = serde_json::to_string_pretty(value)
            .map_err(|error| Error::internal(format!("cannot be written as JSON: {error}")))?;
        self.data(&text)
    }

    /// A table, as data.
    pub(crate) fn table(&self, table: &Table) -> Outcome {
        self.data(&table.render(|text| Look::Bold.on(self.out.colour, text)))
    }

    /// Text in a look, for [`Printer::data`].
    pub(crate) fn styled(&self, look: Look, text: &str) -> String {
        look.on(self.out.colour, text)
    }

    /// One line for people. Nobody reading it is no failure.
    pub(crate) fn note(&self, text: &str) {
        self.say(&format!("{text}\n"));
    }

    /// [`Printer::note`] in grey.
    pub(crate) fn faint(&self, text: &str) {
        self.note(&Look::Faint.on(self.err.colour, text));
    }

    /// Words for people without a line's end, such as a prompt.
    pub(crate) fn say(&self, text: &str) {
        let mut err = self.err.to.lock();
        if err.write_all(text.as_bytes()).and_then(|()| err.flush()).is_err() {
            tracing::debug!("nobody reads stderr");
        }
    }

    /// An error with its hint.
    pub(crate) fn error(&self, error: &Error) {
        let colour = self.err.colour;
        self.note(&format!("{} {}", Look::Red.on(colour, "error:"), error.message));
        if let Some(hint) = &error.hint {
            self.note(&format!("{} {hint}", Look::Cyan.on(colour, "hint:")));
        }
    }

    /// Stdout, for those who write piece by piece.
    pub(crate) fn writer(&self) -> Box<dyn Write + Send> {
        Box::new(self.out.clone())
    }

    /// Whether stderr is a terminal.
    pub(crate) fn err_is_terminal(&self) -> bool {
        self.err.terminal
    }

    /// Whether stdout may be coloured.
    pub(crate) fn has_colour(&self) -> bool {
        self.out.colour
    }
}

/// What became of a write to stdout.
pub(crate) fn out_failure(error: io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::ReaderGone,
        io::ErrorKind::StorageFull => Error::unavailable("cannot write to stdout: the disk is full").into(),
        _ => Error::internal(format!("cannot write to stdout: {error}")).into(),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// What a captured printer wrote.
    #[derive(Clone, Default)]
    pub(crate) struct Capture {
        out: Buffer,
        err: Buffer,
    }

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Capture {
        /// A printer that writes here, with colour or without.
        pub(crate) fn printer(&self, colour: bool) -> Printer {
            let stream = |buffer: &Buffer| Stream {
                to: Arc::new(Mutex::new(Box::new(buffer.clone()))),
                terminal: colour,
                colour,
            };
            Printer { out: stream(&self.out), err: stream(&self.err) }
        }

        /// Stdout so far.
        pub(crate) fn out(&self) -> String {
            String::from_utf8(self.out.0.lock().clone()).unwrap()
        }

        /// Stderr so far.
        pub(crate) fn err(&self) -> String {
            String::from_utf8(self.err.0.lock().clone()).unwrap()
        }
    }

    struct Closed(io::ErrorKind);

    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn data_goes_to_stdout_and_words_to_stderr() {
        let capture = Capture::default();
        let printer = capture.printer(false);
        printer.data("v3").unwrap();
        printer.json(&[1]).unwrap();
        printer.note("by the way");
        printer.error(&Error::not_found("no version `v9`").with_hint("look again"));
        assert_eq!(capture.out(), "v3\n[\n  1\n]\n");
        assert_eq!(capture.err(), "by the way\nerror: no version `v9`\nhint: look again\n");
    }

    #[test]
    fn colour_is_used_where_it_may_be() {
        let capture = Capture::default();
        capture.printer(true).error(&Error::invalid("no"));
        assert_eq!(capture.err(), "\u{1b}[1;31merror:\u{1b}[0m no\n");
    }

    #[test]
    fn a_reader_that_went_away_is_told_from_a_full_disk() {
        let closed = |kind| {
            let printer = Printer {
                out: Stream {
                    to: Arc::new(Mutex::new(Box::new(Closed(kind)))),
                    terminal: false,
                    colour: false,
                },
                err: Capture::default().printer(false).err,
            };
            printer.data("x").unwrap_err()
        };
        assert_eq!(closed(io::ErrorKind::BrokenPipe), Failure::ReaderGone);
        assert_eq!(
            closed(io::ErrorKind::StorageFull),
            Failure::Error(Error::unavailable("cannot write to stdout: the disk is full"))
        );
    }
}
