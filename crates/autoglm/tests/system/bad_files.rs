//! Files and settings that are wrong: each has a clear error with a hint and the right exit code, and nothing that
//! was there is lost.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use sqlx::{Connection as _, SqliteConnection, sqlite::SqliteConnectOptions};

use crate::{
    adapters,
    server::{QUICK, Server, autoglm, read_json, run},
};

/// A data directory with one version, and that version exported as a PEFT folder.
async fn with_a_version(folder: &Path) -> (PathBuf, PathBuf) {
    let (data, good) = (folder.join("data"), folder.join("good"));
    let server = Server::start(&data, &QUICK).await;
    server.teach(6).await;
    server.idle().await;
    server.train().await;
    server.stop();
    let exported = run(autoglm(&["versions", "export", "v1"]).arg(&good).arg("--data-dir").arg(&data));
    assert_eq!(exported.code, Some(0), "{}", exported.err);
    (data, good)
}

/// What a command that must fail says, with the folder's path left out.
fn refusal(name: &str, folder: &Path, command: &mut Command) -> String {
    let ended = run(command);
    assert_eq!(ended.out, "", "{name}: an error is no data");
    let said = ended.err.replace(folder.to_str().unwrap(), "DIR");
    let said: Vec<&str> = said.lines().filter(|line| !line.contains(" INFO ")).collect();
    let code = ended.code.map_or_else(|| "a signal".to_owned(), |code| code.to_string());
    format!("## {name}: exit {code}\n{}\n\n", said.join("\n"))
}

fn with_folder(arguments: &[&str], value: &Path) -> Command {
    let mut command = autoglm(arguments);
    command.arg(value);
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_files_are_refused_with_a_hint_and_nothing_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let (data, good) = with_a_version(folder).await;
    let before = read_json(&data, &["versions", "list"]);

    let mut text = String::new();
    for (name, adapter) in [
        ("an adapter of another shape", adapters::wrong_shape(&good)),
        ("an adapter with a NaN", adapters::not_a_number(&good)),
        ("a truncated adapter", adapters::truncated(&good)),
        ("a pickle in disguise", adapters::pickle_in_disguise(&good)),
        ("a pickle", adapters::pickle(&good)),
        ("a folder that is not there", folder.join("nowhere")),
    ] {
        let mut import = with_folder(&["versions", "import", "--data-dir"], &data);
        text += &refusal(name, folder, import.arg(adapter));
    }

    let starter = std::fs::read_dir(data.join("models")).unwrap().next().unwrap().unwrap().path();
    let model = folder.join("truncated-model");
    std::fs::create_dir(&model).unwrap();
    for file in std::fs::read_dir(&starter).unwrap().map(|file| file.unwrap()) {
        std::fs::copy(file.path(), model.join(file.file_name())).unwrap();
    }
    let weights = std::fs::read(model.join("model.safetensors")).unwrap();
    std::fs::write(model.join("model.safetensors"), &weights[..weights.len() / 2]).unwrap();
    text +=
        &refusal("a truncated model", folder, &mut with_folder(&["score", "--text", "x", "--model"], &model));
    let mut serve = with_folder(&["serve", "--listen", "127.0.0.1:0", "--data-dir"], &folder.join("data-2"));
    text += &refusal("serving a truncated model", folder, serve.arg("--model").arg(&model));
    insta::assert_snapshot!(text);

    // A good adapter is still let in, under the next number, and all that was there is there.
    let imported =
        run(with_folder(&["versions", "import", "--note", "by hand", "--data-dir"], &data).arg(&good));
    assert_eq!((imported.code, imported.out.trim()), (Some(0), "v2"), "{}", imported.err);
    let after = read_json(&data, &["versions", "list"]);
    assert_eq!(after[0], before[0]);
    let server = Server::start(&data, &[]).await;
    server.ask("champion", "hello").await;
    server.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_ports_and_databases_that_do_not_fit_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let data = folder.join("data");
    let server = Server::start(&data, &QUICK).await;
    let (id, _) = server.ask("champion", "hello").await;
    let taken = server.base.strip_prefix("http://").unwrap().to_owned();

    let mut text = String::new();
    let serve = |data: &Path| with_folder(&["serve", "--listen", "127.0.0.1:0", "--data-dir"], data);
    let other = folder.join("data-2");
    let in_use = refusal(
        "a port in use",
        folder,
        &mut with_folder(&["serve", "--listen", &taken, "--data-dir"], &other),
    );
    text += &in_use.replace(&taken, "ADDRESS");
    text +=
        &refusal("a setting that does not exist", folder, serve(&other).args(["--set", "train.hyper.rnk=3"]));
    text +=
        &refusal("a variable that does not exist", folder, serve(&other).env("AUTOGLM_MEMORY__RECAL", "off"));
    text += &refusal("a setting out of bounds", folder, serve(&other).args(["--set", "rollout.alpha=2"]));
    text += &refusal("a data directory in use", folder, &mut serve(&data));
    server.stop();

    let file = folder.join("file");
    std::fs::write(&file, "a file").unwrap();
    text += &refusal("a data directory below a file", folder, &mut serve(&file.join("data")));
    text += &refusal("a data directory that is a file", folder, &mut serve(&file));
    std::fs::create_dir(folder.join("garbage")).unwrap();
    std::fs::write(folder.join("garbage/autoglm.db"), "this is no database, whatever its name says").unwrap();
    text += &refusal("a database that is none", folder, &mut serve(&folder.join("garbage")));

    let database = data.join("autoglm.db");
    change(&database, "INSERT INTO _sqlx_migrations VALUES (9999, 'later', 0, 1, x'00', 0)").await;
    text += &refusal("a database of a newer version", folder, &mut serve(&data));
    text += &refusal(
        "looking into a database of a newer version",
        folder,
        &mut with_folder(&["versions", "list", "--data-dir"], &data),
    );
    insta::assert_snapshot!(text);

    // The version that wrote it finds it as it was.
    change(&database, "DELETE FROM _sqlx_migrations WHERE version = 9999").await;
    assert_eq!(read_json(&data, &["trace", &id])["answer"]["interaction"]["id"], id.as_str());
}

