//! Measures recall on real utterances; `docs/experiments/0001-recall.md` holds the figures.
//!
//! `cargo run --release -p autoglm-memory --example recall_curve -- DATA [SECTION…]`, where `DATA` holds
//! `clinc150/data_train_val.json`, `clinc150/domains.json`, `banking77/train.csv` and `gsm8k/train.jsonl`.
//! Sections: `accuracy`, `curve`, `one-shot`, `parts`, `unseen`, `free-text`, `speed`; all when none is named.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    error::Error,
    io::Write as _,
    sync::Arc,
    time::Instant,
};

use autoglm_domain::{
    ChatMessage, ClusterId, Event, Experience, ExperienceId, IdSource as _, ManualClock, Provenance,
    SequentialIds, Store as _, Timestamp,
};
use autoglm_doubles::MemoryStore;
use autoglm_memory::{Config, Memory, RecallOptions, Recalled};
use rand::{RngExt as _, SeedableRng as _, seq::SliceRandom as _};
use rand_chacha::ChaCha8Rng;

#[path = "../tests/memory/words.rs"]
mod words;

type Outcome<T> = Result<T, Box<dyn Error>>;
type Lines = Vec<(String, String)>;

macro_rules! say {
    ($($part:tt)*) => { writeln!(std::io::stdout().lock(), $($part)*)? };
}

/// Labelled utterances to remember, to ask, and ones that no label fits.
struct Set {
    name: &'static str,
    train: Lines,
    ask: Lines,
    foreign: Lines,
}

fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let data = arguments.next().ok_or("the data folder is missing")?;
    let sections: HashSet<String> = arguments.collect();
    let wanted = |name: &str| sections.is_empty() || sections.contains(name);
    let sets = [clinc(&data)?, banking(&data)?];
    for set in &sets {
        if wanted("accuracy") {
            accuracy(set)?;
        }
        if wanted("curve") {
            curve(set, 60)?;
        }
        if wanted("one-shot") {
            one_shot(set)?;
        }
        if wanted("parts") {
            parts(set)?;
        }
    }
    if wanted("unseen") {
        unseen(&sets[0], &data)?;
    }
    if wanted("free-text") {
        free_text(&data)?;
    }
    if wanted("speed") {
        speed(&sets[0])?;
    }
    Ok(())
}

fn clinc(data: &str) -> Outcome<Set> {
    let text = std::fs::read_to_string(format!("{data}/clinc150/data_train_val.json"))?;
    let mut parts: HashMap<String, Lines> = serde_json::from_str(&text)?;
    let mut take = |name: &str| parts.remove(name).ok_or(format!("there is no `{name}`"));
    let mut foreign = take("oos_train")?;
    foreign.extend(take("oos_val")?);
    Ok(Set { name: "CLINC150", train: take("train")?, ask: take("val")?, foreign })
}

fn banking(data: &str) -> Outcome<Set> {
    let text = std::fs::read_to_string(format!("{data}/banking77/train.csv"))?;
    // A record ends where its quotes are closed.
    let (mut lines, mut record) = (Vec::new(), String::new());
    for line in text.lines().skip(1) {
        record.push_str(line);
        record.push(' ');
        if record.matches('"').count() % 2 == 0 {
            if let Some((text, label)) = record.trim().rsplit_once(',') {
                lines.push((text.trim_matches('"').replace("\"\"", "\""), label.to_owned()));
            }
            record.clear();
        }
    }
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    lines.shuffle(&mut rng);
    let mut seen: HashMap<String, usize> = HashMap::new();
    let (mut train, mut ask) = (Vec::new(), Vec::new());
    for line in lines {
        let count = seen.entry(line.1.clone()).or_default();
        *count += 1;
        if *count <= 10 { ask.push(line) } else { train.push(line) }
    }
    Ok(Set { name: "BANKING77", train, ask, foreign: Vec::new() })
}

/// `each` random utterances a label, `noise` of them with a wrong one.
fn pick(train: &Lines, each: usize, noise: f64, seed: u64) -> Lines {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut labels: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    train.iter().for_each(|(text, label)| labels.entry(label).or_default().push(text));
    let names: Vec<&str> = labels.keys().copied().collect();
    let mut picked = Vec::new();
    for (label, mut texts) in labels {
        texts.shuffle(&mut rng);
        for text in texts.into_iter().take(each) {
            let wrong = rng.random::<f64>() < noise;
            let said = if wrong { names[rng.random_range(0..names.len())] } else { label };
            picked.push((text.to_owned(), said.to_owned()));
        }
    }
    picked.shuffle(&mut rng);
    picked
}

fn memory_of(lines: &Lines, config: Config) -> Outcome<Memory> {
    open(store_of(lines)?, config)
}

