//! A disk that is full: requests are refused, nothing acknowledged is lost, and with room it goes on.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use crate::{
    ledger::Ledger,
    server::{QUICK, Server, autoglm, question, run},
};

/// A small file system in memory; gone with its owner.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None` where this process may not mount one.
    fn mount(at: &Path, size: &str) -> Option<Self> {
        std::fs::create_dir(at).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "autoglm-test"]).arg(at);
        let mounted = mount.output().is_ok_and(|output| output.status.success());
        if !mounted {
            println!("SKIPPED: this process may not mount a small disk; run it as root to test full disks");
        }
        mounted.then(|| Self(at.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Asks until a request is refused; ids of the answers before, and the refusal.
async fn until_refused(server: &Server) -> (Vec<String>, u16, Value) {
    let mut ids = Vec::new();
    for number in 0..20_000 {
        let padding = "so ".repeat(60);
        let asked = question("champion", &format!("{padding} question {number}"));
        let (status, answer) = server.post("/v1/chat/completions", &asked).await.unwrap();
        if status != 200 {
            return (ids, status, answer);
        }
        ids.push(answer["id"].as_str().unwrap().to_owned());
    }
    panic!("never refused");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_and_goes_on_when_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(&folder.path().join("disk"), "32m") else { return };
    let data = disk.0.join("data");
    let server = Server::start(&data, &QUICK).await;
    let mut ledger = Ledger::default();
    let before = server.teach(4).await;
    ledger.acknowledged(before);
    // All but a little of the disk goes to something else.
    let filler = disk.0.join("filler");
    let free = 256 * 1024;
    let output = Command::new("df").args(["--output=avail", "-B1"]).arg(&disk.0).output().unwrap();
    let available: usize =
        String::from_utf8(output.stdout).unwrap().lines().last().unwrap().trim().parse().unwrap();
    std::fs::write(&filler, vec![1; available - free]).unwrap();

    let (ids, status, refusal) = until_refused(&server).await;
    ledger.acknowledged(ids);
    insta::assert_snapshot!(format!("{status}\n{refusal}"));
    std::fs::remove_file(&filler).unwrap();
    let (id, _) = server.ask("champion", "and now?").await;
    let feedback = server.correct(&id, "yes").await;
    ledger.acknowledged(vec![id, feedback]);
    server.stop();
    ledger.check(&data).await;
    let again = Server::start(&data, &QUICK).await;
    again.ask("champion", "and after a restart?").await;
    again.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_on_the_database_is_a_disk_of_that_size() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let tight = [&QUICK[..], &[("AUTOGLM_JOURNAL__MAX_FILE_MIB", "1")]].concat();
    let server = Server::start(&data, &tight).await;
    let mut ledger = Ledger::default();
    let (ids, status, refusal) = until_refused(&server).await;
    assert_eq!(status, 503, "{refusal}");
    ledger.acknowledged(ids);
    server.stop();
    ledger.check(&data).await;
    let roomy = Server::start(&data, &QUICK).await;
    let (id, _) = roomy.ask("champion", "and now?").await;
    ledger.acknowledged(vec![id]);
    roomy.stop();
    ledger.check(&data).await;
}

#[test]
fn no_room_for_the_model_is_told_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(&folder.path().join("disk"), "4m") else { return };
    let ended = run(autoglm(&["serve", "--listen", "127.0.0.1:0", "--data-dir"]).arg(disk.0.join("data")));
    let said = ended.err.replace(folder.path().to_str().unwrap(), "DIR");
    let said: Vec<&str> = said.lines().filter(|line| !line.contains(" INFO ")).collect();
    let said = without_hash(&said.join("\n"));
    insta::assert_snapshot!(format!("exit {:?}\n{said}", ended.code));
}

/// The starter's folder has the model's hash in its name, which changes with the model.
fn without_hash(text: &str) -> String {
    match text.split_once("starter-") {
        Some((before, after)) => format!("{before}starter-HASH{}", after.get(12..).unwrap_or_default()),
        None => text.to_owned(),
    }
}
