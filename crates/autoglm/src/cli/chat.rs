//! `autoglm chat`: a conversation with a running server, with feedback.

mod command;
mod stream;

use autoglm_domain::Error;
use clap::Args;
use serde_json::{Value, json};

use crate::printer::{Failure, Outcome, Printer, printable};

use super::{
    http::{Server, ServerArgs},
    settings_args::SettingsArgs,
};
use command::Line;
use stream::{Answered, Chunks};

/// Arguments of `chat`.
#[derive(Debug, Args)]
pub(super) struct ChatArgs {
    /// Say this, print the answer, and end
    message: Option<String>,
    #[command(flatten)]
    server: ServerArgs,
    /// Which version answers: an alias, v3, base
    #[arg(long, value_name = "NAME", default_value = "champion")]
    model: String,
    /// Begin with this system prompt
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// Name the kind of job, which the server learns by
    #[arg(long, value_name = "NAME")]
    task: Option<String>,
    /// Most tokens of an answer
    #[arg(long, value_name = "N")]
    max_tokens: Option<u32>,
    /// 0 always answers the same
    #[arg(long, value_name = "T")]
    temperature: Option<f32>,
}

/// Talks until stdin ends.
pub(super) async fn run(args: ChatArgs, settings: &SettingsArgs, printer: &Printer) -> Outcome {
    let server = Server::of(&args.server, &settings.load("warn", [])?)?;
    let once = args.message.clone();
    let mut chat = Chat { server, printer, history: Vec::new(), last: None, args };
    chat.reset();
    match once {
        Some(message) => chat.say(&message).await,
        None => chat.converse().await,
    }
}

struct Chat<'a> {
    server: Server,
    printer: &'a Printer,
    args: ChatArgs,
    history: Vec<Value>,
    /// The latest answer's id, which feedback names.
    last: Option<String>,
}

impl Chat<'_> {
    fn reset(&mut self) {
        let system = self.args.system.iter().map(|text| json!({"role": "system", "content": text}));
        self.history = system.collect();
        self.last = None;
    }

    async fn converse(&mut self) -> Outcome {
        self.printer.faint(&format!("talking to {} at {}; /help", self.args.model, self.server.url()));
        let mut lines = stdin_lines();
        loop {
            if self.printer.err_is_terminal() {
                self.printer.say("> ");
            }
            let Some(line) = lines.recv().await else { return Ok(()) };
            let done = match command::parse(&line) {
                Line::Nothing => Ok(()),
                Line::Quit => return Ok(()),
                Line::Help => {
                    self.printer.note(command::HELP);
                    Ok(())
                }
                Line::Reset => {
                    self.reset();
                    Ok(())
                }
                Line::Message(text) => self.say(text).await,
                Line::Good => self.tell(json!({"thumb": "up"})).await,
                Line::Bad => self.tell(json!({"thumb": "down"})).await,
                Line::Correct(text) => self.tell(json!({"correction": text})).await,
                Line::Wrong(why) => Err(Error::invalid(why).with_hint("/help").into()),
            };
            match done {
                // A person at a terminal goes on after an error; a script does not.
                Err(Failure::Error(error)) if self.printer.err_is_terminal() => self.printer.error(&error),
                other => other?,
            }
        }
    }

    /// Says something and prints the answer as it comes.
    async fn say(&mut self, text: &str) -> Outcome {
        self.history.push(json!({"role": "user", "content": text}));
        let answered = self.ask().await;
        match answered {
            Ok(answered) => {
                self.history.push(json!({"role": "assistant", "content": answered.text}));
                self.printer.faint(&answered.remark());
                self.last = answered.id;
                Ok(())
            }
            Err(failure) => {
                // What was not answered was not said.
                self.history.pop();
                Err(failure)
            }
        }
    }

    async fn ask(&self) -> Outcome<Answered> {
        let mut body = json!({"model": self.args.model, "messages": self.history, "stream": true});
        let optional = [
            ("max_tokens", self.args.max_tokens.map(Value::from)),
            ("temperature", self.args.temperature.map(Value::from)),
            ("metadata", self.args.task.as_ref().map(|task| json!({"task": task}))),
        ];
        if let Some(fields) = body.as_object_mut() {
            fields.extend(optional.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
        }
        let mut response = self.server.post("/v1/chat/completions", &body).await?;
        let mut answered = Answered::from_headers(response.headers());
        let mut chunks = Chunks::default();
        while let Some(bytes) = response.chunk().await.map_err(|error| self.server.broken_off(&error))? {
            for event in chunks.push(&bytes) {
                let piece = answered.take(&event?)?;
                self.printer.raw(printable(&piece).as_bytes())?;
            }
        }
        self.printer.data("")?;
        chunks.check_ended()?;
        Ok(answered)
    }

    async fn tell(&self, mut opinion: Value) -> Outcome {
        let Some(id) = &self.last else {
            return Err(Error::invalid("there is no answer to judge yet").into());
        };
        if let Some(fields) = opinion.as_object_mut() {
            fields.insert("id".into(), id.as_str().into());
        }
        self.server.post_json("/v1/feedback", &opinion).await?;
        self.printer.faint("thank you, recorded");
        Ok(())
    }
}

/// Lines of stdin from a thread of their own, since reading them blocks.
fn stdin_lines() -> tokio::sync::mpsc::Receiver<String> {
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    std::thread::spawn(move || {
        for line in std::io::stdin().lines() {
            let Ok(line) = line else { return };
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    receiver
}
