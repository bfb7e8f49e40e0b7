//! Opens what answers, with what goes with its model: embeddings, training, the base model's hash.
//!
//! Without an upstream all of it is the model of this process. With one, embeddings come from a model here all the
//! same (the local copy of the upstream's, else the starter model), so that recall waits for nobody, unless a model of
//! the upstream is set for them; training needs
//! the local copy and an upstream that takes the adapters, and is off otherwise.

use std::{path::PathBuf, sync::Arc};

use autoglm_domain::{
    Clock, ContentHash, Control, Embedder, Error, ErrorKind, GenerationInput, IdSource, Result, TrainJob,
    TrainProgress, Trained, Trainer,
};
use autoglm_engine::{
    ComputeDevice, Courtesy, LoraTrainer, Model, ModelEmbedder, ServingConfig, ServingEngine, TextCodec,
    WeightFormat,
};
use autoglm_upstream::{Capabilities, CountTokens, Upstream};

use super::answerer::{Answerer, LocalEngine};
use crate::{settings::Settings, starter};

/// What answers, and what goes with its model.
pub(crate) struct Answering {
    pub(crate) engine: Arc<Answerer>,
    pub(crate) base: ContentHash,
    pub(crate) model_name: String,
    pub(crate) embedder: Arc<dyn Embedder>,
    pub(crate) trainer: Arc<dyn Trainer>,
    /// Why nothing is trained here, where nothing is.
    pub(crate) no_training: Option<String>,
}

impl Answering {
    /// Opens it as the settings say.
    pub(crate) async fn open(
        settings: &Settings,
        clock: &Arc<dyn Clock>,
        ids: &dyn IdSource,
    ) -> Result<Self> {
        if !settings.upstream.is_set() {
            // Before a large model is read in vain.
            settings.engine.device.check()?;
        }
        let load = async || {
            let folder = starter::resolve(settings)?;
            load_model(folder, settings.engine.weights.format(), Arc::clone(clock)).await
        };
        let seed = ids.next_uuid().as_u64_pair().1;
        if settings.upstream.is_set() {
            let embeds_elsewhere = !settings.upstream.embedding_model.is_empty();
            let local = if embeds_elsewhere && !has_local_copy(settings) {
                use_small_pages();
                None
            } else {
                Some(load().await?)
            };
            return Self::with_upstream(settings, local, clock, seed).await;
        }
        let (model, codec) = load().await?;
        let mut serving = settings.engine.serving.clone();
        serving.seed ^= seed;
        let engine = Answerer::Engine(serve(settings.engine.device, &model, &codec, &serving)?);
        Ok(Self {
            trainer: Arc::new(trainer(settings, &model, &codec, &engine)?),
            engine: Arc::new(engine),
            base: model.hash(),
            model_name: starter::name(settings),
            embedder: Arc::new(ModelEmbedder::new(model, codec)?),
            no_training: None,
        })
    }

    /// `local` is the model of this process, where it needs one: to embed or to train with.
    async fn with_upstream(
        settings: &Settings,
        local: Option<(Arc<Model>, TextCodec)>,
        clock: &Arc<dyn Clock>,
        seed: u64,
    ) -> Result<Self> {
        let config = settings.upstream.clone();
        let copy = local.as_ref().filter(|_| has_local_copy(settings));
        let counter = copy.map(|(_, codec)| Arc::new(LocalTokens(codec.clone())) as Arc<dyn CountTokens>);
        let key = api_key("upstream.api_key_env", &config.api_key_env)?;
        let upstream = Upstream::new(config, key.as_deref(), counter, Arc::clone(clock), seed)?;
        let known = find_out(&upstream).await?;
        let model_name = model_name(settings, known.as_ref())?;
        let no_training = match known.map(|known| known.adapters) {
            _ if copy.is_none() => {
                Some("`model.path` names no local copy of the upstream's model".to_owned())
            }
            Some(Err(reason)) => Some(format!("the upstream would not get what is trained: {reason}")),
            Some(Ok(_)) | None => None,
        };
        match &no_training {
            Some(reason) => {
                tracing::info!("training is off: {reason}; recall, judging and the gate work");
            }
            None => tracing::info!("training is on, with the local copy of the upstream's model"),
        }
        let embedder: Arc<dyn Embedder> = match &local {
            Some((model, codec)) if settings.upstream.embedding_model.is_empty() => {
                Arc::new(ModelEmbedder::new(Arc::clone(model), codec.clone())?)
            }
            _ => Arc::new(upstream.embedder().await?),
        };
        let engine = Answerer::Upstream(Box::new(upstream));
        let trainer: Arc<dyn Trainer> = match (&no_training, copy) {
            (None, Some((model, codec))) => Arc::new(trainer(settings, model, codec, &engine)?),
            (reason, _) => Arc::new(Untrained(reason.clone().unwrap_or_default())),
        };
        Ok(Self {
            engine: Arc::new(engine),
            base: copy.map_or_else(|| named_base(&model_name), |(model, _)| model.hash()),
            model_name,
            embedder,
            trainer,
            no_training,
        })
    }
}

