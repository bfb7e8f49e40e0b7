//! A server process, its data directory, and requests to it.

use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

/// How long a start or a run may take on a slow machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Settings under which a training run takes a moment: three steps on little, held-out prompts from the beginning,
/// and a gate that decides on few of them.
pub(crate) const QUICK: [(&str, &str); 9] = [
    ("AUTOGLM_TRAIN__HYPER__STEPS", "3"),
    ("AUTOGLM_TRAIN__HYPER__BATCH_TOKENS", "128"),
    ("AUTOGLM_TRAIN__HYPER__RANK", "4"),
    ("AUTOGLM_TRAIN__CHECKPOINT_S", "0.02"),
    ("AUTOGLM_TRAIN__TRIGGERS__ENABLED", "false"),
    ("AUTOGLM_MEMORY__HELD_OUT_SHARE", "0.3"),
    ("AUTOGLM_ROLLOUT__GATE__MIN_NEW_SKILL_PAIRS", "1"),
    ("AUTOGLM_ROLLOUT__GATE__MAX_NEW_SKILL_PAIRS", "8"),
    ("AUTOGLM_ROLLOUT__GATE__MAX_CLUSTER_PAIRS", "8"),
];

/// The executable (`AUTOGLM_BINARY` names another, such as an optimised one) with nothing of this process's
/// environment but the way to other programs.
pub(crate) fn autoglm(arguments: &[&str]) -> Command {
    let binary = std::env::var("AUTOGLM_BINARY").unwrap_or_else(|_| env!("CARGO_BIN_EXE_autoglm").to_owned());
    let mut command = Command::new(binary);
    command.args(arguments).env_clear().stdin(Stdio::null()).current_dir(std::env::temp_dir());
    command.envs(["PATH", "TMPDIR"].into_iter().filter_map(|name| Some((name, std::env::var(name).ok()?))));
    command
}

/// What a command that ended said.
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// Runs a command to its end.
pub(crate) fn run(command: &mut Command) -> Ended {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ended { code: status.code(), out: text(stdout), err: text(stderr) }
}

/// Runs a command over a data directory and reads its JSON.
pub(crate) fn read_json(data: &Path, arguments: &[&str]) -> Value {
    let ended = run(autoglm(arguments).args(["--json", "--data-dir"]).arg(data));
    assert_eq!(ended.code, Some(0), "{arguments:?}: {}", ended.err);
    serde_json::from_str(&ended.out).unwrap()
}

/// A server process.
pub(crate) struct Server {
    pub(crate) base: String,
    pub(crate) data: PathBuf,
    pub(crate) http: reqwest::Client,
    child: Mutex<Child>,
    log: Arc<Mutex<String>>,
}

impl Server {
    /// Starts a server on `data` and waits until it answers.
    pub(crate) async fn start(data: &Path, variables: &[(&str, &str)]) -> Self {
        Self::spawn(data, variables).answering().await
    }

    /// Starts one that may not answer yet.
    pub(crate) fn spawn(data: &Path, variables: &[(&str, &str)]) -> Self {
        Self::of(autoglm(&["serve", "--listen", "127.0.0.1:0"]), data, variables)
    }

    /// Starts one at an address of its own.
    pub(crate) fn spawn_at(address: &str, data: &Path, variables: &[(&str, &str)]) -> Self {
        Self::of(autoglm(&["serve", "--listen", address]), data, variables)
    }

    /// Starts a demo, whose server answers others than its own users too.
    pub(crate) fn spawn_demo(data: &Path, variables: &[(&str, &str)]) -> Self {
        let mut command = autoglm(&["demo", "--minutes", "0.5", "--limit", "100", "--serve", "--out"]);
        command.arg(data.with_extension("report"));
        Self::of(command, data, variables)
    }

    fn of(mut command: Command, data: &Path, variables: &[(&str, &str)]) -> Self {
        command
            .arg("--data-dir")
            .arg(data)
            .envs(variables.iter().copied())
            .stderr(Stdio::piped())
            .stdout(Stdio::null());
        let mut child = command.spawn().unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let (lines, seen) = (BufReader::new(child.stderr.take().unwrap()), Arc::clone(&log));
        std::thread::spawn(move || {
            for line in lines.lines().map_while(Result::ok) {
                *seen.lock().unwrap() += &(line + "\n");
            }
        });
        let http = reqwest::Client::builder().timeout(PATIENCE).build().unwrap();
        Self { base: String::new(), data: data.to_owned(), http, child: Mutex::new(child), log }
    }

