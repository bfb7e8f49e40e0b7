//! A judge compares the answers of pairs, off the path of any request: another server, asked twice with the answers'
//! places swapped.
//!
//! A pair that finds the queue full, or whose judge fails, stays unjudged, and nothing else happens. How far the judge
//! agrees with people's labels is found out once, and its verdicts count in a rollout only where that is enough; they
//! are on record either way.

use std::{sync::Arc, time::Duration};

use autoglm_domain::{
    ChatMessage, Clock, Error, Interaction, InteractionId, JudgeStanding, Result, ShadowPair, VersionNumber,
};
use autoglm_evaluate::{Agreement, GeneratorJudge, JudgeConfig, Labelled, agreement_with, prefer};
use autoglm_upstream::Upstream;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc};

use super::{Parts, answering};
use crate::settings::Settings;

/// Between two tries to hold the judge to the labels.
const RETRY: Duration = Duration::from_secs(30);

/// A judge that is set up; none where no server is named.
pub(crate) struct Judging {
    judge: Option<GeneratorJudge>,
    config: JudgeConfig,
    labels: Vec<Labelled>,
    queue: mpsc::Sender<Question>,
    waiting: Mutex<Option<mpsc::Receiver<Question>>>,
    standing: Mutex<Option<JudgeStanding>>,
}

/// A pair to be judged.
struct Question {
    interaction: InteractionId,
    conversation: Vec<ChatMessage>,
    champion: String,
    candidate: String,
}

impl Judging {
    /// The judge of the settings. `Invalid` when the labels cannot be read.
    pub(super) fn open(settings: &Settings, clock: &Arc<dyn Clock>, seed: u64) -> Result<Self> {
        let config = settings.evaluate.judge.clone();
        let (queue, waiting) = mpsc::channel(config.queue.max(1));
        let labels = match (&config.labels, config.is_set()) {
            (Some(path), true) => read_labels(path)?,
            _ => Vec::new(),
        };
        Ok(Self {
            judge: judge(&config, clock, seed)?,
            config,
            labels,
            queue,
            waiting: Mutex::new(Some(waiting)),
            standing: Mutex::default(),
        })
    }

    /// Whether there is a judge.
    pub(crate) fn is_set(&self) -> bool {
        self.judge.is_some()
    }

    /// Returns at once. Whether the pair will be judged, unless the judge fails.
    pub(super) fn offer(&self, pair: &ShadowPair, request: &Interaction) -> bool {
        let worth_it = pair.candidate.error.is_none()
            && pair.champion.error.is_none()
            && pair.candidate.tool_calls.is_empty()
            && pair.champion.tool_calls.is_empty();
        if self.judge.is_none() || !worth_it || !is_sampled(pair.interaction, self.config.share) {
            return false;
        }
        let question = Question {
            interaction: pair.interaction,
            conversation: request.messages.clone(),
            champion: pair.champion.text.clone(),
            candidate: pair.candidate.text.clone(),
        };
        let queued = self.queue.try_send(question).is_ok();
        if !queued {
            count("dropped");
        }
        queued
    }

    /// How far it agrees with people, once that is known.
    pub(crate) fn standing(&self) -> Option<JudgeStanding> {
        *self.standing.lock()
    }

    /// Whether its verdicts count.
    pub(crate) fn is_trusted(&self) -> bool {
        self.standing().is_some_and(|standing| standing.trusted)
    }
}

/// Asks the judge of the settings about people's labels.
pub(crate) async fn check(
    settings: &Settings,
    clock: &Arc<dyn Clock>,
    path: &std::path::Path,
) -> Result<JudgeStanding> {
    let config = &settings.evaluate.judge;
    let judge = judge(config, clock, 0)?.ok_or_else(|| {
        Error::invalid("no judge is set up").with_hint("name its server with `evaluate.judge.base_url`")
    })?;
    let agreement = agreement_with(&judge, &read_labels(path)?).await?;
    Ok(standing(agreement, config))
}

/// Judges what comes in and tells the rollout, until the task is dropped.
pub(super) async fn judge_pairs(parts: Arc<Parts>) {
    let waiting = parts.judging.waiting.lock().take();
    let (Some(mut waiting), Some(judge)) = (waiting, parts.judging.judge.clone()) else { return };
    let places = Arc::new(Semaphore::new(parts.judging.config.concurrency.max(1)));
    while let Some(question) = waiting.recv().await {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let (parts, judge) = (Arc::clone(&parts), judge.clone());
        tokio::spawn(async move {
            let _place = place;
            let Question { interaction, conversation, champion, candidate } = question;
            let preference = match prefer(&judge, &conversation, &champion, &candidate).await {
                Ok(preference) => {
                    count("judged");
                    Some(preference)
                }
                Err(error) => {
                    count("failed");
                    tracing::debug!(%error, %interaction, "the judge failed; the pair stays unjudged");
                    None
                }
            };
            parts.proving.preferred(interaction, preference);
        });
    }
}

/// Holds the judge to people's labels, again until that works.
pub(super) async fn hold_to_labels(parts: Arc<Parts>) {
    let judging = &parts.judging;
    let Some(judge) = &judging.judge else { return };
    if judging.labels.is_empty() {
        tracing::warn!("the judge is held to no labels (`evaluate.judge.labels`): its verdicts do not count");
        return;
    }
    loop {
        match agreement_with(judge, &judging.labels).await {
            Ok(agreement) => {
                let standing = standing(agreement, &judging.config);
                tracing::info!(
                    pairs = standing.pairs,
                    kappa = standing.kappa,
                    lower = standing.lower,
                    trusted = standing.trusted,
                    "the judge was held to people's labels"
                );
                *judging.standing.lock() = Some(standing);
                return;
            }
            Err(error) => {
                tracing::warn!(%error, "the judge could not be held to people's labels");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

fn standing(agreement: Agreement, config: &JudgeConfig) -> JudgeStanding {
    let Agreement { pairs, share, kappa, lower, upper } = agreement;
    JudgeStanding { pairs, share, kappa, lower, upper, trusted: agreement.is_trusted(config.min_kappa) }
}

fn judge(config: &JudgeConfig, clock: &Arc<dyn Clock>, seed: u64) -> Result<Option<GeneratorJudge>> {
    if !config.is_set() {
        return Ok(None);
    }
    let upstream = autoglm_upstream::Config {
        base_url: config.base_url.clone(),
        model: config.model.clone(),
        first_token_timeout_s: config.timeout_ms.div_ceil(1000).max(1),
        adapters: autoglm_upstream::AdapterProtocol::Off,
        ..Default::default()
    };
    upstream.validate().map_err(|error| Error::invalid(format!("`evaluate.judge`: {error}")))?;
    let key = answering::api_key("evaluate.judge.api_key_env", &config.api_key_env)?;
    let upstream = Upstream::new(upstream, key.as_deref(), None, Arc::clone(clock), seed)?;
    Ok(Some(GeneratorJudge::new(Arc::new(upstream), VersionNumber::BASE, config.clone())))
}

fn read_labels(path: &std::path::Path) -> Result<Vec<Labelled>> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Error::not_found(format!("`{}` cannot be read: {error}", path.display())))?;
    Labelled::from_json_lines(&text)
}

/// Whether a pair is in the share that is judged; the same ones every time.
fn is_sampled(interaction: InteractionId, share: f64) -> bool {
    let place = autoglm_rollout::sticky::place("judge", &interaction.to_string(), None);
    autoglm_rollout::sticky::is_within(place, share * 100.0)
}

fn count(outcome: &'static str) {
    metrics::counter!("autoglm_judged_pairs_total", "outcome" => outcome).increment(1);
}
