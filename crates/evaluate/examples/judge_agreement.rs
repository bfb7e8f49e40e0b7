//! How far the judges agree with people: `cargo run -p autoglm-evaluate --example judge_agreement -- FOLDER`.
//!
//! FOLDER holds `pandalm/testset-v1.json` (pairs of answers, three annotators each), `llmbar/Natural_dataset.json`
//! (pairs, one label) and `mt_bench/{question.jsonl, reference_answer_gpt-4.jsonl}`. Prints one line a measurement.
//! None of these sets gives a reference *and* a label of an answer held to it, so accuracy is measured on what is
//! known by construction: a reference answer against itself with a part changed, and against another question's.

#![allow(clippy::print_stdout, reason = "a program for people, on files that are known")]

#[path = "../tests/support/lexical.rs"]
mod lexical;

use std::{path::Path, sync::Arc};

use autoglm_domain::*;
use autoglm_evaluate::{Accuracy, AccuracyConfig, Consistency, Dimension, Logic, Subject};
use serde_json::Value;

/// A pair of answers to one prompt; positive where people prefer the first.
struct Pair {
    prompt: String,
    context: String,
    answers: [String; 2],
    preference: i32,
}

fn main() {
    let Some(folder) = std::env::args().nth(1) else {
        println!("usage: judge_agreement FOLDER");
        return;
    };
    let folder = Path::new(&folder);
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap_or_default();
    let text = |value: &Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();

    let pandalm: Vec<Value> = serde_json::from_str(&read("pandalm/testset-v1.json")).unwrap_or_default();
    let pandalm: Vec<Pair> = pandalm
        .iter()
        .map(|row| {
            // 1: the first is better, 2: the second, 0: neither.
            let vote = |key: &str| match row[key].as_i64() {
                Some(1) => 1,
                Some(2) => -1,
                _ => 0,
            };
            Pair {
                prompt: format!("{}\n{}", text(row, "instruction"), text(row, "input")),
                context: text(row, "input"),
                answers: [text(row, "response1"), text(row, "response2")],
                preference: vote("annotator1") + vote("annotator2") + vote("annotator3"),
            }
        })
        .collect();
    let llmbar: Vec<Value> = serde_json::from_str(&read("llmbar/Natural_dataset.json")).unwrap_or_default();
    let llmbar: Vec<Pair> = llmbar
        .iter()
        .map(|row| Pair {
            prompt: text(row, "input"),
            context: String::new(),
            answers: [text(row, "output_1"), text(row, "output_2")],
            preference: if row["label"].as_i64() == Some(1) { 1 } else { -1 },
        })
        .collect();

    println!("set        judge         pairs  decided  agree   AUC");
    preference("pandalm", "logic", &Logic::new(Default::default()), &pandalm);
    let grounded: Vec<&Pair> =
        pandalm.iter().filter(|pair| pair.context.split_whitespace().count() >= 20).collect();
    preference("pandalm", "consistency", &Consistency::new(Default::default()), grounded.iter().copied());
    preference("llmbar", "logic", &Logic::new(Default::default()), &llmbar);
    references(&read("mt_bench/reference_answer_gpt-4.jsonl"));
}

/// Share of the decided pairs in which judge and people agree, and the AUC of the score difference.
fn preference<'a>(set: &str, name: &str, judge: &dyn Dimension, pairs: impl IntoIterator<Item = &'a Pair>) {
    let mut differences = Vec::new();
    let mut total = 0;
    for pair in pairs {
        if pair.preference == 0 {
            continue;
        }
        total += 1;
        let score = |answer: &str| score(judge, &pair.prompt, answer, &[("context", pair.context.as_str())]);
        if let [Some(first), Some(second)] = pair.answers.each_ref().map(|answer| score(answer)) {
            differences.push((first - second, pair.preference > 0));
        }
    }
    let decided: Vec<_> = differences.iter().filter(|(difference, _)| *difference != 0.0).collect();
    let agree = decided.iter().filter(|(difference, first)| (*difference > 0.0) == *first).count();
    let share = agree as f64 / decided.len().max(1) as f64;
    println!("{set:<10} {name:<12} {total:>6} {:>8}  {share:.3}  {:.3}", decided.len(), auc(&differences));
}

/// Accuracy on reference answers: right ones with a part changed, and wrong ones.
fn references(lines: &str) {
    let judge = Accuracy::new(AccuracyConfig::default(), Arc::new(lexical::LexicalEmbedder));
    let answers: Vec<String> = lines
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .flat_map(|row| row["choices"][0]["turns"].as_array().cloned().unwrap_or_default())
        .filter_map(|turn| turn.as_str().map(String::from))
        .collect();
    let mut scores = Vec::new();
    for (at, reference) in answers.iter().enumerate() {
        let mut held = |answer: &str, right: bool| {
            let pair = [("reference", reference.as_str())];
            scores.extend(score(&judge, "", answer, &pair).map(|score| (score, right)));
        };
        let words: Vec<&str> = reference.split_whitespace().collect();
        let shortened: Vec<&str> =
            words.iter().enumerate().filter(|(at, _)| at % 5 != 4).map(|(_, word)| *word).collect();
        held(&shortened.join(" "), true);
        if let Some(other) = answers.get((at + 7) % answers.len().max(1)) {
            held(other, false);
        }
    }
    let right = scores.iter().filter(|(score, right)| (*score >= 90.0) == *right).count();
    let share = right as f64 / scores.len().max(1) as f64;
    println!(
        "{:<10} {:<12} {:>6} {:>8}  {share:.3}  {:.3}",
        "mt_bench",
        "accuracy",
        scores.len(),
        scores.len(),
        auc(&scores)
    );
}

fn score(judge: &dyn Dimension, prompt: &str, answer: &str, metadata: &[(&str, &str)]) -> Option<f64> {
    let metadata = metadata.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let record = InteractionRecord {
        interaction: Interaction {
            id: InteractionId::new(uuid::Uuid::nil()),
            at: Timestamp(0),
            endpoint: Endpoint::Chat,
            model: String::new(),
            version: VersionNumber::BASE,
            messages: vec![ChatMessage::user(prompt)],
            instructed: false,
            tools: Vec::new(),
            sampling: Sampling::default(),
            answer: answer.to_owned(),
            turn: None,
            source: AnswerSource::Weights,
            finish_reason: FinishReason::Stop,
            usage: Usage::default(),
            logprobs: Vec::new(),
            latency_ms: 0.0,
            first_token_ms: 0.0,
            principal: String::new(),
            session: None,
            metadata,
        },
        feedback: Vec::new(),
        assessment: None,
    };
    judge.judge(&Subject::new(&record, None)).ok().flatten().map(|judgement| judgement.score)
}

/// Probability that a positive scores above a negative; ties count half.
fn auc(scores: &[(f64, bool)]) -> f64 {
    let (mut wins, mut total) = (0.0, 0.0);
    for (positive, _) in scores.iter().filter(|(_, label)| *label) {
        for (negative, _) in scores.iter().filter(|(_, label)| !*label) {
            total += 1.0;
            wins += match positive.total_cmp(negative) {
                std::cmp::Ordering::Greater => 1.0,
                std::cmp::Ordering::Equal => 0.5,
                std::cmp::Ordering::Less => 0.0,
            };
        }
    }
    if total > 0.0 { wins / total } else { f64::NAN }
}