    /// Waits until it answers.
    pub(crate) async fn answering(mut self) -> Self {
        let begin = Instant::now();
        loop {
            let log = self.log();
            if let Some((_, rest)) = log.split_once(" answers at ") {
                self.base = rest.split("/v1").next().unwrap().to_owned();
                return self;
            }
            assert!(self.child.lock().unwrap().try_wait().unwrap().is_none(), "the server ended: {log}");
            assert!(begin.elapsed() < PATIENCE, "the server does not start: {log}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// What it has logged so far.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// `kill -9`, and gone when this returns.
    pub(crate) fn kill(&self) {
        let mut child = self.child.lock().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Waits until it ends by itself; its exit code.
    pub(crate) fn ended(&self) -> Option<i32> {
        self.child.lock().unwrap().wait().unwrap().code()
    }

    /// Asks it to end and waits until it has, in good order.
    pub(crate) fn stop(self) {
        let mut child = self.child.lock().unwrap();
        let told = Command::new("kill").arg(child.id().to_string()).status().unwrap();
        assert!(told.success());
        let status = child.wait().unwrap();
        assert_eq!(status.code(), Some(0), "{}", self.log());
    }

    /// `POST`; status and body.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> reqwest::Result<(u16, Value)> {
        let response = self.http.post(format!("{}{path}", self.base)).json(body).send().await?;
        Ok((response.status().as_u16(), response.json().await?))
    }

    /// `POST` that must succeed.
    pub(crate) async fn order(&self, path: &str, body: Value) -> Value {
        let (status, answer) = self.post(path, &body).await.unwrap();
        assert_eq!(status, 200, "{path}: {answer}");
        answer
    }

    /// An answer: its id and its text.
    pub(crate) async fn ask(&self, model: &str, prompt: &str) -> (String, String) {
        let answer = self.order("/v1/chat/completions", question(model, prompt)).await;
        let text = answer.pointer("/choices/0/message/content").unwrap().as_str().unwrap();
        (answer["id"].as_str().unwrap().to_owned(), text.to_owned())
    }

    /// Corrects an answer; the feedback's id.
    pub(crate) async fn correct(&self, id: &str, correction: &str) -> String {
        let told = self.order("/v1/feedback", json!({"id": id, "correction": correction})).await;
        told["id"].as_str().unwrap().to_owned()
    }

    /// The status page.
    pub(crate) async fn status(&self) -> Value {
        let response = self.http.get(format!("{}/v1/autoglm/status", self.base)).send().await.unwrap();
        response.json().await.unwrap()
    }

    /// Waits until nothing is assessed, trained or judged.
    pub(crate) async fn idle(&self) -> Value {
        let begin = Instant::now();
        let mut calm = 0;
        loop {
            let status = self.status().await;
            let busy = status["activity"]["learning"] == true || status["assessment_lag"] != 0;
            calm = if busy { 0 } else { calm + 1 };
            // The loop looks at the store twice a second; it is idle when several looks in a row find it so.
            if calm == 4 {
                return status;
            }
            assert!(begin.elapsed() < PATIENCE, "never idle: {status}\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Corrects `count` questions, so that there is something to learn; ids of the answers.
    pub(crate) async fn teach(&self, count: usize) -> Vec<String> {
        const WORDS: [&str; 4] = ["balance", "weather", "flight", "recipe"];
        let mut ids = Vec::with_capacity(count);
        for number in 0..count {
            let word = WORDS[number % WORDS.len()];
            let (id, _) = self.ask("champion", &format!("question {number} about {word}")).await;
            self.correct(&id, word).await;
            ids.push(id);
        }
        ids
    }

    /// Orders a training run and waits until it and its rollout have ended; the run's id.
    pub(crate) async fn train(&self) -> String {
        let ordered = self.order("/v1/autoglm/train", json!({"reason": "test"})).await;
        self.idle().await;
        ordered["id"].as_str().unwrap().to_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A test that failed leaves nothing running.
        if let Ok(child) = self.child.get_mut() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A short question.
pub(crate) fn question(model: &str, prompt: &str) -> Value {
    json!({"model": model, "messages": [{"role": "user", "content": prompt}], "max_tokens": 8})
}
