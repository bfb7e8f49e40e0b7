//! An engine whose versions answer by rule.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use autoglm_domain::*;
use autoglm_rollout::{AnswerCache, Gate, GateConfig, NormalisedMatch, Suites};
use futures::StreamExt as _;

/// What a version does with a prompt.
pub(crate) type Behaviour = Box<dyn Fn(&str) -> Result<String> + Send + Sync>;

/// An engine of rules. Prompts are `<kind> <number>`, right answers `right`.
pub(crate) struct RuleEngine {
    versions: BTreeMap<VersionNumber, Behaviour>,
    /// Answering takes this long.
    pub(crate) delay: Duration,
    /// Every request as it came: version, prompt, most tokens.
    pub(crate) requests: Mutex<Vec<(VersionNumber, String, Option<u32>)>>,
    now: AtomicUsize,
    /// Most requests that were in the engine at once.
    pub(crate) most_at_once: AtomicUsize,
}

impl RuleEngine {
    pub(crate) fn new(versions: Vec<(u64, Behaviour)>) -> Self {
        Self {
            versions: versions.into_iter().map(|(n, rule)| (VersionNumber(n), rule)).collect(),
            delay: Duration::ZERO,
            requests: Mutex::default(),
            now: AtomicUsize::new(0),
            most_at_once: AtomicUsize::new(0),
        }
    }

    pub(crate) fn asked(&self, version: u64) -> usize {
        self.requests.lock().unwrap().iter().filter(|(asked, ..)| asked.0 == version).count()
    }
}

#[async_trait::async_trait]
impl Generator for RuleEngine {
    async fn generate(&self, request: GenerationRequest) -> Result<GenerationStream> {
        assert_eq!(request.sampling.temperature, 0.0, "the gate asks greedily");
        let GenerationInput::Chat(messages) = &request.input else { panic!("the gate asks as a chat") };
        let prompt = messages[0].content.clone();
        self.requests.lock().unwrap().push((request.version, prompt.clone(), request.sampling.max_tokens));
        let rule = self
            .versions
            .get(&request.version)
            .ok_or_else(|| Error::not_found(format!("{} is not resident", request.version)))?;
        let at_once = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_at_once.fetch_max(at_once, Ordering::SeqCst);
        tokio::time::sleep(self.delay).await;
        tokio::task::yield_now().await;
        self.now.fetch_sub(1, Ordering::SeqCst);
        let text = rule(&prompt)?;
        if text == "never" {
            return Ok(futures::stream::pending().boxed());
        }
        Ok(futures::stream::iter([
            Ok(GenerationEvent::Text { text, logprobs: Vec::new() }),
            Ok(GenerationEvent::Done { finish_reason: FinishReason::Stop, usage: Usage::default() }),
        ])
        .boxed())
    }

    fn context_length(&self) -> u32 {
        64
    }

    fn count_tokens(&self, input: &GenerationInput) -> Result<u32> {
        let text = match input {
            GenerationInput::Chat(messages) | GenerationInput::ChatWithTools { messages, .. } => {
                messages.iter().map(|m| m.content.as_str()).collect()
            }
            GenerationInput::Text(text) => text.clone(),
        };
        Ok(text.split_whitespace().count() as u32)
    }
}

/// Right on all prompts of `kinds`, wrong elsewhere.
pub(crate) fn knows(kinds: &'static [&'static str]) -> Behaviour {
    Box::new(move |prompt| {
        let kind = prompt.split(' ').next().unwrap();
        Ok(if kinds.contains(&kind) { "Right." } else { "wrong" }.to_owned())
    })
}

/// `count` held-out experiences of `kind`, in the cluster `cluster`.
pub(crate) fn experiences(ids: &SequentialIds, kind: &str, cluster: u32, count: usize) -> Vec<Experience> {
    (0..count)
        .map(|number| Experience {
            id: Id::next(ids),
            at: Timestamp(0),
            prompt: vec![ChatMessage::user(format!("{kind} {number}"))],
            target: "right".into(),
            weight: 1.0,
            provenance: Provenance::default(),
            embedding: vec![1.0],
            cluster: ClusterId(cluster),
            held_out: true,
            task: Some(kind.to_owned()),
        })
        .collect()
}

/// 60 of `new`, 60 of `old`, which was learned before.
pub(crate) fn suites() -> Suites {
    let ids = SequentialIds::default();
    let mut all = experiences(&ids, "new", 1, 60);
    all.extend(experiences(&ids, "old", 2, 60));
    Suites::split(all, |experience| experience.task.as_deref() == Some("new"))
}

/// Gate parts that a test owns.
#[derive(Default)]
pub(crate) struct Bench {
    pub(crate) cache: AnswerCache,
    pub(crate) clock: ManualClock,
    pub(crate) config: GateConfig,
}

impl Bench {
    pub(crate) fn gate<'a>(&'a self, generator: &'a RuleEngine) -> Gate<'a> {
        Gate {
            generator,
            scorer: &NormalisedMatch,
            cache: &self.cache,
            clock: &self.clock,
            config: &self.config,
        }
    }
}
