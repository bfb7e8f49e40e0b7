//! `kill -9` at random moments: what was acknowledged is there, nothing is half done, the loop goes on.

use std::{
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use crate::{
    ledger::{Ledger, Totals},
    server::{QUICK, Server, question},
};

const SEED: u64 = 20_261_124;
/// Clients that ask and correct without a pause.
const CLIENTS: u64 = 3;
/// Kills in an ordinary test run; `AUTOGLM_KILLS` names another number.
const KILLS: u64 = 5;

fn kills() -> u64 {
    std::env::var("AUTOGLM_KILLS").map_or(KILLS, |kills| kills.parse().unwrap())
}

/// The demo plays its tasks, trains and judges, while three more clients ask and correct; it is killed and played
/// again over the same data.
#[tokio::test(flavor = "multi_thread")]
async fn a_running_demo_can_be_killed_at_any_moment() {
    let kills = kills();
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut rng = ChaCha8Rng::seed_from_u64(SEED + 1);
    let mut ledger = Ledger::default();
    let begin = Instant::now();
    for round in 0..kills {
        let demo = Arc::new(Server::spawn_demo(&data, &QUICK).answering().await);
        let moment = Duration::from_millis(rng.random_range(50..6000));
        ledger.acknowledged(drive_until_killed(demo, round, moment).await);
        kept(&data, &mut ledger, round, kills, begin).await;
    }
    the_loop_goes_on(&data, &mut ledger).await;
    survived(kills, begin, &ledger.check_whole(&data, true).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_and_nothing_is_half_done() {
    let kills = kills();
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut rng = ChaCha8Rng::seed_from_u64(SEED);
    let mut ledger = Ledger::default();
    let begin = Instant::now();
    for round in 0..kills {
        // One kill in eight falls into the start itself, when the last crash is being mended.
        if round % 8 == 3 {
            let starting = Server::spawn(&data, &QUICK);
            tokio::time::sleep(Duration::from_millis(rng.random_range(0..600))).await;
            starting.kill();
            ledger.check(&data).await;
            continue;
        }
        let server = Arc::new(Server::start(&data, &QUICK).await);
        ledger.check(&data).await;
        if round % 4 == 2 {
            // Everything that was cut short is mended or done again.
            server.idle().await;
            ledger.check_whole(&data, true).await;
        }
        let moment = Duration::from_millis(rng.random_range(50..2500));
        ledger.acknowledged(drive_until_killed(server, round, moment).await);
        kept(&data, &mut ledger, round, kills, begin).await;
    }
    the_loop_goes_on(&data, &mut ledger).await;
    survived(kills, begin, &ledger.check_whole(&data, true).await);
}

/// What was acknowledged before the kill that ended `round` is there, and nothing is half written.
async fn kept(data: &Path, ledger: &mut Ledger, round: u64, kills: u64, begin: Instant) {
    ledger.check(data).await;
    ledger.check_whole(data, false).await;
    if kills > KILLS {
        println!("kill {} of {kills}, {:.0} s", round + 1, begin.elapsed().as_secs_f64());
    }
}

fn survived(kills: u64, begin: Instant, totals: &Totals) {
    println!("{kills} kills in {:.0} s: {totals:?}", begin.elapsed().as_secs_f64());
    assert!(totals.acknowledged as u64 > kills, "hardly anything was acknowledged: {totals:?}");
}

/// Asks, corrects and orders runs until the server is killed after `moment`; ids that were acknowledged.
async fn drive_until_killed(server: Arc<Server>, round: u64, moment: Duration) -> Vec<String> {
    let acknowledged = Arc::new(Mutex::new(Vec::new()));
    let stop = Arc::new(AtomicBool::new(false));
    let mut clients = tokio::task::JoinSet::new();
    for client in 0..CLIENTS {
        let (server, acknowledged) = (Arc::clone(&server), Arc::clone(&acknowledged));
        let mut rng = ChaCha8Rng::seed_from_u64(SEED ^ (round << 8) ^ client);
        clients
            .spawn(async move { while ask_and_correct(&server, &mut rng, &acknowledged).await.is_some() {} });
    }
    let (trainer, stopped) = (Arc::clone(&server), Arc::clone(&stop));
    clients.spawn(async move {
        while !stopped.load(Ordering::Acquire) {
            // Refused while a run is under way or nothing is new; that is no matter here.
            let _ = trainer.post("/v1/autoglm/train", &json!({})).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    tokio::time::sleep(moment).await;
    server.kill();
    stop.store(true, Ordering::Release);
    clients.join_all().await;
    Arc::into_inner(acknowledged).unwrap().into_inner().unwrap()
}

/// One answer, every third of them streamed, and feedback on more than half. `None` once the server is gone.
async fn ask_and_correct(
    server: &Server,
    rng: &mut ChaCha8Rng,
    acknowledged: &Mutex<Vec<String>>,
) -> Option<()> {
    const WORDS: [&str; 4] = ["balance", "weather", "flight", "recipe"];
    let number: usize = rng.random_range(0..400);
    let word = WORDS[number % WORDS.len()];
    let mut body = question("champion", &format!("question {number} about {word}"));
    let id = if rng.random_bool(1.0 / 3.0) {
        body["stream"] = true.into();
        streamed(server, &body).await?
    } else {
        let (status, answer) = server.post("/v1/chat/completions", &body).await.ok()?;
        assert_eq!(status, 200, "{answer}");
        answer["id"].as_str().unwrap().to_owned()
    };
    acknowledged.lock().unwrap().push(id.clone());
    if rng.random_bool(0.6) {
        let (status, told) =
            server.post("/v1/feedback", &json!({"id": id, "correction": word})).await.ok()?;
        assert_eq!(status, 200, "{told}");
        acknowledged.lock().unwrap().push(told["id"].as_str().unwrap().to_owned());
    }
    Some(())
}

/// A streamed answer's id, once its end was read.
async fn streamed(server: &Server, body: &Value) -> Option<String> {
    let url = format!("{}/v1/chat/completions", server.base);
    let text = server.http.post(url).json(body).send().await.ok()?.text().await.ok()?;
    if !text.ends_with("data: [DONE]\n\n") {
        return None;
    }
    let first = text.lines().find_map(|line| line.strip_prefix("data: "))?;
    let first: Value = serde_json::from_str(first).unwrap();
    Some(first["id"].as_str().unwrap().to_owned())
}

/// After the last kill: a correction still changes the answer, and a run can be ordered and ends.
async fn the_loop_goes_on(data: &Path, ledger: &mut Ledger) {
    let server = Server::start(data, &QUICK).await;
    ledger.check(data).await;
    server.idle().await;
    ledger.check_whole(data, true).await;
    let asked = "how do I reach the moon by bicycle";
    let (id, _) = server.ask("champion", asked).await;
    let feedback = server.correct(&id, "space travel").await;
    ledger.acknowledged(vec![id, feedback]);
    let corrected = Instant::now();
    while server.ask("champion", asked).await.1 != "space travel" {
        assert!(
            corrected.elapsed() < Duration::from_secs(20),
            "the correction changed nothing\n{}",
            server.log()
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    server.teach(4).await;
    let run = server.train().await;
    let status = server.status().await;
    let ended = status["runs"].as_array().unwrap().iter().find(|it| it["id"] == run.as_str()).unwrap();
    assert_eq!(ended["state"], "succeeded", "{ended}");
    server.stop();
    ledger.check(data).await;
}
