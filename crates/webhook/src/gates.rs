//! Questions to other systems at the doors of a rollout.
//!
//! To a confirmation, 200 is yes, 403 and 409 are no. To `rollback`, 200 with `{"rollback": true}` is yes. Everything
//! else, and silence, is no answer, which lets nothing pass and takes nobody down.

use std::{sync::Arc, time::Duration};

use autoglm_domain::{Clock, Gatekeeper, Inquiry, Question, Say};
use serde::Deserialize;
use serde_json::json;

use crate::{
    Config, GateConfig, Result, Secret,
    post::{Answer, Post},
};

/// Most characters of a hook's reason that are kept.
const MAX_REASON: usize = 500;

/// Everybody who is asked.
pub struct Gates(Vec<Gate>);

struct Gate {
    name: String,
    questions: Vec<Question>,
    post: Post,
}

/// The body of an answer, as far as it matters.
#[derive(Debug, Default, Deserialize)]
struct Words {
    #[serde(default)]
    rollback: bool,
    #[serde(default)]
    reason: Option<String>,
}

impl Gates {
    /// The gates of `config`. `Invalid` when a secret is not there.
    pub fn new(config: &Config, clock: &Arc<dyn Clock>) -> Result<Self> {
        let gate = |(name, gate): (&String, &GateConfig)| {
            let key = format!("gates.{name}");
            let secret = Secret::load(&key, &gate.secret_env, &gate.secret_file)?;
            let timeout = Duration::from_millis(gate.timeout_ms);
            let post = Post::new(&key, &gate.url, secret, timeout, Arc::clone(clock))?;
            Ok(Gate { name: name.clone(), questions: gate.questions.clone(), post })
        };
        config.gates.iter().map(gate).collect::<Result<_>>().map(Self)
    }
}

#[async_trait::async_trait]
impl Gatekeeper for Gates {
    fn is_asked(&self, question: Question) -> bool {
        self.0.iter().any(|gate| gate.questions.contains(&question))
    }

    /// One after another by name. The first no decides; without one, the first that gave no answer.
    async fn ask(&self, inquiry: &Inquiry) -> Say {
        let mut said = Say::GoOn;
        for gate in self.0.iter().filter(|gate| gate.questions.contains(&inquiry.question)) {
            match gate.ask(inquiry).await {
                Say::GoOn => {}
                refused @ Say::Refused { .. } => return refused,
                later @ Say::Later { .. } if said == Say::GoOn => said = later,
                Say::Later { .. } => {}
            }
        }
        said
    }
}

impl Gate {
    async fn ask(&self, inquiry: &Inquiry) -> Say {
        let rollout = &inquiry.rollout;
        let body = json!({
            "question": inquiry.question, "rollout": rollout.id,
            "candidate": rollout.candidate.to_string(), "champion": rollout.champion.to_string(),
            "stage": inquiry.stage, "reason": inquiry.reason,
        });
        let delivery = format!("{}-{}", inquiry.question, rollout.id);
        let later = |what: String| Say::Later { reason: format!("`{}` {what}", self.name) };
        let said = match self.post.send(&delivery, &body.to_string()).await {
            Ok(answer) => said(inquiry.question, &answer),
            Err(reason) => return later(format!("did not answer: {reason}")),
        };
        match said {
            Said::Yes => Say::GoOn,
            Said::No(reason) => Say::Refused { by: self.name.clone(), reason },
            Said::Nothing => later("answered neither yes nor no".into()),
            Said::Status(status) => later(format!("answered {status}")),
        }
    }
}

/// What an answer means.
#[derive(Debug, PartialEq)]
enum Said {
    Yes,
    No(String),
    Nothing,
    Status(u16),
}

fn said(question: Question, answer: &Answer) -> Said {
    let words = serde_json::from_slice::<Words>(&answer.body);
    let reason = || {
        let plain = String::from_utf8_lossy(&answer.body);
        let given = words.as_ref().ok().and_then(|words| words.reason.clone());
        let text = given.unwrap_or_else(|| if words.is_ok() { String::new() } else { plain.into_owned() });
        let text: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
        if text.is_empty() { "without a reason".into() } else { text.chars().take(MAX_REASON).collect() }
    };
    match (question, answer.status, &words) {
        (Question::Rollback, 200, Ok(words)) if words.rollback => Said::No(reason()),
        (Question::Rollback, 200, Ok(_)) => Said::Yes,
        (Question::Rollback, 200, Err(_)) => Said::Nothing,
        (_, 200, _) => Said::Yes,
        (Question::ConfirmRollout | Question::ConfirmPromotion, 403 | 409, _) => Said::No(reason()),
        (_, status, _) => Said::Status(status),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(question: Question, status: u16, body: &str) -> Said {
        said(question, &Answer { status, body: body.into() })
    }

    #[test]
    fn only_a_plain_yes_is_one_and_nothing_else_promotes() {
        let confirm = Question::ConfirmPromotion;
        assert_eq!(read(confirm, 200, ""), Said::Yes);
        for status in [201, 202, 204, 301, 400, 401, 404, 429, 500, 503] {
            assert_eq!(read(confirm, status, r#"{"reason": "x"}"#), Said::Status(status));
        }
        assert_eq!(read(confirm, 403, r#"{"reason": "not  on\nFriday"}"#), Said::No("not on Friday".into()));
        assert_eq!(read(Question::ConfirmRollout, 409, "frozen"), Said::No("frozen".into()));
        assert_eq!(read(confirm, 409, "{}"), Said::No("without a reason".into()));
        let Said::No(long) = read(confirm, 403, &"x".repeat(9000)) else { unreachable!() };
        assert_eq!(long.len(), MAX_REASON);
    }

    #[test]
    fn a_rollback_is_asked_for_in_so_many_words() {
        let rollback = Question::Rollback;
        assert_eq!(
            read(rollback, 200, r#"{"rollback": true, "reason": "tickets"}"#),
            Said::No("tickets".into())
        );
        assert_eq!(read(rollback, 200, r#"{"rollback": false}"#), Said::Yes);
        assert_eq!(read(rollback, 200, "{}"), Said::Yes);
        assert_eq!(read(rollback, 200, "fine"), Said::Nothing);
        assert_eq!(read(rollback, 409, r#"{"rollback": true}"#), Said::Status(409));
    }
}
