//! TLS to a real server with a certificate of our own making, which takes nobody without.

use autoglm_domain::*;
use autoglm_doubles::{Certificate, PostgresServer};
use autoglm_journal::{Config, JournalError, PostgresStore};
use sqlx::Connection as _;

use crate::samples::event;

/// A server with a certificate for `name`, and the file of its authority.
fn secured(name: &str) -> Option<(PostgresServer, tempfile::TempDir, String)> {
    let mut server = PostgresServer::start()?;
    let certificate = Certificate::of(name);
    server.secure(&certificate.certificate, &certificate.key);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("authority.pem");
    std::fs::write(&path, certificate.authority).unwrap();
    Some((server, folder, path.display().to_string()))
}

async fn refusal(url: &str) -> JournalError {
    let error = PostgresStore::connect(url, Config::default()).await.unwrap_err();
    assert!(!format!("{error} {error:?}").contains("p@ss"), "{error:?}");
    error
}

#[tokio::test]
async fn a_store_over_tls_is_a_store() {
    let Some((server, _folder, authority)) = secured("127.0.0.1") else { return };
    let url = server.url("postgres");
    // All sessions: the writer's, the readers' and the listener's.
    for mode in [format!("verify-full&sslrootcert={authority}"), "require".into(), "prefer".into()] {
        let store =
            PostgresStore::connect(&format!("{url}?sslmode={mode}"), Config::default()).await.unwrap();
        let before = store.last_seq().await.unwrap();
        store.append(vec![event::interaction(u64::try_from(before).unwrap() + 1)]).await.unwrap();
        assert_eq!(store.last_seq().await, Ok(before + 1), "{mode}");
        store.close().await.unwrap();
    }
    let mut session = sqlx::PgConnection::connect(&format!("{url}?sslmode=require")).await.unwrap();
    let sql = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    let (encrypted,): (bool,) = sqlx::query_as(sql).fetch_one(&mut session).await.unwrap();
    assert!(encrypted);
}

#[tokio::test]
async fn a_certificate_that_nobody_vouches_for_or_of_another_name_is_not_believed() {
    let Some((server, _folder, authority)) = secured("db.example") else { return };
    let url = server.url("postgres");
    let at = format!("127.0.0.1:{}/postgres", server.port());
    for (mode, says) in [
        ("verify-full".to_owned(), "UnknownIssuer"),
        ("verify-ca".to_owned(), "UnknownIssuer"),
        (format!("verify-full&sslrootcert={authority}"), "not valid for name"),
    ] {
        let error = refusal(&format!("{url}?sslmode={mode}")).await;
        let (kind, text) = (error.kind(), error.to_string());
        assert_eq!(kind, ErrorKind::Unavailable, "{mode}: {text}");
        assert!(text.starts_with(&format!("no TLS with Postgres at `{at}`: ")), "{mode}: {text}");
        assert!(text.contains(says), "{mode}: {text}");
        assert!(error.hint().unwrap().contains("sslrootcert"), "{mode}");
    }
    let error = refusal(&format!("{url}?sslmode=verify-full&sslrootcert=/nowhere.pem")).await;
    assert!(error.to_string().contains("No such file"), "{error}");
    // Its authority is the right one, and that is all that was asked.
    let trusted = format!("{url}?sslmode=verify-ca&sslrootcert={authority}");
    PostgresStore::connect(&trusted, Config::default()).await.unwrap().close().await.unwrap();
}

#[tokio::test]
async fn each_side_may_insist_on_tls() {
    let Some((server, _folder, _)) = secured("127.0.0.1") else { return };
    let error = refusal(&format!("{}?sslmode=disable", server.url("postgres"))).await;
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    assert!(error.to_string().contains("no encryption"), "{error}");
    let Some(plain) = PostgresServer::start() else { return };
    let error = refusal(&format!("{}?sslmode=require", plain.url("postgres"))).await;
    assert!(error.to_string().ends_with("server does not support TLS"), "{error}");
}
