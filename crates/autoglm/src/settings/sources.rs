//! File, environment and flags, read into one tree.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use serde_json::Value;

use super::{
    Settings,
    error::{Origin, SettingsError},
    schema::{self, Key},
};

/// Read where no other file is named.
const FILE: &str = "autoglm.toml";

/// Begins the name of every variable.
const PREFIX: &str = "AUTOGLM_";

/// Variables that are no settings: they stand for flags of the command line.
const VARIABLES: [&str; 3] = ["AUTOGLM_CONFIG", "AUTOGLM_SERVER", "AUTOGLM_API_KEY"];

/// A flag with a name of its own that sets a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Named {
    /// As it is written, e.g. `--listen`.
    pub(crate) flag: &'static str,
    /// The key that it sets.
    pub(crate) key: &'static str,
    /// To what.
    pub(crate) value: String,
}

/// What the command line says of the settings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Flags {
    /// The file to read instead of `autoglm.toml`.
    pub(crate) config: Option<PathBuf>,
    /// `KEY=VALUE`, in order.
    pub(crate) set: Vec<String>,
    /// Flags with names of their own.
    pub(crate) named: Vec<Named>,
}

/// One value that was given.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Given {
    pub(super) path: Vec<String>,
    pub(super) value: Value,
    pub(super) origin: Origin,
}

/// What was read.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) settings: Settings,
    /// The settings as a tree, in the order of the reference page.
    pub(super) tree: Value,
    /// Everything that was given, the stronger later.
    pub(super) given: Vec<Given>,
}

/// Reads everything; `environment` may hold any variables.
pub(super) fn read(
    flags: &Flags,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> autoglm_domain::Result<Read> {
    let mut given = Vec::new();
    match &flags.config {
        Some(path) => read_file(path, &mut given)?,
        None if Path::new(FILE).is_file() => read_file(Path::new(FILE), &mut given)?,
        None => {}
    }
    read_environment(environment, &mut given)?;
    read_flags(flags, &mut given)?;
    let mut tree = schema::DEFAULTS.clone();
    for one in &given {
        set(&mut tree, one);
    }
    let settings: Settings = serde_json::from_value(tree.clone()).map_err(|error| blame(&given, &error))?;
    settings.check()?;
    Ok(Read { settings, tree, given })
}

fn set(tree: &mut Value, given: &Given) {
    let mut at = tree;
    for name in &given.path {
        let Value::Object(map) = at else { return };
        at = map.entry(name.clone()).or_insert_with(|| Value::Object(serde_json::Map::new()));
    }
    *at = given.value.clone();
}

/// Which of the given values the settings cannot be made with. Each is tried alone over the defaults.
fn blame(given: &[Given], error: &serde_json::Error) -> autoglm_domain::Error {
    for one in given.iter().rev() {
        let mut tree = schema::DEFAULTS.clone();
        set(&mut tree, one);
        if let Err(error) = serde_json::from_value::<Settings>(tree) {
            return SettingsError::Value {
                key: key(&one.path),
                given: shown(&one.value),
                expected: error.to_string(),
                origin: one.origin.clone(),
            }
            .into();
        }
    }
    autoglm_domain::Error::invalid(format!("the settings do not fit together: {error}"))
}

/// A value as it is written in a message, never a secret.
fn shown(value: &Value) -> String {
    match value {
        Value::Object(_) => "a table".into(),
        Value::String(text) => format!("`{text}`"),
        other => format!("`{other}`"),
    }
}

/// A path as it is written in TOML.
pub(super) fn key(path: &[String]) -> String {
    let bare = |name: &String| {
        !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c))
    };
    let names = path.iter().map(|name| if bare(name) { name.clone() } else { format!("{name:?}") });
    names.collect::<Vec<_>>().join(".")
}

fn read_file(path: &Path, given: &mut Vec<Given>) -> Result<(), SettingsError> {
    let text = std::fs::read_to_string(path).map_err(|error| SettingsError::File {
        path: path.to_owned(),
        missing: error.kind() == std::io::ErrorKind::NotFound,
        reason: match error.kind() {
            std::io::ErrorKind::NotFound => "there is no such file".into(),
            _ => error.to_string(),
        },
    })?;
    let table: toml::Table = toml::from_str(&text).map_err(|error| SettingsError::Syntax {
        path: path.to_owned(),
        line: error.span().map_or(1, |span| line_at(&text, span.start)),
        reason: error.message().lines().collect::<Vec<_>>().join(", "),
    })?;
    let file = File { path, text: &text };
    file.read_table(&mut Vec::new(), &table, given)
}

struct File<'a> {
    path: &'a Path,
    text: &'a str,
}

