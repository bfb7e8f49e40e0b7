//! No double: a real broker of Kafka's protocol for one test, on this machine, in a folder that goes with it.

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
        let path = std::env::var_os("PATH").unwrap_or_default();
        let Some(program) = std::env::split_paths(&path).map(|it| it.join("tansu")).find(|it| it.is_file())
        else {
            lacking(REQUIRED, "`tansu` on PATH (`.ci/tansu` is its source)");
            return None;
        };
        let keeper = Keeper::new(listens);
        let address = format!("tcp://127.0.0.1:{}", keeper.port());
        let command = [
            program.display().to_string(),
            "broker".into(),
            "--listener-url".into(),
            address.clone(),
            "--advertised-listener-url".into(),
            address,
            "--storage-engine".into(),
            "sqlite://tansu.db".into(),
        ];
        Some(Self(keeper.with_command(command.into(), Vec::new())))
    }

    /// `HOST:PORT` for clients.
    pub fn brokers(&self) -> String {
        format!("127.0.0.1:{}", self.0.port())
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        self.0.log()
    }

    /// Ends it with `kill -9`.
    pub fn kill(&mut self) {
        self.0.kill();
    }

    /// Starts it again, on the same port, with what it had.
    ///
    /// # Panics
    /// When it does not start.
    pub fn resume(&mut self) {
        self.0.resume();
    }
}
