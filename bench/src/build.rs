use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context;

/// A build of Herald that is measured.
pub(crate) struct Build {
    /// `this` or `base`.
    pub(crate) name: &'static str,
    /// Its commit, shortened; `-dirty` with changes that aren't committed.
    pub(crate) commit: String,
    pub(crate) herald: PathBuf,
}

impl Build {
    /// This tree, built beside this program.
    pub(crate) fn this() -> anyhow::Result<Self> {
        let commit = git(&["describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"])?;
        Ok(Self { name: "this", commit, herald: beside_this("herald")? })
    }

    /// Builds a commit in `.local/bench/<commit>`. What an earlier bench built there is used again.
    pub(crate) fn base(revision: &str) -> anyhow::Result<Self> {
        let commit = git(&["rev-parse", "--verify", &format!("{revision}^{{commit}}")])?;
        let folder = devstack::root().join(".local/bench").join(&commit);
        let (source, target) = (folder.join("source"), folder.join("target"));
        if !source.exists() {
            extract(&commit, &source)?;
        }
        println!("building {revision} in .local/bench");
        let mut cargo = Command::new("cargo");
        cargo.args(["build", "--release"]).current_dir(&source).env("CARGO_TARGET_DIR", &target);
        anyhow::ensure!(cargo.status().context("run cargo")?.success(), "{revision} doesn't build");
        Ok(Self { name: "base", commit: commit[..12].to_owned(), herald: target.join("release/herald") })
    }
}

/// A program that `make bench` has built.
pub(crate) fn beside_this(name: &str) -> anyhow::Result<PathBuf> {
    let path = std::env::current_exe()?.with_file_name(name);
    anyhow::ensure!(path.exists(), "{} isn't built: run `make bench`", path.display());
    Ok(path)
}

fn git(args: &[&str]) -> anyhow::Result<String> {
    let output = Command::new("git").args(args).current_dir(devstack::root()).output().context("run git")?;
    anyhow::ensure!(
        output.status.success(),
        "git {}: {}",
        args.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// Writes the commit's files. The folder gets its name at the end, so that half of them is never taken for all.
fn extract(commit: &str, source: &Path) -> anyhow::Result<()> {
    let unfinished = source.with_extension("unfinished");
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished)?;
    }
    fs::create_dir_all(&unfinished)?;
    let mut archive =
        Command::new("git").args(["archive", commit]).current_dir(devstack::root()).stdout(Stdio::piped()).spawn()?;
    let files = archive.stdout.take().context("its output is a pipe")?;
    let unpacked = Command::new("tar").args(["-x", "-C"]).arg(&unfinished).stdin(files).status().context("run tar")?;
    anyhow::ensure!(archive.wait()?.success() && unpacked.success(), "the files of {commit} can't be written");
    Ok(fs::rename(unfinished, source)?)
}
