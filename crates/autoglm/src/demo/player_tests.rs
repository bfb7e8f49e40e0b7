use super::*;
use crate::demo::{
    client::Source,
    doubles::{ByHeart, stream},
    options::tests::parse,
};

fn fast() -> PhasePlan {
    let now = Instant::now();
    let later = now + Duration::from_secs(60);
    PhasePlan { pace: 10_000.0, traffic_deadline: later, end: later }
}

async fn played(server: ByHeart, arguments: &[&str]) -> (Arc<ByHeart>, Player) {
    let options = parse(arguments);
    let (double, server) = server.start().await;
    let stream = Arc::new(stream(2, 100));
    let player = Player::new(Client::new(&server.base_url).unwrap(), stream, &options);
    player.play(0, &fast(), &|_| {}).await;
    player.play(1, &fast(), &|_| {}).await;
    (double, player)
}

#[tokio::test]
async fn every_utterance_is_asked_once_in_the_api_form_and_feedback_names_the_answer() {
    let (double, player) = played(ByHeart::deaf(), &["--recall", "off"]).await;
    let mut asked: Vec<_> = double.bodies().iter().map(|b| b["messages"][0]["content"].to_string()).collect();
    asked.sort();
    asked.dedup();
    assert_eq!(asked.len(), 200);
    let first = double.bodies().into_iter().find(|body| body["messages"][0]["content"] == "t0 n0").unwrap();
    assert_eq!(
        first,
        serde_json::json!({
            "model": "champion", "max_tokens": 24, "metadata": {"task": "t0"},
            "messages": [{"role": "user", "content": "t0 n0"}],
        })
    );
    player.tally(|tally| {
        assert_eq!((tally.requests, tally.failed, tally.records.len()), (200, 0, 200));
        assert_eq!(tally.feedback as usize, double.feedback().len());
        // Of 200 answers 60% get feedback: 120, give or take three standard deviations.
        assert!((99..=141).contains(&tally.feedback), "{}", tally.feedback);
        assert!(tally.records.iter().all(|record| record.source == Source::Weights && !record.right));
        assert!(tally.records.iter().all(|record| record.version.map(|v| v.0) == Some(0)));
    });
    assert!(double.feedback().iter().all(|body| body["id"].as_str().unwrap().starts_with("chatcmpl-")));
}

#[tokio::test]
async fn a_correction_is_asked_again_until_it_counts() {
    let (_, player) = played(ByHeart::default(), &["--feedback-share", "1", "--noise", "0"]).await;
    player.tally(|tally| {
        // Utterances 0, 25, …, 175.
        assert_eq!(tally.corrections.len(), 8);
        assert!(tally.corrections.iter().all(Option::is_some));
        assert_eq!(tally.requests, 208);
    });
}

#[tokio::test]
async fn a_correction_that_never_counts_is_reported_as_such() {
    let server = ByHeart::deaf();
    let (_, player) = played(server, &["--feedback-share", "1", "--noise", "0"]).await;
    player.tally(|tally| assert_eq!(tally.corrections, vec![None; 8]));
}

#[tokio::test]
async fn failed_requests_are_counted_and_told() {
    let server = ByHeart::failing_every(10);
    let (_, player) = played(server, &["--recall", "off"]).await;
    player.tally(|tally| {
        assert_eq!((tally.requests, tally.failed, tally.records.len()), (200, 20, 180));
        assert_eq!(tally.failures[0], "/v1/chat/completions: 503: no room");
    });
}

#[tokio::test]
async fn a_server_that_is_not_there_fails_every_request_with_a_cause() {
    let client = Client::new("http://127.0.0.1:9/v1").unwrap();
    let player = Player::new(client, Arc::new(stream(1, 3)), &parse(&[]));
    player.play(0, &fast(), &|_| {}).await;
    player.tally(|tally| {
        assert_eq!((tally.failed, tally.records.len()), (3, 0));
        assert!(tally.failures[0].contains("refused"), "{}", tally.failures[0]);
    });
}

#[tokio::test]
async fn what_is_not_sent_in_time_is_left_and_counted() {
    let (_, server) = ByHeart::default().start().await;
    let player = Player::new(Client::new(&server.base_url).unwrap(), Arc::new(stream(1, 100)), &parse(&[]));
    let now = Instant::now();
    let plan = PhasePlan { pace: 100.0, traffic_deadline: now + Duration::from_millis(200), end: now };
    player.play(0, &plan, &|_| {}).await;
    player.tally(|tally| {
        assert_eq!(tally.unsent + tally.records.len() as u64, 100);
        // At 100 a second, 20 are due before the deadline; a busy machine begins fewer.
        assert!((1..=21).contains(&tally.records.len()), "{}", tally.records.len());
    });
    assert!(now.elapsed() < Duration::from_secs(20));
}

#[tokio::test]
async fn the_trickle_goes_on_exactly_as_long_as_the_work() {
    let (double, server) = ByHeart::default().start().await;
    let player = Player::new(Client::new(&server.base_url).unwrap(), Arc::new(stream(2, 10)), &parse(&[]));
    player.meanwhile(1, tokio::time::sleep(Duration::from_millis(900))).await;
    let asked = double.bodies();
    // Five a second: at 0, 0.2, 0.4, 0.6 and 0.8 s; a busy machine asks less often.
    assert!((1..=6).contains(&asked.len()), "{}", asked.len());
    assert!(asked.iter().all(|body| body["metadata"]["task"] == "t0"));
    assert!(double.feedback().is_empty());
    player.tally(|tally| assert_eq!((tally.requests as usize, tally.records.len()), (asked.len(), 0)));
}
