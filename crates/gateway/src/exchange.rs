//! One request while it is being answered: which version, which memories, which choices, and the events that
//! the engine gives for them.

use std::{sync::Arc, time::Duration};

use autoglm_domain::{
    AnswerSource, ChatMessage, Endpoint, Error, ErrorKind, ExperienceId, FinishReason, GenerationEvent,
    GenerationInput, GenerationRequest, GenerationStream, InteractionId, PromptToken, Role, Toolbox, Usage,
    VersionNumber,
};
use futures::{
    StreamExt as _,
    stream::{self, SelectAll},
};
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};

pub(crate) use crate::choice::{Choice, End};
use crate::{
    Example, GatewayError, RecallDecision, RecallMode, Route,
    error::with_hint,
    gateway::{Phase, Shared, Slot},
    intake::Arrival,
    request::{AnswerRequest, Show},
    response_format::fits,
    shadow::{Shadowed, conversation},
};

type Result<T> = std::result::Result<T, GatewayError>;

/// One request while it is being answered. Dropping it records what was not recorded yet as cancelled.
pub(crate) struct Exchange {
    pub(crate) shared: Arc<Shared>,
    pub(crate) arrival: Arrival,
    pub(crate) request: AnswerRequest,
    pub(crate) principal: String,
    pub(crate) version: VersionNumber,
    /// What answers in its place where it cannot begin.
    fallback: Option<VersionNumber>,
    /// What a candidate answers too.
    pub(crate) shadowed: Option<Shadowed>,
    pub(crate) choices: Vec<Choice>,
    /// The tokens of each prompt, where they are to be shown.
    pub(crate) prompt_tokens: Vec<Vec<PromptToken>>,
    _slot: Slot,
}

impl Exchange {
    /// Resolves the model, asks memory and queues every choice with the engine.
    pub(crate) async fn begin(
        shared: Arc<Shared>,
        arrival: Arrival,
        request: AnswerRequest,
    ) -> Result<(Self, Events)> {
        let slot = shared.slot()?;
        let principal = arrival.caller.principal(request.user.as_deref());
        let conversation = conversation(&principal, arrival.session.as_deref(), &request.prompts);
        let Route { version, fallback, shadow } = shared.route(&request.model, conversation)?;
        let mut events = Events::new(&shared, &arrival);
        let mut exchange = Self {
            shared,
            arrival,
            request,
            principal,
            version,
            fallback,
            shadowed: shadow.map(Shadowed::new),
            choices: Vec::new(),
            prompt_tokens: Vec::new(),
            _slot: slot,
        };
        for prompt in 0..exchange.request.prompts.len() {
            let decision = exchange.consult(prompt).await;
            if let Err(error) = exchange.start(prompt, decision, &mut events).await {
                exchange.abandon();
                return Err(error);
            }
        }
        Ok((exchange, events))
    }

    /// Tells that the version failed, where it was the version that did.
    pub(crate) fn note_failure(&self, error: &GatewayError) {
        let its_own =
            matches!(error.kind(), ErrorKind::Internal | ErrorKind::Unavailable | ErrorKind::TimedOut);
        let other =
            matches!(error, GatewayError::Stopping | GatewayError::NotRecorded | GatewayError::Busy { .. });
        if its_own && !other {
            self.shared.gateway.observer.failed(self.version, self.arrival.elapsed_ms());
        }
    }

    /// Gives up without a record: nobody saw anything.
    pub(crate) fn abandon(&mut self) {
        for choice in &mut self.choices {
            choice.settled = true;
        }
    }

    /// Takes in an event of a choice.
    pub(crate) fn take_in(&mut self, index: usize, event: &GenerationEvent) {
        let now_ms = self.arrival.elapsed_ms();
        let Some(choice) = self.choices.get_mut(index) else { return };
        match event {
            GenerationEvent::Text { text, logprobs } => choice.extend(text, logprobs, now_ms),
            GenerationEvent::ToolCall(piece) => {
                let ids = &*self.shared.gateway.ids;
                choice.call(piece, now_ms, || format!("call_{}", ids.next_uuid().simple()));
            }
            GenerationEvent::Done { finish_reason, usage } => {
                choice.end = Some(End { finish_reason: *finish_reason, usage: *usage, latency_ms: now_ms });
            }
            // Those of the first choice were taken when it began.
            GenerationEvent::Prompt(_) => {}
        }
    }

    /// Whether every choice has ended.
    pub(crate) fn all_ended(&self) -> bool {
        self.choices.iter().all(|choice| choice.end.is_some())
    }

