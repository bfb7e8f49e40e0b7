use std::sync::Arc;

use autoglm_domain::{
    Alias, AliasMove, ErrorKind, Event, ExperienceId, FeedbackId, InteractionId, LiveStage, RolloutId,
    Timestamp, TrainingRunId, VersionNumber,
};
use clap::{CommandFactory as _, Parser as _};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::{
    Cli,
    fixture::{Ended, Fixture, ab_test, canary_events, command, uuid},
};

/// The help of a command and of all below it.
fn help(command: &mut clap::Command, path: &str, text: &mut String) {
    *text += &format!("==== {path}\n{}\n", command.render_help());
    let names: Vec<String> = command
        .get_subcommands()
        .map(|below| below.get_name().to_owned())
        .filter(|name| name != "help")
        .collect();
    for name in names {
        if let Some(below) = command.find_subcommand_mut(&name) {
            help(below, &format!("{path} {name}"), text);
        }
    }
}

#[test]
fn help_reads_well() {
    // As wide as help is where no terminal says otherwise.
    let mut command = Cli::command().term_width(100);
    command.build();
    let mut text = String::new();
    help(&mut command, "autoglm", &mut text);
    insta::assert_snapshot!(text);
}

#[test]
fn the_arguments_do_not_contradict_each_other() {
    Cli::command().debug_assert();
}

