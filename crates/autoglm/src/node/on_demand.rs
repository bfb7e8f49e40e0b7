//! Any registered version answers when it is named, resident or not.
//!
//! Only versions that an alias serves, and the latest few, stay in the engine. `GET /v1/models` lists all of them, so
//! a request that names another one loads it first.

use std::sync::Arc;

use autoglm_domain::{
    AdapterHost as _, GenerationInput, GenerationRequest, GenerationStream, Generator, Result, VersionNumber,
};

use super::{Parts, residents};

/// The engine, with versions loaded as they are named.
pub(crate) struct OnDemand(pub(crate) Arc<Parts>);

#[async_trait::async_trait]
impl Generator for OnDemand {
    async fn generate(&self, request: GenerationRequest) -> Result<GenerationStream> {
        let parts = &self.0;
        let version = request.version;
        if version != VersionNumber::BASE && !parts.engine.resident().contains(&version) {
            parts.residents.make_room(parts);
            residents::ensure(parts, version).await?;
        }
        parts.engine.generate(request).await
    }

    fn context_length(&self) -> u32 {
        self.0.engine.context_length()
    }

    fn count_tokens(&self, input: &GenerationInput) -> Result<u32> {
        self.0.engine.count_tokens(input)
    }
}