    /// Token counts of the whole request: each prompt once, every answer.
    pub(crate) fn usage(&self) -> Usage {
        let mut total = Usage::default();
        for (index, choice) in self.choices.iter().enumerate() {
            let usage = choice.end.map(|end| end.usage).unwrap_or_default();
            if index % self.request.n == 0 {
                total.prompt_tokens += usage.prompt_tokens;
            }
            total.completion_tokens += usage.completion_tokens;
        }
        total
    }

    /// The prompt that stands before a choice's answer, with its tokens, where it is echoed.
    pub(crate) fn echoed(&self, choice: &Choice) -> Option<(&str, &[PromptToken])> {
        let text = self.request.prompts.get(choice.prompt).filter(|_| self.request.show.echo)?.first()?;
        Some((&text.content, self.prompt_tokens.get(choice.prompt).map(Vec::as_slice).unwrap_or_default()))
    }

    /// What memory says. The messages are lent to the blocking thread and come back; nothing is copied.
    async fn consult(&mut self, prompt: usize) -> RecallDecision {
        let recall = &self.shared.gateway.recall;
        if self.request.recall == Some(RecallMode::Off) || recall.is_silent(self.request.recall) {
            return RecallDecision::None;
        }
        let Some(slot) = self.request.prompts.get_mut(prompt) else { return RecallDecision::None };
        let messages = std::mem::take(slot);
        let recall = Arc::clone(&self.shared.gateway.recall);
        let mode = self.request.recall;
        let asked = tokio::task::spawn_blocking(move || {
            let decision = recall.consult(&messages, mode);
            (messages, decision)
        });
        let decision = match asked.await {
            Ok((messages, decision)) => {
                *slot = messages;
                decision
            }
            Err(error) => Err(Error::internal(format!("recall ended early: {error}"))),
        };
        decision.unwrap_or_else(|error| {
            metrics::counter!("autoglm_recall_failures_total").increment(1);
            tracing::warn!(request = %self.arrival.id, %error, "recall failed; the weights alone answer");
            RecallDecision::None
        })
    }

    /// Queues the choices of one prompt.
    async fn start(&mut self, prompt: usize, decision: RecallDecision, events: &mut Events) -> Result<()> {
        let mut examples = Vec::new();
        match decision {
            RecallDecision::Answer { experience, text } => {
                if self.may_be_remembered(&text)
                    && let Some(answer) = self.remembered(prompt, &text)?
                {
                    for _ in 0..self.request.n {
                        self.add_remembered(prompt, experience, answer.clone(), events);
                    }
                    return Ok(());
                }
            }
            RecallDecision::Examples(found) => examples = found,
            RecallDecision::None => {}
        }
        for _ in 0..self.request.n {
            self.add_generated(prompt, &mut examples, events).await?;
        }
        Ok(())
    }

    /// Whether a remembered text can stand in for an answer. Tools call for a model that decides, and so do biases;
    /// a form that the text does not have rules it out.
    fn may_be_remembered(&self, text: &str) -> bool {
        let AnswerRequest { toolbox, sampling, .. } = &self.request;
        toolbox.is_none() && sampling.logit_bias.is_empty() && fits(&sampling.format, text)
    }

    /// A remembered answer as the engine would have ended it: cut before a stop string, and not used at all
    /// when it is longer than the client wants.
    fn remembered(&self, prompt: usize, text: &str) -> Result<Option<(String, Usage)>> {
        let stops = &self.request.sampling.stop;
        let end = stops.iter().filter_map(|stop| text.find(stop.as_str())).min().unwrap_or(text.len());
        let text = text.get(..end).unwrap_or(text).to_owned();
        let generator = &self.shared.gateway.generator;
        let prompt_tokens = generator.count_tokens(&self.input(prompt, &[]))?;
        let completion_tokens = generator.count_tokens(&GenerationInput::Text(text.clone()))?;
        if self.request.sampling.max_tokens.is_some_and(|most| completion_tokens > most) {
            return Ok(None);
        }
        Ok(Some((text, Usage { prompt_tokens, completion_tokens })))
    }

    fn add_remembered(
        &mut self,
        prompt: usize,
        experience: ExperienceId,
        (text, usage): (String, Usage),
        events: &mut Events,
    ) {
        let text = GenerationEvent::Text { text, logprobs: Vec::new() };
        let done = GenerationEvent::Done { finish_reason: FinishReason::Stop, usage };
        let index = self.add(prompt, None, AnswerSource::Memory { experience });
        events.push(index, Box::pin(stream::iter([Ok(text), Ok(done)])));
    }

