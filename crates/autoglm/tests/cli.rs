//! The real executable: exit codes, streams, refusals.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say so and stop")]

use std::process::{Command, Output, Stdio};

struct Run {
    code: Option<i32>,
    out: String,
    err: String,
}

/// Runs the executable in an empty folder, with `file` as its `autoglm.toml`.
fn autoglm(arguments: &[&str], file: Option<&str>, variables: &[(&str, &str)]) -> Run {
    let folder = tempfile::tempdir().unwrap();
    if let Some(text) = file {
        std::fs::write(folder.path().join("autoglm.toml"), text).unwrap();
    }
    let output: Output = command(arguments, variables).current_dir(folder.path()).output().unwrap();
    Run {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

fn command(arguments: &[&str], variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_autoglm"));
    command.args(arguments).env_clear().envs(variables.iter().copied()).stdin(Stdio::null());
    command
}

#[test]
fn exit_codes_tell_what_sort_of_failure_it_was() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = free.local_addr().unwrap().to_string();
    for (arguments, code) in [
        (&["--version"][..], 0),
        (&["--help"], 0),
        (&["config"], 0),
        (&["completions", "bash"], 0),
        (&[], 2),
        (&["serv"], 2),
        (&["versions", "list", "--nonsense"], 2),
        (&["config", "--set", "server.lisen=x"], 2),
        (&["score", "--text", "a", "--ids", "1"], 2),
        (&["score"], 2),
        (&["demo", "--noise", "2"], 2),
        (&["versions", "list"], 3),
        (&["config", "--config", "nowhere.toml"], 3),
        (&["score", "--model", "nowhere", "--ids", "1"], 3),
        (&["serve", "--listen", &taken], 5),
        (&["train", "--server", "127.0.0.1:1"], 6),
    ] {
        let run = autoglm(arguments, None, &[]);
        assert_eq!(run.code, Some(code), "{arguments:?}: {}{}", run.out, run.err);
        assert_eq!(run.out.is_empty(), code != 0, "{arguments:?} prints data or an error: {}", run.out);
    }
}

#[test]
fn settings_that_do_not_exist_are_refused() {
    let mut text = String::new();
    for (file, variables, arguments) in [
        ("[server]\nlisten = \"127.0.0.1:80\"\nlisten_on = 1\n", &[][..], &["versions", "list"][..]),
        ("[memroy]\nrecall = \"off\"\n", &[], &["config"]),
        ("", &[("AUTOGLM_SERVER__LISTN", "x")], &["config"]),
        ("", &[], &["config", "--set", "train.hyper.rnk=4"]),
        ("[server\n", &[], &["config"]),
        ("[memory]\nrecall = \"sometimes\"\n", &[], &["config"]),
    ] {
        let run = autoglm(arguments, Some(file), variables);
        assert_eq!(run.code, Some(2));
        text += &run.err;
        text.push('\n');
    }
    insta::assert_snapshot!(text);
}

#[test]
fn what_holds_is_shown_with_where_it_came_from() {
    let variables = [("AUTOGLM_MEMORY__RECALL", "off")];
    let run =
        autoglm(&["config", "--set", "server.max_choices=3"], Some("[log]\nlevel = \"info\"\n"), &variables);
    assert_eq!(run.code, Some(0));
    for line in [
        "max_choices = 3  # flag --set",
        "recall = \"off\"  # environment variable AUTOGLM_MEMORY__RECALL",
        "level = \"info\"  # autoglm.toml:2",
        "listen = \"127.0.0.1:8080\"\n",
    ] {
        assert!(run.out.contains(line), "{line} in\n{}", run.out);
    }
}

#[test]
fn the_reference_page_is_the_one_in_the_documentation() {
    let page = include_str!("../../../docs/configuration.md");
    assert_eq!(autoglm(&["config", "--reference"], None, &[]).out, page);
}

#[test]
fn nothing_is_coloured_where_it_should_not_be() {
    // Neither stream is a terminal here; `NO_COLOR` is for those that are.
    for variables in [&[][..], &[("NO_COLOR", "1")], &[("TERM", "dumb")]] {
        let run = autoglm(&["versions", "list"], None, variables);
        assert!(!run.err.contains('\u{1b}'), "{}", run.err);
        assert!(!autoglm(&["--help"], None, variables).out.contains('\u{1b}'));
    }
}

#[test]
fn completions_name_every_command() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = autoglm(&["completions", shell], None, &[]).out;
        for name in ["serve", "rollback", "experiences", "pretrain"] {
            assert!(script.contains(name), "{shell}: {name}");
        }
    }
}

#[cfg(unix)]
#[test]
fn a_reader_that_goes_away_ends_the_command_quietly() {
    let mut child = command(&["config", "--reference"], &[])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn log_levels_are_checked() {
    let run = autoglm(&["versions", "list"], None, &[("RUST_LOG", "=loud=")]);
    assert_eq!(run.code, Some(2), "{}", run.err);
    assert!(run.err.starts_with("error: RUST_LOG is `=loud=`, not a log level"), "{}", run.err);
}
