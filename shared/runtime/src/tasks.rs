//! Supervised tasks: one that ends before it was asked to is a failure of the whole process.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use anyhow::{Context, anyhow};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// The named tasks of a process. Clones share them.
#[derive(Clone, Debug)]
pub struct Tasks {
    stop: CancellationToken,
    state: Arc<watch::Sender<State>>,
}

#[derive(Debug, Default)]
struct State {
    last_no: u64,
    running: BTreeMap<u64, String>,
    /// Of the first task that failed; the later ones are mostly its consequences and only logged.
    failure: Option<anyhow::Error>,
}

impl Tasks {
    pub(crate) fn new(stop: CancellationToken) -> Self {
        Self { stop, state: Arc::default() }
    }

    /// Runs `work` on tokio until it ends. An error, a panic, or an end before the process stops, stops the process.
    pub fn spawn<F>(&self, name: impl Into<String>, work: F)
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let no = self.begin(name.into());
        let tasks = self.clone();
        let work = tokio::spawn(work);
        tokio::spawn(async move {
            let result = work.await.unwrap_or_else(|error| match error.is_panic() {
                true => Err(anyhow!("panicked")),
                false => Err(anyhow!("was aborted")),
            });
            tasks.end(no, result);
        });
    }

    /// As [`spawn`](Self::spawn), on an operating-system thread of that name: for work that blocks for as long as it runs.
    pub fn spawn_blocking<F>(&self, name: impl Into<String>, work: F)
    where
        F: FnOnce() -> anyhow::Result<()> + Send + 'static,
    {
        let name = name.into();
        let no = self.begin(name.clone());
        let tasks = self.clone();
        let thread = std::thread::Builder::new().name(name).spawn(move || {
            let result = catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err(anyhow!("panicked")));
            tasks.end(no, result);
        });
        if let Err(error) = thread {
            self.end(no, Err(error).context("no thread"));
        }
    }

    /// Waits for the first task that fails.
    pub(crate) async fn failed(&self) {
        self.wait(|state| state.failure.is_some()).await;
    }

    /// Waits until no task runs.
    pub(crate) async fn ended(&self) {
        self.wait(|state| state.running.is_empty()).await;
    }

    pub(crate) fn running(&self) -> Vec<String> {
        self.state.borrow().running.values().cloned().collect()
    }

    pub(crate) fn take_failure(&self) -> Option<anyhow::Error> {
        let mut failure = None;
        self.state.send_modify(|state| failure = state.failure.take());
        failure
    }

    async fn wait(&self, reached: impl FnMut(&State) -> bool) {
        // The sender lives in `self`, so the channel can't be closed.
        let _ = self.state.subscribe().wait_for(reached).await;
    }

    fn begin(&self, name: String) -> u64 {
        let mut no = 0;
        self.state.send_modify(|state| {
            state.last_no += 1;
            no = state.last_no;
            state.running.insert(no, name);
        });
        no
    }

    fn end(&self, no: u64, result: anyhow::Result<()>) {
        let asked = self.stop.is_cancelled();
        self.state.send_modify(|state| {
            let name = state.running.remove(&no).unwrap_or_default();
            let failure = match result {
                Ok(()) if asked => return,
                Ok(()) => anyhow!("task {name} ended before it was asked to"),
                Err(error) => error.context(format!("task {name} failed")),
            };
            if state.failure.is_none() {
                state.failure = Some(failure);
            } else {
                tracing::error!(task = name, error = format!("{failure:#}"), "another task failed");
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn failure_of(tasks: &Tasks) -> String {
        tasks.failed().await;
        format!("{:#}", tasks.take_failure().unwrap())
    }

    #[tokio::test]
    async fn a_task_that_ends_unasked_is_a_failure_that_names_it() {
        let tasks = Tasks::new(CancellationToken::new());
        tasks.spawn("relay", async { Ok(()) });
        assert_eq!(failure_of(&tasks).await, "task relay ended before it was asked to");
        tasks.spawn_blocking("consumer", || Ok(()));
        assert_eq!(failure_of(&tasks).await, "task consumer ended before it was asked to");
    }

    #[tokio::test]
    async fn errors_and_panics_are_failures_before_and_after_the_stop() {
        let stop = CancellationToken::new();
        let tasks = Tasks::new(stop.clone());
        for _ in 0..2 {
            tasks.spawn("relay", async { Err(anyhow!("no broker")) });
            assert_eq!(failure_of(&tasks).await, "task relay failed: no broker");
            tasks.spawn("relay", async { panic!("+70000000000") });
            assert_eq!(failure_of(&tasks).await, "task relay failed: panicked");
            tasks.spawn_blocking("consumer", || panic!("+70000000000"));
            assert_eq!(failure_of(&tasks).await, "task consumer failed: panicked");
            stop.cancel();
        }
    }

    #[tokio::test]
    async fn tasks_that_end_when_asked_are_waited_for() {
        let stop = CancellationToken::new();
        let tasks = Tasks::new(stop.clone());
        let (finish, finished) = std::sync::mpsc::channel::<()>();
        tasks.spawn("relay", {
            let stop = stop.clone();
            async move {
                stop.cancelled().await;
                Ok(())
            }
        });
        tasks.spawn_blocking("consumer", move || Ok(finished.recv()?));

        stop.cancel();
        tasks.wait(|state| state.running.len() == 1).await;
        assert_eq!(tasks.running(), ["consumer"]);
        finish.send(()).unwrap();
        tasks.ended().await;
        assert!(tasks.take_failure().is_none());
    }

    #[tokio::test]
    async fn a_blocking_task_runs_on_a_thread_of_its_name() {
        let tasks = Tasks::new(CancellationToken::new());
        tasks.spawn_blocking("consumer", || Err(anyhow!("{:?}", std::thread::current().name())));
        assert_eq!(failure_of(&tasks).await, "task consumer failed: Some(\"consumer\")");
    }
}
