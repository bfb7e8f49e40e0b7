use std::ffi::OsString;

use autoglm_domain::{Error, ErrorKind};

use super::{
    Settings, show,
    sources::{Flags, Named, Read, read},
};

fn environment(pairs: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
    pairs.iter().map(|(name, value)| (name.into(), value.into())).collect()
}

/// Reads a file with `text`, variables, and `--set` flags.
fn load(text: &str, variables: &[(&str, &str)], set: &[&str]) -> Result<Read, Error> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("autoglm.toml");
    std::fs::write(&path, text).unwrap();
    let set = set.iter().map(|one| (*one).to_owned()).collect();
    let flags = Flags { config: Some(path.clone()), set, named: Vec::new() };
    let shorten = |mut error: Error| {
        error.message = error.message.replace(&folder.path().display().to_string(), "DIR");
        error
    };
    read(&flags, environment(variables)).map_err(shorten)
}

/// Message and hint of a refusal, in two lines.
fn refused(text: &str, variables: &[(&str, &str)], set: &[&str]) -> String {
    let error = load(text, variables, set).unwrap_err();
    format!("{}\n{}", error.message, error.hint.unwrap_or_default()).trim_end().to_owned()
}

#[test]
fn nothing_given_is_the_defaults() {
    let read = load("", &[("PATH", "/bin"), ("AUTOGLM_CONFIG", "x")], &[]).unwrap();
    assert_eq!(read.settings, Settings::default());
    assert_eq!(read.settings.server_url(), "http://127.0.0.1:8080");
}

#[test]
fn the_file_yields_to_the_environment_and_that_to_flags() {
    let text = "[server]\nlisten = \"1.1.1.1:1\"\nmax_choices = 3\n[memory]\nrecall = \"off\"\n";
    let variables = [("AUTOGLM_SERVER__LISTEN", "2.2.2.2:2"), ("AUTOGLM_TRAIN__HYPER__RANK", "4")];
    let settings = load(text, &variables, &["server.listen=0.0.0.0:3"]).unwrap().settings;
    assert_eq!(settings.server.listen, "0.0.0.0:3");
    assert_eq!(settings.server_url(), "http://127.0.0.1:3");
    assert_eq!(settings.server.max_choices, 3);
    assert_eq!(settings.train.hyper.rank, 4);
    assert_eq!(settings.memory.recall, autoglm_memory::RecallMode::Off);
    let settings = load(text, &variables, &[]).unwrap().settings;
    assert_eq!(settings.server.listen, "2.2.2.2:2");
}

#[test]
fn named_flags_go_before_everything() {
    let named = vec![Named { flag: "--listen", key: "server.listen", value: "9.9.9.9:9".into() }];
    let flags = Flags { config: None, set: vec!["server.listen=1.1.1.1:1".into()], named };
    assert_eq!(read(&flags, []).unwrap().settings.server.listen, "9.9.9.9:9");
}

#[test]
fn values_take_the_type_of_their_setting() {
    let set = [
        "server.admins=[\"ada\"]",
        "model.path=123",
        "memory.held_out_share=0",
        "engine.max_batch=8",
        "journal.max_file_mib=10",
        "evaluate.weights.accuracy=3",
        "evaluate.weights.politeness=1.5",
        "server.keys.\"sk-a.b\"=ada",
        "train.triggers.schedule=every 60",
        "train.triggers={ enabled = false, score_floor = 30 }",
    ];
    let settings = load("", &[], &set).unwrap().settings;
    assert_eq!(settings.server.admins, ["ada"]);
    assert_eq!(settings.model.path, "123");
    assert_eq!(settings.memory.held_out_share, 0.0);
    assert_eq!(settings.engine.serving.max_batch, 8);
    assert_eq!(settings.journal.max_file_mib, Some(10));
    // The weights that were not named stay.
    let weights: Vec<f64> = settings.evaluate.weights.values().copied().collect();
    assert_eq!(weights, [3.0, 1.0, 1.0, 1.5, 1.0]);
    assert_eq!(settings.server.keys.0.get("sk-a.b").map(String::as_str), Some("ada"));
    assert_eq!(settings.train.triggers.schedule.to_string(), "every 60");
    assert!(!settings.train.triggers.enabled);
    assert_eq!(settings.train.triggers.score_floor, 30.0);
}

