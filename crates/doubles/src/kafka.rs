//! No double: a real broker of Kafka's protocol for one test, on this machine, in a folder that goes with it.

use std::path::{Path, PathBuf};

use crate::keeper::{Keeper, lacking, listens};

/// Set to anything, it makes a missing broker a failure.
const REQUIRED: &str = "REQUIRE_KAFKA";

/// A broker: Tansu over SQLite, which keeps what it acknowledged when it is killed.
#[derive(Debug)]
pub struct KafkaBroker(Keeper);

impl KafkaBroker {
    /// Starts one. `None` where there is no `tansu` on PATH, which is said on stderr past any capture; where
    /// `REQUIRE_KAFKA` is set, that is a panic.
    ///
    /// # Panics
    /// When the broker does not start.
    pub fn start() -> Option<Self> {
        let mut broker = Self::stopped()?;
        broker.resume();
        Some(broker)
    }

    /// The same, not started yet: its port is known, and nobody listens there.
    ///
    /// # Panics
    /// As [`KafkaBroker::start`].
    pub fn stopped() -> Option<Self> {
        Self::made(None)
    }

    /// The same; it tells clients to go to `port` of this machine, where somebody passes them on.
    ///
    /// # Panics
    /// As [`KafkaBroker::start`].
    pub fn stopped_behind(port: u16) -> Option<Self> {
        Self::made(Some(port))
    }

    /// Keeps its data in `folder`.
    pub fn on(self, folder: &Path) -> Self {
        Self(self.0.working_in(folder.to_owned()))
    }

    /// Wants to know who a client is, and lets in nobody that it does not know, which is nobody.
    pub fn asking_who(self) -> Self {
        Self(self.0.with_argument("--authentication"))
    }

    fn made(front: Option<u16>) -> Option<Self> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let Some(program) = std::env::split_paths(&path).map(|it| it.join("tansu")).find(|it| it.is_file())
        else {
            lacking(REQUIRED, "`tansu` on PATH (`.ci/tansu` is its source)");
            return None;
        };
        let keeper = Keeper::new(listens);
        let address = |port: u16| format!("tcp://127.0.0.1:{port}");
        let command = [
            program.display().to_string(),
            "broker".into(),
            "--listener-url".into(),
            address(keeper.port()),
            "--advertised-listener-url".into(),
            address(front.unwrap_or(keeper.port())),
            "--storage-engine".into(),
            "sqlite://tansu.db".into(),
        ];
        Some(Self(keeper.with_command(command.into(), Vec::new())))
    }

    /// `HOST:PORT` for clients.
    pub fn brokers(&self) -> String {
        format!("127.0.0.1:{}", self.0.port())
    }

    /// The database that it keeps everything in.
    pub fn data(&self) -> PathBuf {
        self.0.work().join("tansu.db")
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        self.0.log()
    }

    /// Ends it with `kill -9`.
    pub fn kill(&mut self) {
        self.0.kill();
    }

    /// Holds it up: it keeps its connections and does nothing.
    pub fn halt(&self) {
        self.0.signal("-STOP");
    }

    /// Lets it go on.
    pub fn go_on(&self) {
        self.0.signal("-CONT");
    }

    /// The port that it listens on.
    pub fn port(&self) -> u16 {
        self.0.port()
    }

    /// Starts it again, on the same port, with what it had.
    ///
    /// # Panics
    /// When it does not start.
    pub fn resume(&mut self) {
        self.0.resume();
    }
}
