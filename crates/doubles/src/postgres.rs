//! No double: a real Postgres server for one test, on this machine, in a folder that goes with it.

use std::{
    fs,
    io::Write as _,
    net::TcpListener,
    os::unix::{
        fs::{MetadataExt as _, PermissionsExt as _},
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// Set to anything, it makes a missing Postgres a failure.
const REQUIRED: &str = "REQUIRE_POSTGRES";
/// The user that the server is made with, and its password.
const USER: &str = "loop";
const PASSWORD: &str = "p%40ss"; // as it is written in a URL
/// How long a start or a stop may take on a slow machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs the server until it ends or its own input does, so that it goes with the test, however that ends.
const KEEPER: &str = r#"exec 3<&0; "$@" 3<&- >>"$LOG" 2>&1 & pid=$!
{ read -r _ <&3; kill -QUIT $pid; } >/dev/null 2>&1 & exec 3<&-; wait $pid"#;

/// A server.
#[derive(Debug)]
pub struct PostgresServer {
    programs: PathBuf,
    folder: tempfile::TempDir,
    /// User and group that it runs as, where this process is root's.
    user: Option<(u32, u32)>,
    port: u16,
    keeper: Option<Child>,
    /// Further settings.
    settings: Vec<String>,
}

impl PostgresServer {
    /// Starts one. `None` where this machine has no Postgres, which is said on stderr past any capture; where
    /// `REQUIRE_POSTGRES` is set, that is a panic.
    ///
    /// # Panics
    /// When the server cannot be made or started.
    pub fn start() -> Option<Self> {
        let Some(programs) = programs() else {
            assert!(
                std::env::var_os(REQUIRED).is_none(),
                "{REQUIRED} is set, and there is no Postgres: neither `initdb` on PATH nor /usr/lib/postgresql/*/bin"
            );
            let _ = writeln!(
                std::io::stderr(),
                "\nLEFT OUT: {} needs Postgres, and there is no `initdb` on PATH or in /usr/lib/postgresql/*/bin",
                std::thread::current().name().unwrap_or("a test")
            );
            return None;
        };
        let folder = tempfile::tempdir().expect("a folder");
        let user = unprivileged();
        if let Some((uid, gid)) = user {
            std::os::unix::fs::chown(folder.path(), Some(uid), Some(gid)).expect("a folder for another user");
        }
        let port =
            TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr()).expect("a free port").port();
        let mut server = Self { programs, folder, user, port, keeper: None, settings: Vec::new() };
        server.initialise();
        server.resume();
        Some(server)
    }

    /// Starts it again with TLS, and without anything else: a client that does not ask for TLS is refused. Certificate and
    /// key are PEM.
    ///
    /// # Panics
    /// When it does not start.
    pub fn secure(&mut self, certificate: &str, key: &str) {
        self.stop();
        for (name, text) in [("server.crt", certificate), ("server.key", key)] {
            let path = self.path(name);
            fs::write(&path, text).expect("a file");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("a file for its owner");
            if let Some((uid, gid)) = self.user {
                std::os::unix::fs::chown(&path, Some(uid), Some(gid)).expect("a file for another user");
            }
        }
        let rules = "hostssl all all 127.0.0.1/32 scram-sha-256\n";
        fs::write(self.path("data/pg_hba.conf"), rules).expect("rules");
        let path = |name: &str| self.path(name).display().to_string();
        let files =
            [format!("ssl_cert_file={}", path("server.crt")), format!("ssl_key_file={}", path("server.key"))];
        self.settings = [vec!["ssl=on".to_owned()], files.into()].concat();
        self.resume();
    }

    /// Address of a database on it, with user and password.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://{USER}:{PASSWORD}@127.0.0.1:{}/{database}", self.port)
    }

    /// The port that it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// User and group that it runs as, where this process is root's.
    pub fn user(&self) -> Option<(u32, u32)> {
        self.user
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// Ends it in order; open sessions are ended.
    pub fn stop(&mut self) {
        self.signal("-INT");
        let begin = Instant::now();
        while !self.has_ended() && begin.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(10));
        }
        self.gone();
    }

    /// Ends it with `kill -9`: nothing is written any more, nothing is said to anybody.
    pub fn kill(&mut self) {
        // The processes of the sessions too, or they would answer for a while yet.
        let postmaster = self.postmaster();
        let children = fs::read_to_string(format!("/proc/{postmaster}/task/{postmaster}/children"));
        self.signal("-KILL");
        for child in children.unwrap_or_default().split_whitespace() {
            let _ = Command::new("kill").args(["-KILL", child]).stderr(Stdio::null()).status();
        }
        self.gone();
    }

    /// Starts it again after [`PostgresServer::stop`] or [`PostgresServer::kill`], on the same port.
    ///
    /// # Panics
    /// When it does not start.
    pub fn resume(&mut self) {
        let ready = |log: &str| log.matches("ready to accept connections").count();
        let before = ready(&self.log());
        let begin = Instant::now();
        self.launch();
        while ready(&self.log()) == before {
            assert!(begin.elapsed() < PATIENCE, "Postgres does not start: {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
            if self.has_ended() {
                // The memory of one that was killed may still have been in use.
                std::thread::sleep(Duration::from_millis(100));
                self.launch();
            }
        }
    }

    fn launch(&mut self) {
        self.gone();
        let program = self.programs.join("postgres").display().to_string();
        let (port, data) = (self.port.to_string(), self.path("data").display().to_string());
        let server = [&program, "-D", &data, "-p", &port, "-c", "listen_addresses=127.0.0.1"];
        let mut keeper = self.command("/bin/sh");
        keeper.args(["-c", KEEPER, "sh"]).args(server);
        // The tests kill processes, not machines: what was written is read again without waiting for the disk.
        keeper.args(["-c", "unix_socket_directories=", "-c", "fsync=off", "-c", "max_connections=60"]);
        keeper.args(self.settings.iter().flat_map(|setting| ["-c", setting]));
        keeper.env("LOG", self.path("log")).stdin(Stdio::piped());
        self.keeper = Some(keeper.spawn().expect("a shell"));
    }

    fn initialise(&self) {
        let secret = self.path("secret");
        fs::write(&secret, "p@ss\n").expect("a password");
        let mut initdb = self.command(self.programs.join("initdb"));
        initdb.arg("-D").arg(self.path("data")).args([
            "-U",
            USER,
            "--encoding=UTF8",
            "--locale=C",
            "--no-sync",
        ]);
        initdb.arg("--auth=scram-sha-256").arg("--pwfile").arg(secret);
        let made = initdb.output().expect("initdb");
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
    }

    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.folder.path()).stdin(Stdio::null());
        if let Some((uid, gid)) = self.user {
            command.uid(uid).gid(gid);
        }
        command
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn postmaster(&self) -> String {
        let file = fs::read_to_string(self.path("data/postmaster.pid")).unwrap_or_default();
        file.lines().next().unwrap_or_default().to_owned()
    }

    fn signal(&self, signal: &str) {
        let told = Command::new("kill").args([signal, &self.postmaster()]).stderr(Stdio::null()).status();
        told.expect("kill");
    }

    fn has_ended(&mut self) -> bool {
        self.keeper.as_mut().is_none_or(|keeper| matches!(keeper.try_wait(), Ok(Some(_))))
    }

    /// Ends the server, if it runs, and waits until it has ended.
    fn gone(&mut self) {
        if let Some(mut keeper) = self.keeper.take() {
            drop(keeper.stdin.take());
            let _ = keeper.wait();
        }
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        self.gone();
    }
}

/// The folder with `initdb` and `postgres`.
fn programs() -> Option<PathBuf> {
    let has_both = |folder: &Path| folder.join("initdb").is_file() && folder.join("postgres").is_file();
    let path = std::env::var_os("PATH").unwrap_or_default();
    if let Some(folder) = std::env::split_paths(&path).find(|folder| has_both(folder)) {
        return Some(folder);
    }
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?.filter_map(Result::ok);
    let mut folders: Vec<_> = versions.map(|version| version.path().join("bin")).collect();
    folders.sort();
    folders.into_iter().rev().find(|folder| has_both(folder))
}

/// Postgres does not run as root: then it runs as its own user, or as nobody.
fn unprivileged() -> Option<(u32, u32)> {
    if fs::metadata("/proc/self").is_ok_and(|it| it.uid() != 0) {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").expect("/etc/passwd");
    let ids = |name: &str| {
        let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    Some(ids("postgres").or_else(|| ids("nobody")).expect("a user other than root to run Postgres as"))
}
