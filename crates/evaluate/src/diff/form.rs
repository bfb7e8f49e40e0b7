//! Whether an answer has the form that the request asked for.

use autoglm_domain::{Interaction, InteractionRecord, ResponseFormat, ToolCall};

use crate::{Check, dimension::Subject, format, verify};

use super::tools::arguments;

/// Whether the answer has the form that `request` asks for by `response_format`, its metadata, its wording
/// (see [`crate::requirements`]) or its tools' argument schemas; `None` where none is asked for. An answer that
/// calls tools is held to their schemas alone.
pub(super) fn is_kept(request: &Interaction, answer: &str, calls: &[ToolCall]) -> Option<bool> {
    if !calls.is_empty() {
        return Some(calls.iter().all(|call| fits_its_tool(request, call)));
    }
    let mut kept = match &request.sampling.format {
        ResponseFormat::Text => None,
        ResponseFormat::JsonObject => Some(format::json(answer).is_ok_and(|value| value.is_object())),
        ResponseFormat::JsonSchema(schema) => match verify::json_schema(answer, &schema.to_string()) {
            Check::Passed(_) => Some(true),
            Check::Failed(..) => Some(false),
            Check::Undecided => None,
        },
    };
    let interaction = Interaction { answer: answer.to_owned(), ..request.clone() };
    let record = InteractionRecord { interaction, feedback: Vec::new(), assessment: None };
    let subject = Subject::new(&record, None);
    for requirement in &subject.requirements {
        kept = Some(kept.unwrap_or(true) && requirement.violation(answer).is_none());
    }
    if let Some(schema) = subject.metadata("json_schema") {
        match verify::json_schema(answer, schema) {
            Check::Passed(_) => kept = Some(kept.unwrap_or(true)),
            Check::Failed(..) => kept = Some(false),
            Check::Undecided => {}
        }
    }
    kept
}

/// Whether the function is one of the request's and the arguments are JSON that its schema allows.
fn fits_its_tool(request: &Interaction, call: &ToolCall) -> bool {
    let Some(tool) = request.tools.iter().find(|tool| tool.name == call.name) else { return false };
    let Some(arguments) = arguments(call) else { return false };
    let Some(schema) = &tool.parameters else { return true };
    !matches!(verify::json_schema(&arguments.to_string(), &schema.to_string()), Check::Failed(..))
}

/// Whether a code fence is opened and not closed. A fence is a line that begins, after at most three spaces, with
/// three backticks or tildes; it is closed by a line of at least as many of the same and nothing else (CommonMark
/// 0.31, section 4.5). Fences of the two kinds do not close one another.
pub(super) fn has_open_fence(answer: &str) -> bool {
    let mut open: Option<(char, usize)> = None;
    for line in answer.lines() {
        let indent = line.len() - line.trim_start_matches(' ').len();
        let Some(mark) = line.trim_start_matches(' ').chars().next().filter(|c| matches!(c, '`' | '~'))
        else {
            continue;
        };
        let rest = line.trim_start_matches(' ');
        let length = rest.chars().take_while(|c| *c == mark).count();
        if indent > 3 || length < 3 {
            continue;
        }
        let info = rest.trim_start_matches(mark).trim();
        match open {
            None if mark == '~' || !info.contains('`') => open = Some((mark, length)),
            Some((opened, least)) if opened == mark && length >= least && info.is_empty() => open = None,
            _ => {}
        }
    }
    open.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fences_close_as_in_commonmark() {
        for (text, open) in [
            ("plain", false),
            ("```json\n{}\n```", false),
            ("```json\n{}\n", true),
            ("~~~\n```\n~~~", false),
            ("````\n```\n", true),
            ("    ```\nindented code", false),
            ("```inline```", false),
            ("a ``` in a line", false),
        ] {
            assert_eq!(has_open_fence(text), open, "{text}");
        }
    }
}
