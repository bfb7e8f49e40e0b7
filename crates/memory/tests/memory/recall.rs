//! What is recalled.

use autoglm_domain::{ChatMessage, Store as _};
use autoglm_memory::{Config, Recall, RecallMode, RecallOptions};

use crate::Bench;

const LINES: [(&str, &str); 8] = [
    ("how much money is in my account", "balance"),
    ("show me my account balance", "balance"),
    ("will it rain in paris tomorrow", "weather"),
    ("what is the weather in london", "weather"),
    ("wake me up at seven", "alarm"),
    ("set an alarm for six o'clock", "alarm"),
    ("freeze my credit card now", "freeze"),
    ("i want to freeze my account", "freeze"),
];

async fn taught(config: Config) -> Bench {
    let bench = Bench::new(config).await;
    for (prompt, target) in LINES {
        bench.correct(prompt, target, "a").await;
    }
    bench
}

fn asked(text: &str) -> [ChatMessage; 1] {
    [ChatMessage::user(text)]
}

#[tokio::test]
async fn a_request_without_a_task_belongs_to_the_nearest_cluster() {
    let bench = Bench::new(Config::default()).await;
    assert_eq!(bench.memory.cluster_of(None, &asked(LINES[0].0)), None, "there is none yet");
    let bench = taught(Config::default()).await;
    for experience in bench.memory.effective() {
        assert_eq!(bench.memory.cluster_of(None, &experience.prompt), Some(experience.cluster));
    }
    assert_eq!(bench.memory.cluster_of(None, &[]), None);
}

#[tokio::test]
async fn a_correction_answers_paraphrases_at_once_and_nonsense_is_left_to_the_weights() {
    let bench = taught(Config::default()).await;
    let answer = |text: &str| {
        bench.memory.recall_answer(&asked(text), RecallOptions::default()).map(|found| found.target)
    };
    assert_eq!(answer("what's the weather in paris").as_deref(), Some("weather"));
    assert_eq!(answer("please freeze my card").as_deref(), Some("freeze"));
    assert_eq!(answer("qwerty zxcvb"), None);
    assert_eq!(answer("translate hello into italian"), None);
    assert_eq!(answer("how do i say hello in italian"), None);
    bench.correct("translate hello into italian", "translate", "a").await;
    assert_eq!(answer("translate goodbye into italian").as_deref(), Some("translate"));
}

#[tokio::test]
async fn a_restart_recalls_the_same() {
    let bench = taught(Config::default()).await;
    let queries = ["weather in paris", "alarm at six", "my account balance", "freeze the card"];
    let found = |bench: &Bench| {
        queries.map(|q| bench.memory.recall_best(&asked(q), RecallOptions::default()).unwrap().target)
    };
    let before = found(&bench);
    assert_eq!(before, ["weather", "alarm", "balance", "freeze"]);
    let clusters = |bench: &Bench| {
        bench.memory.effective().iter().map(|e| (e.id, e.cluster, e.held_out)).collect::<Vec<_>>()
    };
    let (clusters_before, stats) = (clusters(&bench), bench.memory.stats());
    let bench = bench.restart().await;
    assert_eq!((found(&bench), clusters(&bench), bench.memory.stats()), (before, clusters_before, stats));
}

#[tokio::test]
async fn another_system_prompt_is_another_world_and_other_turns_lower_the_similarity() {
    let bench = taught(Config::default()).await;
    let text = "show me the balance of my account";
    let plain = bench.memory.recall_best(&asked(text), RecallOptions::default()).unwrap();
    let system = [ChatMessage::system("you are a pirate"), ChatMessage::user(text)];
    assert_eq!(bench.memory.recall_best(&system, RecallOptions::default()), None);
    let later = [ChatMessage::user("hi"), ChatMessage::assistant("hello"), ChatMessage::user(text)];
    let later = bench.memory.recall_best(&later, RecallOptions::default()).unwrap();
    assert_eq!(later.target, plain.target);
    assert!((later.similarity - 0.7 * plain.similarity).abs() < 1e-5);
    // Word for word the same turn in another conversation is not the same prompt.
    let same =
        [ChatMessage::user("hi"), ChatMessage::assistant("hello"), ChatMessage::user("wake me up at seven")];
    assert!(bench.memory.recall_best(&same, RecallOptions::default()).unwrap().similarity < 1.0);
}

