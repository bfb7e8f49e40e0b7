//! Versions to a real git repository with git-lfs, and back.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use autoglm_domain::{ContentHash, ErrorKind, HyperParameters, Store as _, VersionNumber};
use autoglm_registry::{GitPick, GitSource, GitTarget, NewVersion};

use crate::{World, new_version};

/// Set to anything, it makes a missing git-lfs a failure.
const REQUIRED: &str = "REQUIRE_GIT_LFS";

/// A bare repository; `None` where this machine has no git-lfs.
fn remote(world: &World) -> Option<PathBuf> {
    let there = Command::new("git").args(["lfs", "version"]).output().is_ok_and(|it| it.status.success());
    if !there {
        assert!(
            std::env::var_os(REQUIRED).is_none(),
            "{REQUIRED} is set, and `git lfs version` does not run"
        );
        println!("SKIPPED: `git lfs version` does not run");
        return None;
    }
    let path = world.folder.path().join("models.git");
    git(world.folder.path(), &["init", "--quiet", "--bare", "models.git"]);
    Some(path)
}

fn git(folder: &Path, args: &[&str]) -> String {
    let output = Command::new("git").current_dir(folder).args(args).output().unwrap();
    assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn target(remote: &Path) -> GitTarget {
    GitTarget {
        remote: remote.display().to_string(),
        branch: "main".into(),
        author: "autoglm <models@example.org>".into(),
    }
}

fn source(remote: &Path, pick: GitPick) -> GitSource {
    GitSource { remote: remote.display().to_string(), branch: "main".into(), pick }
}

#[tokio::test]
async fn a_version_is_one_commit_and_comes_back_bit_for_bit() {
    let world = World::new().await;
    let Some(remote) = remote(&world) else { return };
    let hyper = Some(HyperParameters { learning_rate: 0.0003, ..HyperParameters::default() });
    let first = NewVersion { hyper, note: Some("the first".into()), ..new_version(0) };
    let first = world.registry.register(first).await.unwrap();
    world.registry.register(new_version(1)).await.unwrap();
    let target = target(&remote);
    let one = world.registry.export_git(VersionNumber(1), &target).await.unwrap();
    let two = world.registry.export_git(VersionNumber(2), &target).await.unwrap();
    assert!(one.new && two.new && one.commit != two.commit);
    // Again, from the beginning: nothing is new.
    for (number, before) in [(1, &one), (2, &two)] {
        let again = world.registry.export_git(VersionNumber(number), &target).await.unwrap();
        assert_eq!((again.commit, again.new), (before.commit.clone(), false));
    }
    assert_eq!(git(&remote, &["rev-list", "--count", "main"]), "2");
    assert_eq!(git(&remote, &["log", "-1", "--format=%an <%ae>", "main"]), "autoglm <models@example.org>");
    let files = git(&remote, &["ls-tree", "--name-only", "main"]);
    assert_eq!(
        files.lines().collect::<Vec<_>>(),
        [
            ".gitattributes",
            "README.md",
            "adapter_config.json",
            "adapter_model.safetensors",
            "lineage.json",
            "metrics.json",
            "version.json"
        ]
    );
    let pointer = git(&remote, &["show", "main:adapter_model.safetensors"]);
    assert!(pointer.starts_with("version https://git-lfs.github.com/spec/v1"), "{pointer}");
    let lineage: serde_json::Value =
        serde_json::from_str(&git(&remote, &["show", "main:lineage.json"])).unwrap();
    assert_eq!(lineage["parents"][0]["hash"], first.hash.to_string());

    let elsewhere = World::new().await;
    let picks = [
        (GitPick::Version(VersionNumber(1)), &one.commit),
        (GitPick::Rev(one.commit[..10].to_owned()), &one.commit),
        (GitPick::Latest, &two.commit),
    ];
    for (pick, commit) in picks {
        let found = elsewhere.registry.read_git(&source(&remote, pick)).await.unwrap();
        assert_eq!(found.commit.as_ref(), Some(commit));
        let number = if commit == &one.commit { 1 } else { 2 };
        assert_eq!(found.adapter, world.registry.adapter(VersionNumber(number)).await.unwrap().unwrap());
    }
    let found = elsewhere.registry.read_git(&source(&remote, GitPick::Version(first.number))).await.unwrap();
    let other = elsewhere.registry.register_git(found.clone(), ContentHash::of(b"other"), None).await;
    assert_eq!(other.unwrap_err().kind(), ErrorKind::Invalid);
    let back = elsewhere.registry.register_git(found.clone(), ContentHash::of(b"base"), None).await.unwrap();
    assert_eq!((back.hash, back.adapter, &back.hyper), (first.hash, first.adapter, &first.hyper));
    assert_eq!(back.metrics, first.metrics);
    let again = elsewhere.registry.register_git(found, ContentHash::of(b"base"), None).await.unwrap();
    assert_eq!(again.number, back.number);
    // Where it came from it is what is there.
    let home = world.registry.read_git(&source(&remote, GitPick::Version(first.number))).await.unwrap();
    let home = world.registry.register_git(home, ContentHash::of(b"base"), None).await.unwrap();
    assert_eq!(home, first);
    assert_eq!(world.store.versions().await.unwrap().len(), 2);
}

#[tokio::test]
async fn what_is_missing_or_changed_is_named() {
    let world = World::new().await;
    let Some(remote) = remote(&world) else { return };
    world.chain(1).await;
    let read = |pick| {
        let source = source(&remote, pick);
        let registry = &world.registry;
        async move {
            registry.read_git(&source).await.map(drop).map_err(|error| (error.kind(), error.to_string()))
        }
    };
    let (kind, message) = read(GitPick::Latest).await.unwrap_err();
    assert_eq!(kind, ErrorKind::NotFound);
    assert!(message.starts_with("there is no branch `main` in "), "{message}");
    world.registry.export_git(VersionNumber(1), &target(&remote)).await.unwrap();
    let (kind, message) = read(GitPick::Version(VersionNumber(9))).await.unwrap_err();
    assert!(kind == ErrorKind::NotFound && message.contains("commit of v9"), "{message}");
    let (kind, message) = read(GitPick::Rev("beef".into())).await.unwrap_err();
    assert!(kind == ErrorKind::NotFound && message.contains("commit `beef`"), "{message}");

    for (wrong, kind) in [
        ("ext::sh -c date", ErrorKind::Invalid),
        ("--upload-pack=date", ErrorKind::Invalid),
        ("/nowhere/at/all", ErrorKind::Unavailable),
    ] {
        let target = GitTarget { remote: wrong.into(), ..target(&remote) };
        let error = world.registry.export_git(VersionNumber(1), &target).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
    }
    let target = GitTarget { branch: "a..b".into(), ..target(&remote) };
    let error = world.registry.export_git(VersionNumber(1), &target).await.unwrap_err();
    assert_eq!(error.to_string(), "`a..b` cannot be the name of a branch");

    // Somebody changes the configuration beside the weights.
    let clone = world.folder.path().join("clone");
    git(world.folder.path(), &["clone", "--quiet", "--branch", "main", "models.git", "clone"]);
    let config = std::fs::read_to_string(clone.join("adapter_config.json")).unwrap();
    std::fs::write(clone.join("adapter_config.json"), format!("{config} ")).unwrap();
    let identity = ["-c", "user.name=x", "-c", "user.email=x@example.org"];
    git(&clone, &[&identity[..], &["commit", "--quiet", "-am", "a change"]].concat());
    git(&clone, &["push", "--quiet", "origin", "main"]);
    let (kind, message) = read(GitPick::Latest).await.unwrap_err();
    assert!(kind == ErrorKind::Invalid && message.contains("it was changed since"), "{message}");
    assert!(read(GitPick::Version(VersionNumber(1))).await.is_ok());
}
