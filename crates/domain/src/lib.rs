//! The nouns of autoglm and the ports between its parts.
//!
//! Everything that more than one crate speaks of is here: typed ids, the records that the loop hands on
//! from arrow to arrow, the [`Event`]s that say what happened, the error kinds, and the traits through
//! which the upper layers reach engine, store and artifacts. Nothing here does I/O or needs a runtime.

mod ab;
mod artifact;
mod assessment;
mod clock;
mod diff;
mod error;
mod event;
mod experience;
mod feedback;
mod gatekeeper;
mod id;
mod interaction;
mod mirror;
mod ports;
mod rollout;
mod shadow;
mod store;
mod tool;
mod training;
mod version;

pub use ab::{AbArm, AbArmReport, AbState, AbTest, Allocation};
pub use artifact::{Adapter, ArtifactStore, ContentHash};
pub use assessment::{Assessment, ErrorPattern, Label, Reference, ReferenceSource, dimension};
pub use clock::{Clock, IdSource, ManualClock, SequentialIds, SystemClock, SystemIds, Timestamp};
pub use diff::{AnswerTraits, PairDiff, PathDifference, StructureDiff, ToolDiff};
pub use error::{Error, ErrorKind, Later, Result, if_found};
pub use event::{Event, RecordedEvent};
pub use experience::{ClusterId, Experience, ExperienceAmendment, Provenance, Vouch};
pub use feedback::{Feedback, Metric, Thumb};
pub use gatekeeper::{Gatekeeper, Inquiry, Question, Say};
pub use id::{
    AbTestId, AssessmentId, ExperienceId, FeedbackId, Id, IdKind, InteractionId, PatternId, RolloutId,
    ShadowPairId, TrainingRunId,
};
pub use interaction::{
    AnswerSource, ChatMessage, Endpoint, FinishReason, Interaction, PromptScore, PromptToken, ResponseFormat,
    Role, Sampling, TokenLogprob, Usage,
};
pub use mirror::{Cursor, Cursors, Mirror, MirrorHealth, MirrorState, Pages, Span};
pub use ports::{
    AdapterHost, CheckpointStore, Checkpointing, Control, Embedder, Generation, GenerationEvent,
    GenerationInput, GenerationRequest, GenerationStream, Generator, Objective, Priority, TrainExample,
    TrainJob, TrainProgress, Trained, Trainer,
};
pub use rollout::{
    ClusterEvidence, Evidence, GateAnswer, GateAnswers, Live, LiveStage, MetricEvidence, MetricStatus,
    Outcome, PairedEvidence, Rollout, RolloutProgress, RolloutState, StageRuling, Verdict,
};
pub use shadow::{JudgeStanding, PairOrder, Preference, ShadowAnswer, ShadowPair};
pub use store::{InteractionRecord, Store};
pub use tool::{Tool, ToolCall, ToolCallPiece, ToolChoice, Toolbox};
pub use training::{HyperParameters, RunState, TrainingRun, Trigger};
pub use version::{Alias, AliasMove, ModelVersion, VersionNumber};
