//! An upstream that answers at once, for as little as it can cost: a thread a connection and fixed bytes.
//!
//! It takes adapters in vLLM's way and says the same whichever is asked for, streamed or whole; whoever asks for an embedding
//! gets one.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
};

use autoglm_domain::{Error, Result};
use serde_json::json;

/// Name of its model, whichever is asked for.
pub(super) const MODEL: &str = "instant";

/// Largest request that it reads.
const MOST_BYTES: usize = 1 << 20;

/// What it says.
#[derive(Debug, Clone)]
struct Replies {
    models: Vec<u8>,
    loaded: Vec<u8>,
    /// To an order that names no adapter, which is how the way is found out.
    unnamed: Vec<u8>,
    embedded: Vec<u8>,
    whole: Vec<u8>,
    streamed: Vec<u8>,
}

/// Starts it at `listen`, until the process ends; where it listens.
pub(super) fn start(listen: SocketAddr) -> Result<SocketAddr> {
    let failed = |error: std::io::Error| {
        Error::unavailable(format!("the upstream cannot listen on {listen}: {error}"))
    };
    let listener = TcpListener::bind(listen).map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let replies = Replies::new();
    std::thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            let replies = replies.clone();
            // A gateway that goes away takes its connections with it.
            std::thread::spawn(move || drop(answer(connection, &replies)));
        }
    });
    Ok(address)
}

impl Replies {
    fn new() -> Self {
        let usage = json!({"prompt_tokens": 9, "completion_tokens": 8, "total_tokens": 17});
        let text = "Hello there, how can I help?";
        let message = json!({"role": "assistant", "content": text});
        let of = |object: &str, choices: serde_json::Value| json!({"id": "chatcmpl-1", "object": object, "created": 1, "model": MODEL, "choices": choices});
        let mut whole =
            of("chat.completion", json!([{"index": 0, "message": message, "finish_reason": "stop"}]));
        let delta = json!([{"index": 0, "delta": message, "finish_reason": "stop"}]);
        let chunk = of("chat.completion.chunk", delta);
        let mut last = of("chat.completion.chunk", json!([]));
        for counted in [&mut whole, &mut last] {
            counted["usage"] = usage.clone();
        }
        let embedded = json!({"data": [{"index": 0, "embedding": [0.6, 0.8]}], "model": MODEL});
        let events = format!("data: {chunk}\n\ndata: {last}\n\ndata: [DONE]\n\n");
        let models =
            json!({"object": "list", "data": [{"id": MODEL, "object": "model", "max_model_len": 4096}]});
        Self {
            models: reply("200 OK", "application/json", &models.to_string()),
            loaded: reply("200 OK", "text/plain", "Success"),
            unnamed: reply(
                "400 Bad Request",
                "text/plain",
                "Both 'lora_name' and 'lora_path' must be provided.",
            ),
            embedded: reply("200 OK", "application/json", &embedded.to_string()),
            whole: reply("200 OK", "application/json", &whole.to_string()),
            streamed: reply("200 OK", "text/event-stream", &events),
        }
    }
}

fn reply(status: &str, kind: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n{body}")
        .into_bytes()
}

/// Answers one connection until it is closed.
fn answer(connection: TcpStream, replies: &Replies) -> std::io::Result<()> {
    connection.set_nodelay(true)?;
    let mut writer = connection.try_clone()?;
    let mut reader = BufReader::with_capacity(1 << 16, connection);
    let (mut line, mut body) = (String::new(), Vec::new());
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let asked = line.clone();
        let mut length = 0;
        loop {
            line.clear();
            reader.read_line(&mut line)?;
            let header = line.trim_end();
            if header.is_empty() {
                break;
            }
            if let Some((name, value)) = header.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse().unwrap_or(0);
            }
        }
        body.resize(length.min(MOST_BYTES), 0);
        reader.read_exact(&mut body)?;
        let has = |part: &[u8]| body.windows(part.len()).any(|there| there == part);
        let reply = match () {
            () if asked.starts_with("GET") => &replies.models,
            () if asked.contains("lora_adapter") && has(b"lora_name") => &replies.loaded,
            () if asked.contains("lora_adapter") => &replies.unnamed,
            () if asked.contains("/embeddings") => &replies.embedded,
            () if has(b"\"stream\":true") => &replies.streamed,
            () => &replies.whole,
        };
        writer.write_all(reply)?;
    }
}