/// Pages of 2 MiB make a pass through weights quicker. Where there are none in this process they only round up what many
/// small things take, by some 35 MB.
fn use_small_pages() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::thread::disable_transparent_huge_pages(true) {
        tracing::debug!(%error, "the system keeps giving large pages");
    }
}

/// Whether a local copy of the upstream's model is set.
fn has_local_copy(settings: &Settings) -> bool {
    !settings.model.path.is_empty()
}

/// What stands for the base model's hash where nobody here has its weights.
fn named_base(model: &str) -> ContentHash {
    ContentHash::of(format!("upstream model {model}").as_bytes())
}

/// The hash of the base model as a node with these settings has it, and the model where its weights are here.
pub(crate) fn base_model(settings: &Settings) -> Result<(ContentHash, Option<Model>)> {
    if settings.upstream.is_set() && !has_local_copy(settings) {
        return Ok((named_base(&model_name(settings, None)?), None));
    }
    let model = Model::load_as(&starter::resolve(settings)?, settings.engine.weights.format())?;
    Ok((model.hash(), Some(model)))
}

/// The name of the upstream's model: the one that is set, else the one that it lists.
fn model_name(settings: &Settings, known: Option<&Capabilities>) -> Result<String> {
    match (settings.upstream.model.as_str(), known) {
        ("", Some(known)) => Ok(known.model.clone()),
        ("", None) => {
            Err(Error::unavailable("the upstream does not answer, and `upstream.model` names no model")
                .with_hint("start the upstream first, or set `upstream.model`"))
        }
        (set, _) => Ok(set.to_owned()),
    }
}

