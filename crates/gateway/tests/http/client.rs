//! The official `openai` Python package against the gateway.

use std::process::{Command, Output};

use autoglm_gateway::Config;

use crate::harness::Server;

/// Runs `tests/openai_client.py` where a Python with the package is at hand (`OPENAI_PYTHON`, else
/// `python3`); elsewhere there is nothing to run it with and the test says so.
#[tokio::test(flavor = "multi_thread")]
async fn the_official_client_works() {
    let python = std::env::var("OPENAI_PYTHON").unwrap_or_else(|_| "python3".into());
    let there = run(&python, &["-c", "import openai"]).await;
    if !there.is_ok_and(|output| output.status.success()) {
        println!("skipped: `{python}` has no package `openai` (set OPENAI_PYTHON)");
        return;
    }
    let server = Server::start(Config::default()).await;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/openai_client.py");
    let base_url = format!("http://{}/v1", server.address);
    let output = run(&python, &[script, &base_url, "--double"]).await.unwrap();
    let (said, complained) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("{said}");
    assert!(output.status.success() && said.contains(" 0 failed"), "{said}\n{complained}");
    server.stop().await;
}

async fn run(program: &str, arguments: &[&str]) -> std::io::Result<Output> {
    let mut command = Command::new(program);
    command.args(arguments);
    tokio::task::spawn_blocking(move || command.output()).await.unwrap()
}
