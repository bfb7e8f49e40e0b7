//! The journal's mirrors, and what is taken in from elsewhere: what the settings name, fed by whoever leads.

use std::sync::Arc;

use autoglm_domain::{Cursors, IdSource as _, Mirror, MirrorState, Result, SystemIds};
use autoglm_mirror::{Board, Feed};
use autoglm_mlflow::Mlflow;
use tokio::task::JoinSet;

use super::Parts;
use crate::{database::Database, settings::Settings};

/// The mirrors that there are to be.
pub(crate) struct Mirrors {
    mirrors: Vec<Arc<dyn Mirror>>,
    cursors: Arc<dyn Cursors>,
    board: Arc<Board>,
}

impl Mirrors {
    /// What the settings name. No broker and no bucket is asked for anything yet.
    pub(super) fn open(
        settings: &Settings,
        database: &Database,
        mlflow: Option<Arc<Mlflow>>,
    ) -> Result<Self> {
        let mut mirrors = named(settings, database)?;
        mirrors.extend(mlflow.map(|server| server as Arc<dyn Mirror>));
        Ok(Self { mirrors, cursors: database.cursors(), board: Arc::default() })
    }

    /// Feeds every mirror, and takes in what comes from elsewhere, for as long as `tasks` are there.
    pub(super) fn feed(parts: &Arc<Parts>, tasks: &mut JoinSet<()>) -> Result<()> {
        let Self { mirrors, board, .. } = &parts.mirrors;
        for mirror in mirrors {
            let [.., a, b, c, d, e, f, g, h] = *SystemIds.next_uuid().as_bytes();
            let seed = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
            let (mirror, cursors) = (Arc::clone(mirror), Arc::clone(&parts.cursors));
            tasks.spawn(Feed::new(mirror, cursors, Arc::clone(board), Arc::clone(&parts.clock), seed).run());
        }
        ingest(parts, tasks)
    }

    /// How every mirror is doing.
    pub(super) async fn states(&self) -> Result<Vec<MirrorState>> {
        self.board.states(&*self.cursors).await
    }
}

/// The mirrors that the settings name, in builds that have them.
fn named(settings: &Settings, database: &Database) -> Result<Vec<Arc<dyn Mirror>>> {
    let mut mirrors: Vec<Arc<dyn Mirror>> = Vec::new();
    #[cfg(feature = "kafka")]
    if settings.kafka.is_mirror_on() {
        mirrors.push(Arc::new(autoglm_kafka::KafkaMirror::new(&settings.kafka, database.store())?));
    }
    #[cfg(feature = "lake")]
    if settings.lake.is_on() {
        mirrors.push(Arc::new(autoglm_lake::Lake::open(&settings.lake, database.store())?));
    }
    #[cfg(not(any(feature = "kafka", feature = "lake")))]
    let _ = (settings, database, &mut mirrors);
    Ok(mirrors)
}

#[cfg(feature = "kafka")]
fn ingest(parts: &Arc<Parts>, tasks: &mut JoinSet<()>) -> Result<()> {
    let config = &parts.settings.kafka;
    if config.is_ingest_on() {
        let signals = Arc::clone(&parts.signals);
        let (store, clock) = (Arc::clone(&parts.store), Arc::clone(&parts.clock));
        let ingest = autoglm_kafka::Ingest::new(config, store, clock, move || signals.recorded())?;
        tasks.spawn(ingest.run());
    }
    Ok(())
}

#[cfg(not(feature = "kafka"))]
fn ingest(_: &Arc<Parts>, _: &mut JoinSet<()>) -> Result<()> {
    Ok(())
}

#[cfg(all(test, target_os = "linux", feature = "kafka", feature = "lake"))]
mod tests {
    use std::time::Duration;

    use autoglm_domain::MirrorHealth;
    use autoglm_doubles::{KafkaBroker, SmallDisk};

    use super::*;
    use crate::bench::Host;

    /// A disk that is full under the lake, and a broker that is away: whoever asks notices nothing, and who looks sees why.
    #[tokio::test(flavor = "multi_thread")]
    async fn mirrors_that_fail_are_nobodys_business_who_asks() {
        let Some(mut broker) = KafkaBroker::stopped() else { return };
        let Some(disk) = SmallDisk::new(None) else { return };
        disk.fill(4096);
        let mut settings = Settings::default();
        settings.kafka.brokers = broker.brokers();
        settings.kafka.timeout_s = 2;
        settings.lake.url = disk.path().join("lake").display().to_string();
        settings.lake.flush_s = 1;
        let host = Host::start(settings).await.unwrap();
        let client = host.client().unwrap();
        let ask = async |n: usize| {
            client.ask(&host.stream.tasks[0].traffic[n], Default::default()).await.unwrap();
        };
        let states = async |wanted: &dyn Fn(&MirrorState) -> bool| {
            let url = format!("{}/v1/autoglm/mirrors", host.base_url);
            for _ in 0..600 {
                let body = reqwest::get(&url).await.unwrap().text().await.unwrap();
                let mut list: serde_json::Value = serde_json::from_str(&body).unwrap();
                let states: Vec<MirrorState> = serde_json::from_value(list["data"].take()).unwrap();
                if states.len() == 2 && states.iter().all(wanted) {
                    return states;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            panic!("it never comes to that: {:?}", host.parts().mirrors.states().await);
        };
        for n in 0..20 {
            ask(n).await;
        }
        // A broker may be given up on before it is known why; then the next try tells.
        let says_why = |state: &MirrorState| match (state.name.as_str(), state.last_error.as_deref()) {
            ("kafka", Some(error)) => error.contains("Connection refused"),
            ("lake", Some(error)) => error == "the lake has no room: the disk is full",
            _ => false,
        };
        let failing = |state: &MirrorState| {
            state.health == MirrorHealth::Failing && state.behind >= 20 && says_why(state)
        };
        let failing = states(&failing).await;
        for n in 20..40 {
            ask(n).await;
        }
        let names: Vec<_> = failing.into_iter().map(|state| state.name).collect();
        assert_eq!(names, ["kafka", "lake"]);
        broker.resume();
        disk.grow();
        states(&|state| state.health == MirrorHealth::Healthy && state.behind == 0 && state.seq >= 40).await;
        host.close().await.unwrap();
    }
}
