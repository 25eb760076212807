//! One copy of a text for all messages of its mailing.

use std::collections::VecDeque;
use std::sync::Arc;

use events::MessageEvent;

/// Mailings take turns by pages, so a partition has those of a few at once.
const KEPT: usize = 8;

/// The texts that a partition's messages had lately, newest last. Each event is decoded with a text of its own; of a thousand
/// letters, twenty-four thousand messages hold sixty megabytes.
#[derive(Debug, Default)]
pub(crate) struct Texts(VecDeque<Arc<str>>);

impl Texts {
    /// Lets the event share a text that is known, or remembers its own.
    pub(crate) fn share(&mut self, event: &mut MessageEvent) {
        let Some(text) = &event.text else { return };
        if let Some(known) = self.0.iter().rev().find(|known| *known == text) {
            event.text = Some(Arc::clone(known));
            return;
        }
        if self.0.len() == KEPT {
            self.0.pop_front();
        }
        self.0.push_back(Arc::clone(text));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(text: &str) -> MessageEvent {
        let example = include_bytes!("../../../kafka/examples/message-events.v1/first-round.json");
        MessageEvent { text: Some(text.into()), ..events::decode(Some(example)).unwrap() }
    }

    #[test]
    fn messages_of_a_few_mailings_in_turns_share_their_texts() {
        let mut texts = Texts::default();
        let mut first: Vec<MessageEvent> = (0..KEPT).map(|mailing| event(&mailing.to_string())).collect();
        first.iter_mut().for_each(|event| texts.share(event));
        for known in &first {
            let mut shared = event(known.text.as_ref().unwrap());
            texts.share(&mut shared);
            assert!(Arc::ptr_eq(shared.text.as_ref().unwrap(), known.text.as_ref().unwrap()));
        }
        (0..100).for_each(|mailing| texts.share(&mut event(&format!("other {mailing}"))));
        assert_eq!(texts.0.len(), KEPT, "what isn't met any more is forgotten");
    }
}
