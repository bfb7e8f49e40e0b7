//! Artifacts in a bucket, over moto's double of S3.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
};

use autoglm_domain::{ArtifactStore as _, ContentHash, ErrorKind};
use autoglm_doubles::S3Server;
use autoglm_registry::ObjectArtifacts;

/// A request by hand.
fn request(server: &S3Server, method: &str, path: &str) -> String {
    let host = server.endpoint().replace("http://", "");
    let mut stream = TcpStream::connect(&host).unwrap();
    // The server wants to see a signature, whatever it says: without one an object is nobody's to read.
    let signature =
        "AWS4-HMAC-SHA256 Credential=x/20200101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0";
    let end = format!("authorization: {signature}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    write!(stream, "{method} {path} HTTP/1.1\r\nhost: {host}\r\n{end}").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn open(server: &S3Server) -> ObjectArtifacts {
    let options = [
        ("AWS_ENDPOINT", server.endpoint()),
        ("AWS_ALLOW_HTTP", "true".into()),
        ("AWS_REGION", "us-east-1".into()),
        ("AWS_ACCESS_KEY_ID", "x".into()),
        ("AWS_SECRET_ACCESS_KEY", "y".into()),
    ];
    ObjectArtifacts::cloud("s3://adapters/of/autoglm", &options).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_keeps_what_it_has_and_is_read_with_care() {
    let Some(server) = S3Server::start() else { return };
    server.make_bucket("adapters");
    let artifacts = open(&server);
    let hash = ContentHash::of(b"weights");
    assert_eq!(artifacts.get(hash).await.unwrap_err().kind, ErrorKind::NotFound);
    assert_eq!(artifacts.contains(hash).await, Ok(false));
    // Many writers of the same bytes, each as another process would be.
    let writers = (0..8).map(|_| {
        let artifacts = open(&server);
        tokio::spawn(async move { artifacts.put(b"weights".to_vec()).await })
    });
    for writer in writers.collect::<Vec<_>>() {
        assert_eq!(writer.await.unwrap(), Ok(hash));
    }
    assert_eq!(artifacts.contains(hash).await, Ok(true));
    assert_eq!(artifacts.get(hash).await, Ok(b"weights".to_vec()));
    let digits = hash.to_string();
    let path = format!("/adapters/of/autoglm/{}/{}", &digits[..2], &digits[2..]);
    let found = request(&server, "GET", &path);
    assert!(found.ends_with("weights"), "it lies below the prefix: {found}");
    // Somebody empties the object: that is noticed, and mended by storing it again.
    assert!(request(&server, "PUT", &path).starts_with("HTTP/1.1 200"));
    assert!(artifacts.get(hash).await.unwrap_err().message.contains("is damaged"));
    assert_eq!(artifacts.put(b"weights".to_vec()).await, Ok(hash));
    assert_eq!(artifacts.get(hash).await, Ok(b"weights".to_vec()));
}
