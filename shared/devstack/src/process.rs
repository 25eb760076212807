//! One background process: started, found again by its pid file, and ended.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A process that isn't a child can't be waited for, nor can a port that will open: both are looked at this often.
pub(crate) const GLANCE: Duration = Duration::from_millis(20);

/// A log is emptied before a start when it has grown past this.
const LOG_LIMIT: u64 = 64 << 20;

/// Writes the pid file and becomes the program: at no moment does a server run that no pid file knows.
/// Its output is the pid file, for a server under another user can't open that.
const WRITE_PID_AND_BECOME: &str = r#"
printf '%s\n' "$$" "$0"
if [ -r "/proc/$$/stat" ]; then cut -d' ' -f22 "/proc/$$/stat"; else ps -o lstart= -p "$$"; fi
exec "$@" >&2
"#;

/// The files of one process, by the directory it is named after.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    pub(crate) pid: PathBuf,
    pub(crate) log: PathBuf,
}

impl Files {
    /// `<dir>.pid`, and `log/<name>.log` beside the directory.
    pub(crate) fn beside(dir: &Path) -> Files {
        let name = dir.file_name().unwrap_or_default().to_string_lossy();
        let parent = dir.parent().unwrap_or(Path::new("."));
        Files { pid: parent.join(format!("{name}.pid")), log: parent.join("log").join(format!("{name}.log")) }
    }
}

/// A process in a group of its own: Ctrl-C in the terminal that started it doesn't reach it.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    pid: Pid,
    started: String,
    fingerprint: String,
    files: Files,
    /// Where in the log this process's own lines begin.
    log_start: u64,
    /// There if this program started it: then it must be reaped.
    child: Option<Child>,
}

impl Process {
    /// Starts `command` in the background. The fingerprint, one line, is what [`Process::fingerprint`] answers later.
    pub(crate) fn spawn(
        name: &str,
        command: &Command,
        user: Option<(u32, u32)>,
        fingerprint: &str,
        files: &Files,
    ) -> Result<Process> {
        let dir = files.log.parent().context("a log lies in a directory")?;
        fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
        let mut log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&files.log)
            .with_context(|| format!("open {}", files.log.display()))?;
        if log.metadata()?.len() > LOG_LIMIT {
            log.set_len(0)?;
        }
        let log_start = log.seek(SeekFrom::End(0))?;
        let pid_file = File::create(&files.pid).with_context(|| format!("create {}", files.pid.display()))?;

        let mut shell = Command::new("/bin/sh");
        shell
            .args(["-c", WRITE_PID_AND_BECOME, fingerprint])
            .arg(command.get_program())
            .args(command.get_args())
            .stdin(Stdio::null())
            .stdout(pid_file)
            .stderr(log)
            .process_group(0);
        for (key, value) in command.get_envs() {
            match value {
                Some(value) => shell.env(key, value),
                None => shell.env_remove(key),
            };
        }
        if let Some(dir) = command.get_current_dir() {
            shell.current_dir(dir);
        }
        if let Some((uid, gid)) = user {
            shell.uid(uid).gid(gid);
        }
        let child = shell.spawn().with_context(|| format!("start {name}"))?;
        let pid = Pid::from_raw(i32::try_from(child.id())?);
        Ok(Process {
            name: name.to_owned(),
            pid,
            started: start_time(pid).unwrap_or_default(),
            fingerprint: fingerprint.to_owned(),
            files: files.clone(),
            log_start,
            child: Some(child),
        })
    }

    /// The process that the pid file speaks of, if it still runs: a pid that has gone to another process is never taken for it.
    pub(crate) fn find(name: &str, files: &Files) -> Result<Option<Process>> {
        let text = match fs::read_to_string(&files.pid) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            text => text.with_context(|| format!("read {}", files.pid.display()))?,
        };
        let Some((pid, fingerprint, started)) = parse_pid_file(&text) else {
            return Ok(None);
        };
        if start_time(pid).as_deref() != Some(started) {
            return Ok(None);
        }
        Ok(Some(Process {
            name: name.to_owned(),
            pid,
            started: started.to_owned(),
            fingerprint: fingerprint.to_owned(),
            files: files.clone(),
            log_start: 0,
            child: None,
        }))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid.as_raw().unsigned_abs()
    }

    /// What the process was started with: another one means that it should be started anew.
    pub(crate) fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    pub(crate) fn is_alive(&mut self) -> bool {
        match &mut self.child {
            Some(child) => matches!(child.try_wait(), Ok(None)),
            None => start_time(self.pid).as_deref() == Some(self.started.as_str()),
        }
    }

    pub(crate) fn signal(&mut self, signal: Signal) -> Result<()> {
        if !self.is_alive() {
            return Ok(());
        }
        match kill(self.pid, signal) {
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(error) => Err(error).with_context(|| format!("send {signal} to {} ({})", self.name, self.pid)),
        }
    }

    /// Waits until `ready` answers true. An error if the process ends first, or after `patience`.
    pub(crate) fn wait_until(
        &mut self,
        patience: Duration,
        mut ready: impl FnMut() -> Result<(), String>,
    ) -> Result<()> {
        let deadline = Instant::now() + patience;
        loop {
            let why_not = match ready() {
                Ok(()) => return Ok(()),
                Err(why_not) => why_not,
            };
            if !self.is_alive() {
                bail!("{} ended before it was ready: {}", self.name, self.last_words());
            }
            if Instant::now() > deadline {
                let (name, log) = (&self.name, self.files.log.display());
                bail!("{name} isn't ready after {} s: {why_not} (see {log})", patience.as_secs());
            }
            thread::sleep(GLANCE);
        }
    }

    /// Asks the process to end and waits; kills it when `patience` is over.
    pub(crate) fn end(&mut self, signal: Signal, patience: Duration) -> Result<()> {
        self.signal(signal)?;
        let deadline = Instant::now() + patience;
        while self.is_alive() && Instant::now() < deadline {
            thread::sleep(GLANCE);
        }
        self.kill()
    }

    /// SIGKILL; returns when the process is gone.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.signal(Signal::SIGKILL)?;
        while self.is_alive() {
            thread::sleep(GLANCE);
        }
        match fs::remove_file(&self.files.pid) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).with_context(|| format!("remove {}", self.files.pid.display()))
            }
            _ => Ok(()),
        }
    }

    /// What this process wrote to its log.
    pub(crate) fn log(&self) -> String {
        let mut bytes = Vec::new();
        let read = File::open(&self.files.log).and_then(|mut log| {
            log.seek(SeekFrom::Start(self.log_start))?;
            log.read_to_end(&mut bytes)
        });
        match read {
            Ok(_) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) => format!("its log can't be read: {error}"),
        }
    }

    /// Why it ended, as far as its log says.
    pub(crate) fn last_words(&self) -> String {
        last_words(&self.log(), &self.files.log)
    }
}

