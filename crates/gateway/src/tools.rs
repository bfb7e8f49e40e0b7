//! The fields that name tools, in the forms of chat completions and of responses.

use autoglm_domain::{Tool, ToolChoice, Toolbox};
use serde_json::Value;

use crate::{
    GatewayError,
    fields::{Fields, missing, wrong_type},
};

type Result<T> = std::result::Result<T, GatewayError>;

/// OpenAI's bounds.
const MAX_TOOLS: usize = 128;
const MAX_NAME_CHARS: usize = 64;

/// Where a function's name stands: in an object of its own (chat completions), or beside its type (responses).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ToolForm {
    Nested,
    Flat,
}

/// Reads `tools`, `tool_choice` and `parallel_tool_calls`; `None` where no tool may be called, and so none is
/// shown to the model.
pub(crate) fn toolbox(fields: &mut Fields, form: ToolForm) -> Result<Option<Toolbox>> {
    let tools = fields.array("tools")?.unwrap_or_default();
    if tools.len() > MAX_TOOLS {
        let message = format!("`tools` has {} functions, more than {MAX_TOOLS}", tools.len());
        return Err(GatewayError::value("tools", message));
    }
    let tools: Vec<Tool> = tools
        .into_iter()
        .enumerate()
        .map(|(i, tool)| read_tool(Fields::nested(tool, format!("tools[{i}]"))?, form))
        .collect::<Result<_>>()?;
    for (i, tool) in tools.iter().enumerate() {
        if tools.iter().take(i).any(|other| other.name == tool.name) {
            let message = format!("`tools[{i}]` is called `{}` as another before it", tool.name);
            return Err(GatewayError::value(format!("tools[{i}]"), message));
        }
    }
    let parallel = fields.boolean("parallel_tool_calls")?.unwrap_or(true);
    let Some(choice) = choice(fields, form)? else { return Ok(None) };
    if tools.is_empty() {
        if choice == ToolChoice::Auto {
            return Ok(None);
        }
        return Err(GatewayError::value(
            "tool_choice",
            "`tool_choice` requires a call, but there are no `tools`",
        ));
    }
    if let ToolChoice::Named(name) = &choice
        && !tools.iter().any(|tool| tool.name == *name)
    {
        let message = format!("`tool_choice` names `{name}`, which is not in `tools`");
        return Err(GatewayError::value("tool_choice", message));
    }
    Ok(Some(Toolbox { tools, choice, parallel }))
}

fn read_tool(mut fields: Fields, form: ToolForm) -> Result<Tool> {
    check_type(&mut fields)?;
    let tool = match form {
        ToolForm::Flat => read_function(&mut fields)?,
        ToolForm::Nested => {
            let path = fields.path_of("function");
            let mut function = fields.object("function")?.ok_or_else(|| missing(&path))?;
            let tool = read_function(&mut function)?;
            function.finish()?;
            tool
        }
    };
    fields.finish()?;
    Ok(tool)
}

/// That the type is `function`; other tools run at OpenAI and not here.
fn check_type(fields: &mut Fields) -> Result<()> {
    let path = fields.path_of("type");
    let kind = fields.string("type")?.ok_or_else(|| missing(&path))?;
    if kind == "function" {
        return Ok(());
    }
    let message = format!("`{path}` is `{kind}`; this server only knows tools of type `function`");
    Err(GatewayError::unsupported(path, message))
}

fn read_function(fields: &mut Fields) -> Result<Tool> {
    let name = read_name(fields)?;
    let description = fields.string("description")?;
    let path = fields.path_of("parameters");
    let parameters = match fields.any("parameters") {
        None => None,
        Some(schema @ Value::Object(_)) => Some(schema),
        Some(other) => return Err(wrong_type(&path, "a JSON schema", &other)),
    };
    let strict = fields.boolean("strict")?.unwrap_or(false);
    Ok(Tool { name, description, parameters, strict })
}

fn read_name(fields: &mut Fields) -> Result<String> {
    let path = fields.path_of("name");
    let name = fields.string("name")?.ok_or_else(|| missing(&path))?;
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if name.is_empty() || name.len() > MAX_NAME_CHARS || !name.chars().all(good) {
        let message = format!(
            "`{path}` must have 1 to {MAX_NAME_CHARS} letters, digits, underscores, dashes and full stops"
        );
        return Err(GatewayError::value(path, message));
    }
    Ok(name)
}

