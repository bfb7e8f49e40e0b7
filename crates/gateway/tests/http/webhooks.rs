//! Announcements of models: who is believed, and what they may say.

use autoglm_gateway::{Config, Keys};
use axum::{body::Body, http::Request};
use serde_json::json;

use crate::harness::{Harness, Reply, gateway};

async fn announce(harness: &Harness, at: &str, signature: &str, body: &str) -> Reply {
    let request = Request::post("/v1/autoglm/webhooks/model")
        .header("x-autoglm-timestamp", at)
        .header("x-autoglm-signature", signature)
        .body(Body::from(body.to_owned()));
    harness.send(request.unwrap()).await
}

#[tokio::test]
async fn a_signature_stands_in_place_of_a_key() {
    let keys = Keys([("sk-1".to_owned(), "ada".to_owned())].into());
    let harness = Harness::with(Config { keys, admins: vec!["ada".into()], ..Config::default() });
    let good = announce(&harness, "1", "good", r#"{"path": "/models/a", "note": "nightly"}"#).await;
    assert_eq!(good.status, 200, "{}", good.body);
    assert_eq!(
        good.json(),
        json!({"object": "autoglm.announcement", "version": "v8",
            "rollout": "roll_00000000000000000000000000000001"})
    );
    for (at, signature) in [("1", "bad"), ("1", ""), ("", "good")] {
        let refused = announce(&harness, at, signature, r#"{"path": "/models/a"}"#).await;
        assert_eq!(refused.status, 401, "{}", refused.body);
        assert_eq!(refused.json()["error"]["code"], "invalid_signature");
    }
    assert_eq!(announce(&harness, "2", "good", r#"{"path": "/models/a"}"#).await.status, 409);
}

#[tokio::test]
async fn what_is_said_is_checked_once_it_is_believed() {
    let harness = Harness::new();
    let refused =
        [("{}", 400), ("nonsense", 400), (r#"{"path": 3}"#, 400), (r#"{"paths": "x", "path": "y"}"#, 400)];
    for (body, status) in refused {
        assert_eq!(announce(&harness, "1", "good", body).await.status, status, "{body}");
        assert_eq!(announce(&harness, "1", "bad", body).await.status, 401, "{body}");
    }
    assert_eq!(announce(&harness, "1", "good", r#"{"path": "/busy/a"}"#).await.status, 409);
    for (body, status) in [
        (r#"{"git": "https://host/m.git", "version": "v7"}"#, 409),
        (r#"{"git": "https://host/m.git", "rev": "beef"}"#, 200),
        (r#"{"git": "https://host/m.git", "path": "/models/a"}"#, 400),
        (r#"{"git": "https://host/m.git", "rev": "beef", "version": "v1"}"#, 400),
        (r#"{"git": "https://host/m.git", "version": "latest"}"#, 400),
        (r#"{"path": "/models/a", "rev": "beef"}"#, 400),
    ] {
        assert_eq!(announce(&harness, "1", "good", body).await.status, status, "{body}");
    }
}

#[tokio::test]
async fn where_no_secret_is_set_nothing_is_announced() {
    let (mut gateway, doubles) = gateway(Config::default());
    gateway.announcements = None;
    let harness = Harness::over((gateway, doubles));
    let reply = announce(&harness, "1", "good", r#"{"path": "/models/a"}"#).await;
    assert_eq!(reply.status, 404);
    assert!(reply.body.contains("webhook.inbound"), "{}", reply.body);
}
