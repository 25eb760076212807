//! Logs, to stderr: text for people, JSON for machines.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{IsTerminal, Write};

use tracing::Subscriber;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt};

/// librdkafka repeats each lost connection for each broker and client; what matters of it the services log themselves.
const DEFAULT_FILTER: &str = "info,librdkafka=warn,rdkafka=warn,sqlx=warn";

/// Sends logs to stderr: as text when that is a terminal, else as one JSON object a line. `RUST_LOG` says what is
/// logged. A log that can't be written is lost and nothing else happens. Panics are logged with their place but
/// without their message, which may quote personal data.
///
/// Only the first call in a process has an effect.
pub fn init() {
    let asked = std::env::var("RUST_LOG").unwrap_or_default();
    let asked = (!asked.is_empty()).then(|| EnvFilter::try_new(&asked));
    let (filter, wrong) = match asked {
        Some(Ok(filter)) => (filter, None),
        Some(Err(error)) => (EnvFilter::new(DEFAULT_FILTER), Some(error)),
        None => (EnvFilter::new(DEFAULT_FILTER), None),
    };
    let terminal = std::io::stderr().is_terminal();
    if subscriber(filter, terminal, std::io::stderr).try_init().is_err() {
        return;
    }
    if let Some(error) = wrong {
        tracing::warn!(%error, "RUST_LOG is not understood: logging by {DEFAULT_FILTER:?}");
    }
    log_panics();
}

fn subscriber<W>(filter: EnvFilter, text: bool, writer: W) -> impl Subscriber + Send + Sync
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    // By default a failed write is reported with `eprintln!`, which panics when stderr is what failed.
    let layer = fmt::layer().with_writer(writer).log_internal_errors(false);
    let layer: Box<dyn Layer<Registry> + Send + Sync> = match text {
        true => layer.boxed(),
        false => layer.json().flatten_event(true).with_current_span(false).boxed(),
    };
    tracing_subscriber::registry().with(layer.with_filter(filter))
}

/// The message stays out: slicing a string in the middle of a character, for one, panics with the whole string.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        let thread = std::thread::current();
        tracing::error!(panic.place = place, thread = thread.name(), "panicked");
        let trace = Backtrace::capture();
        if trace.status() == BacktraceStatus::Captured {
            let _ = writeln!(std::io::stderr(), "{trace}");
        }
    }));
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(text: bool) -> String {
        let sink = Sink::default();
        let writer = sink.clone();
        let subscriber = subscriber(EnvFilter::new(DEFAULT_FILTER), text, move || writer.clone());
        tracing::subscriber::with_default(subscriber, || {
            let _request = tracing::info_span!("request", request.id = "r-1").entered();
            tracing::info!(mailing.id = "m-1", "planned");
            tracing::info!(target: "librdkafka", "chatter");
        });
        let bytes = sink.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_machine_reads_one_json_object_a_line_with_the_fields_of_event_and_spans() {
        let lines = logged(false);
        let line: serde_json::Value = serde_json::from_str(&lines).unwrap();
        assert_eq!(line["level"], "INFO");
        assert_eq!(line["message"], "planned");
        assert_eq!(line["mailing.id"], "m-1");
        assert_eq!(line["spans"][0]["request.id"], "r-1");
    }

    #[test]
    fn a_person_reads_text() {
        let line = logged(true);
        assert!(line.contains("planned"), "{line}");
        assert!(!line.starts_with('{'), "{line}");
        assert_eq!(line.lines().count(), 1, "{line}");
    }
}
