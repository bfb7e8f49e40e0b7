//! The official `openai` Python package against the executable.

use std::process::Command;

use crate::server::{Server, run};

/// Runs the gateway's `openai_client.py` where a Python with the package is at hand (`OPENAI_PYTHON`, else
/// `python3`); elsewhere there is nothing to run it with and the test says so.
#[tokio::test(flavor = "multi_thread")]
async fn the_official_client_works_against_the_executable() {
    let python = std::env::var("OPENAI_PYTHON").unwrap_or_else(|_| "python3".into());
    let there = Command::new(&python).args(["-c", "import openai"]).output();
    if !there.is_ok_and(|output| output.status.success()) {
        println!("SKIPPED: `{python}` has no package `openai` (set OPENAI_PYTHON)");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(&folder.path().join("data"), &[]).await;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../gateway/tests/openai_client.py");
    let base = format!("{}/v1", server.base);
    let ended =
        tokio::task::spawn_blocking(move || run(Command::new(&python).args([script, &base]))).await.unwrap();
    println!("{}", ended.out);
    assert_eq!(ended.code, Some(0), "{}\n{}", ended.out, ended.err);
    assert!(ended.out.contains(" 0 failed"), "{}", ended.out);
    server.stop();
}
