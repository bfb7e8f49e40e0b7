//! One server, for it is slow to start: everything that happens to it, in order.

use std::sync::Arc;

use autoglm_domain::{Alias, ErrorKind, VersionNumber};
use autoglm_doubles::MlflowServer;
use autoglm_mlflow::{Config, Mlflow, MovedThere};
use serde_json::{Value, json};

use crate::world::{World, run_id};

struct Api(String);

impl Api {
    async fn ask(&self, call: &str, body: Value) -> Value {
        let url = format!("{}/api/2.0/mlflow/{call}", self.0);
        let response = reqwest::Client::new().post(url).json(&body).send().await.unwrap();
        let (status, text) = (response.status(), response.text().await.unwrap());
        assert!(status.is_success(), "{call}: {text}");
        serde_json::from_str(&text).unwrap()
    }

    async fn get(&self, call: &str, query: &[(&str, &str)]) -> Value {
        let url = format!("{}/api/2.0/mlflow/{call}", self.0);
        let response = reqwest::Client::new().get(url).query(query).send().await.unwrap();
        serde_json::from_str(&response.text().await.unwrap()).unwrap()
    }

    async fn runs(&self) -> Vec<Value> {
        let found = self.get("experiments/get-by-name", &[("experiment_name", "loop")]).await;
        let id = found["experiment"]["experiment_id"].clone();
        let found =
            self.ask("runs/search", json!({"experiment_ids": [id], "order_by": ["start_time"]})).await;
        found["runs"].as_array().unwrap().clone()
    }

    async fn versions(&self) -> Vec<Value> {
        let found = self.get("model-versions/search", &[("filter", "name = 'intents'")]).await;
        let mut versions = found["model_versions"].as_array().cloned().unwrap_or_default();
        versions.sort_by_key(|it| it["version"].as_str().unwrap().to_owned());
        versions
    }

    async fn champion(&self) -> Option<String> {
        let found = self.get("registered-models/alias", &[("name", "intents"), ("alias", "champion")]).await;
        found["model_version"]["version"].as_str().map(str::to_owned)
    }

    async fn point(&self, alias: &str, version: &str) {
        self.ask("registered-models/alias", json!({"name": "intents", "alias": alias, "version": version}))
            .await;
    }

    async fn artifact(&self, run: &Value, name: &str) -> Vec<u8> {
        let root = run["info"]["artifact_uri"].as_str().unwrap().strip_prefix("mlflow-artifacts:/").unwrap();
        let url = format!("{}/api/2.0/mlflow-artifacts/artifacts/{root}/adapter/{name}", self.0);
        let response = reqwest::get(url).await.unwrap();
        assert!(response.status().is_success());
        response.bytes().await.unwrap().to_vec()
    }
}

/// The value of `key` in a list of keys and values.
fn value<'a>(list: &'a Value, key: &str) -> Option<&'a Value> {
    list.as_array()?.iter().find(|it| it["key"] == key).map(|it| &it["value"])
}

async fn push_all(mlflow: &Mlflow, world: &World) -> autoglm_domain::Result<()> {
    for event in world.store.events() {
        mlflow.push(&event).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_there_once_and_a_move_by_hand_is_seen() {
    let Some(mut server) = MlflowServer::start() else { return };
    let world = World::new().await;
    let config = Config {
        url: server.url(),
        experiment: "loop".into(),
        model: "intents".into(),
        timeout_ms: 60_000,
        ..Config::default()
    };
    let mlflow =
        || Mlflow::new(config.clone(), Arc::clone(&world.store) as _, Arc::clone(&world.shelf) as _).unwrap();
    let api = Api(server.url());

    // Twice, by two processes: nothing is there twice.
    push_all(&mlflow(), &world).await.unwrap();
    push_all(&mlflow(), &world).await.unwrap();
    let runs = api.runs().await;
    assert_eq!(runs.len(), 2);
    let (trained, imported) = (&runs[0], &runs[1]);
    let (tags, params) = (&trained["data"]["tags"], &trained["data"]["params"]);
    assert_eq!(trained["info"]["status"], "FINISHED");
    assert_eq!(value(tags, "autoglm.run").unwrap(), &run_id().to_string());
    assert_eq!(value(tags, "autoglm.outcome").unwrap(), "promote");
    assert!(value(tags, "autoglm.snapshot").is_some());
    assert_eq!(value(params, "learning_rate").unwrap(), "0.15");
    assert_eq!(value(params, "trigger").unwrap(), "new_experiences");
    assert_eq!(value(params, "seed").unwrap(), &u64::MAX.to_string());
    let metrics = &trained["data"]["metrics"];
    assert_eq!(value(metrics, "loss_last").unwrap(), 0.25);
    assert_eq!(value(metrics, "gate.new_skill.accuracy").unwrap(), 0.75);
    assert_eq!(value(metrics, "gate.new_skill.difference_lower").unwrap(), 0.1);
    let versions = api.versions().await;
    assert_eq!(versions.len(), 2);
    assert_eq!(value(&versions[0]["tags"], "autoglm.version").unwrap(), "v1");
    assert_eq!(versions[0]["run_id"], trained["info"]["run_id"]);
    assert_eq!(versions[1]["run_id"], imported["info"]["run_id"]);
    assert_eq!(versions[1]["description"], "from elsewhere");
    assert_eq!(api.artifact(trained, "adapter_model.safetensors").await, vec![1; 1000]);
    assert_eq!(api.champion().await.as_deref(), Some("1"));

    // Our own move is no news; somebody else's is, until it was made here.
    let champion = Alias::champion();
    let mirror = mlflow();
    assert_eq!(mirror.moved_there(&champion).await.unwrap(), None);
    api.point("champion", "2").await;
    let moved = Some(MovedThere { to: VersionNumber(2), number: "2".into() });
    assert_eq!(mirror.moved_there(&champion).await.unwrap(), moved);
    assert_eq!(mlflow().moved_there(&champion).await.unwrap(), moved, "also to a process that is new");
    world.promote(1, 2).await;
    push_all(&mirror, &world).await.unwrap();
    assert_eq!(mirror.moved_there(&champion).await.unwrap(), None);
    assert_eq!(api.champion().await.as_deref(), Some("2"));
    // A version of somebody else's is named, and followed by nobody.
    let foreign = json!({"name": "intents", "source": "s3://elsewhere/model"});
    api.ask("model-versions/create", foreign).await;
    api.point("champion", "3").await;
    let error = mirror.moved_there(&champion).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Invalid);
    assert!(error.message.contains("no version of autoglm"), "{error}");
    api.point("champion", "2").await;

    // While it is away nothing is lost, and back at the base model there is no alias.
    server.stop();
    world.promote(2, 0).await;
    let event = world.store.events().pop().unwrap();
    assert_eq!(mirror.push(&event).await.unwrap_err().kind, ErrorKind::Unavailable);
    server.resume();
    mirror.push(&event).await.unwrap();
    assert_eq!(api.champion().await, None);
    assert_eq!(mirror.moved_there(&champion).await.unwrap(), None);
}
