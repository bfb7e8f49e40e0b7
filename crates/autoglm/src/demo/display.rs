//! What a person sees while the demo runs: a progress bar and a live line on a terminal, plain lines elsewhere.

use std::{
    io::Write,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use parking_lot::Mutex;

use super::{
    report::Report,
    table::{percent, table},
    tally::Tally,
};

/// Without a terminal, a line is written after this many answers.
const PLAIN_EVERY: u64 = 500;

/// Colours of the lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    /// No colour.
    Plain,
    /// Green: something got better.
    Good,
    /// Yellow: something was refused or is not as it should be.
    Caution,
    /// Grey: by the way.
    Faint,
}

impl Tone {
    fn code(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Good => "\u{1b}[32m",
            Self::Caution => "\u{1b}[33m",
            Self::Faint => "\u{1b}[2m",
        }
    }
}

/// Where the demo's lines go.
pub(crate) struct Display {
    out: Mutex<Box<dyn Write + Send>>,
    bar: Option<ProgressBar>,
    colour: bool,
    since_line: AtomicU64,
}

impl Display {
    /// Lines go to `out`; with `terminal`, a progress bar is drawn on stderr beneath them. `colour` is for the
    /// caller to decide (a terminal and no `NO_COLOR`).
    pub(crate) fn new(out: Box<dyn Write + Send>, terminal: bool, colour: bool) -> Self {
        let bar = terminal.then(|| {
            let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
            let template = "{prefix:>20} {bar:28} {pos:>5}/{len:<5} {msg}";
            let style =
                ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
            bar.set_style(style.progress_chars("━╸─"));
            bar
        });
        Self { out: Mutex::new(out), bar, colour, since_line: AtomicU64::new(0) }
    }

    /// Writes one line. A reader that went away does not stop the demo.
    pub(crate) fn line(&self, tone: Tone, text: &str) {
        let write = || {
            let mut out = self.out.lock();
            let written = match tone {
                Tone::Plain => writeln!(out, "{text}"),
                _ if !self.colour => writeln!(out, "{text}"),
                _ => writeln!(out, "{}{text}\u{1b}[0m", tone.code()),
            };
            if written.and_then(|()| out.flush()).is_err() {
                tracing::debug!("nobody reads the demo's lines");
            }
        };
        match &self.bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }

    /// A task's traffic begins.
    pub(crate) fn phase(&self, number: usize, tasks: usize, task: &str, requests: usize, pace: f64) {
        self.since_line.store(0, Ordering::Relaxed);
        match &self.bar {
            Some(bar) => {
                bar.reset();
                bar.set_length(requests as u64);
                bar.set_prefix(shortened(task, 20));
                bar.set_message("");
            }
            None => {
                let text = format!("task {number}/{tasks} {task}: {requests} requests at {pace:.0} a second");
                self.line(Tone::Plain, &text);
            }
        }
    }

    /// An answer came in.
    pub(crate) fn answered(&self, tally: &Tally) {
        let rolling = tally.rolling().map(|share| format!("{} right of the last 200", percent(Some(share))));
        let rolling = rolling.unwrap_or_default();
        let failed = if tally.failed > 0 { format!(", {} failed", tally.failed) } else { String::new() };
        match &self.bar {
            Some(bar) => {
                bar.inc(1);
                bar.set_message(format!("{rolling}{failed}"));
            }
            None if (self.since_line.fetch_add(1, Ordering::Relaxed) + 1).is_multiple_of(PLAIN_EVERY) => {
                self.line(Tone::Faint, &format!("  {rolling}{failed}"));
            }
            None => {}
        }
    }

    /// What goes on while there is nothing to count.
    pub(crate) fn working(&self, what: &str) {
        match &self.bar {
            Some(bar) => {
                bar.set_message(what.to_owned());
                bar.enable_steady_tick(Duration::from_millis(200));
            }
            None => self.line(Tone::Faint, &format!("  {what}")),
        }
    }

    /// Takes the bar away.
    pub(crate) fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    /// The table at the end.
    pub(crate) fn finish(&self, report: &Report) {
        self.line(Tone::Plain, &format!("\n{}", table(report)));
    }
}

/// `text` in at most `most` characters.
fn shortened(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most.saturating_sub(1)).chain(std::iter::once('…')).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;

    use super::*;

    /// A writer that a test can look into.
    #[derive(Debug, Clone, Default)]
    pub(crate) struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Shared {
        /// What was written so far.
        pub(crate) fn text(&self) -> String {
            String::from_utf8(self.0.lock().clone()).unwrap()
        }
    }

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn without_a_terminal_there_are_plain_lines_and_colour_only_where_allowed() {
        let out = Shared::default();
        let display = Display::new(Box::new(out.clone()), false, false);
        display.phase(1, 10, "banking", 1500, 40.0);
        display.line(Tone::Good, "v1 promoted");
        assert_eq!(out.text(), "task 1/10 banking: 1500 requests at 40 a second\nv1 promoted\n");
        let out = Shared::default();
        Display::new(Box::new(out.clone()), false, true).line(Tone::Good, "v1 promoted");
        assert_eq!(out.text(), "\u{1b}[32mv1 promoted\u{1b}[0m\n");
    }

    #[test]
    fn a_long_task_name_is_shortened() {
        assert_eq!(shortened("kitchen_and_dining_and_more", 10), "kitchen_a…");
        assert_eq!(shortened("work", 10), "work");
    }
}
