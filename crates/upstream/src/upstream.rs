//! The upstream as the rest of autoglm sees it: something that answers, and something that versions are loaded on.

use std::sync::Arc;

use autoglm_domain::{
    Adapter, AdapterHost, Clock, GenerationInput, GenerationRequest, GenerationStream, Generator, Sampling,
    VersionNumber,
};
use bytes::Bytes;
use tokio::sync::OnceCell;

use crate::{
    Capabilities, CircuitState, Config, CountTokens, Result, UpstreamEmbedder, UpstreamError,
    adapters::{Adapters, Resident},
    answer::{Asked, stream},
    body,
    dialect::Target,
    tokens::{self, Estimate},
    transport::{Deadline, Opened, Transport},
};

/// Context of an upstream that does not say how long it is, and of which nothing is set.
const DEFAULT_CONTEXT: u32 = 4096;

/// An OpenAI-compatible server in place of the engine.
pub struct Upstream {
    config: Config,
    transport: Arc<Transport>,
    capabilities: OnceCell<Capabilities>,
    adapters: Arc<Adapters>,
    estimate: Arc<Estimate>,
    counter: Option<Arc<dyn CountTokens>>,
}

impl std::fmt::Debug for Upstream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upstream").field("base", &self.transport.base()).finish_non_exhaustive()
    }
}

impl Upstream {
    /// The upstream that `config` describes, with the API key where it wants one. Nothing is sent yet. `counter` knows
    /// its tokenizer; without one, tokens of a prompt are estimated. `seed` is of the pauses between attempts. Needs a
    /// tokio runtime.
    ///
    /// # Errors
    /// `Invalid` when a setting cannot work.
    pub fn new(
        config: Config,
        key: Option<&str>,
        counter: Option<Arc<dyn CountTokens>>,
        clock: Arc<dyn Clock>,
        seed: u64,
    ) -> Result<Self> {
        config.validate()?;
        let transport = Arc::new(Transport::new(&config, key, clock, seed)?);
        Ok(Self {
            adapters: Adapters::new(Arc::clone(&transport), &config),
            transport,
            config,
            capabilities: OnceCell::new(),
            estimate: Arc::default(),
            counter,
        })
    }

    /// What the upstream can do. It is asked once; as long as it does not answer, each call asks again.
    ///
    /// # Errors
    /// `Unavailable` when it does not answer, `Invalid` when no model is set and it lists none.
    pub async fn capabilities(&self) -> Result<&Capabilities> {
        self.capabilities.get_or_try_init(|| Capabilities::of(&self.transport, &self.config)).await
    }

    /// Vectors from its `/v1/embeddings`, of the model that is set for them. One text is embedded, to know how long they
    /// are.
    ///
    /// # Errors
    /// `Unavailable` when it does not answer, or does not embed.
    pub async fn embedder(&self) -> Result<UpstreamEmbedder> {
        UpstreamEmbedder::start(self.transport.apart(&self.config)?, &self.config).await
    }

    /// What is known of it so far.
    pub fn known(&self) -> Option<&Capabilities> {
        self.capabilities.get()
    }

    /// Whether requests go through.
    pub fn circuit(&self) -> CircuitState {
        self.transport.breaker.state()
    }

    async fn answer(&self, request: GenerationRequest) -> Result<GenerationStream> {
        refuse_reports(&request.sampling)?;
        let (first_token, whole) = Asked::deadlines(&self.config);
        let own = request.timeout.map(Deadline::of_request);
        let model = self.capabilities().await?.model.clone();
        let resident = self.adapters.get(request.version)?;
        let estimated_tokens = self.estimate.count(&request.input);
        let max_tokens = self.max_tokens(&request, estimated_tokens);
        let target = match &resident {
            Some(resident) => resident.target(&model),
            None => Target { model, lora_path: None },
        };
        let body =
            body::body(&target, &request.input, &request.sampling, max_tokens, &self.config.max_tokens_field);
        let body = Bytes::from(body.to_string());
        let opened =
            self.open(body::path(&request.input), body, resident.as_deref(), first_token.or(own)).await?;
        let asked = Asked {
            first_token,
            whole,
            own,
            between: self.config.between_tokens(),
            size: tokens::size(&request.input),
            estimated_tokens,
            estimate: Arc::clone(&self.estimate),
            breaker: Arc::clone(&self.transport.breaker),
            _resident: resident,
        };
        Ok(stream(opened, asked))
    }

    /// An upstream that does not know an adapter which it was given was restarted: it gets it again, once.
    async fn open(
        &self,
        path: &str,
        body: Bytes,
        resident: Option<&Resident>,
        deadline: Deadline,
    ) -> Result<Opened> {
        let opened = self.transport.open(path, body.clone(), deadline).await;
        let (Err(UpstreamError::NotThere { .. }), Some(resident)) = (&opened, resident) else {
            return opened;
        };
        self.adapters.load_again(resident).await?;
        self.transport.open(path, body, deadline).await
    }

    /// The limit to send. Plain completions end after 16 tokens where nothing is said; a chat fills the context.
    fn max_tokens(&self, request: &GenerationRequest, prompt_tokens: u32) -> Option<u32> {
        match (&request.input, request.sampling.max_tokens) {
            (GenerationInput::Text(_), None) => {
                Some(self.context_length().saturating_sub(prompt_tokens).max(1))
            }
            (_, given) => given,
        }
    }
}

/// Token ids are not in the API, and so neither are scores of the prompt's.
fn refuse_reports(sampling: &Sampling) -> Result<()> {
    for (asked, field) in
        [(sampling.token_ids, "return_token_ids"), (sampling.prompt_logprobs.is_some(), "prompt_logprobs")]
    {
        if asked {
            let message = format!("`{field}` is not to be had from an upstream, whose API does not know it");
            return Err(UpstreamError::Unsupported(message));
        }
    }
    Ok(())
}

#[async_trait::async_trait]
impl Generator for Upstream {
    async fn generate(&self, request: GenerationRequest) -> autoglm_domain::Result<GenerationStream> {
        Ok(self.answer(request).await?)
    }

    fn context_length(&self) -> u32 {
        match self.config.context_length {
            0 => self.known().and_then(|known| known.context_length).unwrap_or(DEFAULT_CONTEXT),
            set => set,
        }
    }

    fn count_tokens(&self, input: &GenerationInput) -> autoglm_domain::Result<u32> {
        match &self.counter {
            Some(counter) => counter.count(input),
            None => Ok(self.estimate.count(input)),
        }
    }
}

#[async_trait::async_trait]
impl AdapterHost for Upstream {
    async fn load(&self, version: VersionNumber, adapter: &Adapter) -> autoglm_domain::Result<()> {
        if version == VersionNumber::BASE {
            let reason = "v0 is the base model and has none".into();
            return Err(UpstreamError::Adapter { version, reason }.into());
        }
        match &self.capabilities().await?.adapters {
            Ok(dialect) => Ok(self.adapters.load(version, adapter, *dialect).await?),
            Err(reason) => Err(UpstreamError::NoAdapters { version, reason: reason.clone() }.into()),
        }
    }

    fn unload(&self, version: VersionNumber) {
        self.adapters.unload(version);
    }

    fn resident(&self) -> Vec<VersionNumber> {
        self.adapters.resident()
    }
}
