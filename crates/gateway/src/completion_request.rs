//! The body of `POST /v1/completions`.

use autoglm_domain::{ChatMessage, Endpoint};
use serde_json::Value;

use crate::{
    Config, GatewayError,
    fields::{Fields, missing, wrong_type},
    request::{self, AnswerRequest, Show},
    sampling,
};

type Result<T> = std::result::Result<T, GatewayError>;

/// Reads a plain completion request.
pub(crate) fn parse(body: Value, config: &Config) -> Result<AnswerRequest> {
    let mut fields = Fields::of_body(body)?;
    let model = request::model(&mut fields)?;
    let prompts = fields.any("prompt").ok_or_else(|| missing("prompt"))?;
    let prompts = texts(prompts, "prompt")?;
    let mut sampling = sampling::sampling(&mut fields, config)?;
    let logprobs = fields.integer("logprobs", 0..=sampling::MAX_LOGPROBS)?;
    sampling.logprobs = logprobs.and_then(|logprobs| u32::try_from(logprobs).ok());
    let n = sampling::choices(&mut fields, config)?;
    let (stream, include_usage) = request::streaming(&mut fields)?;
    let mut show = Show::of(&sampling, stream)?;
    show.echo = fields.boolean("echo")?.unwrap_or(false);
    let limit = sampling::tokens(&mut fields, "max_tokens", 0)?.unwrap_or(config.completion_max_tokens);
    sampling.max_tokens = Some(limit);
    if limit == 0 && (show == Show::default() || n > 1) {
        let message = "`max_tokens` is 0, which leaves nothing to show (hint: `echo` or `prompt_logprobs` with \
                       `n` 1 show the prompt alone)";
        return Err(GatewayError::field("max_tokens", "integer_below_min_value", message));
    }
    if show.echo {
        // The prompt's log-probabilities come before the answer's; without an answer its tokens end the stream.
        sampling.prompt_logprobs = sampling.prompt_logprobs.max(sampling.logprobs);
        sampling.token_ids |= limit == 0;
    }
    if n.saturating_mul(prompts.len()) > config.max_choices {
        let message = format!(
            "{} prompts with `n` {n} are more than {} choices (hint: `server.max_choices` sets it)",
            prompts.len(),
            config.max_choices
        );
        return Err(GatewayError::value("prompt", message));
    }
    if let Some(best_of) = fields.integer("best_of", 1..=i64::MAX)?
        && usize::try_from(best_of) != Ok(n)
    {
        let message =
            format!("`best_of` is {best_of} but `n` is {n}; choosing among answers is not supported");
        return Err(GatewayError::unsupported("best_of", message));
    }
    let user = fields.string("user")?;
    let metadata = request::metadata(&mut fields)?;
    let recall = show.recall(request::extension(&mut fields)?)?;
    request::without_effect(&mut fields, &["store"]);
    request::refuse(&mut fields, "suffix", &[])?;
    fields.finish()?;
    Ok(AnswerRequest {
        endpoint: Endpoint::Completion,
        model,
        prompts: prompts.into_iter().map(|prompt| vec![ChatMessage::user(prompt)]).collect(),
        sampling,
        n,
        stream,
        include_usage,
        user,
        metadata,
        recall,
        show,
        toolbox: None,
        response: None,
    })
}

/// A string or an array of strings. Token ids are refused: they only mean something to one tokenizer.
pub(crate) fn texts(value: Value, param: &'static str) -> Result<Vec<String>> {
    let values = match value {
        Value::String(text) => return Ok(vec![text]),
        Value::Array(values) => values,
        other => return Err(wrong_type(param, "a string or an array of strings", &other)),
    };
    if values.is_empty() {
        return Err(GatewayError::field(param, "empty_array", format!("`{param}` is an empty array")));
    }
    values
        .into_iter()
        .enumerate()
        .map(|(i, value)| match value {
            Value::String(text) => Ok(text),
            Value::Number(_) | Value::Array(_) => {
                let message = format!("`{param}` holds token ids, which are not supported (hint: send text)");
                Err(GatewayError::unsupported(param, message))
            }
            other => Err(wrong_type(&format!("{param}[{i}]"), "a string", &other)),
        })
        .collect()
}
