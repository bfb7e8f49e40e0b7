//! No double: a server of S3's protocol, and a Python with the tools that people read Parquet files with.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    path::PathBuf,
    process::Command,
    time::Duration,
};

use crate::keeper::{Keeper, lacking, listens};

/// Set to anything, it makes a missing Python a failure.
const REQUIRED: &str = "REQUIRE_LAKE";
/// Names a Python that has `duckdb`, `pandas`, `pyarrow`, `moto[server]` and `confluent-kafka`.
const PYTHON: &str = "LAKE_PYTHON";

/// That Python. `None` where the variable `LAKE_PYTHON` is not set, which is said on stderr past any capture; where
/// `REQUIRE_LAKE` is set, that is a panic.
pub fn lake_python() -> Option<PathBuf> {
    let python = std::env::var_os(PYTHON).map(PathBuf::from);
    if python.is_none() {
        lacking(
            REQUIRED,
            "`LAKE_PYTHON`, a Python with duckdb, pandas, pyarrow, moto[server] and confluent-kafka",
        );
    }
    python
}

/// Runs a script of that Python with arguments; what it prints.
///
/// # Panics
/// When it fails.
pub fn run_python(python: &PathBuf, script: &str, arguments: &[&str]) -> String {
    let ran = Command::new(python).args(["-c", script]).args(arguments).output().expect("python");
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    String::from_utf8(ran.stdout).expect("text")
}

/// An S3 server (moto) in memory.
#[derive(Debug)]
pub struct S3Server(Keeper);

impl S3Server {
    /// Starts one, without buckets. `None` as [`lake_python`].
    ///
    /// # Panics
    /// When it does not start.
    pub fn start() -> Option<Self> {
        let python = lake_python()?;
        let keeper = Keeper::new(listens);
        let port = keeper.port().to_string();
        let command = [
            python.display().to_string(),
            "-m".into(),
            "moto.server".into(),
            "-H".into(),
            "127.0.0.1".into(),
        ];
        let mut command: Vec<String> = command.into();
        command.extend(["-p".into(), port]);
        let mut server = Self(keeper.with_command(command, Vec::new()));
        server.0.resume();
        Some(server)
    }

    /// Its address.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.0.port())
    }

    /// What a client of it, or of another server at `endpoint`, has to know.
    pub fn options(endpoint: &str) -> [(&'static str, &str); 5] {
        [
            ("aws_access_key_id", "id"),
            ("aws_secret_access_key", "secret"),
            ("aws_endpoint", endpoint),
            ("aws_region", "us-east-1"),
            ("allow_http", "true"),
        ]
    }

    /// Makes a bucket.
    ///
    /// # Panics
    /// When the server does not answer as it should.
    pub fn make_bucket(&self, name: &str) {
        self.ask("PUT", &format!("/{name}"), "");
    }

    /// From now on who asks must have a right to: nobody does. With `open` everybody may do everything again.
    ///
    /// # Panics
    /// When the server does not answer as it should.
    pub fn allow(&self, open: bool) {
        self.ask("POST", "/moto-api/reset-auth", if open { "inf" } else { "0" });
    }

    /// Ends it, and what was in its buckets with it.
    pub fn kill(&mut self) {
        self.0.kill();
    }

    /// Starts it again, empty.
    ///
    /// # Panics
    /// When it does not start.
    pub fn resume(&mut self) {
        self.0.resume();
    }

    /// One request that must succeed.
    fn ask(&self, method: &str, path: &str, body: &str) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.0.port())).expect("the server");
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(head.as_bytes()).expect("a request");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 200"), "{method} {path}: {answer}");
    }
}