/// A store with an experience for each line.
fn store_of(lines: &Lines) -> Outcome<Arc<MemoryStore>> {
    let ids = Arc::new(SequentialIds::default());
    let experience = |(text, label): &(String, String)| Experience {
        id: ExperienceId::new(ids.next_uuid()),
        at: Timestamp(0),
        prompt: vec![ChatMessage::user(text.clone())],
        target: label.clone(),
        weight: 1.0,
        provenance: Provenance { verifier: "correction".into(), ..Provenance::default() },
        embedding: Vec::new(),
        cluster: ClusterId(0),
        held_out: false,
        task: None,
    };
    let store = Arc::new(MemoryStore::default());
    let events = lines.iter().map(|line| Event::Experience(Box::new(experience(line)))).collect();
    tokio::runtime::Builder::new_current_thread().build()?.block_on(store.append(events))?;
    Ok(store)
}

fn open(store: Arc<MemoryStore>, config: Config) -> Outcome<Memory> {
    let (clock, ids) = (Arc::new(ManualClock::default()), Arc::new(SequentialIds::default()));
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    Ok(runtime.block_on(Memory::open(store, Arc::new(words::Words(0)), clock, ids, config))?)
}

fn best(memory: &Memory, text: &str) -> Option<Recalled> {
    memory.recall_best(&[ChatMessage::user(text)], RecallOptions::default())
}

fn top1(memory: &Memory, ask: &Lines) -> f64 {
    let right = ask.iter().filter(|(text, label)| best(memory, text).is_some_and(|b| b.target == *label));
    100.0 * right.count() as f64 / ask.len() as f64
}

fn accuracy(set: &Set) -> Outcome<()> {
    say!("\n## {}: share of first choices that are right, 2% wrong labels in memory\n", set.name);
    say!("| a label | together | neighbours alone | panel alone |\n|---|---|---|---|");
    for each in [1, 3, 5, 10, 20, 40, 60] {
        let lines = pick(&set.train, each, 0.02, each as u64);
        let mut row = Vec::new();
        for panel_share in [Config::default().panel_share, 0.0, 1.0] {
            let memory = memory_of(&lines, Config { panel_share, ..Config::default() })?;
            row.push(format!("{:.1}", top1(&memory, &set.ask)));
        }
        say!("| {each} | {} |", row.join(" | "));
    }
    Ok(())
}

/// Prints answered, right of the answered, and answered of what no label fits, by confidence.
fn table(memory: &Memory, ask: &Lines, foreign: &Lines) -> Outcome<()> {
    let config = Config::default();
    let judge = |(text, label): &(String, String)| {
        let found = best(memory, text).filter(|b| b.similarity >= config.answer_similarity);
        found.filter(|b| b.margin >= config.answer_margin).map(|b| (b.confidence, b.target == *label))
    };
    let asked: Vec<_> = ask.iter().map(judge).collect();
    let others: Vec<_> = foreign.iter().map(judge).collect();
    say!("| confidence | answered % | right % of answered | right % of all | foreign answered % |");
    say!("|---|---|---|---|---|");
    for step in 0..=14 {
        let least = step as f32 * 0.05;
        let above: Vec<bool> = asked.iter().flatten().filter(|(c, _)| *c >= least).map(|(_, r)| *r).collect();
        let right = above.iter().filter(|right| **right).count() as f64;
        let wrongly = others.iter().flatten().filter(|(c, _)| *c >= least).count() as f64;
        say!(
            "| {least:.2} | {:.1} | {:.1} | {:.1} | {:.1} |",
            100.0 * above.len() as f64 / asked.len() as f64,
            100.0 * right / above.len().max(1) as f64,
            100.0 * right / asked.len() as f64,
            100.0 * wrongly / others.len().max(1) as f64
        );
    }
    Ok(())
}

fn curve(set: &Set, each: usize) -> Outcome<()> {
    say!("\n## {}: thresholds, {each} a label, 2% wrong labels\n", set.name);
    table(&memory_of(&pick(&set.train, each, 0.02, 5), Config::default())?, &set.ask, &set.foreign)
}

fn one_shot(set: &Set) -> Outcome<()> {
    say!("\n## {}: one experience a label, 5 draws of 200 queries\n", set.name);
    let mut rng = ChaCha8Rng::seed_from_u64(9);
    for draw in 0..5 {
        let memory = memory_of(&pick(&set.train, 1, 0.0, 100 + draw), Config::default())?;
        let mut ask = set.ask.clone();
        ask.shuffle(&mut rng);
        ask.truncate(200);
        say!("draw {draw}: {:.1}% right\n", top1(&memory, &ask));
        if draw == 0 {
            table(&memory, &set.ask, &set.foreign)?;
        }
    }
    Ok(())
}

fn parts(set: &Set) -> Outcome<()> {
    say!("\n## {}: settings, 60 a label, 2% wrong labels\n", set.name);
    let lines = pick(&set.train, 60, 0.02, 5);
    let few = pick(&set.train, 3, 0.02, 6);
    let standard = Config::default;
    let mut variants = vec![("defaults".to_owned(), standard())];
    for panel_share in [0.3, 0.5, 0.6, 0.8, 0.9] {
        variants.push((format!("panel_share {panel_share}"), Config { panel_share, ..standard() }));
    }
    for vote_power in [2.0, 3.0, 6.0, 8.0] {
        variants.push((format!("vote_power {vote_power}"), Config { vote_power, ..standard() }));
    }
    for neighbours in [8, 16, 40] {
        variants.push((format!("neighbours {neighbours}"), Config { neighbours, ..standard() }));
    }
    for (name, config) in variants {
        let many = top1(&memory_of(&lines, config.clone())?, &set.ask);
        let three = top1(&memory_of(&few, config)?, &set.ask);
        say!("{name}: {many:.1}% with 60, {three:.1}% with 3");
    }
    Ok(())
}

