use super::*;

fn parsed(text: &str) -> Result<Stream> {
    parse("s.jsonl", text.as_bytes(), false, None)
}

const GOOD: &str = r#"{"prompt":"a","reference":"x","task":"one"}"#;

#[test]
fn tasks_come_in_order_of_first_appearance_and_lines_without_one_have_their_own() {
    let text = concat!(
        r#"{"prompt":"a","reference":"x","task":"two"}"#,
        "\r\n\n",
        r#"{"prompt":"b","reference":"y","task":"one","context":"c"}"#,
        "\n",
        r#"{"prompt":"c","reference":"x","task":"two","held_out":true}"#,
        "\n",
        r#"{"prompt":"d","reference":"z","held_out":false,"context":null}"#,
    );
    let stream = parsed(text).unwrap();
    let names: Vec<_> = stream.tasks.iter().map(|task| task.name.as_str()).collect();
    assert_eq!(names, ["two", "one", "stream"]);
    assert_eq!((stream.counts.lines, stream.counts.traffic, stream.counts.held_out), (4, 3, 1));
    assert_eq!(stream.tasks[0].held_out[0].prompt, "c");
    assert_eq!(stream.tasks[1].traffic[0].context.as_deref(), Some("c"));
}

#[test]
fn a_broken_line_is_named_by_its_number() {
    let cases = [
        ("{", "not JSON: EOF while parsing an object at column 1"),
        ("[1]", "not a JSON object"),
        (r#"{"reference":"x"}"#, "`prompt` is missing"),
        (r#"{"prompt":"a"}"#, "`reference` is missing"),
        (r#"{"prompt":3,"reference":"x"}"#, "`prompt` is a number, not a string"),
        (r#"{"prompt":"a","reference":"  "}"#, "`reference` is empty"),
        (r#"{"prompt":"a","reference":"x","held_out":"yes"}"#, "`held_out` is \"yes\", not true or false"),
    ];
    for (line, problem) in cases {
        let error = parsed(&format!("{GOOD}\n\n{line}\n{GOOD}")).unwrap_err();
        assert_eq!(error.message, format!("s.jsonl, line 3: {problem}"));
        assert_eq!(error.hint.unwrap(), "--keep-going names broken lines and plays the rest");
    }
}

#[test]
fn an_unknown_key_is_refused_with_the_nearest_known_one() {
    let error = parsed(r#"{"prompt":"a","refrence":"x"}"#).unwrap_err();
    assert_eq!(error.message, "s.jsonl, line 1: unknown key `refrence`");
    assert_eq!(error.hint.unwrap(), "did you mean `reference`?");
    let error = parsed(r#"{"prompt":"a","reference":"x","zzz":1}"#).unwrap_err();
    assert_eq!(error.hint.unwrap(), "known keys are prompt, reference, task, context, held_out");
}

#[test]
fn limits_are_named() {
    let long = "a".repeat(MAX_PROMPT_CHARS + 1);
    let error = parsed(&format!(r#"{{"prompt":"{long}","reference":"x"}}"#)).unwrap_err();
    assert_eq!(error.message, "s.jsonl, line 1: `prompt` has 16001 characters, more than 16000");
    let longer = "a".repeat(MAX_LINE_BYTES);
    let error = parsed(&format!(r#"{{"prompt":"{longer}","reference":"x"}}"#)).unwrap_err();
    assert_eq!(error.message, "s.jsonl, line 1: 65565 bytes, more than 65536");
    let error = parse("s.jsonl", b"{\"prompt\":\"\xff\",\"reference\":\"x\"}", false, None).unwrap_err();
    assert_eq!(error.message, "s.jsonl, line 1: not UTF-8");
}

#[test]
fn keep_going_names_every_broken_line_and_plays_the_rest() {
    let text = format!("nonsense\n{GOOD}\n{{\"prompt\":\"a\"}}\n");
    let stream = parse("s.jsonl", text.as_bytes(), true, None).unwrap();
    assert_eq!(stream.counts.traffic, 1);
    let broken: Vec<_> = stream.counts.broken.iter().map(|broken| (broken.line, &*broken.problem)).collect();
    assert_eq!(broken, [(1, "not JSON: expected ident at column 2"), (3, "`reference` is missing"),]);
}

#[test]
fn a_stream_without_traffic_is_refused() {
    let error = parse("s.jsonl", b"x\n", true, None).unwrap_err();
    assert_eq!(error.message, "s.jsonl: nothing to play (1 lines, 1 broken, 0 held out)");
    assert!(parsed("\n\n").is_err());
    assert!(parsed(r#"{"prompt":"a","reference":"x","held_out":true}"#).is_err());
}

#[test]
fn nothing_that_is_measured_is_sent() {
    let text = concat!(
        r#"{"prompt":"Same, thing!","reference":"x"}"#,
        "\n",
        r#"{"prompt":"same thing","reference":"x","held_out":true}"#,
        "\n",
        r#"{"prompt":"same thing","reference":"x","context":"but of another text"}"#,
        "\n",
    );
    let stream = parsed(text).unwrap();
    assert_eq!((stream.counts.overlapping, stream.counts.traffic, stream.counts.held_out), (1, 1, 1));
}

#[test]
fn any_beginning_of_the_held_out_part_has_all_references() {
    let line = |reference: &str, n: usize| {
        format!("{{\"prompt\":\"{reference}{n}\",\"reference\":\"{reference}\",\"held_out\":true}}\n")
    };
    let mut text = format!("{GOOD}\n");
    for reference in ["x", "y", "z"] {
        (0..4).for_each(|n| text.push_str(&line(reference, n)));
    }
    let stream = parse("s.jsonl", text.as_bytes(), false, Some(6)).unwrap();
    let prompts: Vec<_> = stream.tasks[1].held_out.iter().map(|held_out| held_out.prompt.as_str()).collect();
    assert_eq!(prompts, ["x0", "y0", "z0", "x1", "y1", "z1"]);
    assert_eq!(stream.counts.beyond_limit, 6);
}

#[test]
fn the_bundled_stream_is_whole() {
    let options = crate::demo::options::tests::parse(&[]);
    let stream = load(&options).unwrap();
    assert_eq!(stream.tasks.len(), 10);
    assert_eq!(
        (stream.counts.traffic, stream.counts.held_out, stream.counts.overlapping),
        (14_984, 3_000, 0)
    );
    for task in &stream.tasks {
        assert_eq!((task.references.len(), task.held_out.len()), (15, 300), "{}", task.name);
    }
    assert_eq!(stream.tasks[0].name, "banking");
}

#[test]
fn a_compressed_file_is_read_and_a_missing_one_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.jsonl.zst");
    std::fs::write(&path, zstd::encode_all(GOOD.as_bytes(), 1).unwrap()).unwrap();
    let mut options = crate::demo::options::tests::parse(&[]);
    options.stream = Some(path);
    assert_eq!(load(&options).unwrap().counts.traffic, 1);
    options.stream = Some("/nowhere/s.jsonl".into());
    let error = load(&options).unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotFound);
    assert_eq!(error.message, "cannot read stream /nowhere/s.jsonl: No such file or directory (os error 2)");
}
