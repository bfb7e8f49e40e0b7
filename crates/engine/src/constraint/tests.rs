use std::time::{Duration, Instant};

use autoglm_domain::Sampling;
use proptest::prelude::*;
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::{Sampler, tokenizer::tests::small};

const EOS: u32 = 1;

fn grammars() -> Grammars {
    Grammars::new(Arc::new(small()), &[EOS])
}

fn refused(schema: Value) -> String {
    let begin = Instant::now();
    let error = grammars().compile(&Form::Schema(schema), "response_format").unwrap_err();
    assert!(begin.elapsed() < Duration::from_secs(20), "took {:?}", begin.elapsed());
    error.to_string()
}

/// What a model with random logits writes; `None` when it does not come to an end within `limit` tokens. Tokens
/// that close something are likelier than others, so that most answers do.
fn write(grammars: &Grammars, form: &Form, seed: u64, limit: usize) -> Option<String> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let sampling = Sampling { temperature: 1.0, seed: Some(seed), ..Sampling::default() };
    let mut sampler = Sampler::new(&sampling, 0, &[]).unwrap();
    sampler.constrain(Some(grammars.compile(form, "response_format").unwrap()));
    let tokenizer = &grammars.tokenizer;
    let closing: Vec<bool> = (0..tokenizer.vocab_size() as u32)
        .map(|id| id == EOS || tokenizer.token_text(id).contains(['"', '}', ']', ',']))
        .collect();
    let mut ids = Vec::new();
    while ids.len() < limit {
        // Ten ids more than the tokenizer has, as models that round their vocabulary up have.
        let mut logits: Vec<f32> = (0..tokenizer.vocab_size() + 10)
            .map(|id| random.random::<f32>() * 4.0 + if closing.get(id) == Some(&true) { 4.0 } else { 0.0 })
            .collect();
        let id = sampler.sample(&mut logits).unwrap().id;
        if id == EOS {
            return Some(tokenizer.decode(&ids).unwrap());
        }
        assert!((id as usize) < tokenizer.vocab_size());
        ids.push(id);
    }
    None
}

fn leaf() -> impl Strategy<Value = Value> {
    prop_oneof![
        (-50_i64..50, 0_i64..200)
            .prop_map(|(low, more)| json!({"type": "integer", "minimum": low, "maximum": low + more})),
        Just(json!({"type": "boolean"})),
        Just(json!({"type": "null"})),
        Just(json!({"type": "number", "minimum": -1, "maximum": 10})),
        (0_u32..3, 0_u32..5)
            .prop_map(|(low, more)| json!({"type": "string", "minLength": low, "maxLength": low + more})),
        Just(json!({"type": "string", "pattern": "^[a-c]{1,3}-[0-9]$"})),
        Just(json!({"enum": ["the cat", "Köln", 3, null]})),
        Just(json!({"const": {"a": [1, "\"quoted\""]}})),
    ]
}

