//! The evaluator: every dimension asked, the answers weighed into one assessment.

use std::{collections::BTreeMap, sync::Arc};

use autoglm_domain::{
    AnswerSource, Assessment, Clock, Embedder, Endpoint, ErrorKind, GenerationInput, GenerationRequest,
    Generator, Id, IdSource, InteractionRecord, Label, Priority, Sampling, dimension,
};

use crate::{
    Config, EvaluateError,
    accuracy::Accuracy,
    consistency::Consistency,
    dimension::{Dimension, Judgement, Subject},
    logic::Logic,
    opinion,
    rules::RuleSet,
    safety::Safety,
};

/// Name of an evaluator that judged without anything outside the model.
const UNVERIFIED: &str = "dimensions";

/// Interaction to assessment. Two evaluators of the same settings, embedder and generator give the same scores.
pub struct Evaluator {
    pub(crate) config: Config,
    pub(crate) embedder: Arc<dyn Embedder>,
    generator: Option<Arc<dyn Generator>>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) ids: Arc<dyn IdSource>,
    dimensions: Vec<Box<dyn Dimension>>,
}

impl Evaluator {
    /// An evaluator with the built-in dimensions. `generator` is asked for more answers where
    /// `logic.resamples` is above 0. Reads the file of rules, where one is set.
    pub fn new(
        config: Config,
        embedder: Arc<dyn Embedder>,
        generator: Option<Arc<dyn Generator>>,
        clock: Arc<dyn Clock>,
        ids: Arc<dyn IdSource>,
    ) -> Result<Self, EvaluateError> {
        Self::with_dimensions(config, embedder, generator, clock, ids, Vec::new())
    }

    /// [`Evaluator::new`] with more dimensions. One with the name of a built-in one replaces it; each counts when
    /// `config.dimensions` names it.
    pub fn with_dimensions(
        config: Config,
        embedder: Arc<dyn Embedder>,
        generator: Option<Arc<dyn Generator>>,
        clock: Arc<dyn Clock>,
        ids: Arc<dyn IdSource>,
        more: Vec<Box<dyn Dimension>>,
    ) -> Result<Self, EvaluateError> {
        config.validate()?;
        let mut available: BTreeMap<String, Box<dyn Dimension>> = BTreeMap::new();
        for built_in in built_in(&config, &embedder)?.into_iter().chain(more) {
            available.insert(built_in.name().to_owned(), built_in);
        }
        let known: Vec<String> = available.keys().map(|name| format!("`{name}`")).collect();
        let mut dimensions: Vec<Box<dyn Dimension>> = Vec::with_capacity(config.dimensions.len());
        for name in &config.dimensions {
            match available.remove(name) {
                Some(dimension) => dimensions.push(dimension),
                None if dimensions.iter().any(|chosen| chosen.name() == name) => {}
                None => {
                    let known = known.join(", ");
                    return Err(EvaluateError::UnknownDimension { name: name.clone(), known });
                }
            }
        }
        Ok(Self { config, embedder, generator, clock, ids, dimensions })
    }

    /// The settings.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Judges one interaction. `Unavailable` when a port cannot answer now; a dimension that fails in another way
    /// is left out, with a finding. Asks the embedder on the calling thread.
    pub async fn assess(&self, record: &InteractionRecord) -> autoglm_domain::Result<Assessment> {
        let interaction = &record.interaction;
        let scale = &self.config.accuracy.feedback;
        let mut subject = Subject::new(record, opinion::weigh(&interaction.answer, &record.feedback, scale));
        let mut findings = Vec::new();
        match self.resample(record).await {
            Ok(samples) => subject.samples = samples,
            Err(error) => findings.push(format!("not re-sampled: {error}")),
        }

        let mut judgements: Vec<(&str, Judgement)> = Vec::new();
        for dimension in &self.dimensions {
            match dimension.judge(&subject) {
                Ok(Some(judgement)) => judgements.push((dimension.name(), clamped(judgement))),
                Ok(None) => {}
                Err(error) if error.kind == ErrorKind::Unavailable => return Err(error),
                Err(error) => {
                    tracing::warn!(interaction = %interaction.id, dimension = dimension.name(), %error, "not judged");
                    findings.push(format!("{}: not judged: {error}", dimension.name()));
                }
            }
        }
        let (overall, label) = self.overall(&judgements);
        let decisive = judgements.iter().find(|(name, _)| *name == dimension::ACCURACY);
        let decisive =
            decisive.or_else(|| judgements.iter().find(|(_, judgement)| judgement.reference.is_some()));
        let (now, latest) = (self.clock.now(), record.feedback.iter().map(|feedback| feedback.at).max());
        let evaluator = decisive.map_or_else(|| UNVERIFIED.to_owned(), |(_, judgement)| judgement.by.clone());
        let (similarity, reference) = decisive
            .map(|(_, judgement)| (judgement.similarity, judgement.reference.clone()))
            .unwrap_or_default();
        for (name, judgement) in &judgements {
            findings.extend(judgement.findings.iter().map(|finding| format!("{name}: {finding}")));
        }
        Ok(Assessment {
            id: Id::next(self.ids.as_ref()),
            interaction: interaction.id,
            // Also where the clock was set back, an assessment is not dated before what it saw.
            at: latest.map_or(now, |latest| latest.max(now)),
            version: interaction.version,
            scores: judgements
                .iter()
                .map(|(name, judgement)| ((*name).to_owned(), judgement.score))
                .collect(),
            overall,
            label,
            similarity,
            reference,
            feedback_seen: u32::try_from(record.feedback.len()).unwrap_or(u32::MAX),
            evaluator,
            evaluator_version: env!("CARGO_PKG_VERSION").to_owned(),
            findings,
            pattern: None,
        })
    }

