//! Work that nobody waits for, on a thread of its own that stands back for the threads that answer.

use std::{convert::Infallible, future::Future};

use autoglm_domain::{Error, Result};
use tokio::{runtime::Handle, sync::oneshot};

/// What such a thread yields to the others, of at most 19: where every core is busy it gets a tenth of what they get.
/// See sched(7), "The nice value".
#[cfg(target_os = "linux")]
const NICE: i32 = 10;

/// One task on a thread of its own. Dropping it ends the task where it next waits.
#[derive(Debug)]
pub(super) struct Background {
    _goes_on: oneshot::Sender<Infallible>,
}

impl Background {
    /// Runs `task` on a thread called `name`; what it waits for and spawns is the current runtime's.
    ///
    /// # Errors
    /// `Unavailable` where the system has no thread left.
    pub(super) fn start(name: &str, task: impl Future<Output = ()> + Send + 'static) -> Result<Self> {
        let (goes_on, ended) = oneshot::channel::<Infallible>();
        let runtime = Handle::current();
        let run = move || {
            stand_back();
            runtime.block_on(async {
                tokio::select! {
                    _ = ended => {}
                    () = task => {}
                }
            });
        };
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(run)
            .map_err(|error| Error::unavailable(format!("no thread for `{name}`: {error}")))?;
        Ok(Self { _goes_on: goes_on })
    }
}

/// Lowers the priority of this thread. On Linux it is a thread's own, elsewhere the whole process's, which stays as it is.
fn stand_back() {
    // Where the system refuses, the thread merely competes on equal terms.
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::setpriority_process(None, NICE) {
        tracing::debug!(%error, "a thread in the background keeps its normal priority");
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Tells when the task that holds it is gone.
    struct Gone(Option<oneshot::Sender<()>>);

    impl Drop for Gone {
        fn drop(&mut self) {
            let _ = self.0.take().map(|sender| sender.send(()));
        }
    }

    #[tokio::test]
    async fn a_task_runs_at_a_low_priority_until_its_guard_is_dropped() {
        let (gone, is_gone) = oneshot::channel();
        let (tell, mut told) = tokio::sync::mpsc::channel(1);
        let guard = Gone(Some(gone));
        let background = Background::start("background", async move {
            let _guard = guard;
            loop {
                // Timers and what is spawned are those of the runtime that it was started on.
                tokio::time::sleep(Duration::from_millis(1)).await;
                let _ = tokio::spawn(async {}).await;
                let nice = rustix::process::getpriority_process(None).ok();
                let _ = tell.send((std::thread::current().name().map(str::to_owned), nice)).await;
            }
        })
        .unwrap();
        let (name, nice) = told.recv().await.unwrap();
        assert_eq!(name.as_deref(), Some("background"));
        #[cfg(target_os = "linux")]
        assert_eq!(nice, Some(NICE));
        assert_ne!(nice, None);
        let own = rustix::process::getpriority_process(None).unwrap();
        assert!(own < 10, "the thread that answers keeps its priority: {own}");
        drop(background);
        tokio::time::timeout(Duration::from_secs(10), is_gone).await.unwrap().unwrap();
    }
}
