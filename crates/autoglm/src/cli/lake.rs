//! `autoglm lake`

use clap::{Args, Subcommand};

use crate::printer::{Outcome, Printer};

use super::settings_args::SettingsArgs;

/// Commands of `lake`.
#[derive(Debug, Subcommand)]
pub(super) enum LakeCommand {
    /// Ask a question in SQL; every event is a table
    #[command(after_help = SQL_HELP)]
    Sql(SqlArgs),
    /// Compare two versions by what users got and said
    #[command(after_help = "Needs a build with the feature lake")]
    Ab(AbArgs),
}

const SQL_HELP: &str = "\
Tables:   autoglm lake sql 'show tables'
Columns:  autoglm lake sql 'describe interaction'
JSON:     metadata->>'task', json_length(messages), and the like

Needs a build with the feature lake-sql. docs/operations.md has examples.";

/// Arguments of `lake sql`.
#[derive(Debug, Args)]
pub(super) struct SqlArgs {
    /// The question, such as "select count(*) from interaction"
    #[arg(value_name = "SQL")]
    query: String,
    /// Most rows; a longer answer is refused
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    max_rows: usize,
    /// Print JSON, one object a row
    #[arg(long)]
    json: bool,
}

/// Arguments of `lake ab`.
#[derive(Debug, Args)]
pub(super) struct AbArgs {
    /// The version to compare with, such as v12 or 12
    #[arg(long, value_name = "VERSION")]
    a: String,
    /// The version that is compared
    #[arg(long, value_name = "VERSION")]
    b: String,
    /// Most probability that an interval is wrong
    #[arg(long, default_value_t = 0.05)]
    alpha: f64,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs a command of `lake`.
pub(super) async fn run(command: LakeCommand, settings: &SettingsArgs, printer: &Printer) -> Outcome {
    match command {
        LakeCommand::Sql(args) => sql(args, settings, printer).await,
        LakeCommand::Ab(args) => ab(args, settings, printer).await,
    }
}

#[cfg(not(feature = "lake-sql"))]
fn lacking(feature: &str) -> crate::printer::Failure {
    autoglm_domain::Error::invalid(format!("this build has no feature `{feature}`"))
        .with_hint(format!("build it with `cargo build --release --features {feature}`"))
        .into()
}

#[cfg(not(feature = "lake-sql"))]
async fn sql(_: SqlArgs, _: &SettingsArgs, _: &Printer) -> Outcome {
    Err(lacking("lake-sql"))
}

#[cfg(not(feature = "lake"))]
async fn ab(_: AbArgs, _: &SettingsArgs, _: &Printer) -> Outcome {
    Err(lacking("lake"))
}

/// The lake that the settings name.
#[cfg(feature = "lake")]
fn files(settings: &crate::settings::Settings) -> autoglm_domain::Result<autoglm_lake::LakeFiles> {
    if !settings.lake.is_on() {
        return Err(autoglm_domain::Error::invalid("there is no lake: `lake.url` is not set")
            .with_hint("`--set lake.url=FOLDER`, or an address such as s3://BUCKET/PREFIX"));
    }
    Ok(autoglm_lake::LakeFiles::open(&settings.lake)?)
}

#[cfg(feature = "lake-sql")]
async fn sql(args: SqlArgs, settings: &SettingsArgs, printer: &Printer) -> Outcome {
    let settings = settings.load("warn", [])?;
    let answered = crate::lake::query(files(&settings)?, &args.query, args.max_rows).await?;
    if answered.files == 0 {
        printer.note(&format!("the lake at `{}` has no files yet", autoglm_lake::shown(&settings.lake.url)));
    }
    sql_answer(answered.answer, args.json, printer)
}

/// The rows as a table for people, or as JSON.
#[cfg(feature = "lake-sql")]
fn sql_answer(answer: autoglm_lakesql::Answer, json: bool, printer: &Printer) -> Outcome {
    use serde_json::{Map, Value};

    if json {
        let object =
            |row: Vec<Value>| answer.columns.iter().cloned().zip(row).collect::<Map<String, Value>>();
        return printer.json(&answer.rows.into_iter().map(object).collect::<Vec<_>>());
    }
    let heading = |(name, numeric): (&String, &bool)| match numeric {
        true => format!(">{name}"),
        // A name may begin as the mark of a column of numbers does.
        false => name.trim_start_matches('>').to_owned(),
    };
    let headings: Vec<_> = answer.columns.iter().zip(&answer.numeric).map(heading).collect();
    let headings: Vec<_> = headings.iter().map(String::as_str).collect();
    let mut table = crate::printer::Table::new(&headings);
    for row in answer.rows {
        table.row(row.into_iter().map(|cell| match cell {
            Value::Null => "-".to_owned(),
            Value::String(text) => text,
            other => other.to_string(),
        }));
    }
    if table.is_empty() {
        printer.note("no rows");
        return Ok(());
    }
    printer.table(&table)
}

#[cfg(feature = "lake")]
async fn ab(args: AbArgs, settings: &SettingsArgs, printer: &Printer) -> Outcome {
    let settings = settings.load("warn", [])?;
    let (a, b) = (args.a.parse()?, args.b.parse()?);
    let report = crate::lake::compare(&files(&settings)?, a, b, args.alpha).await?;
    if args.json {
        return printer.json(&report);
    }
    let columns = ["METRIC", ">N A", ">N B", ">MEAN A", ">MEAN B", ">B - A", "INTERVAL", "FINDING"];
    let mut table = crate::printer::Table::new(&columns);
    let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.3}"));
    for row in &report.metrics {
        table.row([
            row.metric.clone(),
            row.count_a.to_string(),
            row.count_b.to_string(),
            number(row.mean_a),
            number(row.mean_b),
            row.difference.map_or_else(|| "-".to_owned(), |value| format!("{value:+.3}")),
            format!("{:+.3} to {:+.3}", row.lower, row.upper),
            row.finding.clone(),
        ]);
    }
    printer.note(&format!(
        "{a} gave {} answers and {b} {}; every interval holds at any time with probability {:.0}%",
        report.answers_a,
        report.answers_b,
        (1.0 - args.alpha) * 100.0
    ));
    printer.table(&table)
}

