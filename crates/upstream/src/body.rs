//! A request in the API's form.

use autoglm_domain::{GenerationInput, Sampling};
use serde_json::{Map, Value, json};

use crate::dialect::Target;

/// The path of the endpoint that takes `input`.
pub(crate) fn path(input: &GenerationInput) -> &'static str {
    match input {
        GenerationInput::Chat(_) => "/chat/completions",
        GenerationInput::Text(_) => "/completions",
    }
}

/// The body of a streamed request. What holds no choice of the caller's is left out, so that servers which know only
/// OpenAI's fields are not asked for more.
pub(crate) fn body(
    target: &Target,
    input: &GenerationInput,
    sampling: &Sampling,
    max_tokens: Option<u32>,
    max_tokens_field: &str,
) -> Value {
    let mut body = Map::new();
    let mut put = |key: &str, value: Value| body.insert(key.to_owned(), value);
    put("model", json!(target.model));
    if let Some(adapter) = &target.lora_path {
        put("lora_path", json!(adapter));
    }
    put("stream", json!(true));
    put("stream_options", json!({"include_usage": true}));
    match input {
        GenerationInput::Chat(messages) => {
            put("messages", json!(messages));
            if let Some(limit) = max_tokens {
                put(max_tokens_field, json!(limit));
            }
            if let Some(count) = sampling.logprobs {
                put("logprobs", json!(true));
                put("top_logprobs", json!(count));
            }
        }
        GenerationInput::Text(text) => {
            put("prompt", json!(text));
            if let Some(limit) = max_tokens {
                put("max_tokens", json!(limit));
            }
            if let Some(count) = sampling.logprobs {
                put("logprobs", json!(count));
            }
        }
    }
    sampling_fields(sampling, &mut put);
    Value::Object(body)
}

fn sampling_fields(sampling: &Sampling, put: &mut impl FnMut(&str, Value) -> Option<Value>) {
    let plain = Sampling::default();
    put("temperature", short(sampling.temperature));
    for (key, value, default) in [
        ("top_p", sampling.top_p, plain.top_p),
        ("min_p", sampling.min_p, plain.min_p),
        ("repetition_penalty", sampling.repetition_penalty, plain.repetition_penalty),
        ("frequency_penalty", sampling.frequency_penalty, plain.frequency_penalty),
        ("presence_penalty", sampling.presence_penalty, plain.presence_penalty),
    ] {
        if value != default {
            put(key, short(value));
        }
    }
    if sampling.top_k != plain.top_k {
        put("top_k", json!(sampling.top_k));
    }
    if let Some(seed) = sampling.seed {
        // The API's seeds are signed; the same bits come back from another autoglm.
        put("seed", json!(seed.cast_signed()));
    }
    if !sampling.stop.is_empty() {
        put("stop", json!(sampling.stop));
    }
}

/// A 32-bit number as people write it: 0.7, not 0.699999988079071.
fn short(value: f32) -> Value {
    value.to_string().parse::<f64>().map_or_else(|_| json!(value), |value| json!(value))
}

#[cfg(test)]
mod tests {
    use autoglm_domain::ChatMessage;

    use super::*;

    fn target() -> Target {
        Target { model: "m".into(), lora_path: None }
    }

    #[test]
    fn a_plain_chat_asks_for_nothing_that_only_some_servers_know() {
        let input = GenerationInput::Chat(vec![ChatMessage::system("be brief"), ChatMessage::user("hi")]);
        assert_eq!(path(&input), "/chat/completions");
        assert_eq!(
            body(&target(), &input, &Sampling::default(), None, "max_tokens"),
            json!({
                "model": "m", "stream": true, "stream_options": {"include_usage": true},
                "messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}],
                "temperature": 0.0,
            })
        );
    }

    #[test]
    fn every_choice_of_the_caller_is_passed_on() {
        let sampling = Sampling {
            temperature: 0.7,
            top_p: 0.9,
            top_k: 40,
            min_p: 0.05,
            repetition_penalty: 1.1,
            frequency_penalty: 0.5,
            presence_penalty: -0.5,
            seed: Some(u64::MAX),
            stop: vec!["\n".into()],
            max_tokens: Some(9),
            logprobs: Some(2),
        };
        let adapter = Target { model: "m".into(), lora_path: Some("autoglm-1".into()) };
        let text = GenerationInput::Text("once".into());
        let rest = json!({
            "stream": true, "stream_options": {"include_usage": true}, "temperature": 0.7, "top_p": 0.9, "top_k": 40,
            "min_p": 0.05, "repetition_penalty": 1.1, "frequency_penalty": 0.5, "presence_penalty": -0.5, "seed": -1,
            "stop": ["\n"], "model": "m",
        });
        let with = |more: Value| {
            let mut all = rest.as_object().unwrap().clone();
            all.extend(more.as_object().unwrap().clone());
            Value::Object(all)
        };
        assert_eq!(path(&text), "/completions");
        assert_eq!(
            body(&adapter, &text, &sampling, Some(9), "max_completion_tokens"),
            with(json!({"lora_path": "autoglm-1", "prompt": "once", "max_tokens": 9, "logprobs": 2}))
        );
        let chat = GenerationInput::Chat(vec![ChatMessage::user("hi")]);
        assert_eq!(
            body(&target(), &chat, &sampling, Some(9), "max_completion_tokens"),
            with(json!({
                "messages": [{"role": "user", "content": "hi"}], "max_completion_tokens": 9, "logprobs": true,
                "top_logprobs": 2,
            }))
        );
    }
}
