use std::sync::Arc;

use autoglm_domain::{
    ChatMessage, FinishReason, ManualClock, Timestamp, Tool, ToolCall, ToolCallPiece, ToolChoice, Usage,
};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use super::*;
use crate::{
    ChatTemplate, Sampler, TextStream, Tokenizer,
    constraint::{Form, Grammars},
    train_bpe,
};

fn weather() -> Tool {
    Tool {
        name: "weather".into(),
        description: Some("what the sky does".into()),
        parameters: Some(json!({
            "type": "object", "additionalProperties": false, "required": ["city"],
            "properties": {"city": {"type": "string", "maxLength": 6}, "days": {"type": "integer", "minimum": 1, "maximum": 9}},
        })),
        strict: true,
    }
}

fn toolbox(choice: ToolChoice) -> Arc<Toolbox> {
    let time = Tool { name: "time".into(), description: None, parameters: None, strict: false };
    Arc::new(Toolbox { tools: vec![weather(), time], choice, parallel: true })
}

/// Text and calls of `answer`, which comes in pieces of `size` characters, and everything as it was written.
fn read(style: ToolStyle, answer: &str, size: usize) -> (String, Vec<ToolCall>, String) {
    let mut stream = ToolStream::new(style, &toolbox(ToolChoice::Auto));
    let letters: Vec<char> = answer.chars().collect();
    let mut events = Vec::new();
    for piece in letters.chunks(size) {
        let text = piece.iter().collect();
        events.extend(stream.take(GenerationEvent::Text { text, logprobs: Vec::new() }));
    }
    let done = GenerationEvent::Done { finish_reason: FinishReason::Stop, usage: Usage::default() };
    events.extend(stream.take(done));
    let (mut text, mut calls, mut written) = (String::new(), Vec::new(), String::new());
    for event in events {
        match event {
            GenerationEvent::Text { text: more, .. } => {
                text.push_str(&more);
                written.push_str(&more);
            }
            GenerationEvent::ToolCall(piece) => {
                written.push_str(&piece.written);
                piece.add_to(&mut calls);
            }
            _ => {}
        }
    }
    (text, calls, written)
}

fn call(name: &str, arguments: &str) -> ToolCall {
    ToolCall { id: String::new(), name: name.into(), arguments: arguments.into() }
}

