//! Ports of the gateway that are not in `domain`: model names, recall, the loop's ear, the admin's hand.

use autoglm_domain::{
    AbTest, AbTestId, Alias, AliasMove, Allocation, ChatMessage, ContentHash, ExperienceId, Feedback,
    GenerationInput, Interaction, InteractionId, MirrorState, Result, Rollout, RolloutId, Sampling,
    Timestamp, TrainingRunId, VersionNumber,
};
use serde::{Deserialize, Serialize};

/// What a model name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelKind {
    /// The base model without an adapter.
    Base,
    /// A name that moves.
    Alias,
    /// An immutable version.
    Version,
}

/// A line of `GET /v1/models`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelEntry {
    /// The name that a client may give as `model`.
    pub id: String,
    /// What the name stands for.
    pub kind: ModelKind,
    /// The version that answers under it now.
    pub version: VersionNumber,
    /// When that version was registered, or the base model loaded.
    pub created: Timestamp,
    /// The version's hash; `None` for the base model.
    pub hash: Option<ContentHash>,
}

/// Who answers a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// The version that the client hears.
    pub version: VersionNumber,
    /// The version that answers in its place where it cannot even begin.
    pub fallback: Option<VersionNumber>,
    /// The candidate that answers too, unheard.
    pub shadow: Option<Shadow>,
}

impl Route {
    /// To `version`, and to nobody else.
    pub fn to(version: VersionNumber) -> Self {
        Self { version, fallback: None, shadow: None }
    }
}

/// A candidate that answers beside the champion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shadow {
    /// The rollout that asks for it.
    pub rollout: RolloutId,
    /// The candidate.
    pub candidate: VersionNumber,
}

/// A request whose answer was recorded, for a candidate to answer as well.
#[derive(Debug, Clone)]
pub struct ShadowRequest {
    /// Who answers it.
    pub shadow: Shadow,
    /// The prompt as the champion got it, examples from memory included.
    pub input: GenerationInput,
    /// How tokens are drawn.
    pub sampling: Sampling,
    /// The champion's answer.
    pub interaction: Interaction,
}

/// Port: model names to versions.
pub trait AliasTable: Send + Sync {
    /// The version behind `champion`, another alias, `v3`, the beginning of a hash, `base`, or the served
    /// base model's own name (which means `champion`). Called once a request: must be quick, reading memory.
    /// `NotFound` when there is none, `Invalid` when the name is ambiguous.
    fn resolve(&self, model: &str) -> Result<VersionNumber>;

    /// Who answers a request to `model`. `conversation` is the same for every request of a conversation, and spread
    /// evenly over all of them: who is chosen by it stays chosen. As quick as `resolve`, and with its errors.
    fn route(&self, model: &str, conversation: u64) -> Result<Route> {
        let _ = conversation;
        self.resolve(model).map(Route::to)
    }

    /// Every name, in the order in which they should be shown.
    fn list(&self) -> Vec<ModelEntry>;
}

/// How memory takes part in an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecallMode {
    /// Not at all.
    Off,
    /// The nearest verified experiences are shown to the model as examples.
    Examples,
    /// An experience that is near enough is the answer; otherwise as `Examples`.
    Answer,
}

/// An experience as it is shown to the model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    /// The conversation up to the answer.
    pub prompt: Vec<ChatMessage>,
    /// The right answer.
    pub target: String,
}

/// What memory has to say to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecallDecision {
    /// Nothing.
    None,
    /// These examples, the most similar one last, next to the question.
    Examples(Vec<Example>),
    /// This answer.
    Answer {
        /// The experience that it comes from.
        experience: ExperienceId,
        /// The answer.
        text: String,
    },
}

/// Port: memory, asked before the engine is. Called on a blocking thread.
pub trait Recall: Send + Sync {
    /// What memory has to say to `messages`. `mode` is what the client asked for (never
    /// [`RecallMode::Off`], which does not ask at all); `None` leaves it to the configuration. An error does
    /// not fail the request: the weights alone answer.
    fn consult(&self, messages: &[ChatMessage], mode: Option<RecallMode>) -> Result<RecallDecision>;

    /// Whether it has nothing to say to anyone now, so that it need not be asked. Must return at once.
    fn is_silent(&self, mode: Option<RecallMode>) -> bool {
        let _ = mode;
        false
    }
}

/// Port: who wants to know that something was recorded. Called after the append returned, on the request's
/// path: must return at once.
pub trait Observer: Send + Sync {
    /// An interaction is recorded; the store gives it under its id.
    fn interaction(&self, id: InteractionId);

    /// A piece of feedback is durable.
    fn feedback(&self, feedback: &Feedback);

    /// `version` failed to answer a request, `latency_ms` after it came in. Whatever there is on record of it, it is
    /// no answer.
    fn failed(&self, version: VersionNumber, latency_ms: f64) {
        let _ = (version, latency_ms);
    }

    /// A candidate is to answer this request too. Whoever has no time for it lets it fall.
    fn shadow(&self, request: ShadowRequest) {
        drop(request);
    }
}

/// A person's wish for a training run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrainOrder {
    /// Who asks.
    pub by: String,
    /// Why.
    pub reason: String,
}

/// A person's wish to let a version answer without the gate's verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Promotion {
    /// Name of the version: `v3` or the beginning of its hash.
    pub version: String,
    /// The alias to move.
    pub alias: Alias,
    /// Who asks.
    pub by: String,
    /// Why.
    pub reason: String,
}