#[tokio::test(flavor = "multi_thread")]
async fn listings() {
    let fixture = Fixture::new().await;
    let mut text = String::new();
    for arguments in [
        &["versions", "list"][..],
        &["versions", "show", "v1"],
        &["versions", "diff", "v1", "v2"],
        &["runs", "list"],
        &["rollouts", "list"],
        &["rollouts", "show", "v2"],
        &["experiences", "list"],
        &["experiences", "list", "--task", "banking", "--limit", "1"],
        &["experiences", "export"],
        &["patterns", "list"],
    ] {
        let ended = fixture.run(arguments).await;
        assert_eq!(ended.error, None, "{arguments:?}");
        text += &format!("$ autoglm {}\n{}\n", arguments.join(" "), ended.text());
    }
    insta::assert_snapshot!(text);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_candidate_on_live_traffic() {
    let fixture = Fixture::with_canary().await;
    let mut text = String::new();
    for arguments in [
        &["rollouts", "list"][..],
        &["rollouts", "show", "current"],
        &["rollouts", "show", "v2", "--looks", "2"],
        &["rollouts", "pairs"],
        &["rollouts", "pairs", "current", "--order", "most-different", "--limit", "1"],
        &["rollouts", "pairs", "v1"],
        &["rollouts", "slices"],
        &["rollouts", "slices", "v1"],
    ] {
        let ended = fixture.run(arguments).await;
        assert_eq!(ended.error, None, "{arguments:?}");
        text += &format!("$ autoglm {}\n{}\n", arguments.join(" "), ended.text());
    }
    insta::assert_snapshot!(text);
    let shown = fixture.run(&["rollouts", "show", "current", "--json"]).await;
    let shown: Value = serde_json::from_str(&shown.out).unwrap();
    assert_eq!(shown.pointer("/looks/1/metrics/0/lower"), Some(&0.25.into()), "{shown}");
    assert_eq!(shown.get("state"), Some(&"live".into()));
    let pairs = fixture.run(&["rollouts", "pairs", "--order", "oldest", "--json"]).await;
    let pairs: Vec<Value> = serde_json::from_str(&pairs.out).unwrap();
    assert_eq!(pairs[0].pointer("/candidate/text"), Some(&"balance, I think".into()));
    let slices = fixture.run(&["rollouts", "slices", "current", "--json"]).await;
    let slices: Vec<Value> = serde_json::from_str(&slices.out).unwrap();
    assert_eq!(slices[0].pointer("/pairs"), Some(&pairs.len().into()), "{slices:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tests_of_versions() {
    let fixture = Fixture::new().await;
    let none = fixture.run(&["ab", "show"]).await.error.unwrap();
    assert_eq!(none.kind, ErrorKind::NotFound);
    fixture.append(vec![Event::AbTest(Box::new(ab_test()))]).await;
    let mut text = String::new();
    for arguments in [&["ab", "list"][..], &["ab", "show"]] {
        let ended = fixture.run(arguments).await;
        assert_eq!(ended.error, None, "{arguments:?}");
        text += &format!("$ autoglm {}\n{}\n", arguments.join(" "), ended.text());
    }
    insta::assert_snapshot!(text);
    let list: Vec<Value> = serde_json::from_str(&fixture.run(&["ab", "list", "--json"]).await.out).unwrap();
    assert_eq!(list[0].pointer("/found/1/upper"), Some(&56.25.into()));
    assert_eq!(fixture.run(&["ab", "show", "current"]).await.error.unwrap().kind, ErrorKind::NotFound);

    let server = Canned::start().await;
    let arguments = ["autoglm", "ab", "start", "--arm", "12=0.5", "--arm", "v13=1", "--bandit"];
    let begun = command(&[&arguments[..], &["--min-requests", "20", "--server", &server.url]].concat()).await;
    assert_eq!((begun.out.as_str(), begun.error), ("ab_1\n", None));
    let asked = server.asked();
    assert_eq!(asked.pointer("/arms/1"), Some(&json!({"version": "v13", "share": 1.0})));
    assert_eq!((asked["allocation"].as_str(), asked["min_requests"].as_u64()), (Some("bandit"), Some(20)));
    let stopped = command(&["autoglm", "ab", "stop", "--reason", "enough", "--server", &server.url]).await;
    assert_eq!(stopped.error, None);
    assert!(stopped.out.contains("reason      v1 is shown to be best"), "{}", stopped.out);
    assert_eq!(server.asked(), json!({"id": "current", "reason": "enough"}));
    assert!(Cli::try_parse_from(["autoglm", "ab", "start", "--arm", "v1=none"]).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn rollback_takes_back_what_came_last() {
    // A canary is stopped, and the champion stays.
    let fixture = Fixture::with_canary().await;
    let stopped = fixture.run(&["rollback", "--reason", "worse"]).await;
    assert_eq!((stopped.out.as_str(), stopped.error), ("v2 is stopped\n", None));
    let shown = fixture.run(&["rollouts", "show", "v2", "--json"]).await;
    let shown: Value = serde_json::from_str(&shown.out).unwrap();
    assert_eq!(shown.get("state"), Some(&"aborted".into()));
    assert!(shown.get("reason").unwrap().as_str().unwrap().starts_with("rollback: worse, by "), "{shown}");
    // With none on its way the champion goes; it had been the first.
    let back = fixture.run(&["rollback", "--json"]).await;
    let back: Value = serde_json::from_str(&back.out).unwrap();
    assert_eq!((back.pointer("/moved/from"), back.pointer("/moved/to")), (Some(&1.into()), Some(&0.into())));
    let nothing = fixture.run(&["rollback"]).await.error.unwrap();
    assert_eq!(nothing.kind, ErrorKind::Conflict);

    // One that is watched is champion already, and gives its place back.
    let fixture = Fixture::new().await;
    let mut events = canary_events(LiveStage::Watch);
    let (from, to) = (VersionNumber(1), VersionNumber(2));
    let (by, reason) = ("gate".into(), "shown".into());
    events.push(Event::AliasMoved(AliasMove {
        alias: Alias::champion(),
        from,
        to,
        at: Timestamp(1),
        by,
        reason,
        rollout: None,
    }));
    fixture.append(events).await;
    let back = fixture.run(&["rollback"]).await;
    assert_eq!((back.out.as_str(), back.error), ("v2 is stopped\nchampion: v2 -> v1\n", None));
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_on_rollouts_go_to_the_server() {
    let server = Canned::start().await;
    let run = async |arguments: &[&str]| {
        let all = [&["autoglm", "rollouts"], arguments, &["--server", &server.url]].concat();
        let ended = command(&all).await;
        assert_eq!(ended.error, None, "{arguments:?}");
        ended.out
    };
    assert_eq!(run(&["start", "v4", "--reason", "because"]).await, "roll_1\n");
    assert_eq!(server.asked(), json!({"version": "v4", "reason": "because"}));
    let ended = run(&["start", "v4", "--wait"]).await;
    assert_eq!(ended, "v4: reject: `accuracy` fell\n");
    for (action, shown) in [
        ("pause", "v4: paused: lunch\n"),
        ("resume", "v4: canary at 5%\n"),
        ("confirm", "v4: canary at 5%\n"),
        ("abort", "v4: aborted: by ada\n"),
    ] {
        assert_eq!(run(&[action, "--reason", "lunch"]).await, shown);
        assert_eq!(server.asked(), json!({"id": "current", "action": action, "reason": "lunch"}));
    }
    let json: Value = serde_json::from_str(&run(&["pause", "roll_1", "--json"]).await).unwrap();
    assert_eq!(
        (json.get("state"), server.asked().get("id").cloned()),
        (Some(&"paused".into()), Some("roll_1".into()))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn every_listing_is_json_as_well() {
    let fixture = Fixture::new().await;
    for (arguments, length) in [
        (&["versions", "list"][..], 2),
        (&["runs", "list"], 3),
        (&["rollouts", "list"], 2),
        (&["experiences", "list"], 3),
        (&["patterns", "list"], 1),
    ] {
        let ended = fixture.run(&[arguments, &["--json"]].concat()).await;
        let list: Vec<serde_json::Value> = serde_json::from_str(&ended.out).unwrap();
        assert_eq!((list.len(), ended.err.as_str()), (length, ""), "{arguments:?}");
    }
}

fn answer(n: u64) -> String {
    InteractionId::new(uuid(n)).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn traces() {
    let fixture = Fixture::new().await;
    let ids = [
        answer(3),
        ExperienceId::new(uuid(1)).to_string(),
        TrainingRunId::new(uuid(3)).to_string(),
        RolloutId::new(uuid(2)).to_string(),
    ];
    let mut text = String::new();
    for traced in &ids {
        text += &format!("$ autoglm trace {traced}\n{}\n", fixture.run(&["trace", traced]).await.text());
    }
    insta::assert_snapshot!(text);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_leads_from_the_answer_to_the_feedback_behind_it() {
    let fixture = Fixture::new().await;
    let trace: Value =
        serde_json::from_str(&fixture.run(&["trace", &answer(3), "--json"]).await.out).unwrap();
    let at = |pointer: &str| trace.pointer(pointer).cloned().unwrap_or_default();
    assert_eq!(at("/answer/interaction/version"), 1);
    assert_eq!(at("/versions/0/number"), 1);
    assert_eq!(at("/versions/0/made_by/id"), TrainingRunId::new(uuid(1)).to_string());
    assert_eq!(at("/versions/0/moves/0/by"), "gate");
    assert_eq!(at("/learned_from/count"), 1);
    assert_eq!(at("/learned_from/experiences/0/behind/feedback/0/correction"), "balance");
    // Feedback leads to the answer that it speaks of.
    let said: Value = serde_json::from_str(
        &fixture.run(&["trace", &FeedbackId::new(uuid(1)).to_string(), "--json"]).await.out,
    )
    .unwrap();
    assert_eq!(said.pointer("/answer/interaction/id"), Some(&answer(1).into()));
    assert_eq!(said.pointer("/versions"), Some(&Value::Array(Vec::new())));
    // The second version holds both experiences; `--all` shows both, the nearer first where something was asked.
    let all: Value =
        serde_json::from_str(&fixture.run(&["trace", "v2", "--all", "--json"]).await.out).unwrap();
    assert_eq!(all.pointer("/learned_from/experiences").and_then(Value::as_array).map(Vec::len), Some(2));
    assert_eq!(all.pointer("/versions/0/new"), Some(&1.into()));
    assert_eq!(all.pointer("/versions/0/replayed"), Some(&1.into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn promotion_and_rollback_move_the_pointer() {
    let fixture = Fixture::new().await;
    // v2's adapter holds NaN: it never answers, whoever asks.
    let damaged = fixture.run(&["versions", "promote", "v2"]).await.error.unwrap();
    assert_eq!(damaged.kind, ErrorKind::Invalid);
    assert!(damaged.message.starts_with("v2 did not pass the scan: "), "{}", damaged.message);
    let again = fixture.run(&["versions", "promote", "v1"]).await.error.unwrap();
    assert_eq!(again.kind, ErrorKind::Conflict);
    let back = fixture.run(&["versions", "rollback", "--reason", "worse"]).await;
    assert_eq!((back.out.as_str(), back.error), ("champion: v1 -> v0\n", None));
    let forth = fixture.run(&["versions", "promote", "v1", "--json"]).await;
    let moved: Value = serde_json::from_str(&forth.out).unwrap();
    assert_eq!((moved.get("from"), moved.get("to")), (Some(&0.into()), Some(&1.into())));
    let staged = fixture.run(&["versions", "promote", "v1", "--alias", "staging"]).await;
    assert_eq!(staged.out, "staging: v0 -> v1\n");
    let to_base = fixture.run(&["versions", "rollback", "base"]).await;
    assert_eq!(to_base.out, "champion: v1 -> v0\n");
    let shown = fixture.run(&["trace", "v1", "--json"]).await;
    let trace: Value = serde_json::from_str(&shown.out).unwrap();
    let reasons: Vec<&str> = trace
        .pointer("/versions/0/moves")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|step| step.get("reason").and_then(Value::as_str))
        .collect();
    assert!(reasons.contains(&"rollback: worse"), "{reasons:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_is_exported_as_a_peft_folder() {
    let fixture = Fixture::new().await;
    let folder = fixture.path("v1");
    let folder = folder.to_str().unwrap();
    let ended = fixture.run(&["versions", "export", "v1", folder]).await;
    assert_eq!(ended.error, None);
    assert!(fixture.path("v1/adapter_model.safetensors").is_file());
    let taken = fixture.run(&["versions", "export", "v1", folder]).await.error.unwrap();
    assert_eq!(taken.kind, ErrorKind::Conflict);
}

#[tokio::test(flavor = "multi_thread")]
async fn export_writes_what_the_memory_reads() {
    let fixture = Fixture::new().await;
    let file = fixture.path("experiences.jsonl");
    let ended = fixture.run(&["experiences", "export", file.to_str().unwrap()]).await;
    assert_eq!((ended.out.as_str(), ended.err.as_str()), ("", "3 experiences exported\n"));
    let text = std::fs::read_to_string(file).unwrap();
    for line in text.lines() {
        let mut value: Value = serde_json::from_str(line).unwrap();
        assert_eq!(value.get("embedding"), None);
        value["embedding"] = Value::Array(Vec::new());
        serde_json::from_value::<autoglm_domain::Experience>(value).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn errors() {
    let fixture = Fixture::new().await;
    let mut text = String::new();
    for arguments in [
        &["versions", "show", "v9"][..],
        &["versions", "show", "v0"],
        &["versions", "show", "nonsense"],
        &["versions", "export", "base", "x"],
        &["rollouts", "show", "roll_1"],
        &["rollouts", "show", "current"],
        &["rollouts", "pairs"],
        &["trace", "chatcmpl-1"],
        &["trace", &answer(99)],
        &["trace", &FeedbackId::new(uuid(99)).to_string()],
        &["trace", "nobody"],
        &["runs", "list", "--set", "memory.recal=off"],
    ] {
        let Ended { error, .. } = fixture.run(arguments).await;
        let error = error.unwrap();
        text += &format!("$ autoglm {}\n{:?}: {}\n", arguments.join(" "), error.kind, error.message);
        text += &error.hint.map(|hint| format!("hint: {hint}\n")).unwrap_or_default();
        text.push('\n');
    }
    insta::assert_snapshot!(text);
}

#[tokio::test(flavor = "multi_thread")]
async fn looking_makes_no_data_directory() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("none");
    let data = data.to_str().unwrap();
    for arguments in [&["versions", "list"][..], &["versions", "promote", "v1"], &["trace", "v1"]] {
        let all = [&["autoglm"], arguments, &["--data-dir", data]].concat();
        let error = command(&all).await.error.unwrap();
        assert_eq!(error.kind, ErrorKind::NotFound, "{arguments:?}");
    }
    assert!(!std::path::Path::new(data).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_server_train_and_chat_say_so() {
    // A port that nobody is given who asks for a free one.
    let server = "127.0.0.1:1";
    for arguments in
        [&["train"][..], &["chat", "hello"], &["rollouts", "start", "v1"], &["rollouts", "abort"]]
    {
        let error = command(&[&["autoglm"], arguments, &["--server", server]].concat()).await.error.unwrap();
        assert_eq!(error.kind, ErrorKind::Unavailable);
        assert_eq!(error.message, format!("no server answers at http://{server}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn chat_prints_the_answer_as_it_comes_and_remarks_on_stderr() {
    let server = Canned::start().await;
    let ended = command(&["autoglm", "chat", "hello", "--server", &server.url, "--task", "greeting"]).await;
    assert_eq!(ended.error, None);
    assert_eq!(ended.out, "good day\n");
    assert_eq!(ended.err, "v3  chatcmpl-7  from memory\n");
    let asked = server.asked();
    assert_eq!(asked.pointer("/messages/0/content"), Some(&"hello".into()));
    assert_eq!(asked.pointer("/metadata/task"), Some(&"greeting".into()));
    assert_eq!(asked.get("stream"), Some(&true.into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn train_waits_for_the_end_of_the_run() {
    let server = Canned::start().await;
    let begun = command(&["autoglm", "train", "--server", &server.url, "--reason", "because"]).await;
    assert_eq!(begun.out, "run_1\n");
    assert_eq!(server.asked().get("reason"), Some(&"because".into()));
    let ended = command(&["autoglm", "train", "--server", &server.url, "--wait"]).await;
    assert_eq!((ended.out.as_str(), ended.error), ("v4\n", None));
}

/// A server that always says the same.
struct Canned {
    url: String,
    asked: Arc<Mutex<Value>>,
}

impl Canned {
    async fn start() -> Self {
        use axum::{
            Json, Router,
            extract::Path,
            routing::{get, post},
        };
        const STREAM: &str = concat!(
            r#"data: {"id":"chatcmpl-7","choices":[{"index":0,"delta":{"content":""},"autoglm":{"id":"chatcmpl-7","version":"v3","source":{"kind":"memory"}}}]}"#,
            "\n\n",
            r#"data: {"id":"chatcmpl-7","choices":[{"index":0,"delta":{"content":"good "}}]}"#,
            "\n\n",
            r#"data: {"id":"chatcmpl-7","choices":[{"index":0,"delta":{"content":"day"}}]}"#,
            "\n\ndata: [DONE]\n\n"
        );
        let asked = Arc::new(Mutex::new(Value::Null));
        let (chat, train) = (Arc::clone(&asked), Arc::clone(&asked));
        let (start, order) = (Arc::clone(&asked), Arc::clone(&asked));
        let (compare, stop) = (Arc::clone(&asked), Arc::clone(&asked));
        let router = Router::new()
            .route("/v1/chat/completions", post(async move |Json(body): Json<Value>| {
                *chat.lock() = body;
                STREAM
            }))
            .route("/v1/autoglm/train", post(async move |Json(body): Json<Value>| {
                *train.lock() = body;
                Json(json!({"id": "run_1"}))
            }))
            .route("/v1/autoglm/rollouts", post(async move |Json(body): Json<Value>| {
                *start.lock() = body;
                Json(json!({"id": "roll_1", "candidate": "v4", "state": "scanning"}))
            }).get(async || {
                let ended = json!({"id": "roll_1", "candidate": "v4", "state": "decided",
                    "outcome": "reject", "reason": "`accuracy` fell"});
                Json(json!({"data": [{"id": "roll_0", "state": "aborted"}, ended]}))
            }))
            .route("/v1/autoglm/rollouts/{id}/{action}", post(
                async move |Path((id, action)): Path<(String, String)>, Json(body): Json<Value>| {
                    let state = match action.as_str() {
                        "pause" => json!({"candidate": "v4", "state": "paused", "reason": body["reason"]}),
                        "abort" => json!({"candidate": "v4", "state": "aborted", "reason": "by ada"}),
                        _ => json!({"candidate": "v4", "state": "live", "stage": "canary", "percent": 5.0}),
                    };
                    *order.lock() = json!({"id": id, "action": action, "reason": body["reason"]});
                    Json(state)
                },
            ))
            .route("/v1/autoglm/ab-tests", post(async move |Json(body): Json<Value>| {
                *compare.lock() = body;
                Json(json!({"id": "ab_1"}))
            }))
            .route("/v1/autoglm/ab-tests/{id}/stop", post(
                async move |Path(id): Path<String>, Json(body): Json<Value>| {
                    *stop.lock() = json!({"id": id, "reason": body["reason"]});
                    Json(ab_test())
                },
            ))
            .route("/v1/autoglm/status", get(async || {
                Json(json!({"runs": [{"id": "run_0", "state": "failed"}, {"id": "run_1", "state": "succeeded", "version": 4}]}))
            }));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, asked }
    }

    fn asked(&self) -> Value {
        self.asked.lock().clone()
    }
}

/// Where no server answers, the database says how far each mirror is.
#[tokio::test(flavor = "multi_thread")]
async fn mirrors_are_listed_without_a_server_too() {
    use autoglm_domain::{Cursor, Cursors as _, MirrorHealth, MirrorState};

    let fixture = Fixture::new().await;
    let nobody = ["mirrors", "list", "--set", "server.listen=127.0.0.1:1"];
    let ended = fixture.run(&nobody).await;
    assert_eq!((ended.error, ended.out.as_str()), (None, ""));
    assert!(ended.err.contains("this is what the database says"), "{}", ended.err);
    assert!(ended.err.contains("the journal has no mirrors"), "{}", ended.err);
    let store =
        autoglm_journal::SqliteStore::open(fixture.path("autoglm.db"), Default::default()).await.unwrap();
    store.set_cursor("lake", Cursor::at(3)).await.unwrap();
    let last = store.last_seq().await.unwrap();
    store.close().await.unwrap();
    let ended = fixture.run(&[&nobody[..], &["--json"]].concat()).await;
    let states: Vec<MirrorState> = serde_json::from_str(&ended.out).unwrap();
    assert_eq!((states[0].name.as_str(), states[0].health), ("lake", MirrorHealth::Idle));
    assert_eq!((states[0].seq, states[0].behind as i64), (3, last - 3));
}

/// The whole command, of a lake that is not there and of one that is empty.
#[cfg(feature = "lake-sql")]
#[tokio::test(flavor = "multi_thread")]
async fn the_lake_is_asked_in_sql() {
    let folder = tempfile::tempdir().unwrap();
    let error = command(&["autoglm", "lake", "sql", "select 1 as one"]).await.error.unwrap();
    assert_eq!(error.message, "there is no lake: `lake.url` is not set");
    let lake = format!("lake.url={}", folder.path().join("lake").display());
    let asked = async |sql: &str| command(&["autoglm", "lake", "sql", sql, "--set", &lake]).await;
    let ended = asked("select 1 as one, 'a' as two, count(*) from interaction").await;
    assert_eq!((ended.error, ended.out.as_str()), (None, "one  two  count(*)\n  1  a           0\n"));
    assert!(ended.err.contains("has no files yet"), "{}", ended.err);
    let error = asked("drop table interaction").await.error.unwrap();
    assert!(error.message.ends_with("only questions are answered, and this is none"), "{error}");
    let more =
        ["autoglm", "lake", "sql", "select * from generate_series(1, 9)", "--max-rows", "3", "--set", &lake];
    let error = command(&more).await.error.unwrap();
    assert_eq!(error.message, "the answer has more than 3 rows");
}

/// A command that this build cannot carry out says which one could.
#[cfg(not(feature = "lake"))]
#[tokio::test(flavor = "multi_thread")]
async fn what_this_build_lacks_is_refused_by_name() {
    let error = command(&["autoglm", "lake", "ab", "--a", "1", "--b", "2"]).await.error.unwrap();
    assert_eq!(error.message, "this build has no feature `lake`");
    assert_eq!(error.hint.as_deref(), Some("build it with `cargo build --release --features lake`"));
    let error = command(&["autoglm", "lake", "sql", "select 1"]).await.error.unwrap();
    assert_eq!(error.message, "this build has no feature `lake-sql`");
    assert_eq!(error.hint.as_deref(), Some("build it with `cargo build --release --features lake-sql`"));
    let error = command(&["autoglm", "versions", "list", "--set", "lake.url=x"]).await.error.unwrap();
    assert_eq!(error.message, "`lake.url` is set, and this build has no feature `lake`");
}
