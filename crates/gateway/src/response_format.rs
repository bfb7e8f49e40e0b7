//! The fields that say which form an answer must have.

use autoglm_domain::ResponseFormat;
use serde_json::{Value, json};

use crate::{
    GatewayError,
    fields::{Fields, missing, wrong_type},
};

type Result<T> = std::result::Result<T, GatewayError>;

/// Reads `response_format` of a chat completion: a schema stands in an object of its own.
pub(crate) fn of_chat(fields: &mut Fields) -> Result<ResponseFormat> {
    let Some(mut format) = fields.object("response_format")? else { return Ok(ResponseFormat::Text) };
    let kind = format.string("type")?.ok_or_else(|| missing("response_format.type"))?;
    let read = match kind.as_str() {
        "json_schema" => {
            let path = "response_format.json_schema";
            let mut object = format.object("json_schema")?.ok_or_else(|| missing(path))?;
            let schema = schema(&mut object)?;
            object.finish()?;
            schema
        }
        other => word(other, "response_format.type")?,
    };
    format.finish()?;
    Ok(read)
}

/// Reads the `format` in `text` of a response: a schema stands beside its type.
pub(crate) fn of_response(text: &mut Fields) -> Result<ResponseFormat> {
    let Some(mut format) = text.object("format")? else { return Ok(ResponseFormat::Text) };
    let kind = format.string("type")?.ok_or_else(|| missing("text.format.type"))?;
    let read = match kind.as_str() {
        "json_schema" => schema(&mut format)?,
        other => word(other, "text.format.type")?,
    };
    format.finish()?;
    Ok(read)
}

fn word(kind: &str, path: &str) -> Result<ResponseFormat> {
    match kind {
        "text" => Ok(ResponseFormat::Text),
        "json_object" => Ok(ResponseFormat::JsonObject),
        _ => {
            let message =
                format!("`{path}` is `{kind}`, which is none of `text`, `json_object`, `json_schema`");
            Err(GatewayError::unsupported(path, message))
        }
    }
}

/// Reads `name`, `description`, `schema` and `strict`. A schema is followed to the letter, strict or not.
fn schema(fields: &mut Fields) -> Result<ResponseFormat> {
    let (name, path) = (fields.path_of("name"), fields.path_of("schema"));
    fields.string("name")?.ok_or_else(|| missing(&name))?;
    fields.string("description")?;
    fields.boolean("strict")?;
    match fields.any("schema") {
        None => Ok(ResponseFormat::JsonSchema(json!({}))),
        Some(schema @ Value::Object(_)) => Ok(ResponseFormat::JsonSchema(schema)),
        Some(other) => Err(wrong_type(&path, "a JSON schema", &other)),
    }
}

/// Whether a text that nobody constrained has the form.
pub(crate) fn fits(format: &ResponseFormat, text: &str) -> bool {
    let parsed = || serde_json::from_str::<Value>(text).ok();
    match format {
        ResponseFormat::Text => true,
        ResponseFormat::JsonObject => parsed().is_some_and(|value| value.is_object()),
        ResponseFormat::JsonSchema(schema) => {
            let validator = jsonschema::validator_for(schema).ok();
            validator.zip(parsed()).is_some_and(|(validator, value)| validator.is_valid(&value))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chat(format: Value) -> std::result::Result<ResponseFormat, String> {
        of_chat(&mut Fields::of_body(json!({"response_format": format})).unwrap())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn the_forms_of_both_endpoints_are_read() {
        let schema = json!({"type": "object"});
        let expected = Ok(ResponseFormat::JsonSchema(schema.clone()));
        let nested =
            json!({"type": "json_schema", "json_schema": {"name": "n", "schema": schema, "strict": true}});
        assert_eq!(chat(nested), expected);
        assert_eq!(chat(json!({"type": "json_object"})), Ok(ResponseFormat::JsonObject));
        let flat = json!({"format": {"type": "json_schema", "name": "n", "schema": schema, "strict": true}});
        let read = of_response(&mut Fields::of_body(flat).unwrap()).map_err(|error| error.to_string());
        assert_eq!(read, expected);
    }

    #[test]
    fn what_is_no_form_is_refused_by_name() {
        assert_eq!(chat(json!({})).unwrap_err(), "the required parameter `response_format.type` is missing");
        assert!(chat(json!({"type": "xml"})).unwrap_err().starts_with("`response_format.type` is `xml`"));
        assert_eq!(
            chat(json!({"type": "json_schema", "json_schema": {"name": "n", "schema": 3}})).unwrap_err(),
            "`response_format.json_schema.schema` is an integer, expected a JSON schema"
        );
        assert!(
            chat(json!({"type": "json_schema", "json_schema": {}})).unwrap_err().contains("json_schema.name")
        );
    }

    #[test]
    fn a_text_fits_when_it_follows() {
        let schema = ResponseFormat::JsonSchema(json!({"type": "object", "required": ["a"]}));
        assert!(fits(&schema, "{\"a\": 1}") && !fits(&schema, "{}") && !fits(&schema, "a"));
        assert!(fits(&ResponseFormat::JsonObject, "{}") && !fits(&ResponseFormat::JsonObject, "[]"));
        assert!(fits(&ResponseFormat::Text, "anything"));
    }
}