impl File<'_> {
    fn read_table(
        &self,
        path: &mut Vec<String>,
        table: &toml::Table,
        given: &mut Vec<Given>,
    ) -> Result<(), SettingsError> {
        for (name, value) in table {
            path.push(name.clone());
            match (schema::lookup(path), value) {
                (Key::Section(_) | Key::Open, toml::Value::Table(below)) => {
                    self.read_table(path, below, given)?
                }
                // The deepest key is the one that a person recognises.
                (Key::Unknown, toml::Value::Table(below)) if !below.is_empty() => {
                    self.read_table(path, below, given)?
                }
                (kind, value) => given.push(self.read_value(path, &kind, value)?),
            }
            path.pop();
        }
        Ok(())
    }

    fn read_value(
        &self,
        path: &[String],
        kind: &Key<'_>,
        value: &toml::Value,
    ) -> Result<Given, SettingsError> {
        let origin = Origin::File { path: self.path.to_owned(), line: self.line_of(path) };
        let refuse = |given: String, expected: &str| SettingsError::Value {
            key: key(path),
            given,
            expected: expected.into(),
            origin: origin.clone(),
        };
        let json = schema::json(value).ok_or_else(|| refuse(format!("`{value}`"), "not a finite number"))?;
        check(path, kind, &json, &origin)?;
        Ok(Given { path: path.to_vec(), value: json, origin })
    }

    /// The line of a key; 0 where it cannot be told.
    fn line_of(&self, path: &[String]) -> usize {
        let Ok(table) = toml::de::DeTable::parse(self.text) else { return 0 };
        let mut at = table.get_ref();
        let mut line = 0;
        for name in path {
            let Some((key, value)) = at.iter().find(|(key, _)| key.get_ref().as_ref() == name) else { break };
            line = line_at(self.text, key.span().start);
            match value.get_ref() {
                toml::de::DeValue::Table(below) => at = below,
                _ => break,
            }
        }
        line
    }
}

fn line_at(text: &str, byte: usize) -> usize {
    text.bytes().take(byte).filter(|byte| *byte == b'\n').count() + 1
}

/// Refuses a key that does not exist and a value of the wrong kind.
fn check(path: &[String], kind: &Key<'_>, value: &Value, origin: &Origin) -> Result<(), SettingsError> {
    let wrong = match kind {
        Key::Unknown => {
            let key = key(path);
            return Err(SettingsError::Unknown {
                nearest: schema::nearest(&key),
                key,
                origin: origin.clone(),
            });
        }
        Key::Section(_) | Key::Open => (!value.is_object()).then_some("but it is a section of settings"),
        Key::Setting(default) => schema::mismatch(default, value),
        Key::Entry => None,
    };
    match wrong {
        None => Ok(()),
        Some(expected) => Err(SettingsError::Value {
            key: key(path),
            given: shown(value),
            expected: expected.into(),
            origin: origin.clone(),
        }),
    }
}

fn read_environment(
    environment: impl IntoIterator<Item = (OsString, OsString)>,
    given: &mut Vec<Given>,
) -> Result<(), SettingsError> {
    let mut ours: Vec<(String, String)> = environment
        .into_iter()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.to_string_lossy().into_owned())))
        .filter(|(name, _)| name.starts_with(PREFIX) && !VARIABLES.contains(&name.as_str()))
        .collect();
    ours.sort();
    for (name, text) in ours {
        let path: Vec<String> =
            name.trim_start_matches(PREFIX).to_ascii_lowercase().split("__").map(String::from).collect();
        if schema::lookup(&path) == Key::Unknown {
            // `AUTOGLM_LISTEN` and `AUTOGLM_SERVER_LISTEN` come to mind easily.
            let nearest = schema::nearest(&path.join("."))
                .or_else(|| schema::nearest(&path.join(".").replace('_', ".")));
            return Err(SettingsError::Variable { nearest: nearest.map(|key| variable(&key)), name });
        }
        given.extend(read_text(path, &text, Origin::Environment(name))?);
    }
    Ok(())
}

/// The variable that sets `key`.
pub(super) fn variable(key: &str) -> String {
    format!("{PREFIX}{}", key.replace('.', "__").to_ascii_uppercase())
}

fn read_flags(flags: &Flags, given: &mut Vec<Given>) -> Result<(), SettingsError> {
    for assignment in &flags.set {
        let refused = || SettingsError::Assignment { given: assignment.clone() };
        let (key, value) = assignment.split_once('=').ok_or_else(refused)?;
        let path = key_path(key).ok_or_else(refused)?;
        given.extend(read_text(path, value.trim(), Origin::Flag("--set".into()))?);
    }
    for named in &flags.named {
        let path = named.key.split('.').map(String::from).collect();
        given.extend(read_text(path, &named.value, Origin::Flag(named.flag.to_owned()))?);
    }
    Ok(())
}

/// The names in `a.b."c.d"`.
fn key_path(key: &str) -> Option<Vec<String>> {
    let table: toml::Table = toml::from_str(&format!("{key} = 0")).ok()?;
    let mut path = Vec::new();
    let mut at = &table;
    loop {
        let (name, value) = at.iter().next()?;
        path.push(name.clone());
        match value {
            toml::Value::Table(below) => at = below,
            _ => return Some(path),
        }
    }
}

/// A value given as text, where the key says what it should be. A table sets each of its keys.
fn read_text(path: Vec<String>, text: &str, origin: Origin) -> Result<Vec<Given>, SettingsError> {
    let kind = schema::lookup(&path);
    if kind == Key::Unknown {
        check(&path, &kind, &Value::Null, &origin)?;
    }
    let value = schema::value_of_text(&kind, text).map_err(|expected| SettingsError::Value {
        key: key(&path),
        given: format!("`{text}`"),
        expected: expected.into(),
        origin: origin.clone(),
    })?;
    let mut given = Vec::new();
    spread(path, value, &origin, &mut given)?;
    Ok(given)
}

fn spread(
    path: Vec<String>,
    value: Value,
    origin: &Origin,
    given: &mut Vec<Given>,
) -> Result<(), SettingsError> {
    match (schema::lookup(&path), value) {
        (Key::Section(_) | Key::Open, Value::Object(table)) => {
            for (name, below) in table {
                spread([path.as_slice(), &[name]].concat(), below, origin, given)?;
            }
            Ok(())
        }
        (kind, value) => {
            check(&path, &kind, &value, origin)?;
            given.push(Given { path, value, origin: origin.clone() });
            Ok(())
        }
    }
}