    /// Queues one choice with the engine. Examples that make the prompt too long are left out, for this
    /// choice and, by emptying `examples`, for the following ones.
    async fn add_generated(
        &mut self,
        prompt: usize,
        examples: &mut Vec<Example>,
        events: &mut Events,
    ) -> Result<()> {
        let seed = self.request.sampling.seed.map(|seed| seed.wrapping_add(self.choices.len() as u64));
        let mut stream = self.generate(prompt, seed, examples).await;
        if !examples.is_empty() && stream.as_ref().is_err_and(|error| error.kind == ErrorKind::Invalid) {
            tracing::debug!(request = %self.arrival.id, "the examples do not fit the context");
            examples.clear();
            stream = self.generate(prompt, seed, examples).await;
        }
        if let (Err(error), Some(fallback)) = (&stream, self.fallback.take())
            && matches!(error.kind, ErrorKind::Internal | ErrorKind::Unavailable | ErrorKind::NotFound)
            && error.later.is_none()
            && self.choices.is_empty()
        {
            tracing::warn!(request = %self.arrival.id, version = %self.version, %error, "a candidate did not begin");
            self.shared.gateway.observer.failed(self.version, self.arrival.elapsed_ms());
            self.version = fallback;
            stream = self.generate(prompt, seed, examples).await;
        }
        let mut stream = stream.map_err(|error| self.engine_error(prompt, &error))?;
        if self.prompt_tokens.len() == prompt && self.request.show != Show::default() {
            stream = self.take_prompt_tokens(prompt, stream).await?;
        }
        let source = match u32::try_from(examples.len()) {
            Ok(0) | Err(_) => AnswerSource::Weights,
            Ok(count) => AnswerSource::Examples { count },
        };
        let index = self.add(prompt, seed, source);
        if index == 0
            && let Some(mut shadowed) = self.shadowed.take()
        {
            shadowed.see(self.input(prompt, examples), &self.request.sampling, seed);
            self.shadowed = Some(shadowed);
        }
        events.push(index, stream);
        Ok(())
    }

    /// Takes the prompt's tokens from the beginning of the first choice's stream.
    async fn take_prompt_tokens(
        &mut self,
        prompt: usize,
        mut stream: GenerationStream,
    ) -> Result<GenerationStream> {
        let first = stream.next().await.transpose().map_err(|error| self.engine_error(prompt, &error))?;
        let (tokens, rest) = match first {
            Some(GenerationEvent::Prompt(tokens)) => (tokens, None),
            other => (Vec::new(), other),
        };
        self.prompt_tokens.push(tokens);
        Ok(Box::pin(stream::iter(rest.map(Ok)).chain(stream)))
    }

    async fn generate(
        &self,
        prompt: usize,
        seed: Option<u64>,
        examples: &[Example],
    ) -> autoglm_domain::Result<GenerationStream> {
        let mut sampling = self.request.sampling.clone();
        sampling.seed = seed;
        if self.prompt_tokens.len() > prompt {
            sampling.prompt_logprobs = None; // The first choice has scored the prompt.
        }
        let input = self.input(prompt, examples);
        let left =
            self.arrival.limit(&self.shared.gateway.config).saturating_sub(self.arrival.started.elapsed());
        let request = GenerationRequest {
            timeout: Some(left),
            ..GenerationRequest::new(input, sampling, self.version)
        };
        self.shared.gateway.generator.generate(request).await
    }

    fn add(&mut self, prompt: usize, seed: Option<u64>, source: AnswerSource) -> usize {
        let index = self.choices.len();
        let ids = &*self.shared.gateway.ids;
        let id = if index == 0 { self.arrival.id } else { InteractionId::next(ids) };
        self.choices.push(Choice::new(id, prompt, seed, source));
        index
    }

    /// A prompt as the engine takes it, examples in front of the question.
    fn input(&self, prompt: usize, examples: &[Example]) -> GenerationInput {
        let messages = self.request.prompts.get(prompt).map(Vec::as_slice).unwrap_or_default();
        input(self.request.endpoint, messages, self.request.toolbox.as_ref(), examples)
    }

    fn engine_error(&self, prompt: usize, error: &Error) -> GatewayError {
        match error.kind {
            ErrorKind::Unavailable if error.later.is_none() => GatewayError::busy(error.message.clone()),
            ErrorKind::NotFound => GatewayError::UnknownModel(with_hint(error)),
            ErrorKind::Invalid => {
                let generator = &self.shared.gateway.generator;
                let (limit, input) = (generator.context_length(), self.input(prompt, &[]));
                match generator.count_tokens(&input) {
                    Ok(tokens) if tokens >= limit => GatewayError::ContextLength {
                        message: format!(
                            "the prompt has {tokens} tokens, the context holds {limit} (hint: shorten the conversation)"
                        ),
                        param: prompt_param(self.request.endpoint),
                    },
                    _ => refused(self.request.endpoint, error),
                }
            }
            _ => error.clone().into(),
        }
    }
}

