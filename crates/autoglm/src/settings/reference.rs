//! `docs/configuration.md`, generated from the defaults and from the documentation of the settings' fields.
//!
//! Only tests compile this: the page is committed, `autoglm config --reference` prints it, and a test fails when
//! it is not what would be generated now. Write it anew with
//! `WRITE_REFERENCE=1 cargo test -p autoglm settings::reference`.

use std::{collections::BTreeMap, fmt::Write as _, path::Path};

use serde_json::Value;

use super::{schema, show, sources};

const PAGE: &str = "../../docs/configuration.md";

const INTRODUCTION: &str = "\
# Configuration

Generated from the code: `WRITE_REFERENCE=1 cargo test -p autoglm settings::reference` writes it anew. The same
page is printed by `autoglm config --reference`.

Settings come from, the later the stronger:

1. the defaults below,
2. the file `autoglm.toml` in the working directory, or the one that `--config FILE` or `AUTOGLM_CONFIG` names,
3. environment variables: `AUTOGLM_` and the key, in capitals, with two underscores for each dot
   (`AUTOGLM_SERVER__LISTEN=0.0.0.0:80`),
4. flags: `--set KEY=VALUE` (`--set server.listen=0.0.0.0:80`), and the named ones such as `--listen`.

A key that does not exist is refused. Lists and tables are written as in TOML (`--set 'server.admins=[\"ada\"]'`).
`autoglm config` prints what holds and where each value came from.
";

/// A struct of settings: the table it fills, where it is written, what it is called.
struct Source {
    section: &'static str,
    text: &'static str,
    name: &'static str,
}

const SOURCES: [Source; 40] = [
    Source { section: "model", text: include_str!("../settings.rs"), name: "ModelSettings" },
    Source { section: "upstream", text: include_str!("../../../upstream/src/config.rs"), name: "Config" },
    Source {
        section: "upstream.retry",
        text: include_str!("../../../upstream/src/retry.rs"),
        name: "RetryConfig",
    },
    Source {
        section: "upstream.circuit",
        text: include_str!("../../../upstream/src/circuit.rs"),
        name: "CircuitConfig",
    },
    Source { section: "server", text: include_str!("../../../gateway/src/config.rs"), name: "Config" },
    Source { section: "engine", text: include_str!("../../../engine/src/serving.rs"), name: "ServingConfig" },
    Source { section: "engine", text: include_str!("../settings.rs"), name: "EngineSettings" },
    Source { section: "store", text: include_str!("../settings.rs"), name: "StoreSettings" },
    Source { section: "kafka", text: include_str!("../../../kafka/src/config.rs"), name: "Config" },
    Source {
        section: "kafka.ingest",
        text: include_str!("../../../kafka/src/config.rs"),
        name: "IngestConfig",
    },
    Source { section: "lake", text: include_str!("../../../lake/src/config.rs"), name: "Config" },
    Source { section: "journal", text: include_str!("../../../journal/src/config.rs"), name: "Config" },
    Source { section: "registry", text: include_str!("../../../registry/src/config.rs"), name: "Config" },
    Source {
        section: "registry.scan",
        text: include_str!("../../../registry/src/config.rs"),
        name: "ScanLimits",
    },
    Source { section: "memory", text: include_str!("../../../memory/src/config.rs"), name: "Config" },
    Source { section: "evaluate", text: include_str!("../../../evaluate/src/config.rs"), name: "Config" },
    Source {
        section: "evaluate.accuracy",
        text: include_str!("../../../evaluate/src/accuracy.rs"),
        name: "AccuracyConfig",
    },
    Source {
        section: "evaluate.accuracy.grades",
        text: include_str!("../../../evaluate/src/similarity.rs"),
        name: "Grades",
    },
    Source {
        section: "evaluate.accuracy.feedback",
        text: include_str!("../../../evaluate/src/opinion.rs"),
        name: "FeedbackScale",
    },
    Source {
        section: "evaluate.consistency",
        text: include_str!("../../../evaluate/src/consistency.rs"),
        name: "ConsistencyConfig",
    },
    Source {
        section: "evaluate.logic",
        text: include_str!("../../../evaluate/src/logic.rs"),
        name: "LogicConfig",
    },
    Source {
        section: "evaluate.safety",
        text: include_str!("../../../evaluate/src/config.rs"),
        name: "SafetyConfig",
    },
    Source {
        section: "evaluate.diff",
        text: include_str!("../../../evaluate/src/diff/differ.rs"),
        name: "DiffConfig",
    },
    Source {
        section: "evaluate.judge",
        text: include_str!("../../../evaluate/src/diff/judge.rs"),
        name: "JudgeConfig",
    },
    Source {
        section: "evaluate.patterns",
        text: include_str!("../../../evaluate/src/patterns.rs"),
        name: "PatternsConfig",
    },
    Source { section: "train", text: include_str!("../../../train/src/config.rs"), name: "Config" },
    Source {
        section: "train.triggers",
        text: include_str!("../../../train/src/trigger.rs"),
        name: "TriggerConfig",
    },
    Source { section: "train.plan", text: include_str!("../../../train/src/plan.rs"), name: "PlanConfig" },
    Source { section: "train.budget", text: include_str!("../../../train/src/budget.rs"), name: "Budget" },
    Source {
        section: "train.hyper",
        text: include_str!("../../../domain/src/training.rs"),
        name: "HyperParameters",
    },
    Source {
        section: "rollout",
        text: include_str!("../../../rollout/src/policy.rs"),
        name: "RolloutPolicy",
    },
    Source {
        section: "rollout.gate",
        text: include_str!("../../../rollout/src/config.rs"),
        name: "GateConfig",
    },
    Source {
        section: "rollout.shadow",
        text: include_str!("../../../rollout/src/policy.rs"),
        name: "ShadowPolicy",
    },
    Source {
        section: "rollout.canary",
        text: include_str!("../../../rollout/src/policy.rs"),
        name: "CanaryPolicy",
    },
    Source {
        section: "rollout.watch",
        text: include_str!("../../../rollout/src/policy.rs"),
        name: "WatchPolicy",
    },
    Source { section: "mlflow", text: include_str!("../../../mlflow/src/config.rs"), name: "Config" },
    Source { section: "webhook", text: include_str!("../../../webhook/src/config.rs"), name: "Config" },
    Source {
        section: "webhook.inbound",
        text: include_str!("../../../webhook/src/config.rs"),
        name: "InboundConfig",
    },
    Source { section: "log", text: include_str!("../settings.rs"), name: "LogSettings" },
    Source { section: "", text: include_str!("../settings.rs"), name: "Settings" },
];

