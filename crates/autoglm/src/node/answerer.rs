//! What answers: the engine of this process, or a server in its place.

use std::{
    sync::{Arc, atomic::AtomicUsize},
    time::Duration,
};

use autoglm_domain::{
    Adapter, AdapterHost, GenerationInput, GenerationRequest, GenerationStream, Generator, Result,
    VersionNumber,
};
use autoglm_engine::{Decoder, ServingEngine, ServingStats};
use autoglm_upstream::Upstream;

/// An engine of this process, whichever device it computes on.
pub(crate) trait LocalEngine: Generator + AdapterHost {
    /// Requests that wait or run.
    fn busy(&self) -> Arc<AtomicUsize>;
    /// Requests that wait for a place in the batch.
    fn queued(&self) -> usize;
    /// What it has done, and where its pages are.
    fn stats(&self) -> ServingStats;
    /// Lets what runs finish for up to `grace`; blocks until then.
    fn shutdown(&self, grace: Duration);
}

// Each is the method of the engine itself, which goes before the trait's.
impl<D: Decoder> LocalEngine for ServingEngine<D> {
    fn busy(&self) -> Arc<AtomicUsize> {
        Self::busy(self)
    }

    fn queued(&self) -> usize {
        Self::queued(self)
    }

    fn stats(&self) -> ServingStats {
        Self::stats(self)
    }

    fn shutdown(&self, grace: Duration) {
        Self::shutdown(self, grace);
    }
}

/// Answers requests and holds the versions that can.
pub(crate) enum Answerer {
    /// The engine of this process.
    Engine(Box<dyn LocalEngine>),
    /// Another server.
    Upstream(Box<Upstream>),
}

impl Answerer {
    /// The other server, where one answers.
    pub(crate) fn upstream(&self) -> Option<&Upstream> {
        match self {
            Self::Engine(_) => None,
            Self::Upstream(upstream) => Some(upstream),
        }
    }

    /// Requests that wait or run here; training stands aside for them.
    pub(crate) fn busy(&self) -> Arc<AtomicUsize> {
        match self {
            Self::Engine(engine) => engine.busy(),
            // They are computed elsewhere: nothing here is in their way.
            Self::Upstream(_) => Arc::default(),
        }
    }

    /// Requests that wait for a place in the batch.
    pub(crate) fn queued(&self) -> usize {
        match self {
            Self::Engine(engine) => engine.queued(),
            Self::Upstream(_) => 0,
        }
    }

    /// What the engine here has done, and where its pages are.
    pub(crate) fn serving_stats(&self) -> Option<ServingStats> {
        match self {
            Self::Engine(engine) => Some(engine.stats()),
            Self::Upstream(_) => None,
        }
    }

    /// Lets what runs finish for up to `grace`; blocks until then.
    pub(crate) fn shutdown(&self, grace: Duration) {
        if let Self::Engine(engine) = self {
            engine.shutdown(grace);
        }
    }
}

#[async_trait::async_trait]
impl Generator for Answerer {
    async fn generate(&self, request: GenerationRequest) -> Result<GenerationStream> {
        match self {
            Self::Engine(engine) => engine.generate(request).await,
            Self::Upstream(upstream) => upstream.generate(request).await,
        }
    }

    fn context_length(&self) -> u32 {
        match self {
            Self::Engine(engine) => engine.context_length(),
            Self::Upstream(upstream) => upstream.context_length(),
        }
    }

    fn count_tokens(&self, input: &GenerationInput) -> Result<u32> {
        match self {
            Self::Engine(engine) => engine.count_tokens(input),
            Self::Upstream(upstream) => upstream.count_tokens(input),
        }
    }
}

#[async_trait::async_trait]
impl AdapterHost for Answerer {
    async fn load(&self, version: VersionNumber, adapter: &Adapter) -> Result<()> {
        match self {
            Self::Engine(engine) => engine.load(version, adapter).await,
            Self::Upstream(upstream) => AdapterHost::load(&**upstream, version, adapter).await,
        }
    }

    fn unload(&self, version: VersionNumber) {
        match self {
            Self::Engine(engine) => engine.unload(version),
            Self::Upstream(upstream) => upstream.unload(version),
        }
    }

    fn resident(&self) -> Vec<VersionNumber> {
        match self {
            Self::Engine(engine) => engine.resident(),
            Self::Upstream(upstream) => upstream.resident(),
        }
    }
}
