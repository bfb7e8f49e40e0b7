//! Why the store refused or failed.

use std::path::{Path, PathBuf};

use autoglm_domain::{Alias, Error, ErrorKind, VersionNumber};
use sqlx::postgres::PgDatabaseError;

/// A failure of the store.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// A setting that must be positive is 0.
    #[error("setting `{setting}` of the store is 0, at least 1 is needed")]
    Setting {
        /// Its name.
        setting: &'static str,
    },
    /// An append holds more events than one may.
    #[error("an append of {events} events is larger than the limit of {limit}")]
    TooManyEvents {
        /// How many it holds.
        events: usize,
        /// `max_append_events`.
        limit: usize,
    },
    /// An event would not read back as it was given.
    #[error("event `{name}` cannot be stored: {reason}")]
    Unstorable {
        /// The event's name.
        name: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// Something with this id is already there.
    #[error("{noun} `{id}` is already there")]
    Exists {
        /// What it is.
        noun: &'static str,
        /// Its id.
        id: String,
    },
    /// Nothing with this id is there.
    #[error("no {noun} `{id}`")]
    Missing {
        /// What it would be.
        noun: &'static str,
        /// The id.
        id: String,
    },
    /// What has ended does not change any more.
    #[error("{noun} `{id}` has ended already")]
    Ended {
        /// What it is.
        noun: &'static str,
        /// Its id.
        id: String,
    },
    /// A move started from where the alias does not point.
    #[error("alias `{alias}` points at {actual}, not at {expected}")]
    AliasElsewhere {
        /// The alias.
        alias: Alias,
        /// Where the move starts.
        expected: VersionNumber,
        /// Where it points.
        actual: VersionNumber,
    },
    /// A mirror is to begin where no batch can.
    #[error(
        "the cursor of mirror `{mirror}` cannot be at {seq} with a batch up to {begun}: the journal ends at {last}"
    )]
    Cursor {
        /// The mirror.
        mirror: String,
        /// Where the cursor would be.
        seq: i64,
        /// Where the batch would end.
        begun: i64,
        /// Position of the latest event.
        last: i64,
    },
    /// Somebody else moved a mirror's cursor further.
    #[error("the cursor of mirror `{mirror}` is beyond {seq} already")]
    CursorAhead {
        /// The mirror.
        mirror: String,
        /// Where it was to be.
        seq: i64,
    },
    /// The disk is full, or the file has reached `max_file_mib`.
    #[error("no room to write to the database")]
    Full,
    /// Answers were acknowledged that the database does not take for now; what is asked for may be one of them.
    #[error("the database does not take the latest answers for now")]
    Behind,
    /// Another process holds the lock for longer than `busy_timeout_ms`.
    #[error("the database is locked by another process")]
    Locked,
    /// Every reading connection is taken.
    #[error("every reading connection is busy")]
    ReadersBusy,
    /// The disk failed.
    #[error("the disk failed: {reason}")]
    Disk {
        /// What the database says.
        reason: String,
    },
    /// An append to a store that was opened for reading.
    #[error("the store was opened for reading only")]
    ReadOnly,
    /// The file or its folder may not be written.
    #[error("the database may not be written: {reason}")]
    NotWritable {
        /// What the database says.
        reason: String,
    },
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
    /// There is no such file and none was to be made.
    #[error("no database at `{path}`")]
    NoFile {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The file could not be opened.
    #[error("database `{path}` cannot be opened: {reason}")]
    CannotOpen {
        /// Where it is.
        path: PathBuf,
        /// What the system says.
        reason: String,
    },
    /// A newer autoglm wrote the file.
    #[error("database `{path}` has format {found}, newer than {known}, the latest that this autoglm knows")]
    Newer {
        /// Where it is.
        path: PathBuf,
        /// Its format: the number of its latest migration.
        found: i64,
        /// Our latest.
        known: i64,
    },
    /// An older autoglm wrote the file and it was opened for reading only.
    #[error("database `{path}` has format {found}, older than {known}, and was opened for reading only")]
    Older {
        /// Where it is.
        path: PathBuf,
        /// Its format.
        found: i64,
        /// Our latest.
        known: i64,
    },
    /// The file is not one of ours.
    #[error("`{path}` is not an autoglm database: {reason}")]
    NotOurs {
        /// Where it is.
        path: PathBuf,
        /// How one can tell.
        reason: String,
    },
    /// The file, or something in it, is damaged.
    #[error("{what} is damaged: {reason}")]
    Damaged {
        /// What is.
        what: String,
        /// How one can tell.
        reason: String,
    },
    /// The address of a Postgres server cannot be used.
    #[error("the address of the database cannot be used: {reason}")]
    Address {
        /// What is wrong with it; never the address itself, which may hold a password.
        reason: String,
    },
    /// No Postgres server answers there.
    #[error("Postgres at `{at}` does not answer: {reason}")]
    Unreachable {
        /// Host, port and database.
        at: String,
        /// What the system says.
        reason: String,
    },
    /// The server and we do not come to trust one another.
    #[error("no TLS with Postgres at `{at}`: {reason}")]
    Untrusted {
        /// Host, port and database.
        at: String,
        /// What is wrong with its certificate, or with ours.
        reason: String,
    },
    /// The server does not let this user in.
    #[error("Postgres at `{at}` refuses the login: {reason}")]
    LoginRefused {
        /// Host, port and database.
        at: String,
        /// What the server says.
        reason: String,
    },
    /// The server has no such database.
    #[error("no database at `{at}`")]
    NoDatabase {
        /// Host, port and database.
        at: String,
    },
    /// Nobody has made the tables yet.
    #[error("database `{at}` holds nothing of autoglm")]
    NoTables {
        /// Host, port and database.
        at: String,
    },
    /// The server went away.
    #[error("the connection to Postgres was lost: {reason}")]
    Lost {
        /// What the system says.
        reason: String,
    },
    /// An order to another process, or the answer to one, is too long to be told.
    #[error("an order of {bytes} bytes is longer than the {most} that can be passed on")]
    LongOrder {
        /// Its length.
        bytes: usize,
        /// Most that it may have.
        most: usize,
    },
    /// The server went away between an order to commit and its answer, and did not come back in time.
    #[error("Postgres went away during a commit: it is not known whether the events were written")]
    Unsettled,
    /// Only the leader may write this, and this process does not lead.
    #[error("this process does not lead the loop on this database")]
    NotLeading,
    /// A fault of ours.
    #[error("the database failed: {reason}")]
    Sql {
        /// What the database or its driver says.
        reason: String,
    },
}