/// Half of the domains in memory, the other half asked: every answer is wrong.
fn unseen(set: &Set, data: &str) -> Outcome<()> {
    let text = std::fs::read_to_string(format!("{data}/clinc150/domains.json"))?;
    let domains: BTreeMap<String, Vec<String>> = serde_json::from_str(&text)?;
    let known: HashSet<&String> = domains.values().take(5).flatten().collect();
    let part = |lines: &Lines, wanted: bool| -> Lines {
        lines.iter().filter(|(_, label)| known.contains(label) == wanted).cloned().collect()
    };
    say!("\n## {}: five domains in memory, the other five are foreign\n", set.name);
    let memory = memory_of(&pick(&part(&set.train, true), 60, 0.02, 5), Config::default())?;
    table(&memory, &part(&set.ask, true), &part(&set.ask, false))
}

/// Every target unique: questions of grade-school arithmetic with their worked answers.
fn free_text(data: &str) -> Outcome<()> {
    let text = std::fs::read_to_string(format!("{data}/gsm8k/train.jsonl"))?;
    let mut lines = Vec::new();
    for line in text.lines() {
        let value: serde_json::Value = serde_json::from_str(line)?;
        let field = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
        lines.push((field("question"), field("answer")));
    }
    let foreign = lines.split_off(5_000);
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let mut worn = |share: f64| -> Lines {
        let wear = |text: &str, rng: &mut ChaCha8Rng| {
            text.split(' ').filter(|_| rng.random::<f64>() > share).collect::<Vec<_>>().join(" ")
        };
        lines.iter().step_by(10).map(|(q, a)| (wear(q, &mut rng), a.clone())).collect()
    };
    let (a_fifth, a_half) = (worn(0.2), worn(0.5));
    let memory = memory_of(&lines, Config::default())?;
    say!("\n## GSM8K: 5,000 questions with answers of their own\n");
    say!(
        "words left out: 20%: {:.1}% right; 50%: {:.1}% right\n",
        top1(&memory, &a_fifth),
        top1(&memory, &a_half)
    );
    table(&memory, &a_fifth, &foreign)
}

fn speed(set: &Set) -> Outcome<()> {
    say!("\n## Speed (embedding left out)\n");
    say!("| experiences | targets | open s | recall p50 ms | recall p99 ms | take in p50 ms |");
    say!("|---|---|---|---|---|---|");
    let mut rng = ChaCha8Rng::seed_from_u64(4);
    let mut mixed = || {
        let pick = |rng: &mut ChaCha8Rng| set.train[rng.random_range(0..set.train.len())].clone();
        let ((first, label), (second, _)) = (pick(&mut rng), pick(&mut rng));
        (format!("{first} and {second}"), label)
    };
    for (count, unique) in [(10_000, false), (10_000, true), (100_000, false), (100_000, true)] {
        let mut lines: Lines = (0..count).map(|_| mixed()).collect();
        if unique {
            lines.iter_mut().enumerate().for_each(|(n, line)| line.1 = format!("answer {n}"));
        }
        let store = store_of(&lines)?;
        let begin = Instant::now();
        let memory = open(store, Config::default())?;
        let opened = begin.elapsed().as_secs_f64();
        let mut times: Vec<f64> = (0..500)
            .map(|_| {
                let (text, _) = mixed();
                let begin = Instant::now();
                std::hint::black_box(best(&memory, &text));
                begin.elapsed().as_secs_f64() * 1e3
            })
            .collect();
        let mut taken: Vec<f64> = Vec::new();
        for _ in 0..50 {
            let begin = Instant::now();
            take_in(&memory, &mixed())?;
            taken.push(begin.elapsed().as_secs_f64() * 1e3);
        }
        times.sort_by(f64::total_cmp);
        taken.sort_by(f64::total_cmp);
        let targets = if unique { "unique" } else { "150" };
        let (middle, tail, taken) = (times[250], times[495], taken[25]);
        say!("| {count} | {targets} | {opened:.2} | {middle:.2} | {tail:.2} | {taken:.2} |");
    }
    Ok(())
}

/// One more experience, by the way of an import.
fn take_in(memory: &Memory, (text, label): &(String, String)) -> Outcome<()> {
    let line = serde_json::json!({
        "id": ExperienceId::new(autoglm_domain::SystemIds.next_uuid()), "at": 0, "target": label,
        "prompt": [{"role": "user", "content": text}], "weight": 1.0, "cluster": 0, "held_out": false,
        "provenance": {"interactions": [], "feedback": [], "principals": ["a"], "verifier": "correction"},
    });
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    runtime.block_on(memory.import(line.to_string().as_bytes(), false))?;
    Ok(())
}