fn schema() -> impl Strategy<Value = Value> {
    leaf().prop_recursive(3, 16, 3, |inner| {
        prop_oneof![
            (prop::collection::btree_map("[a-d\"]{1,3}", (inner.clone(), any::<bool>()), 0..4)).prop_map(|fields| {
                let required: Vec<&String> =
                    fields.iter().filter(|(_, (_, required))| *required).map(|(name, _)| name).collect();
                let properties: serde_json::Map<String, Value> =
                    fields.iter().map(|(name, (schema, _))| (name.clone(), schema.clone())).collect();
                json!({"type": "object", "properties": properties, "required": required,
                       "additionalProperties": false})
            }),
            (inner.clone(), 0_usize..3, 0_usize..3).prop_map(
                |(items, low, more)| json!({"type": "array", "items": items, "minItems": low, "maxItems": low + more})
            ),
            prop::collection::vec(inner, 1..3).prop_map(|options| json!({"anyOf": options})),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    /// Whatever is drawn, what comes to its end is JSON and follows the schema, says a library that knows nothing
    /// of how it was made.
    #[test]
    fn every_answer_that_ends_follows_its_schema(schema in schema(), seed in any::<u64>()) {
        let validator = jsonschema::validator_for(&schema).unwrap();
        let form = Form::Schema(schema.clone());
        let grammars = grammars();
        let mut ended = 0;
        for seed in [seed, seed ^ 1, seed ^ 2] {
            if let Some(text) = write(&grammars, &form, seed, 3000) {
                let value: Value = serde_json::from_str(&text)
                    .map_err(|error| TestCaseError::fail(format!("{error}: {text} for {schema}")))?;
                prop_assert!(validator.is_valid(&value), "{} does not follow {}", text, schema);
                ended += 1;
            }
        }
        prop_assert!(ended > 0, "no answer came to its end for {}", schema);
    }
}

#[test]
fn recursive_schemas_are_followed() {
    let schema = json!({"$ref": "#/$defs/tree", "$defs": {"tree": {
        "type": "object", "additionalProperties": false, "required": ["name"],
        "properties": {"name": {"enum": ["a", "b"]}, "children": {"type": "array", "maxItems": 2,
            "items": {"$ref": "#/$defs/tree"}}}}}});
    let validator = jsonschema::validator_for(&schema).unwrap();
    let grammars = grammars();
    let texts: Vec<String> =
        (0..20).filter_map(|seed| write(&grammars, &Form::Schema(schema.clone()), seed, 2000)).collect();
    assert!(texts.len() > 10, "only {} answers ended", texts.len());
    assert!(texts.iter().any(|text| text.contains("children")), "{texts:?}");
    for text in texts {
        assert!(validator.is_valid(&serde_json::from_str(&text).unwrap()), "{text}");
    }
}

#[test]
fn any_object_is_an_object() {
    let grammars = grammars();
    let form = Form::Schema(json!({"type": "object"}));
    let texts: Vec<String> = (0..30).filter_map(|seed| write(&grammars, &form, seed, 2000)).collect();
    assert!(texts.len() > 10, "only {} answers ended", texts.len());
    for text in texts {
        assert!(serde_json::from_str::<Value>(&text).unwrap().is_object(), "{text}");
    }
}

#[test]
fn the_end_is_drawn_only_where_the_answer_is_whole() {
    let grammars = grammars();
    let mut constraint = grammars.compile(&Form::Schema(json!({"enum": ["a", "ab"]})), "f").unwrap();
    let allowed = |constraint: &mut Constraint| {
        let mut logits = vec![f32::NEG_INFINITY; 300];
        constraint.mask(&mut logits).unwrap();
        // All of them were impossible: those that may come are equally likely.
        (0..300_u32).filter(|id| logits[*id as usize] == 0.0).collect::<Vec<_>>()
    };
    let id = |text: &str| grammars.tokenizer.encode(text, false).unwrap()[0];
    assert!(!allowed(&mut constraint).contains(&EOS));
    for text in ["\"", "a", "\""] {
        assert!(allowed(&mut constraint).contains(&id(text)), "{text}");
        constraint.accept(id(text)).unwrap();
    }
    assert_eq!(allowed(&mut constraint), [EOS]);
    constraint.accept(EOS).unwrap();
}

#[test]
fn schemas_that_cannot_be_compiled_are_refused_with_the_reason() {
    for (schema, reason) in [
        (json!({"type": "text"}), "text"),
        (json!({"type": "object", "patternProperties": 3}), "patternProperties"),
        (json!({"$ref": "https://example.org/schema.json"}), "example.org"),
        (json!({"$ref": "#/$defs/none"}), "none"),
        (json!({"type": "string", "pattern": "(unclosed"}), "unclosed"),
        (json!({"type": "array", "uniqueItems": true}), "uniqueItems"),
        (json!({"type": "integer", "minimum": 5, "maximum": 1}), "minimum"),
        (json!({"enum": []}), "anyOf is empty"),
        (
            json!({"$defs": {"a": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}),
            "cannot be compiled: it allows no answer at all",
        ),
        (json!(false), "not an object"),
        (json!([1]), "not an object"),
    ] {
        let error = refused(schema.clone());
        assert!(error.starts_with("`response_format` "), "{error}");
        assert!(error.contains(reason), "{schema}: {error}");
        assert!(!error.contains('\n'), "{error}");
    }
}

#[test]
fn schemas_that_loop_or_swell_end_with_an_error() {
    let mut deep = json!({"type": "null"});
    for _ in 0..100 {
        deep = json!({"type": "array", "items": deep});
    }
    assert!(refused(deep).contains("nested more than 64 deep"));
    let wide: serde_json::Map<String, Value> =
        (0..5000).map(|n| (format!("field number {n}"), json!({"type": "string"}))).collect();
    assert!(refused(json!({"type": "object", "properties": wide})).contains("bytes, more than 65536"));
    for (name, schema) in [
        ("itself", json!({"$ref": "#"})),
        ("a definition that is itself", json!({"$defs": {"a": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"})),
        (
            "two that are each other",
            json!({"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}),
        ),
        ("all of itself", json!({"allOf": [{"$ref": "#"}, {"type": "object"}]})),
        (
            "a tree that never ends",
            json!({"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}),
        ),
        ("repetition of repetition", json!({"type": "string", "pattern": "^((a{1,1000}){1,1000}){1,1000}$"})),
        (
            "a long string with a pattern",
            json!({"type": "string", "pattern": "^(a|b|ab|ba|aab)*c.*d.*e.*f$", "minLength": 5000, "maxLength": 100_000}),
        ),
        (
            "a huge array",
            json!({"type": "array", "items": {"type": "string", "maxLength": 4000}, "minItems": 5000, "maxItems": 1_000_000}),
        ),
    ] {
        let begin = Instant::now();
        let compiled = grammars().compile(&Form::Schema(schema), "response_format");
        println!("{name}: {:?}, {:?}", begin.elapsed(), compiled.as_ref().err());
        assert!(begin.elapsed() < Duration::from_secs(20), "{name}: {:?}", begin.elapsed());
        // What compiles may be drawn from; what does not says so.
        if let Ok(mut constraint) = compiled {
            let _ = constraint.mask(&mut vec![0.0; 300]);
        }
    }
}

#[test]
fn a_strangers_options_for_the_compiler_are_not_heard() {
    let schema = json!({"x-guidance": {"lenient": true}, "type": "array", "uniqueItems": true});
    assert!(refused(schema).contains("uniqueItems"));
}
