//! Artifacts in a bucket, over moto's double of S3.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use autoglm_domain::{ArtifactStore as _, ContentHash, ErrorKind};
use autoglm_registry::ObjectArtifacts;

/// Set to anything, it makes a missing moto a failure.
const REQUIRED: &str = "REQUIRE_MOTO";
/// Names a Python that has the package; `python3` without it.
const PYTHON: &str = "MOTO_PYTHON";

/// A server that ends with its owner.
struct Moto {
    port: u16,
    server: Child,
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

impl Moto {
    fn start() -> Option<Self> {
        let python = std::env::var(PYTHON).unwrap_or_else(|_| "python3".into());
        let there = Command::new(&python).args(["-c", "import moto.server"]).stderr(Stdio::null()).status();
        if !there.is_ok_and(|status| status.success()) {
            assert!(
                std::env::var_os(REQUIRED).is_none(),
                "{REQUIRED} is set, and `{python}` has no moto ({PYTHON})"
            );
            println!("SKIPPED: `{python}` has no package `moto` (set {PYTHON})");
            return None;
        }
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let server = Command::new(python)
            .args(["-m", "moto.server", "-H", "127.0.0.1", "-p", &port.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let this = Self { port, server: server.unwrap() };
        let begin = Instant::now();
        while !this.request("PUT", "/adapters").is_some_and(|answer| answer.starts_with("HTTP/1.1 200")) {
            assert!(begin.elapsed() < Duration::from_secs(120), "moto does not start");
            std::thread::sleep(Duration::from_millis(200));
        }
        Some(this)
    }

    /// A request by hand.
    fn request(&self, method: &str, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        let host = format!("127.0.0.1:{}", self.port);
        let head = "Authorization: AWS4-HMAC-SHA256 Credential=x/20300101/us-east-1/s3/aws4_request\r\n";
        let end = "Content-Length: 0\r\nConnection: close\r\n\r\n";
        write!(stream, "{method} {path} HTTP/1.1\r\nHost: {host}\r\n{head}{end}").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    }

    fn artifacts(&self) -> ObjectArtifacts {
        let options = [
            ("AWS_ENDPOINT", format!("http://127.0.0.1:{}", self.port)),
            ("AWS_ALLOW_HTTP", "true".into()),
            ("AWS_REGION", "us-east-1".into()),
            ("AWS_ACCESS_KEY_ID", "x".into()),
            ("AWS_SECRET_ACCESS_KEY", "y".into()),
        ];
        ObjectArtifacts::cloud("s3://adapters/of/autoglm", &options).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_keeps_what_it_has_and_is_read_with_care() {
    let Some(moto) = Moto::start() else { return };
    let artifacts = moto.artifacts();
    let hash = ContentHash::of(b"weights");
    assert_eq!(artifacts.get(hash).await.unwrap_err().kind, ErrorKind::NotFound);
    assert_eq!(artifacts.contains(hash).await, Ok(false));
    // Many writers of the same bytes, each as another process would be.
    let writers = (0..8).map(|_| {
        let artifacts = moto.artifacts();
        tokio::spawn(async move { artifacts.put(b"weights".to_vec()).await })
    });
    for writer in writers.collect::<Vec<_>>() {
        assert_eq!(writer.await.unwrap(), Ok(hash));
    }
    assert_eq!(artifacts.contains(hash).await, Ok(true));
    assert_eq!(artifacts.get(hash).await, Ok(b"weights".to_vec()));
    let digits = hash.to_string();
    let path = format!("/adapters/of/autoglm/{}/{}", &digits[..2], &digits[2..]);
    assert!(moto.request("GET", &path).unwrap().ends_with("weights"), "it lies below the prefix");
    // Somebody empties the object: that is noticed, and mended by storing it again.
    assert!(moto.request("PUT", &path).unwrap().starts_with("HTTP/1.1 200"));
    assert!(artifacts.get(hash).await.unwrap_err().message.contains("is damaged"));
    assert_eq!(artifacts.put(b"weights".to_vec()).await, Ok(hash));
    assert_eq!(artifacts.get(hash).await, Ok(b"weights".to_vec()));
}