impl JournalError {
    /// What sort of failure it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Setting { .. } | Self::TooManyEvents { .. } | Self::Unstorable { .. } => ErrorKind::Invalid,
            Self::NotOurs { .. } | Self::Newer { .. } => ErrorKind::Invalid,
            Self::Address { .. } | Self::Cursor { .. } | Self::LongOrder { .. } => ErrorKind::Invalid,
            Self::CursorAhead { .. } => ErrorKind::Conflict,
            Self::Exists { .. } | Self::AliasElsewhere { .. } | Self::Older { .. } => ErrorKind::Conflict,
            Self::Ended { .. } => ErrorKind::Conflict,
            Self::NotLeading => ErrorKind::Conflict,
            Self::NoDatabase { .. } | Self::NoTables { .. } => ErrorKind::NotFound,
            Self::LoginRefused { .. } => ErrorKind::Denied,
            Self::Unreachable { .. } | Self::Untrusted { .. } => ErrorKind::Unavailable,
            Self::Lost { .. } | Self::Unsettled => ErrorKind::Unavailable,
            Self::Missing { .. } | Self::NoFile { .. } => ErrorKind::NotFound,
            Self::ReadOnly | Self::NotWritable { .. } => ErrorKind::Denied,
            Self::Full | Self::Behind | Self::Locked | Self::ReadersBusy | Self::Disk { .. } => {
                ErrorKind::Unavailable
            }
            Self::Closed | Self::CannotOpen { .. } => ErrorKind::Unavailable,
            Self::Damaged { .. } | Self::Sql { .. } => ErrorKind::Internal,
        }
    }

    /// What a person can do about it.
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::TooManyEvents { .. } => "append in parts, or raise `max_append_events`",
            Self::AliasElsewhere { .. } => "somebody moved it meanwhile; look again and decide anew",
            Self::CursorAhead { .. } => "another process feeds this mirror; let one do it",
            Self::Full => "free space on the disk or raise `max_file_mib`, then try again",
            Self::Behind => {
                "they are safe in the spool; free space on the disk, or see the log for what it is"
            }
            Self::Locked => {
                "another process is writing; try again when it is done, or raise `busy_timeout_ms`"
            }
            Self::ReadersBusy => "try again, or raise `readers`",
            Self::Disk { .. } => "check the disk and its free space",
            Self::ReadOnly => "open it with the right to write",
            Self::NotWritable { .. } => "check the owner and the permissions of the file and its folder",
            Self::NoFile { .. } => "check the data directory; a server makes the file when it first starts",
            Self::CannotOpen { .. } => "check that the folder exists and who may use it",
            Self::Newer { .. } => "use that newer autoglm, or another data directory or database",
            Self::Older { .. } => "start this version's server on it once: it brings the file up to date",
            Self::NotOurs { .. } => "give another data directory or database; this one was left as it is",
            Self::Damaged { .. } => {
                "restore it from a backup; `sqlite3 FILE .recover` saves what can be read"
            }
            Self::Address { .. } => "it looks like postgres://USER@HOST:5432/DATABASE",
            Self::Unreachable { .. } => "check that the server runs there and may be reached from here",
            Self::Untrusted { .. } => {
                "check `sslmode` and `sslrootcert` in `store.url`, and the names in the server's certificate; TLS needs a build with the feature `tls`"
            }
            Self::LoginRefused { .. } => {
                "check user and password; the password can also come from PGPASSWORD or ~/.pgpass"
            }
            Self::NoDatabase { .. } => "make it with `createdb`; autoglm makes its own tables in it",
            Self::NoTables { .. } => "a server makes its tables when it first starts",
            Self::LongOrder { .. } => "give a shorter reason",
            Self::Lost { .. } => "what was acknowledged is there; try again when the server is back",
            Self::Unsettled => "look whether it is there before writing it again",
            Self::NotLeading => "the process that leads does it, or will when it is this one's turn",
            _ => return None,
        })
    }

    /// Whether the server is away, so that the same may go well later.
    pub(crate) fn is_outage(&self) -> bool {
        matches!(self, Self::Lost { .. } | Self::Unreachable { .. } | Self::Untrusted { .. })
    }

    /// Whether only the append that met this failed, and others of its commit may go on.
    pub(crate) fn spares_others(&self) -> bool {
        matches!(self.kind(), ErrorKind::Invalid | ErrorKind::NotFound | ErrorKind::Conflict)
    }

    /// The same failure, told of the file at `path` that was being opened.
    pub(crate) fn while_opening(self, path: &Path) -> Self {
        let path = path.to_path_buf();
        match self {
            Self::NotOurs { reason, .. } => Self::NotOurs { path, reason },
            Self::CannotOpen { reason, .. } => Self::CannotOpen { path, reason },
            Self::Damaged { reason, .. } => {
                Self::Damaged { what: format!("database `{}`", path.display()), reason }
            }
            other => other,
        }
    }
}

