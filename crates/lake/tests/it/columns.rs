//! Every event has a table, and its rows fit.

use autoglm_domain::{Event, RecordedEvent};
use autoglm_doubles::samples;
use autoglm_lake::{Cell, ColumnKind, TABLES, cells, table};

#[test]
fn the_row_of_every_event_fits_its_table() {
    let mut seen = std::collections::BTreeSet::new();
    for (at, event) in samples::events().into_iter().enumerate() {
        let recorded = RecordedEvent { seq: at as i64 + 1, event };
        let table = table(recorded.event.name()).unwrap();
        seen.insert(table.event);
        let row = cells(&recorded).unwrap();
        assert_eq!(row.len(), table.columns.len(), "{}", table.event);
        for (column, cell) in table.columns.iter().zip(&row) {
            let fits = match cell {
                Cell::Null => column.name != "seq" && column.name != "happened_at",
                Cell::Int(_) => column.kind == ColumnKind::Int,
                Cell::Real(_) => column.kind == ColumnKind::Real,
                Cell::Text(_) => column.kind == ColumnKind::Text,
                Cell::Bool(_) => column.kind == ColumnKind::Bool,
                Cell::Time(_) => column.kind == ColumnKind::Time,
            };
            assert!(fits, "{}.{} holds {cell:?}", table.event, column.name);
        }
    }
    assert_eq!(seen.len(), TABLES.len(), "an event of every table");
}

#[test]
fn the_columns_hold_what_they_say() {
    let row = |event: Event| {
        let name = event.name();
        let cells = cells(&RecordedEvent { seq: 7, event }).unwrap();
        let columns = table(name).unwrap().columns.iter().map(|column| column.name);
        columns.zip(cells).collect::<std::collections::BTreeMap<_, _>>()
    };
    let text = |text: &str| Cell::Text(text.to_owned());
    let asked = row(Event::Interaction(Box::new(samples::interaction(2))));
    assert_eq!(asked["seq"], Cell::Int(7));
    assert_eq!(asked["model_version"], Cell::Int(12));
    assert_eq!(asked["latency_ms"], Cell::Real(43.5));
    assert_eq!(asked["request_id"], text(&samples::interaction(2).id.to_string()));
    assert_eq!((&asked["finish_reason"], &asked["source"]), (&text("stop"), &text("weights")));
    assert_eq!((&asked["task"], &asked["session"]), (&text("banking"), &text("chat-0")));
    assert_eq!(asked["messages"], text(r#"[{"role":"user","content":"my card got eaten by machine 2"}]"#));
    let said = row(Event::Feedback(samples::feedback(3, 2)));
    assert_eq!((&said["thumb"], &said["correction"]), (&text("down"), &text("report lost card")));
    assert_eq!(said["request_id"], asked["request_id"]);
    let judged = row(Event::Assessment(samples::assessment(4, 2, 20.0)));
    assert_eq!((&judged["accuracy"], &judged["logic"]), (&Cell::Real(20.0), &Cell::Null));
    assert_eq!(judged["label"], text("revise_logic"));
    for event in samples::events() {
        match event.name() {
            "run" => {
                let run = row(event);
                assert_eq!(
                    (&run["state"], &run["trigger_kind"]),
                    (&text("succeeded"), &text("new_experiences"))
                );
                assert_eq!(run["model_version"], Cell::Int(13));
            }
            "rollout" => {
                let rollout = row(event);
                let decided =
                    (&rollout["state"], &rollout["outcome"]) == (&text("decided"), &text("promote"));
                assert!(decided || rollout["state"] == text("live"), "{rollout:?}");
            }
            "rollout_progress" => assert_eq!(row(event)["stage"], text("canary")),
            "experience" | "pattern" => {
                let Cell::Text(data) = &row(event)["data"] else { panic!("no JSON") };
                assert!(!data.contains("0.6") && !data.contains("-0.5"), "vectors are left out: {data}");
            }
            _ => {}
        }
    }
}
