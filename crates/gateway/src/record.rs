//! Writing down what was answered, before the answer ends.

use std::{future::poll_fn, sync::Arc, task::Poll, time::Duration};

use autoglm_domain::{
    AnswerSource, ChatMessage, Endpoint, FinishReason, GenerationInput, Interaction, Result, ToolChoice,
    Toolbox, Usage,
};
use tokio::{runtime::Handle, task::JoinError, time::timeout_at};

use crate::{
    GatewayError, ShadowRequest,
    exchange::{Choice, End, Exchange, GRACE, input},
    gateway::Shared,
};

impl Exchange {
    /// Records the choices that have ended and were not recorded, all or none. When this returns `Ok` they are in the
    /// store.
    ///
    /// A client that goes away meanwhile does not cut it short, so that every answer is recorded exactly once.
    pub(crate) async fn record(&mut self) -> std::result::Result<(), GatewayError> {
        let ended = |choice: &Choice| choice.end.filter(|_| !choice.settled);
        let interactions = self.take_interactions(ended);
        if interactions.is_empty() {
            return Ok(());
        }
        let first = interactions.iter().find(|interaction| interaction.id == self.arrival.id);
        let shadow = self.shadowed.as_mut().zip(first).and_then(|(shadowed, first)| shadowed.take(first));
        // An answer that was ended at the limit of time is still to be recorded.
        let limit = Duration::from_secs(self.shared.gateway.config.request_timeout_s);
        let deadline = self.arrival.started + limit + GRACE;
        match timeout_at(deadline, to_its_end(self.shared.record(interactions, shadow))).await {
            Ok(Ok(Ok(()))) => Ok(()),
            // What went wrong is in the log.
            Ok(Ok(Err(_)) | Err(_)) => Err(GatewayError::NotRecorded),
            Err(_) => Err(GatewayError::timed_out(limit)),
        }
    }

    /// The interactions of the choices for which `end` says how they ended; they count as settled.
    fn take_interactions(&mut self, end: impl Fn(&Choice) -> Option<End>) -> Vec<Interaction> {
        let mut interactions = Vec::new();
        let shape = self.request.response.as_ref();
        let instructed = shape.is_some_and(|shape| shape.instructions.is_some());
        let tools = self.request.toolbox.as_ref().map(|toolbox| toolbox.tools.clone()).unwrap_or_default();
        for index in 0..self.choices.len() {
            let Some((prompt, end)) = self.choices.get(index).and_then(|c| Some((c.prompt, end(c)?))) else {
                continue;
            };
            let messages = self.messages_for(index, prompt);
            let Some(choice) = self.choices.get_mut(index) else { continue };
            choice.settled = true;
            let (answer, turn) = choice.take_record();
            let mut sampling = self.request.sampling.clone();
            sampling.seed = choice.seed;
            interactions.push(Interaction {
                id: choice.id,
                at: self.arrival.at,
                endpoint: self.request.endpoint,
                model: self.request.model.clone(),
                version: self.version,
                messages,
                instructed,
                tools: tools.clone(),
                sampling,
                answer,
                turn,
                source: choice.source,
                finish_reason: end.finish_reason,
                usage: end.usage,
                logprobs: std::mem::take(&mut choice.logprobs),
                latency_ms: end.latency_ms,
                first_token_ms: choice.first_token_ms.unwrap_or(end.latency_ms),
                principal: self.principal.clone(),
                session: self.arrival.session.clone(),
                metadata: self.request.metadata.clone(),
            });
        }
        interactions
    }

    /// The conversation of a choice: copied while other choices still need it, handed over to the last.
    fn messages_for(&mut self, index: usize, prompt: usize) -> Vec<ChatMessage> {
        let needed_by =
            |(i, choice): (usize, &Choice)| i != index && choice.prompt == prompt && !choice.settled;
        let needed = self.choices.iter().enumerate().any(needed_by);
        match self.request.prompts.get_mut(prompt) {
            Some(messages) if needed => messages.clone(),
            Some(messages) => std::mem::take(messages),
            None => Vec::new(),
        }
    }
}