#[cfg(all(test, feature = "lake-sql"))]
mod tests {
    use autoglm_lakesql::Answer;
    use serde_json::json;

    use super::sql_answer;
    use crate::printer::tests::Capture;

    fn printed(answer: &Answer, json: bool) -> (String, String) {
        let capture = Capture::default();
        assert!(sql_answer(answer.clone(), json, &capture.printer(false)).is_ok());
        (capture.out(), capture.err())
    }

    #[test]
    fn an_answer_is_a_table_for_people_and_objects_for_programs() {
        let rows = [json!([12, "report\nlost card", null]), json!([7.5, "x", {"a": [1]}])];
        let rows = rows.into_iter().map(|row| row.as_array().unwrap().clone()).collect();
        let columns = ["n", ">answer", "data"].map(str::to_owned).to_vec();
        let answer = Answer { columns, numeric: vec![true, false, false], rows };
        let (out, _) = printed(&answer, false);
        assert_eq!(
            out,
            "  n  answer            data\n 12  report lost card  -\n7.5  x                 {\"a\":[1]}\n"
        );
        let (out, _) = printed(&answer, true);
        let read: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!(read[0], json!({"n": 12, ">answer": "report\nlost card", "data": null}));
        assert_eq!(read[1], json!({"n": 7.5, ">answer": "x", "data": {"a": [1]}}));
        let none = Answer { rows: Vec::new(), ..answer };
        assert_eq!(printed(&none, false), (String::new(), "no rows\n".into()));
        assert_eq!(printed(&none, true).0.trim(), "[]");
    }
}
