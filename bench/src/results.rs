use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::build::Build;
use crate::figures::Figures;
use crate::run::MESSAGES;

/// A file of JSON lines in `bench/results`, small enough to be committed: first what was measured, then each run. It names no
/// machine, only what its figures depend on.
pub(crate) struct Results {
    path: PathBuf,
    file: File,
}

impl Results {
    pub(crate) fn create(builds: &[Build], latency: &str) -> anyhow::Result<Self> {
        let now = chrono::Utc::now();
        let folder = devstack::root().join("bench/results");
        fs::create_dir_all(&folder)?;
        let path = folder.join(format!("{}-{}.jsonl", now.format("%Y%m%dT%H%MZ"), builds[0].commit));
        let mut results = Self { file: File::create(&path)?, path };
        results.write(&json!({
            "at": now.format("%Y-%m-%dT%H:%MZ").to_string(),
            "this": builds[0].commit,
            "base": builds.get(1).map(|base| &base.commit),
            "messages": MESSAGES,
            "provider_latency": latency,
            "cores": std::thread::available_parallelism()?.get(),
            "system": format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        }))?;
        Ok(results)
    }

    pub(crate) fn add(&mut self, build: &Build, run: usize, figures: &Figures) -> anyhow::Result<()> {
        self.write(&json!({"build": build.name, "run": run, "figures": figures.json()}))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// At once: a bench that is interrupted keeps its runs.
    fn write(&mut self, line: &Value) -> anyhow::Result<()> {
        Ok(writeln!(self.file, "{line}")?)
    }
}
