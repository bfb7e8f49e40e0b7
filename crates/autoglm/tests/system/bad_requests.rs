//! Requests that are wrong, at a real server: each is answered with a clear error, and the server goes on.

use serde_json::Value;

use crate::server::Server;

#[tokio::test(flavor = "multi_thread")]
async fn bad_requests_are_refused_and_the_server_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(&folder.path().join("data"), &[]).await;
    let long = format!(
        r#"{{"model": "champion", "messages": [{{"role": "user", "content": "{}"}}]}}"#,
        "word ".repeat(3000)
    );
    let chat = "/v1/chat/completions";
    let mut text = String::new();
    for (name, path, body) in [
        ("malformed JSON", chat, r#"{"model": "champion", "messages": ["#),
        ("no JSON at all", chat, "hello"),
        ("an unknown model", chat, r#"{"model": "gpt-9", "messages": [{"role": "user", "content": "hi"}]}"#),
        ("an over-long prompt", chat, &long),
        (
            "an unknown field",
            chat,
            r#"{"model": "champion", "temprature": 1, "messages": [{"role": "user", "content": "hi"}]}"#,
        ),
        ("no messages", chat, r#"{"model": "champion", "messages": []}"#),
        (
            "more tokens than there are",
            chat,
            r#"{"model": "champion", "max_tokens": -1, "messages": [{"role": "user", "content": "hi"}]}"#,
        ),
        (
            "contradictory limits",
            chat,
            r#"{"model": "champion", "max_tokens": 3, "max_completion_tokens": 4, "messages": [{"role": "user", "content": "hi"}]}"#,
        ),
        ("feedback on nothing", "/v1/feedback", r#"{"thumb": "up"}"#),
        (
            "feedback on an unknown answer",
            "/v1/feedback",
            r#"{"id": "chatcmpl-00000000000070008000000000000000", "thumb": "up"}"#,
        ),
        ("training on nothing", "/v1/autoglm/train", "{}"),
        ("promoting what is not there", "/v1/autoglm/promote", r#"{"version": "v9"}"#),
        ("going back to nothing", "/v1/autoglm/rollback", "{}"),
    ] {
        let request = server.http.post(format!("{}{path}", server.base));
        let response =
            request.header("content-type", "application/json").body(body.to_owned()).send().await.unwrap();
        let status = response.status().as_u16();
        let body: Value = response.json().await.unwrap();
        text += &format!("## {name}: {status}\n{}\n\n", serde_json::to_string(&body).unwrap());
    }
    insta::assert_snapshot!(text);
    server.ask("champion", "still there?").await;
    server.stop();
}