fn last_words(log: &str, path: &Path) -> String {
    if log.contains("No space left on device") {
        return "the disk is full".to_owned();
    }
    let lines: Vec<&str> = log.lines().filter(|line| !line.trim().is_empty()).collect();
    let tail = lines[lines.len().saturating_sub(5)..].join("\n  ");
    format!("see {}; its last lines:\n  {tail}", path.display())
}

fn parse_pid_file(text: &str) -> Option<(Pid, &str, &str)> {
    let mut lines = text.lines();
    let pid = lines.next()?.parse().ok()?;
    let (fingerprint, started) = (lines.next()?, lines.next()?.trim());
    (pid > 0 && !started.is_empty()).then_some((Pid::from_raw(pid), fingerprint, started))
}

/// When a process started, in the words of the system; `None` if there is no such process, or only its remains.
fn start_time(pid: Pid) -> Option<String> {
    if Path::new("/proc/self/stat").exists() {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // "pid (any name) state ppid …": the start, in clock ticks since boot, is the 22nd field.
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
        let state = fields.next()?;
        return (!matches!(state, "Z" | "X")).then(|| fields.nth(18).unwrap_or_default().to_owned());
    }
    let ps = Command::new("ps").args(["-o", "stat=,lstart=", "-p", &pid.to_string()]).output().ok()?;
    let line = String::from_utf8_lossy(&ps.stdout).into_owned();
    let (state, started) = line.trim().split_once(' ')?;
    (!state.starts_with('Z')).then(|| started.trim().to_owned())
}

/// The words of a running process's command line; `None` if there is no such process.
pub(crate) fn command_line(pid: i32) -> Option<String> {
    if Path::new("/proc/self/stat").exists() {
        let words = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        return Some(String::from_utf8_lossy(&words).replace('\0', " "));
    }
    let ps = Command::new("ps").args(["-ww", "-o", "args=", "-p", &pid.to_string()]).output().ok()?;
    ps.status.success().then(|| String::from_utf8_lossy(&ps.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeper(files: &Files) -> Process {
        let mut command = Command::new("sleep");
        command.arg("60");
        Process::spawn("sleeper", &command, None, "a b", files).unwrap()
    }

    fn found(files: &Files) -> Option<Process> {
        Process::find("sleeper", files).unwrap()
    }

    #[test]
    fn a_process_is_found_again_by_its_pid_file_until_it_ends() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files::beside(&dir.path().join("sleeper"));
        assert!(found(&files).is_none());

        let mut sleeper = sleeper(&files);
        sleeper.wait_until(Duration::from_secs(5), || found(&files).map(drop).ok_or("no pid file".into())).unwrap();
        let mut again = found(&files).unwrap();
        assert_eq!((again.pid(), again.fingerprint()), (sleeper.pid(), "a b"));
        assert!(again.is_alive());

        sleeper.end(Signal::SIGTERM, Duration::from_secs(5)).unwrap();
        assert!(!again.is_alive() && found(&files).is_none());
    }

    #[test]
    fn a_pid_that_has_gone_to_another_process_is_not_ours() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files::beside(&dir.path().join("sleeper"));
        let me = Pid::this();
        fs::write(&files.pid, format!("{me}\nx\n{}\n", start_time(me).unwrap())).unwrap();
        assert!(found(&files).is_some());
        fs::write(&files.pid, format!("{me}\nx\n12345\n")).unwrap();
        assert!(found(&files).is_none());
    }

    #[test]
    fn an_unfinished_pid_file_names_nobody() {
        for text in ["", "1", "1\nx", "1\nx\n", "-5\nx\n7", "0\nx\n7", "one\nx\n7"] {
            assert_eq!(parse_pid_file(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_process_that_ends_early_says_why() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files::beside(&dir.path().join("failing"));
        let mut command = Command::new("sh");
        command.args(["-c", "echo out of luck; exit 3"]);
        let mut failing = Process::spawn("failing", &command, None, "-", &files).unwrap();
        let error = failing.wait_until(Duration::from_secs(5), || Err("waiting".into())).unwrap_err();
        assert!(error.to_string().contains("out of luck"), "{error}");
    }

    #[test]
    fn a_full_disk_is_named_in_one_sentence() {
        let log = "starting\njava.io.IOException: No space left on device\n\tat somewhere\n";
        assert_eq!(last_words(log, Path::new("kafka.log")), "the disk is full");
    }
}