impl JournalError {
    /// What a Postgres server reports: <https://www.postgresql.org/docs/current/errcodes-appendix.html>
    fn of_postgres(error: &PgDatabaseError) -> Self {
        let reason = error.message().to_owned();
        match error.code() {
            "53100" => Self::Full,
            "55P03" => Self::Locked,
            "58030" => Self::Disk { reason },
            "XX001" | "XX002" => Self::Damaged { what: "the database".into(), reason },
            "42501" | "25006" => Self::NotWritable { reason },
            "28000" | "28P01" => Self::LoginRefused { at: String::new(), reason },
            "3D000" => Self::NoDatabase { at: String::new() },
            // A character that the encoding lacks (NUL in UTF8), and a value that is too large.
            "22021" | "22P05" | "54000" => Self::Unstorable { name: "of this append", reason },
            // Shutdowns and crashes, a session that the server ended, too many sessions.
            code if code.starts_with("08") || code.starts_with("57P") => Self::Lost { reason },
            "25P03" | "53300" => Self::Lost { reason },
            _ => Self::Sql { reason },
        }
    }
}

impl From<JournalError> for Error {
    fn from(error: JournalError) -> Self {
        let hint = error.hint();
        let crossing = Self::new(error.kind(), error.to_string());
        match hint {
            Some(hint) => crossing.with_hint(hint),
            None => crossing,
        }
    }
}

impl From<sqlx::Error> for JournalError {
    fn from(error: sqlx::Error) -> Self {
        let reason = match &error {
            sqlx::Error::PoolTimedOut => return Self::ReadersBusy,
            sqlx::Error::PoolClosed => return Self::Closed,
            // Only Postgres is spoken to over sockets.
            // What cannot be understood there is TLS, or none where there was to be some.
            sqlx::Error::Io(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                return Self::Untrusted { at: String::new(), reason: error.to_string() };
            }
            sqlx::Error::Io(error) => return Self::Lost { reason: error.to_string() },
            sqlx::Error::Tls(error) => {
                return Self::Untrusted { at: String::new(), reason: error.to_string() };
            }
            sqlx::Error::Protocol(reason) => return Self::Lost { reason: reason.clone() },
            sqlx::Error::Database(database) => match database.try_downcast_ref::<PgDatabaseError>() {
                Some(error) => return Self::of_postgres(error),
                None => database.message().to_owned(),
            },
            other => return Self::Sql { reason: other.to_string() },
        };
        // The low byte of SQLite's extended result code is the primary one: https://www.sqlite.org/rescode.html
        let code = error.as_database_error().and_then(|database| database.code()?.parse::<i32>().ok());
        match code.map(|code| code & 0xff) {
            Some(5 | 6) => Self::Locked,                                       // BUSY, LOCKED
            Some(8) => Self::NotWritable { reason },                           // READONLY
            Some(10) => Self::Disk { reason },                                 // IOERR
            Some(11) => Self::Damaged { what: "the database".into(), reason }, // CORRUPT
            Some(13) => Self::Full,                                            // FULL
            Some(14) => Self::CannotOpen { path: PathBuf::new(), reason },     // CANTOPEN
            Some(18) => Self::Unstorable { name: "of this append", reason },   // TOOBIG
            Some(26) => Self::NotOurs { path: PathBuf::new(), reason },        // NOTADB
            _ => Self::Sql { reason },
        }
    }
}