#[tokio::test]
async fn held_out_experiences_answer_users_but_not_measurements() {
    let bench = Bench::new(Config { held_out_share: 0.5, ..Config::default() }).await;
    for n in 0..40 {
        bench.correct(&format!("question number{n}"), &format!("answer{n}"), "a").await;
    }
    let held_out: Vec<_> = bench.memory.held_out().into_values().flatten().collect();
    assert!((10..=30).contains(&held_out.len()), "{}", held_out.len());
    let measured = RecallOptions { held_out: false };
    for experience in held_out {
        assert!(experience.held_out);
        let live = bench.memory.recall_best(&experience.prompt, RecallOptions::default()).unwrap();
        assert_eq!((live.similarity, live.experience.id), (1.0, experience.id));
        let best = bench.memory.recall_best(&experience.prompt, measured);
        assert!(best.is_none_or(|best| !best.experience.held_out && best.target != experience.target));
        let examples = bench.memory.recall_examples(&experience.prompt, 8, measured);
        assert!(examples.iter().all(|example| !example.experience.held_out));
    }
    assert!(bench.memory.training_pool().iter().all(|experience| !experience.held_out));
}

#[tokio::test]
async fn the_mode_decides_what_is_handed_out() {
    let off = taught(Config { recall: RecallMode::Off, ..Config::default() }).await;
    assert_eq!(off.memory.recall(&asked("wake me up at seven")), Recall::Nothing);
    let examples = taught(Config { recall: RecallMode::Examples, examples: 2, ..Config::default() }).await;
    let Recall::Examples(found) = examples.memory.recall(&asked("is there rain in london tomorrow")) else {
        panic!("no examples");
    };
    assert_eq!(found.iter().map(|found| found.target.as_str()).collect::<Vec<_>>(), ["weather"; 2]);
    assert!(found[0].similarity >= found[1].similarity);
    let answer = taught(Config::default()).await;
    let Recall::Answer(found) = answer.memory.recall(&asked("Wake me up at seven!")) else {
        panic!("no answer");
    };
    assert_eq!((found.target.as_str(), found.similarity, found.confidence), ("alarm", 1.0, 1.0));
    assert_eq!(answer.memory.recall(&[]), Recall::Nothing);
}

#[tokio::test]
async fn without_embeddings_words_alone_recall() {
    let bench = taught(Config { embedding_share: 0.0, ..Config::default() }).await;
    let found = bench.memory.recall_best(&asked("rain in london"), RecallOptions::default()).unwrap();
    assert_eq!(found.target, "weather");
}

#[tokio::test]
async fn what_another_process_remembered_is_recalled_alike_and_taking_it_up_again_changes_nothing() {
    let bench = taught(Config::default()).await;
    let other = bench.beside().await;
    let known = bench.store.events_after(0, 1000).await.unwrap().len() as i64;
    // Two people change what is believed of a prompt: an experience is made, and others are amended.
    bench.correct("wake me up at seven", "reminder", "b").await;
    bench.correct("wake me up at seven", "reminder", "c").await;
    bench.correct("play some jazz", "music", "a").await;
    assert_eq!(bench.answer("wake me up at seven").as_deref(), Some("reminder"));
    assert_eq!(other.answer("wake me up at seven").as_deref(), Some("alarm"));
    assert_eq!(other.answer("play some jazz"), None);
    let news = || async {
        let events = bench.store.events_after(known, 1000).await.unwrap();
        events.into_iter().map(|recorded| recorded.event).collect::<Vec<_>>()
    };
    let written = news().await.len();
    for _ in 0..2 {
        other.memory.take_up(news().await).await.unwrap();
        for prompt in ["wake me up at seven", "play some jazz", "how much money is in my account"] {
            assert_eq!(other.answer(prompt), bench.answer(prompt), "{prompt}");
        }
        assert_eq!(other.memory.stats(), bench.memory.stats());
        assert_eq!(other.memory.effective(), bench.memory.effective());
    }
    assert_eq!(news().await.len(), written, "taking up wrote something");
}
