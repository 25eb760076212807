//! The provider's log, the journal, the samples, the processes' logs.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use anyhow::Context;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::evidence::Call;
use crate::ids::MessageId;

#[derive(Deserialize)]
#[serde(untagged)]
enum ProviderLine {
    Call {
        begun_at: i64,
        decided_at: i64,
        id: MessageId,
        sender: Option<u16>,
        phone: i64,
        text_no: Option<u32>,
        accepted: bool,
        answered: bool,
        retry_after: Option<i64>,
        outcome: String,
    },
    Text {
        text_no: u32,
        text: String,
    },
    Reset {
        reset_at: i64,
    },
}

/// Reads NDJSON. A last line without its end is of a writer that was killed, and doesn't count.
pub(super) fn lines<T: DeserializeOwned>(path: &Path) -> anyhow::Result<Vec<T>> {
    let content = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let whole = content.rfind('\n').map_or("", |end| &content[..end]);
    let mut lines = Vec::new();
    for (number, line) in whole.lines().enumerate() {
        let line = serde_json::from_str(line).with_context(|| format!("{}:{}", path.display(), number + 1))?;
        lines.push(line);
    }
    Ok(lines)
}

pub(super) fn calls(path: &Path) -> anyhow::Result<Vec<Call>> {
    let mut calls: Vec<Call> = Vec::new();
    let mut texts: HashMap<u32, String> = HashMap::new();
    for line in lines(path)? {
        match line {
            ProviderLine::Text { text_no, text } => {
                texts.insert(text_no, text);
            }
            // What began before counts no more.
            ProviderLine::Reset { reset_at } => calls.retain(|call| call.begun_at >= reset_at),
            ProviderLine::Call {
                begun_at,
                decided_at,
                id,
                sender,
                phone,
                text_no,
                accepted,
                answered,
                retry_after,
                outcome,
            } => {
                let text = text_no.and_then(|number| texts.get(&number).cloned());
                let call =
                    Call { begun_at, decided_at, id, sender, phone, text, accepted, answered, retry_after, outcome };
                calls.push(call);
            }
        }
    }
    Ok(calls)
}

pub(super) fn logs(folder: &Path) -> anyhow::Result<Vec<(String, String)>> {
    let mut logs = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "log") {
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            logs.push((name, String::from_utf8_lossy(&fs::read(&path)?).into_owned()));
        }
    }
    anyhow::ensure!(!logs.is_empty(), "there are no logs in {}", folder.display());
    Ok(logs)
}
