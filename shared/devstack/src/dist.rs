//! The programs of the local stack: fetched once by Maven, as pinned in `kafka/dist/pom.xml`.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::{place, root};

const POM: &str = include_str!("../../../kafka/dist/pom.xml");
const COPY: &str = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies";

/// Changes with every change of what is fetched.
pub(crate) fn version() -> String {
    place::hash(POM.as_bytes())
}

/// The directory of Kafka's jars.
pub(crate) fn kafka() -> Result<PathBuf> {
    once("kafka", None, |dir| {
        eprintln!("fetching Kafka {} (45 MB)", pinned("kafka.version"));
        maven("kafka", dir, "")
    })
}

/// The directory that holds Postgres's `bin`, `lib` and `share`, readable for `user`.
pub(crate) fn postgres(user: Option<(u32, u32)>) -> Result<PathBuf> {
    let platform = platform(std::env::consts::OS, std::env::consts::ARCH)?;
    once("postgres", user, |dir| {
        eprintln!("fetching Postgres {} (15 MB)", pinned("postgres.version"));
        maven("postgres", dir, &format!("-Dpostgres.platform={platform}"))?;
        unpack(dir)
    })
}

/// Fails in one sentence when no Java of 17 or newer is there.
pub(crate) fn java() -> Result<PathBuf> {
    const WANTED: &str =
        "Kafka and Maven need a JDK 17 or newer: install one, or set HERALD_KAFKA_BROKERS and DATABASE_URL";
    let java = match std::env::var_os("JAVA_HOME") {
        Some(home) if !home.is_empty() => Path::new(&home).join("bin/java"),
        _ => PathBuf::from("java"),
    };
    let Ok(answer) = Command::new(&java).arg("-version").output() else {
        bail!("{WANTED} ({} isn't there)", java.display());
    };
    let text = String::from_utf8_lossy(&answer.stderr).into_owned();
    match java_version(&text) {
        Some(version) if version >= 17 => Ok(java),
        Some(version) => bail!("{WANTED} ({} is version {version})", java.display()),
        None => bail!("{WANTED} ({} doesn't say its version)", java.display()),
    }
}

/// Does the work unless it was done for this very pom; two processes never do it at once. Each pom has a directory of its
/// own, for a server may still be running from the one before.
fn once(name: &str, user: Option<(u32, u32)>, work: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let dist = root().join(".local/dist");
    fs::create_dir_all(&dist).with_context(|| format!("create {}", dist.display()))?;
    let lock = File::create(dist.join(format!("{name}.lock")))?;
    lock.lock()?;
    let dir = place::make(&dist.join(format!("{name}-{}", version())), user)?;
    let marker = dir.join("complete");
    if marker.exists() {
        return Ok(dir);
    }
    place::empty(&dir)?;
    work(&dir)?;
    fs::write(&marker, "")?;
    Ok(dir)
}

fn maven(profile: &str, into: &Path, property: &str) -> Result<()> {
    java()?;
    let mut command = Command::new("mvn");
    command
        .args(["-B", "-q", "-f"])
        .arg(root().join("kafka/dist/pom.xml"))
        .args(["-P", profile, COPY, "-DincludeScope=runtime"])
        .arg(format!("-DoutputDirectory={}", into.display()))
        .stdin(Stdio::null());
    if !property.is_empty() {
        command.arg(property);
    }
    let output = match command.output() {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            bail!(
                "Maven (mvn) fetches Kafka and Postgres and isn't on the PATH: install it, \
                 or set HERALD_KAFKA_BROKERS and DATABASE_URL"
            )
        }
        output => output.context("run mvn")?,
    };
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stdout);
    if text.contains("No space left on device") {
        bail!("the disk is full: Maven can't store {profile}");
    }
    let errors: Vec<&str> = text.lines().filter(|line| line.contains("ERROR")).take(3).collect();
    bail!("Maven can't fetch {profile} (a proxy or mirror goes into ~/.m2/settings.xml):\n  {}", errors.join("\n  "));
}

/// The jar holds one archive of programs: unpacked here, for a machine may have neither `unzip` nor `xz`.
fn unpack(dir: &Path) -> Result<()> {
    let jar = fs::read_dir(dir)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|end| end == "jar"))
        .context("Maven copied no jar of Postgres")?;
    let mut zip = zip::ZipArchive::new(File::open(&jar)?)?;
    let name = zip
        .file_names()
        .filter_map(Result::ok)
        .find(|name| name.ends_with(".txz"))
        .context("the jar of Postgres holds no .txz")?
        .into_owned();
    let programs = lzma_rust2::XzReader::new(zip.by_name(&name)?, true);
    tar::Archive::new(programs).unpack(dir).context("unpack Postgres")?;
    fs::remove_file(&jar)?;
    Ok(())
}

fn pinned(property: &str) -> &'static str {
    let after = POM.split_once(&format!("<{property}>")).map_or("", |(_, after)| after);
    after.split_once('<').map_or("", |(version, _)| version)
}

fn platform(os: &str, arch: &str) -> Result<&'static str> {
    Ok(match (os, arch) {
        ("linux", "x86_64") => "linux-amd64",
        ("linux", "aarch64") => "linux-arm64v8",
        ("macos", "x86_64") => "darwin-amd64",
        ("macos", "aarch64") => "darwin-arm64v8",
        _ => bail!("no Postgres is known for {os} on {arch}: set DATABASE_URL"),
    })
}

/// The major number in `openjdk version "17.0.15" …`.
fn java_version(text: &str) -> Option<u32> {
    let quoted = text.split('"').nth(1)?;
    quoted.split(['.', '-', '+']).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pom_pins_both_servers() {
        assert!(pinned("kafka.version").starts_with("4.3."));
        assert!(pinned("postgres.version").starts_with("17."));
    }

    #[test]
    fn the_version_of_java_is_read() {
        let cases = [
            ("openjdk version \"17.0.15\" 2025-04-15\nOpenJDK …", Some(17)),
            ("java version \"1.8.0_202\"", Some(1)),
            ("openjdk version \"25-ea\"", Some(25)),
            ("The operation couldn't be completed. Unable to locate a Java Runtime.", None),
        ];
        for (text, version) in cases {
            assert_eq!(java_version(text), version, "{text}");
        }
    }

    #[test]
    fn an_unknown_platform_is_one_sentence() {
        let error = platform("freebsd", "x86_64").unwrap_err().to_string();
        assert_eq!(error, "no Postgres is known for freebsd on x86_64: set DATABASE_URL");
    }
}
