//! A client that costs as little as it can: a thread a connection, blocking, and the same request but for a number.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream, ToSocketAddrs as _},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use autoglm_domain::{Error, Result};
use serde_json::json;

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Digits of the number that makes each request another conversation.
const DIGITS: usize = 10;

/// Where requests go, and what they are.
#[derive(Debug, Clone)]
pub(super) struct Target {
    address: SocketAddr,
    request: Vec<u8>,
    /// Where the number stands in it.
    number_at: usize,
}

/// How long a load goes on.
#[derive(Debug, Clone, Copy)]
pub(super) enum Until {
    /// So long.
    Time(Duration),
    /// Until so many requests were sent.
    Requests(u64),
}

/// What came of a load.
#[derive(Debug, Default)]
pub(super) struct Load {
    /// Of the requests that were answered with 200.
    pub(super) latencies: Vec<Duration>,
    /// Of the others.
    pub(super) failed: usize,
    /// How long it took.
    pub(super) took: Duration,
}

impl Target {
    /// Chat completions of `model` at `base_url`, such as `http://127.0.0.1:8080/v1`.
    pub(super) fn new(base_url: &str, model: &str) -> Result<Self> {
        let wrong = || Error::invalid(format!("`{base_url}` is not of the form http://HOST:PORT/PATH"));
        let rest = base_url.strip_prefix("http://").ok_or_else(wrong)?;
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let address = host.to_socket_addrs().ok().and_then(|mut found| found.next()).ok_or_else(wrong)?;
        let number = "0".repeat(DIGITS);
        let content = format!("hello {number}");
        let body = json!({"model": model, "messages": [{"role": "user", "content": content}]}).to_string();
        let path = path.trim_end_matches('/');
        let request = format!(
            "POST /{path}/chat/completions HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n\
             authorization: Bearer sk-test\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let number_at = request.rfind(&number).ok_or_else(wrong)?;
        Ok(Self { address, request: request.into_bytes(), number_at })
    }

    /// Whether it answers.
    pub(super) fn answers(&self) -> bool {
        Connection::open(self).and_then(|mut connection| connection.ask(0)).unwrap_or(false)
    }
}

/// `connections` that ask without a pause.
pub(super) fn without_pause(target: &Target, connections: usize, until: Until) -> Load {
    let asked = Arc::new(AtomicU64::new(0));
    let begin = Instant::now();
    all(target, connections, begin, |_| {
        let asked = Arc::clone(&asked);
        move |_: u64| {
            let number = asked.fetch_add(1, Ordering::Relaxed);
            let goes_on = match until {
                Until::Time(time) => begin.elapsed() < time,
                Until::Requests(all) => number < all,
            };
            goes_on.then(|| (number, Instant::now()))
        }
    })
}

/// Requests at `rate` a second over `connections` for `time`, each measured from when it was due: a gateway that stalls is
/// charged for everybody who waited.
pub(super) fn at_rate(target: &Target, connections: usize, rate: f64, time: Duration) -> Load {
    let begin = Instant::now() + Duration::from_millis(50);
    all(target, connections, begin, |connection| {
        move |turn: u64| {
            let number = turn * connections as u64 + connection as u64;
            let due = begin + Duration::from_secs_f64(number as f64 / rate);
            if due.duration_since(begin) >= time {
                return None;
            }
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            Some((number, due))
        }
    })
}

/// Runs a thread a connection; `next` of each gives the number and the beginning of its next request.
fn all<N>(target: &Target, connections: usize, begin: Instant, mut next: impl FnMut(usize) -> N) -> Load
where
    N: FnMut(u64) -> Option<(u64, Instant)> + Send + 'static,
{
    let threads: Vec<_> = (0..connections)
        .map(|connection| {
            let (target, next) = (target.clone(), next(connection));
            std::thread::spawn(move || one(&target, next))
        })
        .collect();
    let mut load = Load::default();
    for thread in threads {
        // A thread that is lost asked nothing more.
        if let Ok(one) = thread.join() {
            load.latencies.extend(one.latencies);
            load.failed += one.failed;
        }
    }
    load.took = begin.elapsed();
    load
}

fn one(target: &Target, mut next: impl FnMut(u64) -> Option<(u64, Instant)>) -> Load {
    let (mut load, mut connection, mut turn) = (Load::default(), None, 0);
    while let Some((number, begin)) = next(turn) {
        turn += 1;
        let open = match connection.take() {
            Some(open) => Ok(open),
            None => Connection::open(target),
        };
        let answered = open.and_then(|mut open| {
            let answered = open.ask(number)?;
            connection = Some(open);
            Ok(answered)
        });
        match answered {
            Ok(true) => load.latencies.push(begin.elapsed()),
            Ok(false) | Err(_) => load.failed += 1,
        }
    }
    load
}

struct Connection {
    stream: TcpStream,
    request: Vec<u8>,
    number_at: usize,
    answer: Vec<u8>,
}

impl Connection {
    fn open(target: &Target) -> std::io::Result<Self> {
        let stream = TcpStream::connect_timeout(&target.address, PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let (request, number_at) = (target.request.clone(), target.number_at);
        Ok(Self { stream, request, number_at, answer: Vec::new() })
    }

    /// Asks once; whether the answer is a 200.
    fn ask(&mut self, number: u64) -> std::io::Result<bool> {
        let digits = format!("{number:0width$}", width = DIGITS);
        let at = self.number_at..self.number_at + DIGITS;
        if let (Some(place), Some(digits)) = (self.request.get_mut(at), digits.as_bytes().get(..DIGITS)) {
            place.copy_from_slice(digits);
        }
        self.stream.write_all(&self.request)?;
        self.answer.clear();
        let mut part = [0; 8192];
        while !is_whole(&self.answer) {
            match self.stream.read(&mut part)? {
                0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                read => self.answer.extend_from_slice(part.get(..read).unwrap_or_default()),
            }
        }
        Ok(self.answer.get(9..12) == Some(b"200"))
    }
}

/// Whether the whole of an answer is there: so many bytes as it says, or up to the last chunk.
fn is_whole(answer: &[u8]) -> bool {
    let Some(head) = answer.windows(4).position(|part| part == b"\r\n\r\n") else { return false };
    let text = String::from_utf8_lossy(answer.get(..head).unwrap_or_default());
    let length = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    match length {
        Some(length) => answer.len() >= head + 4 + length,
        None => answer.ends_with(b"0\r\n\r\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_at_its_length_or_its_last_chunk() {
        assert!(!is_whole(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab"));
        assert!(is_whole(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"));
        assert!(!is_whole(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n"));
        assert!(is_whole(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"));
    }

    #[test]
    fn a_url_is_taken_apart_and_every_request_has_a_number() {
        let target = Target::new("http://127.0.0.1:9/v1/", "m").unwrap();
        let text = String::from_utf8(target.request.clone()).unwrap();
        assert!(text.starts_with("POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:9\r\n"), "{text}");
        assert_eq!(&text[target.number_at..target.number_at + DIGITS], "0000000000");
        assert!(Target::new("127.0.0.1:9", "m").is_err());
        assert!(!target.answers(), "nobody listens there");
    }
}