impl Drop for Exchange {
    /// The client went away, time ran out, or the server stops: what there is is recorded as cancelled.
    fn drop(&mut self) {
        let latency_ms = self.arrival.elapsed_ms();
        let cut_off = End { finish_reason: FinishReason::Cancelled, usage: Usage::default(), latency_ms };
        let interactions =
            self.take_interactions(|choice| (!choice.settled).then(|| choice.end.unwrap_or(cut_off)));
        if interactions.is_empty() {
            return;
        }
        match Handle::try_current() {
            Ok(_) => drop(tokio::spawn(self.shared.record(interactions, None))),
            Err(_) => tracing::error!(
                request = %self.arrival.id,
                "a cancelled answer was dropped outside of the runtime and is not recorded"
            ),
        }
    }
}

/// Begins `work` here, for most of it is done at once; what is not goes on as a task of its own, whoever waits for it.
async fn to_its_end<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> std::result::Result<T, JoinError> {
    let mut work = Box::pin(work);
    match poll_fn(|context| Poll::Ready(work.as_mut().poll(context))).await {
        Poll::Ready(done) => Ok(done),
        Poll::Pending => tokio::spawn(work).await,
    }
}

impl Shared {
    /// Records interactions and tells the observer; `shadow` is handed on then.
    fn record(
        self: &Arc<Self>,
        mut interactions: Vec<Interaction>,
        shadow: Option<ShadowRequest>,
    ) -> impl Future<Output = Result<()>> + Send + 'static {
        let shared = Arc::clone(self);
        let recording = self.recordings.begin();
        async move {
            for interaction in &mut interactions {
                if interaction.finish_reason == FinishReason::Cancelled {
                    interaction.usage = shared.count(interaction);
                }
                measure(interaction);
            }
            let ids: Vec<_> = interactions.iter().map(|interaction| interaction.id).collect();
            let result = shared.gateway.store.record(interactions).await;
            match &result {
                Ok(()) => {
                    ids.iter().for_each(|id| shared.gateway.observer.interaction(*id));
                    shadow.into_iter().for_each(|shadow| shared.gateway.observer.shadow(shadow));
                }
                Err(error) => {
                    metrics::counter!("autoglm_record_failures_total").increment(1);
                    tracing::error!(request = ?ids.first(), %error, "an answer could not be recorded");
                }
            }
            drop(recording);
            result
        }
    }

    /// Token counts of an answer that was cut off, which the engine did not get to report.
    fn count(&self, interaction: &Interaction) -> Usage {
        let generator = &self.gateway.generator;
        let tools = interaction.tools.clone();
        let toolbox = Toolbox { tools, choice: ToolChoice::Auto, parallel: true };
        let toolbox = Some(&toolbox).filter(|toolbox| !toolbox.tools.is_empty());
        let prompt = input(interaction.endpoint, &interaction.messages, toolbox, &[]);
        let answer = GenerationInput::Text(interaction.answer.clone());
        Usage {
            prompt_tokens: generator.count_tokens(&prompt).unwrap_or_default(),
            completion_tokens: generator.count_tokens(&answer).unwrap_or_default(),
        }
    }
}

/// Metrics and one log line an answer.
fn measure(interaction: &Interaction) {
    let endpoint = match interaction.endpoint {
        Endpoint::Chat => "chat",
        Endpoint::Completion => "completion",
        Endpoint::Responses => "responses",
    };
    let source = match interaction.source {
        AnswerSource::Weights => "weights",
        AnswerSource::Examples { .. } => "examples",
        AnswerSource::Memory { .. } => "memory",
    };
    let finish = match interaction.finish_reason {
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
        FinishReason::Cancelled => "cancelled",
    };
    let usage = interaction.usage;
    metrics::counter!("autoglm_answers_total", "endpoint" => endpoint, "source" => source, "finish" => finish)
        .increment(1);
    metrics::histogram!("autoglm_answer_seconds", "endpoint" => endpoint)
        .record(interaction.latency_ms / 1e3);
    metrics::counter!("autoglm_tokens_total", "kind" => "prompt").increment(usage.prompt_tokens.into());
    metrics::counter!("autoglm_tokens_total", "kind" => "completion")
        .increment(usage.completion_tokens.into());
    // Every answer is on record already: a line for each would cost more than the record.
    tracing::debug!(
        interaction = %interaction.id,
        version = %interaction.version,
        endpoint,
        source,
        finish,
        prompt_tokens = usage.prompt_tokens,
        completion_tokens = usage.completion_tokens,
        latency_ms = interaction.latency_ms,
        "answered"
    );
}
