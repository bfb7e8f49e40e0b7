//! Grammars of required tool calls, in llguidance's dialect of Lark.

use std::fmt::Write as _;

use autoglm_domain::{Tool, ToolChoice, Toolbox};
use serde_json::{Value, json};

use super::ToolStyle;
use crate::{
    EngineError, Result, Tokenizer,
    constraint::{checked, writing},
};

/// Most calls of one answer.
const MAX_CALLS: usize = 16;

/// The grammar of an answer that consists of the calls that `toolbox` requires, or, where it leaves the choice, of
/// calls or JSON that follows `schema`; `None` where any text will do.
///
/// `Invalid` when a tool's parameters are no schema.
pub(crate) fn grammar(
    style: ToolStyle,
    toolbox: &Toolbox,
    schema: Option<&Value>,
    tokenizer: &Tokenizer,
) -> Result<Option<String>> {
    let (tools, most): (Vec<&Tool>, usize) = match &toolbox.choice {
        ToolChoice::Auto if schema.is_none() => return Ok(None),
        ToolChoice::Auto | ToolChoice::Required => {
            (toolbox.tools.iter().collect(), if toolbox.parallel { MAX_CALLS } else { 1 })
        }
        ToolChoice::Named(name) => (toolbox.tools.iter().filter(|tool| tool.name == *name).collect(), 1),
    };
    if tools.is_empty() {
        return Err(EngineError::Request("`tool_choice` names a function that is not in `tools`".into()));
    }
    let mark = |marker: &str| match tokenizer.token_id(marker) {
        Some(id) if tokenizer.is_special(id) => format!("<[{id}]>"),
        _ => literal(marker),
    };
    let repeated = |separator: &str| match most {
        1 => "call".to_owned(),
        most => format!("call ({separator} call){{0,{}}}", most - 1),
    };
    let start = match style {
        ToolStyle::Hermes | ToolStyle::GlmTags => repeated(&literal("\n")),
        ToolStyle::Llama => repeated(&literal("; ")),
        ToolStyle::Mistral => {
            format!("{} {} {} {}", mark("[TOOL_CALLS]"), literal("["), repeated(&literal(", ")), literal("]"))
        }
        ToolStyle::MistralArgs => repeated(""),
        // Nothing parts one call from the next.
        ToolStyle::Glm => "call".to_owned(),
    };
    let one_of = |rule: &str| (0..tools.len()).map(|n| format!("{rule}{n}")).collect::<Vec<_>>().join(" | ");
    let call = match style {
        ToolStyle::Hermes => format!(
            "{} {} ({}) {} {}",
            mark("<tool_call>"),
            literal("\n"),
            one_of("tool"),
            literal("\n"),
            mark("</tool_call>")
        ),
        ToolStyle::GlmTags => {
            format!("{} ({}) {}", mark("<tool_call>"), one_of("tool"), mark("</tool_call>"))
        }
        ToolStyle::MistralArgs => format!("{} ({})", mark("[TOOL_CALLS]"), one_of("tool")),
        ToolStyle::Llama | ToolStyle::Mistral | ToolStyle::Glm => one_of("tool"),
    };
    let mut text = match schema.filter(|_| toolbox.choice == ToolChoice::Auto) {
        Some(schema) => {
            let schema = checked(schema, "response_format")?;
            format!("start: calls | answer\nanswer: %json {schema}\ncalls: {start}\ncall: {call}\n")
        }
        None => format!("start: {start}\ncall: {call}\n"),
    };
    for (n, tool) in tools.iter().enumerate() {
        let arguments = parameters(tool)?;
        let rule = match style {
            ToolStyle::Hermes | ToolStyle::Mistral | ToolStyle::Llama => {
                let opening = format!("{{\"name\": {}, \"{}\": ", json!(tool.name), style.arguments_key());
                format!("{} args{n} {}", literal(&opening), literal("}"))
            }
            ToolStyle::MistralArgs => format!("{} {} args{n}", literal(&tool.name), mark("[ARGS]")),
            ToolStyle::Glm => format!("{} args{n}", literal(&format!("{}\n", tool.name))),
            ToolStyle::GlmTags => {
                tagged(&mut text, n, tool, &arguments, &mark);
                continue;
            }
        };
        let _ = writeln!(text, "tool{n}: {rule}\nargs{n}: {}", json_rule(arguments));
    }
    Ok(Some(text))
}

/// The schema of a tool's arguments.
fn parameters(tool: &Tool) -> Result<Value> {
    match &tool.parameters {
        None => Ok(json!({"type": "object", "properties": {}, "additionalProperties": false})),
        Some(Value::Object(map)) => {
            let mut map = map.clone();
            map.entry("type").or_insert(json!("object"));
            checked(&Value::Object(map), "tools")
        }
        Some(_) => {
            Err(EngineError::Request(format!("`tools` has parameters of `{}` that are no schema", tool.name)))
        }
    }
}

/// One argument a pair of tags, in the order of the schema; texts stand as they are, everything else as JSON.
fn tagged(text: &mut String, n: usize, tool: &Tool, schema: &Value, mark: &dyn Fn(&str) -> String) {
    let mut body = literal(&tool.name);
    let required: Vec<&str> = schema
        .get("required")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let properties = schema.get("properties").and_then(Value::as_object);
    let mut rules = String::new();
    for (k, (key, property)) in properties.into_iter().flatten().enumerate() {
        let optional = if required.contains(&key.as_str()) { "" } else { "?" };
        let _ = write!(body, " arg{n}x{k}{optional}");
        let is_text = property.get("type").is_some_and(|kind| kind == "string");
        let options = property.get("enum").and_then(Value::as_array).filter(|_| is_text);
        let value = match options {
            Some(options) => {
                let options: Vec<String> = options.iter().filter_map(Value::as_str).map(literal).collect();
                format!("({})", options.join(" | "))
            }
            None if is_text => "/[^<]+/".to_owned(),
            None => {
                let mut property = property.clone();
                if let (Some(map), Some(definitions)) = (property.as_object_mut(), schema.get("$defs")) {
                    map.insert("$defs".into(), definitions.clone());
                }
                json_rule(property)
            }
        };
        let _ = writeln!(rules, "val{n}x{k}: {value}");
        let (open, close, value) = (mark("<arg_key>"), mark("</arg_key>"), mark("<arg_value>"));
        let (key, line, end) = (literal(key), literal("\n"), mark("</arg_value>"));
        let _ = writeln!(rules, "arg{n}x{k}: {line} {open} {key} {close} {line} {value} val{n}x{k} {end}");
    }
    let _ = write!(text, "tool{n}: {body} {}\n{rules}", literal("\n"));
}

fn json_rule(mut schema: Value) -> String {
    if let Some(map) = schema.as_object_mut() {
        map.insert("x-guidance".into(), writing());
    }
    format!("%json {schema}")
}

/// A text as Lark quotes it.
fn literal(text: &str) -> String {
    Value::from(text).to_string()
}