/// Answers as the families' models write them, what is text in them and what are calls.
fn answers() -> Vec<(ToolStyle, &'static str, &'static str, Vec<ToolCall>)> {
    let bern = || call("weather", r#"{"city":"Bern"}"#);
    let both = || vec![bern(), call("time", "{}")];
    vec![
        (
            ToolStyle::Hermes,
            "I look.\n<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Bern\"}}\n</tool_call>",
            "I look.",
            vec![bern()],
        ),
        (
            ToolStyle::Hermes,
            "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Bern\"}}\n</tool_call>\n<tool_call>\n{\"name\": \"time\", \"arguments\": {}}\n</tool_call>\n",
            "",
            both(),
        ),
        // The closing mark inside a text, and one that never comes.
        (
            ToolStyle::Hermes,
            "<tool_call>{\"name\": \"weather\", \"arguments\": {\"city\": \"</tool_call>\"}}",
            "",
            vec![call("weather", r#"{"city":"</tool_call>"}"#)],
        ),
        (ToolStyle::Llama, "{\"name\": \"weather\", \"parameters\": {\"city\": \"Bern\"}}", "", vec![bern()]),
        (
            ToolStyle::Llama,
            "<|python_tag|>{\"name\": \"weather\", \"parameters\": {\"city\": \"Bern\"}}; {\"name\": \"time\", \"parameters\": {}}",
            "",
            both(),
        ),
        (
            ToolStyle::Mistral,
            "[TOOL_CALLS] [{\"name\": \"weather\", \"arguments\": {\"city\": \"Bern\"}}, {\"name\": \"time\", \"arguments\": {}}]",
            "",
            both(),
        ),
        (
            ToolStyle::MistralArgs,
            "[TOOL_CALLS]weather[ARGS]{\"city\": \"Bern\"}[TOOL_CALLS]time[ARGS]{}",
            "",
            both(),
        ),
        (ToolStyle::Glm, "weather\n{\"city\": \"Bern\"}", "", vec![bern()]),
        (
            ToolStyle::GlmTags,
            "<tool_call>weather\n<arg_key>city</arg_key>\n<arg_value>Bern</arg_value>\n<arg_key>days</arg_key>\n<arg_value>3</arg_value>\n</tool_call>",
            "",
            vec![call("weather", r#"{"city":"Bern","days":3}"#)],
        ),
        (
            ToolStyle::GlmTags,
            "<tool_call>weather\n<arg_key>city</arg_key>\n<arg_value>12</arg_value>\n</tool_call>",
            "",
            vec![call("weather", r#"{"city":"12"}"#)],
        ),
    ]
}

#[test]
fn calls_of_every_family_are_read_however_they_are_cut() {
    for (style, answer, text, calls) in answers() {
        for size in [1, 3, 7, 1000] {
            let (found, found_calls, written) = read(style, answer, size);
            assert_eq!((found.as_str(), &found_calls), (text, &calls), "{style:?} {answer:?} by {size}");
            assert_eq!(written, answer.trim_end(), "{style:?}: nothing of what was written is lost");
        }
    }
}

#[test]
fn what_is_no_call_is_the_text_that_it_is() {
    for (style, answer) in [
        (ToolStyle::Hermes, "a < b and <tool> is no call"),
        (ToolStyle::Hermes, "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Be"),
        (ToolStyle::Hermes, "<tool_call>\nnot json\n</tool_call> and on"),
        (ToolStyle::Hermes, "<tool_call>{\"name\": \"unknown\", \"arguments\": {}}</tool_call>"),
        (ToolStyle::Hermes, "<tool_call>{\"name\": \"time\", \"arguments\": [1]}</tool_call>"),
        (ToolStyle::Llama, "{\"name\": \"Ada\", \"age\": 36}"),
        (ToolStyle::Llama, "{\"name\": \"weather\", \"parameters\": {\"city\": \"B"),
        (ToolStyle::Llama, "<|python_tag|>print(1)"),
        (ToolStyle::Mistral, "[TOOL_CALLS] [{\"name\": \"weather\", \"argu"),
        (ToolStyle::Glm, "weather is fine today"),
        (ToolStyle::Glm, "weather\nis fine {today}"),
        (ToolStyle::GlmTags, "<tool_call>weather\n<arg_key>city</arg_value>\n</tool_call>"),
        (ToolStyle::Hermes, "ends in blanks \n "),
        (ToolStyle::Hermes, ""),
    ] {
        for size in [1, 4, 1000] {
            let (text, calls, _) = read(style, answer, size);
            assert_eq!((text.as_str(), calls.len()), (answer, 0), "{style:?} by {size}");
        }
    }
}

#[test]
fn text_is_given_as_it_comes() {
    let mut stream = ToolStream::new(ToolStyle::Hermes, &toolbox(ToolChoice::Auto));
    let mut shown = |text: &str| {
        let text = GenerationEvent::Text { text: text.into(), logprobs: Vec::new() };
        stream.take(text)
    };
    let is = |events: &[GenerationEvent], expected: &str| {
        assert!(matches!(events, [GenerationEvent::Text { text, .. }] if text == expected), "{events:?}");
    };
    is(&shown("one <"), "one");
    is(&shown("b> two"), " <b> two");
}

#[test]
fn log_probabilities_go_along_with_calls() {
    let mut stream = ToolStream::new(ToolStyle::Hermes, &toolbox(ToolChoice::Auto));
    let token = TokenLogprob { token: "x".into(), id: 3, logprob: -1.0, top: Vec::new() };
    let text = "<tool_call>{\"name\": \"time\"}</tool_call>".to_owned();
    let events = stream.take(GenerationEvent::Text { text, logprobs: vec![token.clone()] });
    let first = ToolCallPiece {
        name: Some("time".into()),
        written: "<tool_call>{\"name\": \"time\"}</tool_call>".into(),
        ..ToolCallPiece::default()
    };
    let rest = ToolCallPiece { arguments: "{}".into(), ..ToolCallPiece::default() };
    assert_eq!(
        events,
        [
            GenerationEvent::Text { text: String::new(), logprobs: vec![token] },
            GenerationEvent::ToolCall(first),
            GenerationEvent::ToolCall(rest)
        ]
    );
}

#[test]
fn a_style_is_found_in_the_template() {
    for (template, style) in [
        ("{% if tools %}<tools>{% endif %}'\\n<tool_call>\\n{\"name\": \"'", ToolStyle::Hermes),
        ("{% if tools %}Environment: ipython{% endif %}", ToolStyle::Llama),
        ("[AVAILABLE_TOOLS]{{ tools }}[TOOL_CALLS] [", ToolStyle::Mistral),
        ("[TOOL_CALLS]{{ name }}[ARGS]", ToolStyle::MistralArgs),
        ("{{ tools }}<|observation|>", ToolStyle::Glm),
        ("<tool_call>{{ name }}<arg_key>", ToolStyle::GlmTags),
        ("{{ messages }}", ToolStyle::Hermes),
    ] {
        assert_eq!(ToolStyle::of(template), style, "{template}");
    }
}

fn render(template: &str, messages: &[ChatMessage], tools: &[Tool]) -> String {
    let clock = Arc::new(ManualClock::at(Timestamp(0)));
    ChatTemplate::new(template, [], clock).unwrap().render(messages, tools, true).unwrap()
}

fn conversation() -> Vec<ChatMessage> {
    let called = ToolCall { id: "c1".into(), ..call("weather", r#"{"city": "Bern"}"#) };
    vec![
        ChatMessage::user("rain?"),
        ChatMessage { tool_calls: vec![called], ..ChatMessage::assistant("I look.") },
        ChatMessage::tool("c1", "sun"),
    ]
}

#[test]
fn a_template_that_knows_tools_gets_them_as_transformers_gives_them() {
    let template = "{% if tools is defined %}{{ tools | tojson }}{% endif %}{% for m in messages %}|{{ m.role }}:\
                    {% if m.role == 'tool' %}{{ m.name }}#{{ m.tool_call_id }}={{ m.content }}{% else %}{{ m.content }}\
                    {% for c in m.tool_calls %}{{ c.function.name }}({{ c.function.arguments | tojson }}){% endfor %}{% endif %}{% endfor %}";
    let time = Tool {
        name: "time".into(),
        description: Some("d".into()),
        parameters: Some(json!({"type": "object", "b": 1, "a": 2})),
        strict: true,
    };
    assert_eq!(
        render(template, &conversation(), &[time]),
        "[{\"type\": \"function\", \"function\": {\"name\": \"time\", \"description\": \"d\", \"parameters\": \
         {\"type\": \"object\", \"b\": 1, \"a\": 2}}}]|user:rain?|assistant:I look.weather({\"city\": \"Bern\"})\
         |tool:weather#c1=sun"
    );
    assert!(render(template, &conversation(), &[]).starts_with("|user"));
}

#[test]
fn a_template_that_knows_no_tools_is_told_of_them_in_its_own_turns() {
    let text = render(
        "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}",
        &[vec![ChatMessage::system("be brief")], conversation(), vec![ChatMessage::tool("c2", "rain")]]
            .concat(),
        &[weather()],
    );
    assert!(text.starts_with("[system]be brief\n\nThese functions can be called"), "{text}");
    assert!(text.contains("<tools>\n{\"type\":\"function\",\"function\":{\"name\":\"weather\""), "{text}");
    assert!(
        text.ends_with(
            "[user]rain?[assistant]I look.\n<tool_call>\n{\"name\":\"weather\",\"arguments\":{\"city\":\"Bern\"}}\n\
             </tool_call>[user]<tool_response>\nsun\n</tool_response>\n<tool_response>\nrain\n</tool_response>"
        ),
        "{text}"
    );
}

/// A tokenizer that has some of the families' marks as special tokens.
fn tokenizer() -> Tokenizer {
    let texts = ["the cat sat on the mat", "the hat is on the cat"];
    let marks = ["<s>", "</s>", "[TOOL_CALLS]", "[ARGS]", "<tool_call>", "</tool_call>"];
    Tokenizer::from_bytes(train_bpe(texts.iter(), 290, &marks).unwrap().as_bytes()).unwrap()
}

/// What a model with random logits answers; `None` when it does not end in time.
fn write(grammar: String, seed: u64, style: ToolStyle) -> Option<String> {
    let tokenizer = Arc::new(tokenizer());
    let constraint =
        Grammars::new(Arc::clone(&tokenizer), &[1]).compile(&Form::Grammar(grammar), "tools").unwrap();
    let sampling = autoglm_domain::Sampling { temperature: 1.0, ..Default::default() };
    let mut sampler = Sampler::new(&sampling, seed, &[]).unwrap();
    sampler.constrain(Some(constraint));
    let markers =
        style.markers().iter().filter_map(|mark| Some((tokenizer.token_id(mark)?, (*mark).to_owned())));
    let mut stream = TextStream::new(Arc::clone(&tokenizer), Vec::new()).showing(markers.collect());
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut text = String::new();
    for _ in 0..2000 {
        let mut logits: Vec<f32> =
            (0..tokenizer.vocab_size()).map(|_| random.random::<f32>() * 4.0).collect();
        logits[1] += 4.0;
        for closing in ["\"", "}", "<"] {
            logits[tokenizer.encode(closing, false).unwrap()[0] as usize] += 4.0;
        }
        let id = sampler.sample(&mut logits).unwrap().id;
        if id == 1 {
            return Some(text + &stream.finish().unwrap().text);
        }
        text.push_str(&stream.push(id, None).unwrap().text);
    }
    None
}

#[test]
fn required_calls_are_calls_in_every_style() {
    let schema = weather().parameters.unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    for style in [
        ToolStyle::Hermes,
        ToolStyle::Llama,
        ToolStyle::Mistral,
        ToolStyle::MistralArgs,
        ToolStyle::Glm,
        ToolStyle::GlmTags,
    ] {
        for choice in [ToolChoice::Required, ToolChoice::Named("weather".into())] {
            let grammar = grammar(style, &toolbox(choice.clone()), None, &tokenizer()).unwrap().unwrap();
            let mut ended = 0;
            for seed in 0..20 {
                let Some(answer) = write(grammar.clone(), seed, style) else { continue };
                let (text, calls, _) = read(style, &answer, 5);
                assert!(!calls.is_empty() && text.is_empty(), "{style:?} {choice:?}: {answer}");
                for call in &calls {
                    let arguments: Value = serde_json::from_str(&call.arguments).unwrap();
                    // The tags of GLM-4.5 hold bare texts, which have no greatest length.
                    let follows = style == ToolStyle::GlmTags || validator.is_valid(&arguments);
                    assert!(call.name == "time" || follows, "{style:?}: {answer}");
                }
                if choice != ToolChoice::Required {
                    assert_eq!((calls.len(), calls[0].name.as_str()), (1, "weather"), "{answer}");
                }
                ended += 1;
            }
            assert!(ended >= 10, "{style:?} {choice:?}: only {ended} answers ended\n{grammar}");
        }
    }
}

#[test]
fn with_a_form_the_answer_is_calls_or_has_the_form() {
    let schema = json!({"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"], "additionalProperties": false});
    let grammar =
        grammar(ToolStyle::Hermes, &toolbox(ToolChoice::Auto), Some(&schema), &tokenizer()).unwrap().unwrap();
    let answers: Vec<String> =
        (0..40).filter_map(|seed| write(grammar.clone(), seed, ToolStyle::Hermes)).collect();
    let (called, said): (Vec<_>, Vec<_>) =
        answers.iter().partition(|answer| answer.starts_with("<tool_call>"));
    assert!(!called.is_empty() && !said.is_empty(), "{answers:?}");
    for answer in said {
        assert!(serde_json::from_str::<Value>(answer).unwrap()["a"].is_boolean(), "{answer}");
    }
}
