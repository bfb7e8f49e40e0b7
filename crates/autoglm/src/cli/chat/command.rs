//! What a line of a conversation means.

/// Shown by `/help`.
pub(super) const HELP: &str = "\
/good           the last answer was right
/bad            the last answer was wrong
/correct TEXT   the last answer should have been TEXT
/reset          forget the conversation
/quit           end (so does Ctrl-D)";

/// One line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line<'a> {
    /// An empty one.
    Nothing,
    /// Something to say.
    Message(&'a str),
    /// A thumb up.
    Good,
    /// A thumb down.
    Bad,
    /// The right answer.
    Correct(&'a str),
    /// Forget the conversation.
    Reset,
    /// Show the commands.
    Help,
    /// End.
    Quit,
    /// A command that is none.
    Wrong(String),
}

/// Reads a line. One that begins with `//` says what follows the first slash.
pub(super) fn parse(line: &str) -> Line<'_> {
    let line = line.trim();
    let Some(command) = line.strip_prefix('/') else {
        return if line.is_empty() { Line::Nothing } else { Line::Message(line) };
    };
    let (name, rest) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
    let rest = rest.trim();
    match (name, rest) {
        ("correct", "") => Line::Wrong("/correct wants the right answer".into()),
        ("correct", text) => Line::Correct(text),
        (_, _) if command.starts_with('/') => Line::Message(command),
        ("good", "") => Line::Good,
        ("bad", "") => Line::Bad,
        ("reset", "") => Line::Reset,
        ("help" | "?", "") => Line::Help,
        ("quit" | "exit", "") => Line::Quit,
        ("good" | "bad" | "reset" | "help" | "quit" | "exit", _) => {
            Line::Wrong(format!("/{name} stands alone"))
        }
        _ => Line::Wrong(format!("there is no command /{name}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_messages_or_commands() {
        for (line, expected) in [
            ("  ", Line::Nothing),
            (" what time is it ", Line::Message("what time is it")),
            ("/good", Line::Good),
            ("/bad ", Line::Bad),
            ("/correct  the answer is 4 ", Line::Correct("the answer is 4")),
            ("//etc is a folder", Line::Message("/etc is a folder")),
            ("/correct", Line::Wrong("/correct wants the right answer".into())),
            ("/good job", Line::Wrong("/good stands alone".into())),
            ("/god", Line::Wrong("there is no command /god".into())),
            ("/quit", Line::Quit),
        ] {
            assert_eq!(parse(line), expected, "{line}");
        }
    }
}