async fn change(database: &Path, statement: &'static str) {
    let options = SqliteConnectOptions::new().filename(database);
    let mut database = SqliteConnection::connect_with(&options).await.unwrap();
    sqlx::query(statement).execute(&mut database).await.unwrap();
    database.close().await.unwrap();
}

const BROKEN: &str = r#"{"prompt": "what is my balance", "reference": "balance", "task": "bank"}
{"prompt": "how much money do I have", "reference": "balance", "task": "bank"}
{"prompt": "will it rain", "reference": "weather"
{"prompt": "money left on my account", "reference": "balance", "task": "bank", "held_out": true}
{"prompt": 7, "reference": "balance"}
"#;

#[test]
fn a_stream_with_a_broken_line_is_refused_or_goes_on_without_it() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let (stream, out) = (folder.join("stream.jsonl"), folder.join("out"));
    std::fs::write(&stream, BROKEN).unwrap();
    let demo = |more: &[&str]| {
        let mut command = with_folder(&["demo", "--minutes", "0.3", "--no-spoil", "--out"], &out);
        command.arg("--stream").arg(&stream).args(more);
        command
    };
    insta::assert_snapshot!(refusal("a stream with a broken line", folder, &mut demo(&[])));
    assert!(!out.exists(), "a demo that did not begin wrote a report");

    let ended = run(&mut demo(&["--keep-going"]));
    assert_eq!(ended.code, Some(0), "{}{}", ended.out, ended.err);
    let said = ended.out + &ended.err;
    assert!(said.contains("2 broken lines left out: line 3, 5"), "{said}");
    let report: serde_json::Value =
        serde_json::from_slice(&std::fs::read(out.join("report.json")).unwrap()).unwrap();
    assert!(report["requests"].as_u64().unwrap() >= 2, "{}", report["requests"]);
    assert_eq!(report["failed_requests"], 0);
}
