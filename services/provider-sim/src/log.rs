//! The append-only log: NDJSON, written by a thread of its own.
//!
//! Three kinds of line, told apart by their first field: `begun_at` (one call, written when it ended), `text_no`
//! (a text, before the first call that bears its number; a number holds until a later line gives it anew, for a file
//! may be appended to by several runs), `reset_at` (the counters were cleared; calls begun before it count no more).

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::mem;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::Context;
use serde::Serialize;

use crate::call::Call;

/// Lines are gathered so long, to write a few hundred at once; half of the 10 ms that readers are promised.
const GATHER: Duration = Duration::from_millis(5);

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Line {
    Call(Call),
    Text { text_no: u32, text: String },
    Reset { reset_at: i64 },
}

#[derive(Debug)]
pub(crate) struct Log {
    shared: Arc<Shared>,
    writer: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    pending: Mutex<Pending>,
    /// Notified when the writer has something to do, and when it has done it.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Pending {
    lines: Vec<Line>,
    appended: u64,
    written: u64,
    hurry: bool,
    closed: bool,
    failed: Option<String>,
    /// By hash: the texts themselves may be many and long.
    texts: HashMap<u64, u32>,
}

impl Log {
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .with_context(|| format!("open the log {}", path.display()))?;
        let shared = Arc::new(Shared::default());
        let writer = thread::Builder::new().name("sim-log".to_owned()).spawn({
            let shared = Arc::clone(&shared);
            move || shared.write(file)
        })?;
        Ok(Self { shared, writer: Some(writer) })
    }

    pub(crate) fn call(&self, call: Call) {
        self.append(self.shared.lock(), Line::Call(call));
    }

    pub(crate) fn reset(&self, reset_at: i64) {
        self.append(self.shared.lock(), Line::Reset { reset_at });
    }

    /// The number of a text; a new one is logged first.
    pub(crate) fn text_no(&self, text: &str) -> u32 {
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        let key = hasher.finish();
        let mut pending = self.shared.lock();
        if let Some(&text_no) = pending.texts.get(&key) {
            return text_no;
        }
        let text_no = pending.texts.len() as u32;
        pending.texts.insert(key, text_no);
        self.append(pending, Line::Text { text_no, text: text.to_owned() });
        text_no
    }

    /// Returns when everything appended before is in the file; fails if anything could not be written.
    pub(crate) fn flush(&self) -> anyhow::Result<()> {
        let mut pending = self.shared.lock();
        let target = pending.appended;
        while pending.written < target {
            pending.hurry = true;
            self.shared.changed.notify_all();
            pending = self.shared.changed.wait(pending).unwrap_or_else(PoisonError::into_inner);
        }
        match &pending.failed {
            Some(reason) => anyhow::bail!("the log is incomplete: {reason}"),
            None => Ok(()),
        }
    }

    fn append(&self, mut pending: MutexGuard<'_, Pending>, line: Line) {
        pending.lines.push(line);
        pending.appended += 1;
        let first = pending.lines.len() == 1;
        drop(pending);
        // The writer is awake while there are lines.
        if first {
            self.shared.changed.notify_all();
        }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.changed.notify_all();
        if let Some(writer) = self.writer.take() {
            // It only fails by a panic, which has been printed.
            let _ = writer.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, mut file: File) {
        let mut lines = Vec::new();
        let mut bytes = Vec::new();
        while self.take(&mut lines) {
            let count = lines.len() as u64;
            let result = lines.drain(..).try_for_each(|line| {
                serde_json::to_writer(&mut bytes, &line)?;
                bytes.push(b'\n');
                Ok(())
            });
            let result = result.and_then(|()| file.write_all(&bytes));
            bytes.clear();
            let mut pending = self.lock();
            pending.written += count;
            if let Err(error) = result {
                tracing::error!(%error, "the log can't be written");
                pending.failed = Some(error.to_string());
            }
            self.changed.notify_all();
        }
    }

    /// Waits for lines and gathers them; false when the log is closed and nothing is left.
    fn take(&self, lines: &mut Vec<Line>) -> bool {
        let idle = |pending: &mut Pending| pending.lines.is_empty() && !pending.closed;
        let gathering = |pending: &mut Pending| !pending.hurry && !pending.closed;
        let pending = self.changed.wait_while(self.lock(), idle).unwrap_or_else(PoisonError::into_inner);
        let (mut pending, _) =
            self.changed.wait_timeout_while(pending, GATHER, gathering).unwrap_or_else(PoisonError::into_inner);
        pending.hurry = false;
        mem::swap(&mut pending.lines, lines);
        !lines.is_empty()
    }
}