/// `None` where nothing may be called.
fn choice(fields: &mut Fields, form: ToolForm) -> Result<Option<ToolChoice>> {
    let value = match fields.any("tool_choice") {
        None => return Ok(Some(ToolChoice::Auto)),
        Some(Value::String(word)) => {
            return match word.as_str() {
                "none" => Ok(None),
                "auto" => Ok(Some(ToolChoice::Auto)),
                "required" => Ok(Some(ToolChoice::Required)),
                _ => {
                    let message =
                        format!("`tool_choice` is `{word}`, which is none of `none`, `auto`, `required`");
                    Err(GatewayError::value("tool_choice", message))
                }
            };
        }
        Some(value @ Value::Object(_)) => value,
        Some(other) => return Err(wrong_type("tool_choice", "a string or an object", &other)),
    };
    let mut fields = Fields::nested(value, "tool_choice".to_owned())?;
    check_type(&mut fields)?;
    let name = match form {
        ToolForm::Flat => read_name(&mut fields)?,
        ToolForm::Nested => {
            let mut function = fields.object("function")?.ok_or_else(|| missing("tool_choice.function"))?;
            let name = read_name(&mut function)?;
            function.finish()?;
            name
        }
    };
    fields.finish()?;
    Ok(Some(ToolChoice::Named(name)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(body: Value, form: ToolForm) -> std::result::Result<Option<Toolbox>, String> {
        let mut fields = Fields::of_body(body).unwrap();
        let toolbox = toolbox(&mut fields, form).map_err(|error| error.to_string())?;
        fields.finish().map_err(|error| error.to_string())?;
        Ok(toolbox)
    }

    fn nested(name: &str) -> Value {
        json!({"type": "function", "function": {"name": name, "description": "d",
               "parameters": {"type": "object"}, "strict": true}})
    }

    #[test]
    fn both_forms_say_the_same() {
        let one = read(
            json!({"tools": [nested("f")], "tool_choice": {"type": "function", "function": {"name": "f"}},
                              "parallel_tool_calls": false}),
            ToolForm::Nested,
        );
        let other = read(
            json!({"tools": [{"type": "function", "name": "f", "description": "d",
                                           "parameters": {"type": "object"}, "strict": true}],
                                "tool_choice": {"type": "function", "name": "f"}, "parallel_tool_calls": false}),
            ToolForm::Flat,
        );
        let tool = Tool {
            name: "f".into(),
            description: Some("d".into()),
            parameters: Some(json!({"type": "object"})),
            strict: true,
        };
        let expected = Toolbox { tools: vec![tool], choice: ToolChoice::Named("f".into()), parallel: false };
        assert_eq!(one, Ok(Some(expected.clone())));
        assert_eq!(other, Ok(Some(expected)));
    }

    #[test]
    fn tools_that_may_not_be_called_are_not_shown() {
        assert_eq!(read(json!({"tools": [nested("f")], "tool_choice": "none"}), ToolForm::Nested), Ok(None));
        assert_eq!(read(json!({"tools": [], "tool_choice": "auto"}), ToolForm::Nested), Ok(None));
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        let refused = |body| read(body, ToolForm::Nested).unwrap_err();
        assert_eq!(
            refused(json!({"tools": [{"type": "web_search"}]})),
            "`tools[0].type` is `web_search`; this server only knows tools of type `function`"
        );
        assert_eq!(
            refused(json!({"tools": [nested("f"), nested("f")]})),
            "`tools[1]` is called `f` as another before it"
        );
        assert!(refused(json!({"tools": [nested("a b")]})).starts_with("`tools[0].function.name` must have"));
        assert_eq!(
            refused(json!({"tool_choice": "required"})),
            "`tool_choice` requires a call, but there are no `tools`"
        );
        let unknown = json!({"type": "function", "function": {"name": "g"}});
        assert_eq!(
            refused(json!({"tools": [nested("f")], "tool_choice": unknown})),
            "`tool_choice` names `g`, which is not in `tools`"
        );
        assert_eq!(
            refused(json!({"tools": [{"type": "function", "function": {"name": "f", "parameters": [1]}}]})),
            "`tools[0].function.parameters` is an array, expected a JSON schema"
        );
        assert!(refused(json!({"tools": vec![nested("f"); 129]})).contains("129 functions, more than 128"));
    }
}
