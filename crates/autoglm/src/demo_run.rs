//! The main job: a real server on a free port, with settings for a few minutes instead of days, and a stream of
//! traffic that it learns from.

use std::{sync::Arc, time::Duration};

use autoglm_domain::{Error, Experience, Generator, Result, Trigger, VersionNumber};
use autoglm_train::{Budget, Learned, Plan, PlanConfig, Strategy};
use rand::{SeedableRng as _, seq::SliceRandom as _};
use rand_chacha::ChaCha8Rng;
use tokio::sync::oneshot;

use crate::{
    consolidate::{Consolidation, held_out_new},
    demo::{self, DemoControl, DemoOptions, DemoServer, Display, RecallMode},
    learning_loop::champion,
    node::{Node, Parts},
    printer::Printer,
    settings::{DatabaseUrl, Settings},
};

/// Share of the time to consolidate that a training run may take; the rest is for the gate and measuring.
const TRAINING_SHARE: f64 = 0.75;
/// Seconds that the spoiled candidate is trained for.
const SPOILED_SECONDS: f32 = 4.0;

/// Plays the demo from an empty data directory to the report.
pub(crate) async fn demo_run(options: &DemoOptions, settings: Settings, printer: &Printer) -> Result<()> {
    let stream = demo::load_stream(options)?;
    let temporary = match &options.data_dir {
        Some(_) => None,
        None => Some(temporary_folder()?),
    };
    let data_dir = options.data_dir.clone().or_else(|| temporary.as_ref().map(|folder| folder.0.clone()));
    let settings = demo_settings(settings, options, stream.tasks.len(), data_dir.unwrap_or_default());

    let node = Node::open(&settings).await?;
    let listener = autoglm_gateway::bind(&settings.server.listen).await.map_err(Error::from)?;
    let address =
        listener.local_addr().map_err(|error| Error::internal(format!("no local address: {error}")))?;
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = tokio::spawn({
        let node = Arc::clone(&node);
        async move { node.serve(listener, async { drop(stopped.await) }).await }
    });
    printer.note(&format!("the server answers at http://{address}/v1 while the demo runs"));
    let parts = Arc::clone(node.parts());
    if let Some(reason) = &parts.no_training {
        return Err(Error::conflict(format!("the demo trains, and training is off: {reason}")));
    }
    let server = DemoServer {
        base_url: format!("http://{address}"),
        store: Arc::clone(&parts.store),
        generator: Arc::clone(&parts.engine) as Arc<dyn Generator>,
        control: Arc::new(LoopControl {
            parts,
            merge_seconds: demo::merge_seconds(options.minutes) * TRAINING_SHARE,
        }),
    };
    let display = Display::new(printer.writer(), printer.err_is_terminal(), printer.has_colour());
    let played = demo::run(options, stream, server, &display).await;
    if played.is_ok() && options.serve {
        printer.note(&format!("the server stays up at http://{address}/v1; Ctrl-C ends it"));
        if let Err(error) = tokio::signal::ctrl_c().await {
            tracing::warn!(%error, "Ctrl-C cannot be heard");
        }
    }
    drop(stop);
    let served = serving.await.map_err(|error| Error::internal(format!("the server was lost: {error}")))?;
    node.close().await;
    played.map(drop).and(served)
}

/// A folder that goes away with its owner.
struct Temporary(std::path::PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::debug!(%error, folder = %self.0.display(), "a temporary folder stays behind");
        }
    }
}

fn temporary_folder() -> Result<Temporary> {
    let folder = std::env::temp_dir().join(format!("autoglm-demo-{}", std::process::id()));
    std::fs::create_dir_all(&folder)
        .map_err(|error| Error::unavailable(format!("`{}` cannot be made: {error}", folder.display())))?;
    Ok(Temporary(folder))
}

/// Settings for learning in minutes: a high rank and the embedding trained beside it, since the starter model is
/// small; runs as long as a task's share of the time; replay of everything verified.
fn demo_settings(
    mut settings: Settings,
    options: &DemoOptions,
    tasks: usize,
    data_dir: std::path::PathBuf,
) -> Settings {
    settings.store.data_dir = data_dir;
    settings.store.url = DatabaseUrl::default();
    settings.server.listen = "127.0.0.1:0".into();
    settings.memory.recall = match options.recall {
        RecallMode::Off => autoglm_memory::RecallMode::Off,
        RecallMode::Examples => autoglm_memory::RecallMode::Examples,
        RecallMode::Answer => autoglm_memory::RecallMode::Answer,
    };
    settings.memory.answer_confidence = 0.2;
    settings.memory.seed = options.seed;
    let seconds = demo::Rounds::new(options.minutes, tasks, options.runs).seconds() * TRAINING_SHARE;
    settings.train.triggers.new_experiences = 0;
    settings.train.triggers.score_ceiling = 0.0;
    settings.train.triggers.score_floor = 0.0;
    settings.train.triggers.pattern_growth = 0;
    settings.train.budget =
        Budget { seconds: seconds as f32, min_steps: 60, max_passes: 12.0, ..settings.train.budget };
    let hyper = &mut settings.train.hyper;
    hyper.rank = 64;
    hyper.alpha = 128.0;
    hyper.train_embedding = true;
    hyper.train_norms = true;
    hyper.learning_rate = 2e-3;
    hyper.prompt_noise = 0.15;
    hyper.batch_tokens = 1024;
    hyper.passes = 12.0;
    settings
}

