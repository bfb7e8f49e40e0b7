//! No double: a real MLflow server for one test, on this machine, in a folder that goes with it.

use std::{
    fs,
    io::Write as _,
    net::{TcpListener, TcpStream},
    os::unix::process::CommandExt as _,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// Set to anything, it makes a missing MLflow a failure.
const REQUIRED: &str = "REQUIRE_MLFLOW";
/// Names a Python that has the package; `python3` without it.
const PYTHON: &str = "MLFLOW_PYTHON";
/// How long a start may take on a slow machine; the first one makes the database.
const PATIENCE: Duration = Duration::from_secs(300);

/// Runs the server and whatever it starts in a session of its own, until its input ends, so that all of it goes with the
/// test, however that ends.
const KEEPER: &str = r#"exec 3<&0; setsid "$@" 3<&- >>"$LOG" 2>&1 & pid=$!
read -r _ <&3; kill -KILL -$pid 2>/dev/null; wait $pid"#;

/// A server.
#[derive(Debug)]
pub struct MlflowServer {
    python: String,
    folder: tempfile::TempDir,
    port: u16,
    keeper: Option<Child>,
}

impl MlflowServer {
    /// Starts one. `None` where no Python with MLflow is at hand, which is said on stderr past any capture; where
    /// `REQUIRE_MLFLOW` is set, that is a panic.
    ///
    /// # Panics
    /// When the server cannot be started.
    pub fn start() -> Option<Self> {
        let python = std::env::var(PYTHON).unwrap_or_else(|_| "python3".into());
        let check = "import importlib.util, sys; sys.exit(importlib.util.find_spec('mlflow') is None)";
        let there = Command::new(&python).args(["-c", check]).stderr(Stdio::null()).status();
        if !there.is_ok_and(|status| status.success()) {
            assert!(
                std::env::var_os(REQUIRED).is_none(),
                "{REQUIRED} is set, and `{python}` has no package `mlflow` (set {PYTHON})"
            );
            let _ = writeln!(
                std::io::stderr(),
                "\nLEFT OUT: {} needs MLflow, and `{python}` has no package `mlflow` (set {PYTHON})",
                std::thread::current().name().unwrap_or("a test")
            );
            return None;
        }
        let folder = tempfile::tempdir().expect("a folder");
        let port =
            TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr()).expect("a free port").port();
        let mut server = Self { python, folder, port, keeper: None };
        server.resume();
        Some(server)
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Ends it at once.
    pub fn stop(&mut self) {
        if let Some(mut keeper) = self.keeper.take() {
            drop(keeper.stdin.take());
            let _ = keeper.wait();
        }
    }

    /// Starts it again after [`MlflowServer::stop`], on the same port and with what it kept.
    ///
    /// # Panics
    /// When it does not start.
    pub fn resume(&mut self) {
        self.stop();
        let log = self.folder.path().join("log");
        let mut keeper = Command::new("/bin/sh");
        keeper.current_dir(self.folder.path()).args([
            "-c",
            KEEPER,
            "sh",
            &self.python,
            "-m",
            "mlflow",
            "server",
        ]);
        keeper.args(["--host", "127.0.0.1", "--port", &self.port.to_string(), "--workers", "1"]);
        keeper.args(["--backend-store-uri", "sqlite:///mlflow.db", "--artifacts-destination", "./artifacts"]);
        // It is not to tell anybody that it runs.
        keeper.env("MLFLOW_DISABLE_TELEMETRY", "true").env("DO_NOT_TRACK", "true").env("LOG", &log);
        // In a group of its own, so that whoever ends the test's does not end it before it has ended the server.
        keeper.process_group(0);
        self.keeper = Some(keeper.stdin(Stdio::piped()).spawn().expect("a shell"));
        let begin = Instant::now();
        while !self.is_healthy() {
            let said = || fs::read_to_string(&log).unwrap_or_default();
            assert!(begin.elapsed() < PATIENCE, "MLflow does not start: {}", said());
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    fn is_healthy(&self) -> bool {
        use std::io::Read as _;
        let ask = || -> std::io::Result<String> {
            let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
            stream.set_read_timeout(Some(Duration::from_secs(20)))?;
            let host = format!("127.0.0.1:{}", self.port);
            write!(stream, "GET /health HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        };
        ask().is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
    }
}

impl Drop for MlflowServer {
    fn drop(&mut self) {
        self.stop();
    }
}