/// What the upstream can do; `None` when it does not answer yet, which is no reason not to start.
async fn find_out(upstream: &Upstream) -> Result<Option<Capabilities>> {
    match upstream.capabilities().await {
        Ok(known) => {
            tracing::info!("{upstream:?} answers: {}", known.summary());
            Ok(Some(known.clone()))
        }
        Err(error) if error.kind() == ErrorKind::Unavailable => {
            tracing::warn!(%error, "the upstream does not answer yet; it is asked again with the first request");
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// The key in the variable `name`, which `setting` names; none where no variable is named.
pub(super) fn api_key(setting: &str, name: &str) -> Result<Option<String>> {
    if name.is_empty() {
        return Ok(None);
    }
    match std::env::var(name) {
        Ok(key) if !key.is_empty() => Ok(Some(key)),
        _ => Err(Error::invalid(format!(
            "`{setting}` names the environment variable `{name}`, which is not set"
        ))
        .with_hint(format!("set it, or leave `{setting}` empty to send no key"))),
    }
}

/// Reads a model on a thread that may block.
async fn load_model(
    folder: PathBuf,
    format: Option<WeightFormat>,
    clock: Arc<dyn Clock>,
) -> Result<(Arc<Model>, TextCodec)> {
    let load = move || -> Result<(Arc<Model>, TextCodec)> {
        let model = Model::load_as(&folder, format)?;
        let codec = TextCodec::load(&folder, model.config(), clock)?;
        Ok((Arc::new(model), codec))
    };
    tokio::task::spawn_blocking(load)
        .await
        .map_err(|error| Error::internal(format!("the model could not be loaded: {error}")))?
}

/// Starts the engine on `device`.
fn serve(
    device: ComputeDevice,
    model: &Arc<Model>,
    codec: &TextCodec,
    serving: &ServingConfig,
) -> Result<Box<dyn LocalEngine>> {
    let (model, codec) = (Arc::clone(model), codec.clone());
    match device {
        ComputeDevice::Cpu => Ok(Box::new(ServingEngine::start(model, codec, serving)?)),
        ComputeDevice::Cuda(number) => accelerated(number, model, codec, serving),
    }
}

#[cfg(feature = "accelerated")]
fn accelerated(
    number: usize,
    model: Arc<Model>,
    codec: TextCodec,
    serving: &ServingConfig,
) -> Result<Box<dyn LocalEngine>> {
    let device = ComputeDevice::Cuda(number);
    let decoder = autoglm_engine::AcceleratedModel::open(model, device, serving)?;
    tracing::info!("requests are answered on {device}; training and embeddings stay on the processor");
    Ok(Box::new(ServingEngine::start(Arc::new(decoder), codec, serving)?))
}

#[cfg(not(feature = "accelerated"))]
fn accelerated(
    number: usize,
    _model: Arc<Model>,
    _codec: TextCodec,
    _serving: &ServingConfig,
) -> Result<Box<dyn LocalEngine>> {
    Err(autoglm_engine::EngineError::without_cuda(number).into())
}

fn trainer(
    settings: &Settings,
    model: &Arc<Model>,
    codec: &TextCodec,
    engine: &Answerer,
) -> Result<LoraTrainer> {
    let serving = match settings.engine.device {
        ComputeDevice::Cpu => engine.busy(),
        // Requests are computed elsewhere, and training is not in their way.
        ComputeDevice::Cuda(_) => Arc::default(),
    };
    let courtesy = Courtesy { serving, longest_wait_ms: settings.engine.longest_wait_ms };
    Ok(LoraTrainer::new(Arc::clone(model), codec.clone(), settings.engine.threads(), courtesy)?)
}

/// Counts tokens of the upstream's prompts with a local copy of its tokenizer.
struct LocalTokens(TextCodec);

impl CountTokens for LocalTokens {
    fn count(&self, input: &GenerationInput) -> Result<u32> {
        Ok(u32::try_from(self.0.encode(input)?.len()).unwrap_or(u32::MAX))
    }
}

/// Stands where nothing can be trained, and says why.
struct Untrained(String);

impl Trainer for Untrained {
    fn train(&self, _: &TrainJob, _: &mut dyn FnMut(TrainProgress) -> Control) -> Result<Trained> {
        Err(Error::conflict(format!("training is off: {}", self.0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_whose_variable_is_not_set_is_named() {
        assert_eq!(api_key("x", ""), Ok(None));
        let error = api_key("x", "NO_SUCH_KEY_OF_AN_UPSTREAM").unwrap_err();
        assert_eq!(error.kind, ErrorKind::Invalid);
        assert!(error.message.contains("`NO_SUCH_KEY_OF_AN_UPSTREAM`"), "{error}");
    }

    #[cfg(not(feature = "cuda"))]
    #[tokio::test]
    async fn a_device_that_this_build_lacks_is_refused_before_the_model_is_read() {
        let mut settings = Settings::default();
        settings.engine.device = ComputeDevice::Cuda(0);
        settings.model.path = "/no/such/model".into();
        let clock: Arc<dyn Clock> = Arc::new(autoglm_domain::SystemClock);
        let error = Answering::open(&settings, &clock, &autoglm_domain::SystemIds).await.err().unwrap();
        assert_eq!(error.kind, ErrorKind::Unavailable);
        assert_eq!(error.message, "the device `cuda:0` is not in this build");
        assert!(error.hint.unwrap().contains("--features cuda"));
    }

    #[test]
    fn without_a_local_copy_the_base_is_known_by_its_name() {
        let mut settings = Settings::default();
        settings.upstream.base_url = "http://127.0.0.1:1/v1".into();
        assert_eq!(base_model(&settings).err().unwrap().kind, ErrorKind::Unavailable);
        settings.upstream.model = "big".into();
        let (base, model) = base_model(&settings).unwrap();
        assert!(model.is_none());
        settings.upstream.base_url = "http://127.0.0.1:2/v1".into();
        assert_eq!(base_model(&settings).unwrap().0, base, "the address is no part of the model");
        settings.upstream.model = "other".into();
        assert_ne!(base_model(&settings).unwrap().0, base);
    }
}
