//! The lake against real readers and a real object store.
#![cfg(feature = "parquet")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on says so and stops")]

mod columns;
mod faults;
mod readers;
mod windows;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use autoglm_domain::{Cursors, Event, ManualClock, Mirror, MirrorState, Store as _, Timestamp};
use autoglm_doubles::{MemoryStore, samples};
use autoglm_lake::{Config, Lake};
use autoglm_mirror::{Board, Feed};

/// A journal and a lake of it.
struct World {
    store: Arc<MemoryStore>,
    board: Arc<Board>,
    config: Config,
    _folder: tempfile::TempDir,
}

impl World {
    /// In a folder.
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = folder.path().join("lake").display().to_string();
        let config = Config { url, flush_s: 1, ..Config::default() };
        Self { store: Arc::default(), board: Arc::default(), config, _folder: folder }
    }

    fn at(url: &str, options: &[(&str, &str)]) -> Self {
        let options = options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let config = Config { url: url.into(), flush_s: 1, options };
        Self { config, ..Self::new() }
    }

    fn path(&self) -> &Path {
        Path::new(&self.config.url)
    }

    fn lake(&self) -> Lake {
        Lake::open(&self.config, self.store.clone()).unwrap()
    }

    /// Appends interactions with these numbers.
    async fn asked(&self, numbers: std::ops::Range<u64>) {
        let events = numbers.map(|n| Event::Interaction(Box::new(samples::interaction(n))));
        self.store.append(events.collect()).await.unwrap();
    }

    /// Delivers everything, in the batches that the lake wants.
    async fn delivered(&self) {
        let (lake, last) = (self.lake(), self.store.last_seq().await.unwrap());
        let mut at = self.state_seq().await;
        while at < last {
            let upto = lake.batch_end(at, last);
            lake.deliver(autoglm_domain::Span { after: at, upto }).await.unwrap();
            self.store.set_cursor("lake", autoglm_domain::Cursor::at(upto)).await.unwrap();
            at = upto;
        }
    }

    async fn state_seq(&self) -> i64 {
        self.store.cursors().await.unwrap().first().map_or(0, |(_, cursor)| cursor.seq)
    }

    /// Feeds the lake until it is dropped.
    fn feed(&self) -> tokio::task::JoinHandle<()> {
        let clock = Arc::new(ManualClock::at(Timestamp(7)));
        let lake = Arc::new(self.lake());
        tokio::spawn(Feed::new(lake, self.store.clone(), self.board.clone(), clock, 1).run())
    }

    /// Waits until the state is as wanted.
    async fn until(&self, wanted: impl Fn(&MirrorState) -> bool) -> MirrorState {
        for _ in 0..1200 {
            if let Some(state) = self.board.states(&*self.store).await.unwrap().into_iter().next()
                && wanted(&state)
            {
                return state;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("it never comes to that: {:?}", self.board.states(&*self.store).await);
    }

    /// Parquet files below the lake's folder, by name.
    fn files(&self) -> Vec<String> {
        fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
            for entry in std::fs::read_dir(folder).unwrap().map(|it| it.unwrap().path()) {
                if entry.is_dir() { walk(&entry, files) } else { files.push(entry) }
            }
        }
        let mut files = Vec::new();
        walk(self.path(), &mut files);
        let below = |file: &PathBuf| file.strip_prefix(self.path()).unwrap().display().to_string();
        let mut names: Vec<_> = files.iter().map(below).filter(|it| it.ends_with(".parquet")).collect();
        names.sort();
        names
    }
}
