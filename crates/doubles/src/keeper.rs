//! A server process that goes with the test that started it, however that ends.

use std::{
    fs,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// How long a start may take on a slow machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs the server until it ends or its own input does.
const KEEPER: &str = r#"exec 3<&0; "$@" 3<&- >>"$LOG" 2>&1 & pid=$!; echo $pid >"$PID"
{ read -r _ <&3; kill -KILL $pid; } >/dev/null 2>&1 & exec 3<&-; wait $pid"#;

/// A server that is started, killed and started again.
#[derive(Debug)]
pub(crate) struct Keeper {
    folder: tempfile::TempDir,
    /// Where it runs, and keeps what it has.
    work: PathBuf,
    command: Vec<String>,
    /// What it answers once it is ready.
    ready: fn(u16) -> bool,
    port: u16,
    variables: Vec<(&'static str, String)>,
    child: Option<Child>,
}

impl Keeper {
    /// A server that is not started yet, with a folder and a port of its own.
    pub(crate) fn new(ready: fn(u16) -> bool) -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .and_then(|it| it.local_addr())
            .expect("a free port")
            .port();
        let folder = tempfile::tempdir().expect("a folder");
        let work = folder.path().to_owned();
        Self { folder, work, command: Vec::new(), ready, port, variables: Vec::new(), child: None }
    }

    pub(crate) fn with_command(
        mut self,
        command: Vec<String>,
        variables: Vec<(&'static str, String)>,
    ) -> Self {
        (self.command, self.variables) = (command, variables);
        self
    }

    /// One more argument.
    pub(crate) fn with_argument(mut self, argument: &str) -> Self {
        self.command.push(argument.to_owned());
        self
    }

    /// Runs it in another folder than its own.
    pub(crate) fn working_in(mut self, work: PathBuf) -> Self {
        self.work = work;
        self
    }

    /// The folder that it runs in.
    pub(crate) fn work(&self) -> &std::path::Path {
        &self.work
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// Starts it, and waits until it answers.
    pub(crate) fn resume(&mut self) {
        self.kill();
        let mut command = Command::new("/bin/sh");
        command.args(["-c", KEEPER, "sh"]).args(&self.command).current_dir(&self.work);
        command.env("LOG", self.path("log")).env("PID", self.path("pid"));
        command
            .envs(self.variables.iter().map(|(name, value)| (*name, value.as_str())))
            .stdin(Stdio::piped())
            .stderr(Stdio::null());
        let mut child = command.spawn().expect("a shell");
        let begin = Instant::now();
        while !(self.ready)(self.port) {
            let ended = matches!(child.try_wait(), Ok(Some(_)));
            assert!(!ended && begin.elapsed() < PATIENCE, "it does not start: {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
        self.child = Some(child);
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: &str) {
        let pid = fs::read_to_string(self.path("pid")).unwrap_or_default();
        let _ = Command::new("kill").args([signal, pid.trim()]).stderr(Stdio::null()).status();
    }

    /// Ends it with `kill -9`.
    pub(crate) fn kill(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        self.signal("-KILL");
        drop(child.stdin.take());
        let _ = child.wait();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Whether somebody listens on `port`.
pub(crate) fn listens(port: u16) -> bool {
    std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
}

/// Says past any capture that a test is left out, or fails where `required` is set.
pub(crate) fn lacking(required: &str, what: &str) {
    assert!(std::env::var_os(required).is_none(), "{required} is set, and there is no {what}");
    left_out(what);
}

/// Says past any capture that a test, or a part of one, is left out.
pub(crate) fn left_out(what: &str) {
    use std::io::Write as _;
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    let _ = writeln!(std::io::stderr(), "\nLEFT OUT: {test} needs {what}");
}
