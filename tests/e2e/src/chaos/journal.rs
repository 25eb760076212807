use std::fs::File;
use std::io::Write;
use std::path::Path;

use serde_json::{Value, json};

use crate::now_us;

/// What was done and when, a line each, for the judge.
pub(crate) struct Journal(File);

impl Journal {
    pub(crate) fn create(path: &Path) -> Self {
        Self(File::create(path).unwrap())
    }

    /// Written before what is done when something ends, and after it when something is back.
    pub(crate) fn write(&self, event: &str, role: &str, name: &str, note: &str) {
        self.line(&json!({"at": now_us(), "event": event, "role": role, "name": name, "note": note}));
    }

    /// A process that was to die at a point of its code did, or never came there and is about to be killed.
    pub(crate) fn died(&self, role: &str, name: &str, point: &str, reached: bool) {
        let (at, event) = (now_us(), "kill");
        self.line(&json!({"at": at, "event": event, "role": role, "name": name, "point": point, "reached": reached}));
    }

    /// A process is about to start. `port` is the provider's that only it calls, if it calls.
    pub(crate) fn start(&self, role: &str, name: &str, ops: Option<&str>, port: Option<u16>) {
        self.line(&json!({"at": now_us(), "event": "start", "role": role, "name": name, "ops": ops, "port": port}));
    }

    pub(crate) fn mailing(&self, id: &str) {
        self.line(&json!({"at": now_us(), "event": "mailing", "id": id}));
    }

    fn line(&self, line: &Value) {
        writeln!(&self.0, "{line}").unwrap();
    }
}
