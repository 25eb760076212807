use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;

/// How long a program may take to start or to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often a condition is looked at.
const GLANCE: Duration = Duration::from_millis(50);

/// A process with only the given settings. Dropped, it is killed.
pub(crate) struct Program {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Program {
    pub(crate) fn start(
        path: &Path,
        verb: Option<&str>,
        settings: &[(&str, String)],
        folder: &Path,
    ) -> anyhow::Result<Self> {
        let name = verb.unwrap_or("simulator").to_owned();
        let log = folder.join(format!("{name}.log"));
        let file = File::create(&log)?;
        let mut command = Command::new(path);
        command.args(verb).stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("HERALD_") {
                command.env_remove(name);
            }
        }
        // No `.env` of a checkout may reach it.
        command.current_dir(folder).envs(settings.iter().map(|(name, value)| (name, value))).env("RUST_LOG", "info");
        let child = command.spawn().with_context(|| format!("start {}", path.display()))?;
        Ok(Self { name, child, log })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until the address answers well.
    pub(crate) async fn answers(&mut self, http: &reqwest::Client, url: &str) -> anyhow::Result<()> {
        let began = Instant::now();
        while !http.get(url).send().await.is_ok_and(|answer| answer.status().is_success()) {
            let runs = self.child.try_wait()?.is_none();
            anyhow::ensure!(runs && began.elapsed() < PATIENCE, "{} isn't ready:\n{}", self.name, self.last_words());
            tokio::time::sleep(GLANCE).await;
        }
        Ok(())
    }

    /// Waits for its end, which must be in good order.
    pub(crate) async fn ended(mut self) -> anyhow::Result<()> {
        let began = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            anyhow::ensure!(began.elapsed() < PATIENCE, "{} doesn't end:\n{}", self.name, self.last_words());
            tokio::time::sleep(GLANCE).await;
        };
        anyhow::ensure!(status.success(), "{} ended with {status}:\n{}", self.name, self.last_words());
        Ok(())
    }

    fn last_words(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Nobody is there to hear of an error, and one that has ended can't be killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