/// The running loop as the demo drives it.
struct LoopControl {
    parts: Arc<Parts>,
    merge_seconds: f64,
}

impl LoopControl {
    async fn is_idle(&self) -> bool {
        !self.parts.signals.busy()
            && matches!(self.parts.store.assessment_lag().await, Ok(0))
            && !self.parts.signals.busy()
    }

    /// Everything that may be trained on, as one plan.
    fn everything(&self, examples: Vec<Experience>, seed: u64) -> Result<Plan> {
        let config = PlanConfig { strategy: Strategy::Joint, ..self.parts.settings.train.plan.clone() };
        let (new, pool) = autoglm_train::divide(examples, &Learned::new());
        Ok(autoglm_train::plan(new, pool, &config, seed)?)
    }

    fn pool(&self) -> Vec<Experience> {
        self.parts.memory.training_pool().iter().map(|experience| (**experience).clone()).collect()
    }

    fn seed(&self) -> u64 {
        self.parts.settings.memory.seed
    }
}

#[async_trait::async_trait]
impl DemoControl for LoopControl {
    async fn wait_consolidated(&self, timeout: Duration) -> bool {
        let idle = async {
            while !self.is_idle().await {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(timeout, idle).await.is_ok()
    }

    async fn consolidate(&self) {
        // What is still being assessed belongs to this run.
        let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
        while !matches!(self.parts.store.assessment_lag().await, Ok(0))
            && tokio::time::Instant::now() < deadline
        {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        // What cannot be proven yet is learned with what comes next.
        match held_out_new(&self.parts).await {
            Ok(held_out) if (held_out as u64) < self.parts.settings.rollout.gate.min_new_skill_pairs => {
                tracing::info!(held_out, "too little that is new to prove that it was learned: no run");
            }
            _ => self.parts.signals.request(),
        }
    }

    async fn merge(&self) -> Result<VersionNumber> {
        let _working = self.parts.signals.work();
        let merge = Consolidation::merge(&self.parts, Trigger::Manual).await?;
        let budget =
            Budget { seconds: self.merge_seconds as f32, ..self.parts.settings.train.budget.clone() };
        let version = merge.run_for(&self.parts, &budget).await?;
        merge.prove(&self.parts, version.number).await?;
        Ok(version.number)
    }

    async fn submit_spoiled(&self) -> Result<VersionNumber> {
        let _working = self.parts.signals.work();
        let mut examples = self.pool();
        let mut targets: Vec<String> = examples.iter().map(|example| example.target.clone()).collect();
        targets.shuffle(&mut ChaCha8Rng::seed_from_u64(self.seed()));
        for (example, target) in examples.iter_mut().zip(targets) {
            example.target = target;
        }
        let plan = self.everything(examples, self.seed())?;
        let spoiled =
            Consolidation::of(champion(&self.parts), plan, self.seed(), "spoiled: targets shuffled");
        let budget = Budget { seconds: SPOILED_SECONDS, ..self.parts.settings.train.budget.clone() };
        let version = spoiled.run_for(&self.parts, &budget).await?;
        spoiled.prove(&self.parts, version.number).await?;
        Ok(version.number)
    }

    async fn train_upper_bound(&self) -> Result<VersionNumber> {
        let _working = self.parts.signals.work();
        let runs = self.parts.store.runs().await?;
        let spent: f64 = runs.iter().filter_map(|run| run.metrics.get("seconds")).sum();
        let plan = self.everything(self.pool(), self.seed())?;
        let joint =
            Consolidation::of(VersionNumber::BASE, plan, self.seed(), "upper bound: everything at once");
        let budget =
            Budget { seconds: spent as f32, max_passes: 1000.0, ..self.parts.settings.train.budget.clone() };
        Ok(joint.run_for(&self.parts, &budget).await?.number)
    }
}