#[test]
fn a_key_that_does_not_exist_is_refused_with_the_nearest_and_where_it_was() {
    let refusals = [
        refused("[server]\nlisten = \"1.1.1.1:1\"\nlisen = \"x\"\n", &[], &[]),
        refused("[sever]\nlisten = \"x\"\n", &[], &[]),
        refused("listen = \"x\"\n", &[], &[]),
        refused("[memory]\nzzz = 1\n", &[], &[]),
        refused("[engine]\nmax_bach = 1\n", &[], &[]),
        refused("", &[("AUTOGLM_SERVER__LISEN", "x")], &[]),
        refused("", &[("AUTOGLM_LISTEN", "x")], &[]),
        refused("", &[("AUTOGLM_SERVER_LISTEN", "x")], &[]),
        refused("", &[], &["memory.recal=off"]),
        refused("", &[], &["train.rank=4"]),
    ];
    insta::assert_snapshot!(refusals.join("\n\n"));
}

#[test]
fn a_value_that_does_not_fit_is_refused_where_it_was_given() {
    let refusals = [
        refused("[server]\n\nmax_choices = \"many\"\n", &[], &[]),
        refused("server = 3\n", &[], &[]),
        refused("[memory]\nrecall = \"of\"\n", &[], &[]),
        refused("[memory]\nneighbours = 2.5\n", &[], &[]),
        refused("[memory]\nvote_power = inf\n", &[], &[]),
        refused("", &[("AUTOGLM_SERVER__MAX_CHOICES", "-1")], &[]),
        refused("", &[("AUTOGLM_TRAIN__TRIGGERS__ENABLED", "yes")], &[]),
        refused("", &[("AUTOGLM_SERVER", "http://elsewhere")], &["server.admins=ada"]),
        refused("", &[], &["train.triggers.schedule=weekly"]),
        refused("", &[], &["memory.held_out_share=0.9"]),
        refused("", &[], &["rollout.alpha=0"]),
        refused("", &[], &["server.listen"]),
        refused("", &[], &["server..listen=1"]),
        refused("[server\nlisten = 1\n", &[], &[]),
        refused("[server]\nlisten = \"a\"\nlisten = \"b\"\n", &[], &[]),
    ];
    insta::assert_snapshot!(refusals.join("\n\n"));
}

#[test]
fn a_file_that_was_named_must_be_there() {
    let flags = Flags { config: Some("/nowhere/autoglm.toml".into()), ..Flags::default() };
    let error = read(&flags, []).unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotFound);
    assert_eq!(error.message, "cannot read the settings in /nowhere/autoglm.toml: there is no such file");
}

#[test]
fn what_is_shown_reads_back_and_holds_no_keys() {
    let text = "[server]\nlisten = \"1.1.1.1:1\"\n[server.keys]\nsk-secret = \"ada\"\n\
        [store]\nurl = \"postgres://ada:sk-secret@db/loop\"\n";
    let set = ["memory.recall=examples", "journal.max_file_mib=10"];
    let loaded = load(text, &[("AUTOGLM_SERVER__TEMPERATURE", "0.15")], &set).unwrap();
    let shown = show::toml(&loaded);
    assert!(!shown.contains("sk-secret"), "{shown}");
    assert!(!show::without_secrets(loaded.tree.clone()).to_string().contains("sk-secret"));
    for line in [
        "temperature = 0.15  # environment variable AUTOGLM_SERVER__TEMPERATURE",
        "recall = \"examples\"  # flag --set",
        "vote_power = 4.0\n",
    ] {
        assert!(shown.contains(line), "{line} in\n{shown}");
    }
    let again = load(&shown, &[], &[]).unwrap().settings;
    let mut expected = loaded.settings;
    expected.server.keys = autoglm_gateway::Keys::default();
    expected.store.url = "postgres://ada:***@db/loop".into();
    assert_eq!(again, expected);
}
