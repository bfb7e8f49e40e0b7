//! `POST /v1/embeddings`.

use std::sync::Arc;

use autoglm_domain::GenerationInput;
use axum::{
    Extension,
    body::Body,
    extract::State,
    http::header,
    response::{IntoResponse as _, Response},
};
use serde::{Serialize, Serializer};
use serde_json::Value;

use crate::{
    Config, GatewayError,
    completion_request::texts,
    fields::{Fields, missing},
    gateway::Shared,
    intake::{Arrival, VERSION_HEADER, read_json, version_value},
    request,
    wire::write_json,
};

type Result<T> = std::result::Result<T, GatewayError>;

/// The form of the vectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Float,
    Base64,
}

#[derive(Debug)]
struct EmbeddingRequest {
    model: String,
    inputs: Vec<String>,
    encoding: Encoding,
}

#[derive(Debug, Serialize)]
struct EmbeddingList<'a> {
    object: &'static str,
    data: Vec<Embedding>,
    model: &'a str,
    usage: EmbeddingUsage,
}

#[derive(Debug, Serialize)]
struct EmbeddingUsage {
    prompt_tokens: u64,
    total_tokens: u64,
}

#[derive(Debug, Serialize)]
struct Embedding {
    object: &'static str,
    index: usize,
    embedding: Vector,
}

#[derive(Debug)]
struct Vector(Vec<f32>, Encoding);

impl Serialize for Vector {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        match self.1 {
            Encoding::Float => self.0.serialize(serializer),
            Encoding::Base64 => {
                let bytes: Vec<u8> = self.0.iter().flat_map(|value| value.to_le_bytes()).collect();
                serializer.serialize_str(&base64(&bytes))
            }
        }
    }
}

/// One vector of unit length a text; the same whatever version answers.
pub(crate) async fn embeddings(
    State(shared): State<Arc<Shared>>,
    Extension(arrival): Extension<Arrival>,
    body: Body,
) -> Result<Response> {
    let body = read_json(body, &shared.gateway.config).await?;
    let dimensions = shared.gateway.embedder.dimensions();
    let EmbeddingRequest { model, inputs, encoding } = parse(body, &shared.gateway.config, dimensions)?;
    let slot = shared.slot()?;
    let version = shared.resolve(&model)?;
    let blocking = Arc::clone(&shared);
    let work = tokio::task::spawn_blocking(move || {
        let _slot = slot; // Held until the work is done, even when the client is gone by then.
        embed(&blocking, &inputs)
    });
    let joined =
        work.await.map_err(|error| GatewayError::Internal(format!("embedding ended early: {error}")));
    let (vectors, tokens) = joined??;
    metrics::counter!("autoglm_tokens_total", "kind" => "embedding").increment(tokens);
    metrics::histogram!("autoglm_embedding_seconds").record(arrival.elapsed_ms() / 1e3);
    let data = vectors
        .into_iter()
        .enumerate()
        .map(|(index, vector)| Embedding { object: "embedding", index, embedding: Vector(vector, encoding) })
        .collect();
    let usage = EmbeddingUsage { prompt_tokens: tokens, total_tokens: tokens };
    let mut out = Vec::new();
    write_json(&mut out, &EmbeddingList { object: "list", data, model: &model, usage });
    let headers = [
        (header::CONTENT_TYPE, axum::http::HeaderValue::from_static("application/json")),
        (VERSION_HEADER, version_value(version)),
    ];
    Ok((headers, out).into_response())
}

fn parse(body: Value, config: &Config, dimensions: usize) -> Result<EmbeddingRequest> {
    let mut fields = Fields::of_body(body)?;
    let model = request::model(&mut fields)?;
    let inputs = texts(fields.any("input").ok_or_else(|| missing("input"))?, "input")?;
    if inputs.len() > config.max_embedding_inputs {
        let most = config.max_embedding_inputs;
        let message = format!("`input` has {} texts, more than {most}", inputs.len());
        return Err(GatewayError::value("input", message));
    }
    if let Some(i) = inputs.iter().position(String::is_empty) {
        return Err(GatewayError::value("input", format!("text {i} of `input` is empty")));
    }
    let words = [("float", Encoding::Float), ("base64", Encoding::Base64)];
    let encoding = fields.word("encoding_format", &words)?.unwrap_or(Encoding::Float);
    if let Some(wanted) = fields.integer("dimensions", 1..=i64::MAX)?
        && usize::try_from(wanted) != Ok(dimensions)
    {
        let message = format!("`dimensions` is {wanted}; this model's vectors have {dimensions}");
        return Err(GatewayError::unsupported("dimensions", message));
    }
    request::without_effect(&mut fields, &["user"]);
    fields.finish()?;
    Ok(EmbeddingRequest { model, inputs, encoding })
}

/// Vectors and the number of tokens of all texts. Blocks.
fn embed(shared: &Shared, inputs: &[String]) -> Result<(Vec<Vec<f32>>, u64)> {
    let generator = &shared.gateway.generator;
    let limit = generator.context_length();
    let mut total = 0;
    for (i, text) in inputs.iter().enumerate() {
        let tokens = generator.count_tokens(&GenerationInput::Text(text.clone()))?;
        if tokens > limit {
            let message = format!("text {i} of `input` has {tokens} tokens, the context holds {limit}");
            return Err(GatewayError::ContextLength { message, param: "input" });
        }
        total += u64::from(tokens);
    }
    let texts: Vec<&str> = inputs.iter().map(String::as_str).collect();
    let vectors = shared.gateway.embedder.embed(&texts)?;
    if vectors.len() != inputs.len() {
        let message = format!("{} vectors came for {} texts", vectors.len(), inputs.len());
        return Err(GatewayError::Internal(message));
    }
    Ok((vectors, total))
}

/// RFC 4648, section 4, with padding.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let byte = |i: usize| u32::from(group.get(i).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for digit in 0..4 {
            let value = (bits >> (18 - 6 * digit)) & 63;
            text.push(if digit > group.len() { '=' } else { char::from(DIGITS[value as usize]) });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::base64;

    /// The test vectors of RFC 4648, section 10.
    #[test]
    fn base64_is_that_of_the_rfc() {
        let pairs = [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ];
        for (plain, encoded) in pairs {
            assert_eq!(base64(plain.as_bytes()), encoded);
        }
        assert_eq!(base64(&[0xfb, 0xff]), "+/8=");
    }
}
