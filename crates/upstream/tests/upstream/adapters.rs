//! Versions on servers that load adapters while they run.

use std::path::Path;

use autoglm_domain::{
    Adapter, AdapterHost as _, ErrorKind, GenerationRequest, Generator as _, VersionNumber,
};
use autoglm_upstream::{AdapterProtocol, Config, Dialect, Upstream};
use serde_json::json;

use crate::{
    chat, config,
    fault_injector::{FaultInjector, eventually},
    lora_double::LoraDouble,
    upstream,
};

fn adapter(weights: &str) -> Adapter {
    Adapter { config: b"{\"r\":4}".to_vec(), weights: weights.as_bytes().to_vec() }
}

fn with_folder(base: &str, dir: &Path) -> Upstream {
    upstream(Config { model: "big".into(), adapter_dir: dir.to_owned(), ..config(base) })
}

fn of_version(version: u64) -> GenerationRequest {
    GenerationRequest { version: VersionNumber(version), ..chat("hi") }
}

async fn said(upstream: &Upstream, version: u64) -> String {
    upstream.generate_all(of_version(version)).await.unwrap().text
}

/// The only adapter's name on the server.
fn only(server: &LoraDouble) -> String {
    let loaded = server.loaded();
    assert_eq!(loaded.len(), 1, "{loaded:?}");
    loaded.into_keys().next().unwrap()
}

#[tokio::test]
async fn vllm_gets_exactly_its_orders_and_the_adapter_answers_under_its_hash() {
    let server = LoraDouble::start(Dialect::Vllm).await;
    let folder = tempfile::tempdir().unwrap();
    let upstream = with_folder(&server.base, folder.path());
    assert_eq!(upstream.capabilities().await.unwrap().adapters, Ok(Dialect::Vllm));
    assert_eq!(server.orders(), [], "finding out changes nothing");
    upstream.load(VersionNumber(3), &adapter("three")).await.unwrap();
    let name = only(&server);
    let path = folder.path().join(&name);
    assert!(name.starts_with("autoglm-") && name.len() == 72, "{name}");
    assert_eq!(std::fs::read(path.join("adapter_model.safetensors")).unwrap(), b"three");
    assert_eq!(std::fs::read(path.join("adapter_config.json")).unwrap(), b"{\"r\":4}");
    let load = json!({"lora_name": name, "lora_path": path});
    assert_eq!(server.orders(), [("/v1/load_lora_adapter".to_owned(), load)]);
    assert_eq!(upstream.resident(), [0, 3].map(VersionNumber));
    assert_eq!((said(&upstream, 0).await, said(&upstream, 3).await), ("big".to_owned(), name.clone()));
    upstream.unload(VersionNumber(3));
    eventually("unloaded", || server.loaded().is_empty()).await;
    assert_eq!(server.orders()[1], ("/v1/unload_lora_adapter".to_owned(), json!({"lora_name": name})));
    eventually("removed", || !path.exists()).await;
    let gone = upstream.generate(of_version(3)).await.err().unwrap();
    assert_eq!((gone.kind, gone.message.as_str()), (ErrorKind::NotFound, "version v3 is not resident"));
}

#[tokio::test]
async fn sglang_is_named_the_adapter_beside_the_model() {
    let server = LoraDouble::start(Dialect::Sglang).await;
    let folder = tempfile::tempdir().unwrap();
    let upstream = with_folder(&server.base, folder.path());
    assert_eq!(upstream.capabilities().await.unwrap().adapters, Ok(Dialect::Sglang));
    upstream.load(VersionNumber(3), &adapter("three")).await.unwrap();
    let name = only(&server);
    assert_eq!(server.orders()[0].0, "/load_lora_adapter");
    assert_eq!(said(&upstream, 3).await, format!("big with {name}"));
    upstream.unload(VersionNumber(3));
    eventually("unloaded", || server.loaded().is_empty()).await;
    assert_eq!(server.orders()[1], ("/unload_lora_adapter".to_owned(), json!({"lora_name": name})));
}

#[tokio::test]
async fn another_content_has_another_name_and_the_same_content_is_loaded_once() {
    let server = LoraDouble::start(Dialect::Vllm).await;
    let folder = tempfile::tempdir().unwrap();
    let upstream = with_folder(&server.base, folder.path());
    upstream.load(VersionNumber(1), &adapter("one")).await.unwrap();
    let first = only(&server);
    upstream.load(VersionNumber(2), &adapter("one")).await.unwrap();
    assert_eq!(only(&server), first);
    // The same number with another content: another name, and the first stays for version 2.
    upstream.load(VersionNumber(1), &adapter("another")).await.unwrap();
    let second = said(&upstream, 1).await;
    assert_ne!(second, first);
    assert_eq!(said(&upstream, 2).await, first);
    upstream.unload(VersionNumber(2));
    eventually("the first is gone", || server.loaded().into_keys().eq([second.clone()])).await;
    // A process after this one finds it loaded, which is as good.
    let later = with_folder(&server.base, folder.path());
    later.load(VersionNumber(7), &adapter("another")).await.unwrap();
    assert_eq!(said(&later, 7).await, second);
}