/// The documentation of every field, by key.
fn docs() -> BTreeMap<String, String> {
    let mut docs = BTreeMap::new();
    for source in &SOURCES {
        for (field, doc) in fields(source.text, source.name) {
            let key = if source.section.is_empty() { field } else { format!("{}.{field}", source.section) };
            docs.insert(key, doc);
        }
    }
    docs
}

/// The fields of a struct as it is written, with their documentation.
fn fields(text: &str, name: &str) -> Vec<(String, String)> {
    let begin = format!("struct {name} {{");
    let body = text.lines().skip_while(|line| !line.contains(&begin)).skip(1).take_while(|line| *line != "}");
    let mut found = Vec::new();
    let mut doc: Vec<&str> = Vec::new();
    for line in body.map(str::trim) {
        if let Some(words) = line.strip_prefix("///") {
            doc.push(words.trim());
        } else if let Some((field, _)) = line.split_once(':').filter(|_| !line.starts_with('#')) {
            let field = field.rsplit(' ').next().unwrap_or_default();
            let words = without_paths(&doc.join(" ").replace("[`", "`").replace("`]", "`"));
            found.push((field.to_owned(), words));
            doc.clear();
        }
    }
    found
}

/// Paths of the code as people write what they stand for: `RecallMode::Examples` is `examples` in the file.
fn without_paths(text: &str) -> String {
    let code = |part: &str| match part.rsplit_once("::") {
        Some((_, variant)) if variant.chars().any(char::is_lowercase) => variant.to_lowercase(),
        Some((_, name)) => name.to_owned(),
        None => part.to_owned(),
    };
    let parts = text.split('`').enumerate();
    let parts = parts.map(|(at, part)| if at % 2 == 1 { code(part) } else { part.to_owned() });
    parts.collect::<Vec<_>>().join("`")
}

fn page() -> String {
    let docs = docs();
    let mut page = INTRODUCTION.to_owned();
    let mut section = String::new();
    for (key, default) in schema::settings() {
        let (table, name) = key.rsplit_once('.').unwrap_or(("", &key));
        if table != section {
            section = table.to_owned();
            let doc = docs.get(table).map(|doc| format!("{doc}\n\n")).unwrap_or_default();
            let _ = write!(page, "\n## [{section}]\n\n{doc}| key | default | |\n|---|---|---|\n");
        }
        let default = match default {
            Value::Null => "not set".to_owned(),
            default => format!("`{}`", show::literal(default).replace('|', "\\|")),
        };
        let doc = docs.get(&key).map(|doc| doc.replace('|', "\\|")).unwrap_or_default();
        let _ = writeln!(page, "| `{name}` | {default} | {doc} |");
    }
    page
}

#[test]
fn the_page_is_what_the_code_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(PAGE);
    let page = page();
    if std::env::var_os("WRITE_REFERENCE").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == page,
        "docs/configuration.md is out of date; WRITE_REFERENCE=1 cargo test -p autoglm settings::reference"
    );
}

#[test]
fn every_setting_is_documented() {
    let docs = docs();
    let bare: Vec<_> = schema::settings()
        .into_iter()
        .map(|(key, _)| key)
        .filter(|key| docs.get(key).is_none_or(String::is_empty))
        .collect();
    assert_eq!(bare, Vec::<String>::new());
}

#[test]
fn every_setting_has_a_variable_that_means_it() {
    for (key, default) in schema::settings() {
        let text = match default {
            Value::String(text) => text.clone(),
            Value::Null => "7".into(),
            other => show::literal(other),
        };
        // A schedule, a path or an enum word is text; an optional size takes a number.
        if ["evaluate.safety.rules", "evaluate.judge.labels"].contains(&key.as_str()) {
            continue;
        }
        let environment = [(sources::variable(&key).into(), text.into())];
        let read = sources::read(&sources::Flags::default(), environment);
        assert!(read.is_ok(), "{key}: {read:?}");
    }
}