    /// Weighted mean and label. The label follows accuracy where it was judged; where it was not, nothing outside
    /// the model spoke, and the label is at most `needs_refinement`.
    fn overall(&self, judgements: &[(&str, Judgement)]) -> (f64, Label) {
        let weight = |name: &str| self.config.weights.get(name).copied().unwrap_or(1.0);
        let total: f64 = judgements.iter().map(|(name, _)| weight(name)).sum();
        let sum: f64 = judgements.iter().map(|(name, judgement)| weight(name) * judgement.score).sum();
        let mut overall = if total > 0.0 { (sum / total).clamp(0.0, 100.0) } else { 0.0 };
        let grades = &self.config.accuracy.grades;
        let accuracy = judgements.iter().find(|(name, _)| *name == dimension::ACCURACY);
        let mut label = match accuracy {
            Some((_, judgement)) => grades.label_of_score(judgement.score),
            None if grades.label_of_score(overall) == Label::ReviseLogic => Label::ReviseLogic,
            None => Label::NeedsRefinement,
        };
        for (name, judgement) in judgements {
            if self.config.veto_below.get(*name).is_some_and(|floor| judgement.score < *floor) {
                overall = overall.min(judgement.score);
                label = Label::ReviseLogic;
            }
        }
        (overall, label)
    }

    /// More answers of the version that answered, at a temperature; seeds follow from the interaction's id.
    async fn resample(&self, record: &InteractionRecord) -> autoglm_domain::Result<Vec<String>> {
        let interaction = &record.interaction;
        let logic = &self.config.logic;
        let judged = self.dimensions.iter().any(|chosen| chosen.name() == dimension::LOGIC);
        // A remembered answer is not the model's own: sampling would tell nothing about it.
        let own = interaction.source == AnswerSource::Weights;
        let Some(generator) = self.generator.as_ref().filter(|_| judged && own) else {
            return Ok(Vec::new());
        };
        let most = logic.resample_max_tokens;
        let mut samples = Vec::with_capacity(logic.resamples);
        for turn in 0..logic.resamples {
            let seed = interaction.id.uuid().as_u128() as u64
                ^ (turn as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            let sampling = Sampling {
                temperature: logic.resample_temperature,
                seed: Some(seed),
                stop: interaction.sampling.stop.clone(),
                format: interaction.sampling.format.clone(),
                max_tokens: Some(interaction.sampling.max_tokens.map_or(most, |asked| asked.min(most))),
                ..Sampling::default()
            };
            let input = match (interaction.endpoint, interaction.messages.as_slice()) {
                (Endpoint::Completion, [only]) => GenerationInput::Text(only.content.clone()),
                (_, messages) => GenerationInput::Chat(messages.to_vec()),
            };
            let request = GenerationRequest::new(input, sampling, interaction.version)
                .with_priority(Priority::Background);
            samples.push(generator.generate_all(request).await?.text);
        }
        Ok(samples)
    }
}

fn built_in(config: &Config, embedder: &Arc<dyn Embedder>) -> Result<Vec<Box<dyn Dimension>>, EvaluateError> {
    let rules = RuleSet::load(config.safety.rules.as_deref())?;
    Ok(vec![
        Box::new(Accuracy::new(config.accuracy.clone(), Arc::clone(embedder))),
        Box::new(Logic::new(config.logic.clone())),
        Box::new(Safety::new(rules)),
        Box::new(Consistency::new(config.consistency.clone())),
    ])
}

/// A judgement of a plug-in may be anything; what is recorded is within 0 to 100.
fn clamped(mut judgement: Judgement) -> Judgement {
    judgement.score = if judgement.score.is_nan() { 0.0 } else { judgement.score.clamp(0.0, 100.0) };
    judgement
}