#[tokio::test]
async fn a_folder_that_was_changed_is_not_loaded() {
    let server = LoraDouble::start(Dialect::Vllm).await;
    let folder = tempfile::tempdir().unwrap();
    with_folder(&server.base, folder.path()).load(VersionNumber(1), &adapter("one")).await.unwrap();
    let file = folder.path().join(only(&server)).join("adapter_model.safetensors");
    std::fs::write(file, "tampered").unwrap();
    let upstream = with_folder(&server.base, folder.path());
    let refused = upstream.load(VersionNumber(1), &adapter("one")).await.unwrap_err();
    assert!(refused.message.contains("something else than its name says"), "{refused}");
    assert_eq!((upstream.resident(), server.orders().len()), (vec![VersionNumber::BASE], 1));
}

#[tokio::test]
async fn a_running_answer_keeps_its_adapter_until_it_has_ended() {
    let server = LoraDouble::start(Dialect::Vllm).await;
    let folder = tempfile::tempdir().unwrap();
    let upstream = with_folder(&server.base, folder.path());
    upstream.load(VersionNumber(1), &adapter("one")).await.unwrap();
    let stream = upstream.generate(of_version(1)).await.unwrap();
    upstream.unload(VersionNumber(1));
    assert_eq!(upstream.resident(), [VersionNumber::BASE]);
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    assert_eq!(server.loaded().len(), 1);
    drop(stream);
    eventually("unloaded", || server.loaded().is_empty()).await;
}

#[tokio::test]
async fn an_upstream_that_was_restarted_gets_its_adapters_again() {
    let server = LoraDouble::start(Dialect::Vllm).await;
    let folder = tempfile::tempdir().unwrap();
    let upstream = with_folder(&server.base, folder.path());
    upstream.load(VersionNumber(1), &adapter("one")).await.unwrap();
    let name = only(&server);
    server.forget();
    assert_eq!(said(&upstream, 1).await, name);
    assert_eq!(only(&server), name);
    assert_eq!(server.orders().len(), 2);
}

#[tokio::test]
async fn what_the_upstream_does_not_take_is_refused_with_its_words() {
    let server = LoraDouble::start(Dialect::Vllm).await;
    let folder = tempfile::tempdir().unwrap();
    let upstream = with_folder(&server.base, folder.path());
    let refused = upstream.load(VersionNumber(1), &adapter("broken")).await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Invalid);
    assert_eq!(refused.message, "the adapter of v1 was not loaded: rank 64 is greater than max_lora_rank 16");
    // The folder as the upstream sees it is another one, where nothing lies.
    let elsewhere = Config {
        model: "big".into(),
        adapter_dir: folder.path().to_owned(),
        adapter_dir_remote: "/nowhere".into(),
        ..config(&server.base)
    };
    let refused = crate::upstream(elsewhere).load(VersionNumber(2), &adapter("two")).await.unwrap_err();
    assert!(refused.message.contains("No adapter found"), "{refused}");
    let (_, order) = server.orders().pop().unwrap();
    let path = order["lora_path"].as_str().unwrap().to_owned();
    assert!(path.starts_with("/nowhere/autoglm-"), "{path}");
    assert_eq!(upstream.resident(), [VersionNumber::BASE]);
    let base = upstream.load(VersionNumber::BASE, &adapter("x")).await.unwrap_err();
    assert_eq!(base.kind, ErrorKind::Invalid);
}

#[tokio::test]
async fn without_a_way_to_load_them_only_the_base_model_answers_and_the_reason_is_given() {
    let plain = FaultInjector::start([]).await;
    let lora = LoraDouble::start(Dialect::Vllm).await;
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().to_owned();
    for (config, reason) in [
        (Config { adapter_dir: dir.clone(), ..config(&plain.base) }, "neither vLLM's nor SGLang's way"),
        (config(&lora.base), "`upstream.adapter_dir` names no folder"),
        (
            Config { adapter_dir: dir, adapters: AdapterProtocol::Off, ..config(&lora.base) },
            "`upstream.adapters` is `off`",
        ),
    ] {
        let upstream = upstream(config);
        let refused = upstream.load(VersionNumber(3), &adapter("three")).await.unwrap_err();
        assert_eq!(refused.kind, ErrorKind::Invalid);
        assert!(refused.message.starts_with("v3 cannot answer: "), "{refused}");
        assert!(refused.message.contains(reason), "{refused}");
    }
    assert_eq!(lora.orders(), []);
}
