//! A trace for people: a heading a thing, and beneath it one line a fact.

use autoglm_domain::{AnswerSource, Feedback, InteractionRecord, Rollout, Thumb, TrainingRun, VersionNumber};
use autoglm_train::Role;

use crate::printer::{Look, Printer, oneline, shortened, time};

use super::{
    super::{experiences::question, rollouts, runs},
    chain::{ExperienceTrace, Learned, LearnedFrom, Trace, VersionTrace},
};

/// Most characters of a person's text on a line.
const TEXT: usize = 80;

struct Lines<'a> {
    printer: &'a Printer,
    lines: Vec<String>,
}

impl Lines<'_> {
    fn heading(&mut self, kind: &str, text: &str) {
        self.lines.push(format!("{kind:<14}{}", self.printer.styled(Look::Bold, text)));
    }

    fn fact(&mut self, name: &str, text: &str) {
        self.lines.push(format!("  {name:<12}{}", oneline(text)));
    }
}

/// The whole trace.
pub(super) fn text(trace: &Trace, printer: &Printer) -> String {
    let mut lines = Lines { printer, lines: Vec::new() };
    if let Some(record) = &trace.answer {
        answer(&mut lines, record);
    }
    if let Some(recalled) = &trace.recalled {
        lines.heading("recalled", &recalled.id.to_string());
        facts_of(&mut lines, recalled);
    }
    if let Some(experience) = &trace.experience {
        experience_facts(&mut lines, experience);
    }
    if let Some(run) = &trace.run {
        lines.heading("run", &run.id.to_string());
        run_facts(&mut lines, run);
    }
    if let Some(rollout) = &trace.rollout {
        lines.heading("rollout", &rollout.id.to_string());
        rollout_fact(&mut lines, rollout);
    }
    for version in &trace.versions {
        version_facts(&mut lines, version);
    }
    if trace.experience.is_none() {
        lines.heading("base model", &VersionNumber::BASE.to_string());
    }
    if let Some(from) = &trace.learned_from {
        learned_from(&mut lines, from, trace.answer.is_some());
    }
    lines.lines.join("\n")
}

fn answer(lines: &mut Lines<'_>, record: &InteractionRecord) {
    let interaction = &record.interaction;
    lines.heading("answer", &interaction.id.to_string());
    lines.fact("at", &format!("{}, to {}", time(interaction.at), interaction.principal));
    lines.fact("asked", &quoted(question(&interaction.messages)));
    lines.fact("answered", &quoted(&interaction.answer));
    let from = match interaction.source {
        AnswerSource::Weights => format!("the weights of {}", interaction.version),
        AnswerSource::Examples { count } => {
            format!("the weights of {} with {count} examples from memory", interaction.version)
        }
        AnswerSource::Memory { experience } => format!("memory, {experience}"),
    };
    lines.fact("from", &format!("{from}, in {:.0} ms", interaction.latency_ms));
    for said in &record.feedback {
        lines.fact("feedback", &opinion(said));
    }
    if let Some(assessment) = &record.assessment {
        let label = serde_json::to_value(assessment.label).ok();
        let label = label.as_ref().and_then(serde_json::Value::as_str).unwrap_or_default().to_owned();
        let by = format!("{} {}", assessment.evaluator, assessment.evaluator_version);
        lines.fact("assessed", &format!("{:.0} of 100, {label}, by {by}", assessment.overall));
    }
}

fn version_facts(lines: &mut Lines<'_>, trace: &VersionTrace) {
    let version = &trace.version;
    lines.heading("version", &version.number.to_string());
    lines.fact("hash", &version.hash.to_string());
    lines.fact("at", &time(version.at));
    let names: Vec<&str> = trace.aliases.iter().map(|alias| alias.0.as_str()).collect();
    if !names.is_empty() {
        lines.fact("is now", &names.join(", "));
    }
    match &trace.made_by {
        Some(run) => {
            lines.fact("made by", &run.id.to_string());
            run_facts(lines, run);
        }
        None => lines.fact("made by", "import"),
    }
    for rollout in &trace.rollouts {
        rollout_fact(lines, rollout);
    }
    for step in &trace.moves {
        let text = format!(
            "{} {} -> {}, {}, by {}: {}",
            step.alias,
            step.from,
            step.to,
            time(step.at),
            step.by,
            step.reason
        );
        lines.fact("moved", &text);
    }
    lines.fact("parent", &version.parent.to_string());
}

