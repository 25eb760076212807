//! Rule 12. Phones, texts and the token are where they must be and nowhere else.

use std::collections::HashSet;

use crate::case::Case;
use crate::evidence::Record;
use crate::ids::MessageId;
use crate::rules::Findings;

/// A phone: `7` and ten digits.
const PHONE_DIGITS: usize = 11;

pub(crate) fn check(case: &Case<'_>) -> Findings {
    let secrets = Secrets::of(case);
    let mut findings = Findings::default();
    for (name, log) in &case.evidence.logs {
        for (number, line) in log.lines().enumerate() {
            secrets.search(line, &mut findings, || format!("{name}:{}", number + 1));
        }
    }
    let mut metrics_seen = 0;
    for sample in &case.evidence.samples {
        for process in &sample.processes {
            metrics_seen += usize::from(process.metrics.is_some());
            let metrics = process.metrics.as_deref().unwrap_or_default();
            secrets.search(metrics, &mut findings, || format!("the metrics of {}", process.ops));
        }
    }
    findings.must_have_seen("logs", case.evidence.logs.len());
    findings.must_have_seen("metrics", metrics_seen);
    let evidence = case.evidence;
    secrets.search_records("mailing-events", &evidence.mailing_events, &mut findings);
    secrets.search_records("planning-progress", &evidence.progress, &mut findings);
    secrets.search_records("message-events", &evidence.message_events, &mut findings);
    secrets.search_records("status-events", &evidence.status_events, &mut findings);
    secrets.search_records("dead-letters", &evidence.dead_letters, &mut findings);
    for record in &evidence.status_events {
        let detail = record.event.as_ref().and_then(|event| event.detail.as_deref()).unwrap_or_default();
        secrets
            .search(detail, &mut findings, || format!("the detail of status {}/{}", record.partition, record.offset));
    }
    for record in &evidence.dead_letters {
        let letter = record.event.as_ref().map(ToString::to_string).unwrap_or_default();
        secrets.search(&letter, &mut findings, || format!("dead letter {}/{}", record.partition, record.offset));
    }
    findings
}

struct Secrets {
    phones: HashSet<i64>,
    texts: Vec<String>,
}

impl Secrets {
    fn of(case: &Case<'_>) -> Self {
        let phones = case.evidence.clients.iter().filter_map(|client| client.phone);
        // A message id may look like a phone.
        let phones = phones.filter(|phone| !case.planned.contains_key(&MessageId(*phone))).collect();
        let mut texts = vec![case.evidence.token.clone()];
        for mailing in case.mailings.values() {
            let json = serde_json::Value::from(mailing.text.as_str()).to_string();
            texts.extend([mailing.text.clone(), json.trim_matches('"').to_owned()]);
        }
        texts.retain(|text| !text.is_empty());
        Self { phones, texts }
    }

    fn search_records<T>(&self, topic: &str, records: &[Record<T>], findings: &mut Findings) {
        for record in records {
            let place = || format!("the key or a header of {topic} {}/{}", record.partition, record.offset);
            self.search(&record.key, findings, place);
            for (name, value) in &record.headers {
                self.search(name, findings, place);
                self.search(value, findings, place);
            }
        }
    }

    /// The violation names the place, and not what was found there.
    fn search(&self, content: &str, findings: &mut Findings, place: impl Fn() -> String) {
        let phone = content.split(|c: char| !c.is_ascii_alphanumeric()).any(|word| self.has_phone(word));
        let text = self.texts.iter().any(|text| content.contains(text.as_str()));
        findings.check(!phone, || format!("{} holds a phone", place()));
        findings.check(!text, || format!("{} holds a text or the token", place()));
    }

    /// Digits within a hexadecimal number, of a trace for instance, are no phone.
    fn has_phone(&self, word: &str) -> bool {
        let hexadecimal =
            word.bytes().all(|byte| byte.is_ascii_hexdigit()) && !word.bytes().all(|byte| byte.is_ascii_digit());
        let mut runs = word.split(|c: char| !c.is_ascii_digit()).filter(|run| run.len() == PHONE_DIGITS);
        !hexadecimal && runs.any(|run| run.parse().is_ok_and(|number| self.phones.contains(&number)))
    }
}
