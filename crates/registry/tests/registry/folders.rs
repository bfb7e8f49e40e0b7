//! Export to and import from PEFT's folders.

use autoglm_domain::{ContentHash, ErrorKind, Store as _, VersionNumber};
use autoglm_registry::NewVersion;

use crate::{World, new_version};

#[tokio::test]
async fn an_exported_version_is_a_peft_folder_that_imports_again() {
    let world = World::new().await;
    let note = Some("made for the test".to_owned());
    let version = world.registry.register(NewVersion { note, ..new_version(0) }).await.unwrap();
    let out = world.folder.path().join("out/v1");
    world.registry.export(version.number, &out).await.unwrap();
    assert_eq!(std::fs::read(out.join("adapter_config.json")).unwrap(), new_version(0).adapter.config);
    assert_eq!(std::fs::read(out.join("adapter_model.safetensors")).unwrap(), new_version(0).adapter.weights);
    let card = std::fs::read_to_string(out.join("README.md")).unwrap();
    for part in
        ["library_name: peft", "# autoglm v1", &version.hash.to_string(), "loss_last | 1.5", "made for"]
    {
        assert!(card.contains(part), "{part} in {card}");
    }
    assert_eq!(std::fs::read_dir(out.parent().unwrap()).unwrap().count(), 1, "nothing else is left");

    let again = world.registry.export(version.number, &out).await.unwrap_err();
    assert_eq!(again.kind(), ErrorKind::Conflict);

    let elsewhere = World::new().await;
    let imported = elsewhere.registry.import(&out, ContentHash::of(b"base"), None).await.unwrap();
    assert_eq!((imported.adapter, imported.hash), (version.adapter, version.hash));
    assert_eq!(imported.parent, VersionNumber::BASE);
    assert_eq!(elsewhere.registry.scan(imported.number).await.unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn folders_without_a_sound_adapter_are_refused() {
    let world = World::new().await;
    let folder = world.folder.path().join("peft");
    let import = || world.registry.import(&folder, ContentHash::of(b"base"), None);
    assert_eq!(import().await.unwrap_err().kind(), ErrorKind::NotFound);

    std::fs::create_dir(&folder).unwrap();
    assert!(import().await.unwrap_err().to_string().ends_with("holds no `adapter_config.json`"));

    std::fs::write(folder.join("adapter_config.json"), new_version(0).adapter.config).unwrap();
    std::fs::write(folder.join("adapter_model.bin"), b"PK\x03\x04").unwrap();
    let error = import().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.hint().unwrap().contains("pickled file can run code"));

    let mut weights = new_version(0).adapter.weights;
    weights.truncate(30);
    std::fs::write(folder.join("adapter_model.safetensors"), weights).unwrap();
    let error = import().await.unwrap_err();
    assert!(error.to_string().starts_with("the adapter was refused: adapter_model.safetensors is truncated"));
    assert!(world.store.versions().await.unwrap().is_empty());

    let base = world.registry.export(VersionNumber::BASE, &world.folder.path().join("b")).await.unwrap_err();
    assert_eq!(base.kind(), ErrorKind::NotFound);
}