fn run_facts(lines: &mut Lines<'_>, run: &TrainingRun) {
    lines.fact("because", &format!("{}, {}", runs::trigger(&run.trigger), time(run.at)));
    let (new, replayed) = (run.new_experiences, run.replayed_experiences);
    lines.fact("data", &format!("{}: {new} new, {replayed} replayed", run.snapshot.short()));
    let loss = run.metrics.get("loss_last").map(|loss| format!(", loss {loss:.3}")).unwrap_or_default();
    lines.fact(
        "training",
        &format!("{}, {} of {}, seed {}{loss}", runs::state(&run.state), run.strategy, run.parent, run.seed),
    );
}

fn rollout_fact(lines: &mut Lines<'_>, rollout: &Rollout) {
    let (state, reason) = rollouts::state(&rollout.state);
    let reason = if reason.is_empty() { String::new() } else { format!(": {reason}") };
    lines.fact(
        "gate",
        &format!("{}, {} against {}, {state}{reason}", rollout.id, rollout.candidate, rollout.champion),
    );
}

fn learned_from(lines: &mut Lines<'_>, from: &LearnedFrom, near: bool) {
    let shown = from.experiences.len();
    let which = match (shown < from.count, near) {
        (false, _) => String::new(),
        (true, true) => format!(", the {shown} nearest (--all shows the rest)"),
        (true, false) => format!(", the {shown} newest (--all shows the rest)"),
    };
    let noun = if from.count == 1 { "experience" } else { "experiences" };
    lines.heading("learned from", &format!("{} {noun}{which}", from.count));
    for one in &from.experiences {
        lines.heading("experience", &one.id.to_string());
        facts_of(lines, one);
    }
}

fn experience_facts(lines: &mut Lines<'_>, trace: &ExperienceTrace) {
    lines.heading("experience", &trace.learned.id.to_string());
    if let Some(task) = &trace.task {
        lines.fact("task", task);
    }
    facts_of(lines, &trace.learned);
    if trace.learned.trained.is_empty() {
        lines.fact("trained", "no version has trained on it");
    }
    if !trace.descendants.is_empty() {
        let names: Vec<String> = trace.descendants.iter().map(ToString::to_string).collect();
        lines.fact("inherited", &format!("by {}", names.join(", ")));
    }
}

fn facts_of(lines: &mut Lines<'_>, learned: &Learned) {
    if let Some(similarity) = learned.similarity {
        lines.fact("likeness", &format!("{similarity:.2}"));
    }
    lines.fact("asked", &quoted(question(&learned.prompt)));
    lines.fact("right is", &quoted(&learned.target));
    let trained = learned.trained.iter().map(|training| match training.role {
        Role::New => format!("{} (new)", training.version),
        Role::Replay => training.version.to_string(),
    });
    let trained: Vec<String> = trained.collect();
    if !trained.is_empty() {
        lines.fact("trained", &trained.join(", "));
    }
    let Some(behind) = &learned.behind else {
        lines.fact("verified", "it is not in the store any more");
        return;
    };
    let held_out = if behind.held_out { ", kept for the gate" } else { "" };
    lines.fact("verified", &format!("by {}, weight {:.2}{held_out}", behind.verifier, behind.weight));
    for said in &behind.feedback {
        lines.fact("feedback", &format!("{}, on {}", opinion(said), said.interaction));
    }
}

/// What somebody said, on one line.
fn opinion(said: &Feedback) -> String {
    let mut parts = Vec::new();
    match said.thumb {
        Some(Thumb::Up) => parts.push("thumb up".to_owned()),
        Some(Thumb::Down) => parts.push("thumb down".to_owned()),
        None => {}
    }
    parts.extend(said.score.map(|score| format!("score {score}")));
    parts.extend(said.metric.as_ref().map(|metric| format!("{} {}", metric.name, metric.value)));
    parts.extend(said.correction.as_ref().map(|text| format!("correction {}", quoted(text))));
    parts.extend(said.comment.as_ref().map(|text| format!("comment {}", quoted(text))));
    parts.extend((!said.tags.is_empty()).then(|| said.tags.join(", ")));
    format!("{} by {}: {}", said.id, said.principal, parts.join(", "))
}

fn quoted(text: &str) -> String {
    format!("“{}”", shortened(text, TEXT))
}