/// What the engine refuses; the field of the request that its message begins with, in backquotes, is named. The
/// form of a response's text has another name than that of a chat answer.
fn refused(endpoint: Endpoint, error: &Error) -> GatewayError {
    let named = error.message.strip_prefix('`').and_then(|rest| rest.split_once('`'));
    match named {
        Some(("response_format", rest)) if endpoint == Endpoint::Responses => {
            GatewayError::value("text.format", format!("`text.format`{rest}"))
        }
        Some((param, _)) => GatewayError::value(param, with_hint(error)),
        None => GatewayError::Refused(with_hint(error)),
    }
}

fn prompt_param(endpoint: Endpoint) -> &'static str {
    match endpoint {
        Endpoint::Chat => "messages",
        Endpoint::Completion => "prompt",
        Endpoint::Responses => "input",
    }
}

/// A prompt as the engine takes it. In a conversation the examples are earlier turns before the last user
/// turn (without their system prompts); in plain text they are paragraphs before it.
pub(crate) fn input(
    endpoint: Endpoint,
    messages: &[ChatMessage],
    toolbox: Option<&Toolbox>,
    examples: &[Example],
) -> GenerationInput {
    match endpoint {
        Endpoint::Chat | Endpoint::Responses => {
            let last = messages.iter().rposition(|message| message.role == Role::User).unwrap_or(0);
            let mut turns = Vec::with_capacity(messages.len() + 2 * examples.len());
            turns.extend(messages.iter().take(last).cloned());
            for example in examples {
                let prompt = example.prompt.iter().filter(|message| message.role != Role::System);
                turns.extend(prompt.cloned());
                turns.push(ChatMessage::assistant(example.target.as_str()));
            }
            turns.extend(messages.iter().skip(last).cloned());
            match toolbox {
                Some(toolbox) => GenerationInput::ChatWithTools { messages: turns, toolbox: toolbox.clone() },
                None => GenerationInput::Chat(turns),
            }
        }
        Endpoint::Completion => {
            let mut text = String::new();
            for example in examples {
                text.extend(example.prompt.iter().map(|message| message.content.as_str()));
                text.push_str(&example.target);
                text.push_str("\n\n");
            }
            text.extend(messages.iter().map(|message| message.content.as_str()));
            GenerationInput::Text(text)
        }
    }
}

/// What comes next while answering.
#[derive(Debug)]
pub(crate) enum Step {
    /// Something of the choice with this index.
    Of(usize, GenerationEvent),
    /// Nothing for a while: the connection wants a sign of life.
    KeepAlive,
}

/// How much longer than the limit of time the gateway waits for the engine to end the answer at it, with what
/// there is by then.
pub(crate) const GRACE: Duration = Duration::from_secs(1);

type Tagged = stream::Map<GenerationStream, Tag>;
type Tag = Box<
    dyn FnMut(autoglm_domain::Result<GenerationEvent>) -> (usize, autoglm_domain::Result<GenerationEvent>)
        + Send,
>;

/// The events of all choices of a request, with its limits of time.
pub(crate) struct Events {
    streams: SelectAll<Tagged>,
    phase: watch::Receiver<Phase>,
    deadline: Instant,
    limit: Duration,
    keep_alive: Duration,
}

impl Events {
    fn new(shared: &Shared, arrival: &Arrival) -> Self {
        let config = &shared.gateway.config;
        Self {
            streams: SelectAll::new(),
            phase: shared.phase.subscribe(),
            deadline: arrival.started + arrival.limit(config) + GRACE,
            limit: arrival.limit(config),
            keep_alive: Duration::from_secs(config.keep_alive_s.max(1)),
        }
    }

    fn push(&mut self, index: usize, stream: GenerationStream) {
        let tag: Tag = Box::new(move |event| (index, event));
        self.streams.push(stream.map(tag));
    }

    /// The next step. An error ends the answer: the engine's, the limit of time, or the server's end.
    pub(crate) async fn next(&mut self) -> Result<Step> {
        let event = tokio::select! {
            biased;
            event = self.streams.next() => event,
            _ = self.phase.wait_for(|phase| *phase == Phase::Stopping) => return Err(GatewayError::Stopping),
            () = sleep_until(self.deadline) => return Err(GatewayError::timed_out(self.limit)),
            () = sleep(self.keep_alive) => return Ok(Step::KeepAlive),
        };
        match event {
            Some((_, Ok(GenerationEvent::Done { finish_reason: FinishReason::Cancelled, .. }))) => {
                Err(GatewayError::Stopping)
            }
            Some((index, Ok(event))) => Ok(Step::Of(index, event)),
            Some((_, Err(error))) if error.kind == ErrorKind::TimedOut => {
                Err(GatewayError::timed_out(self.limit))
            }
            Some((_, Err(error))) => Err(error.into()),
            None => Err(GatewayError::Internal("a generation ended without saying so".into())),
        }
    }
}