/// A person's wish to go back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rollback {
    /// The alias to move.
    pub alias: Alias,
    /// Name of the version to go back to; `None` is where the alias pointed before.
    pub version: Option<String>,
    /// Who asks.
    pub by: String,
    /// Why.
    pub reason: String,
}

/// What a person may do with a candidate on live traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RolloutAction {
    /// Holds it where it is.
    Pause,
    /// Lets it go on.
    Resume,
    /// Stops it without a verdict.
    Abort,
    /// Lets one go on that has passed and awaits a person's word.
    Confirm,
}

/// A person's wish to send a version on its way to the users.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolloutStart {
    /// Name of the version: `v3` or the beginning of its hash.
    pub version: String,
    /// Who asks.
    pub by: String,
    /// Why.
    pub reason: String,
}

/// A person's word on a candidate on live traffic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolloutOrder {
    /// The rollout.
    pub rollout: RolloutId,
    /// What to do.
    pub action: RolloutAction,
    /// Who asks.
    pub by: String,
    /// Why.
    pub reason: String,
}

/// A person's wish for a test of versions. What is not given has a default.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct AbOrder {
    /// Names of the versions with their shares of the conversations.
    pub arms: Vec<(String, f64)>,
    /// How conversations are shared out.
    pub allocation: Allocation,
    /// What they are compared by.
    pub metric: String,
    /// Most probability of naming an arm that is not best.
    pub alpha: Option<f64>,
    /// Arms this close are as good as one another.
    pub indifference: Option<f64>,
    /// Answers that every arm must have given before one is named.
    pub min_requests: Option<u64>,
    /// Answers, all arms together, at which it ends undecided.
    pub max_requests: Option<u64>,
    /// Who asks.
    pub by: String,
}

/// Where an announced model is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelSource {
    /// An adapter in PEFT's format, in a folder that the server sees.
    Folder(std::path::PathBuf),
    /// A git repository with git-lfs.
    Git {
        /// Its address.
        remote: String,
        /// Its branch; `None` is the usual one.
        branch: Option<String>,
        /// Which version of it, by its number there.
        version: Option<VersionNumber>,
        /// Which commit; with neither the latest.
        rev: Option<String>,
    },
}

/// A model that another system says is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announcement {
    /// Where it is.
    pub source: ModelSource,
    /// A remark, for the record.
    pub note: Option<String>,
}

/// A candidate that an announcement led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Announced {
    /// What was registered.
    pub version: VersionNumber,
    /// Its way to the users, which has begun.
    pub rollout: RolloutId,
}

/// Port: models that other systems announce.
#[async_trait::async_trait]
pub trait Announcements: Send + Sync {
    /// Whether `body` is to be believed, by the headers that came with it. `Denied` when it was not signed with the
    /// secret or is too old, `Conflict` when the very same came before.
    fn check(&self, timestamp: &str, signature: &str, body: &[u8]) -> Result<()>;

    /// Registers what was announced and begins its rollout, which is under way when this returns. `Invalid` when there
    /// is no adapter that fits, `Denied` when it may not come from there, `Conflict` while another candidate is on its
    /// way.
    async fn announced(&self, announcement: Announcement) -> Result<Announced>;
}

/// Port: what a person may order through the admin API.
#[async_trait::async_trait]
pub trait Admin: Send + Sync {
    /// What the loop is doing right now, as a JSON object for `GET /v1/autoglm/status`.
    async fn activity(&self) -> Result<serde_json::Value>;

    /// How the journal's mirrors are doing; none where there are none.
    async fn mirrors(&self) -> Result<Vec<MirrorState>> {
        Ok(Vec::new())
    }

    /// Starts a training run and returns once it is planned. `Conflict` when one is on its way or there is
    /// nothing to learn.
    async fn train(&self, order: TrainOrder) -> Result<TrainingRunId>;

    /// Moves an alias to a version. `NotFound` when there is no such version, `Invalid` when its name is
    /// ambiguous.
    async fn promote(&self, promotion: Promotion) -> Result<AliasMove>;

    /// Sends a version through scan, gate and what follows, and returns once its rollout is on record. `Conflict`
    /// while another is on its way or a run trains, `NotFound` when there is no such version.
    async fn start_rollout(&self, order: RolloutStart) -> Result<Rollout>;

    /// Holds, releases, confirms or stops a candidate on live traffic. `Conflict` where it is not there, or is held already.
    async fn rollout(&self, order: RolloutOrder) -> Result<Rollout>;

    /// The pairs of a rollout by route, cluster and principal group, each summed up in a JSON object.
    async fn slices(&self, rollout: RolloutId) -> Result<Vec<serde_json::Value>>;

    /// Begins to share out conversations to versions. `Conflict` while another test or a candidate is on live
    /// traffic, `NotFound` when there is no such version, `Invalid` when it could not come to an end.
    async fn start_ab(&self, order: AbOrder) -> Result<AbTest>;

    /// Ends a test. `Conflict` where it has ended.
    async fn stop_ab(&self, id: AbTestId, by: String, reason: String) -> Result<AbTest>;

    /// Moves an alias back. `Conflict` when there is nothing to go back to.
    async fn rollback(&self, rollback: Rollback) -> Result<AliasMove>;
}
