//! What is decided of a flow, and what the decision rests on.

use super::MacRef;

/// Where the frames of a flow go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// To this port.
    Forward(u16),
    /// To every port of the bridge but the one that they came in by.
    Flood,
}

/// A cached decision. It holds as long as its bridge's configuration and both MAC entries are what they were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What to do.
    pub action: Action,
    /// The generation of the bridge's configuration.
    pub generation: u32,
    /// The entry of the source, whose move to another port ends the verdict.
    pub source: MacRef,
    /// The entry of the destination, likewise; [`MacRef::ALWAYS`] when flooding.
    pub destination: MacRef,
}

const FLOOD: u64 = 0xffff;

impl Verdict {
    pub(super) fn words(self) -> [u64; 3] {
        let action = match self.action {
            Action::Forward(port) => u64::from(port),
            Action::Flood => FLOOD,
        };
        [action | u64::from(self.generation) << 32, self.source.word(), self.destination.word()]
    }

    #[inline(always)]
    pub(super) fn from_words([action, source, destination]: [u64; 3]) -> Self {
        Self {
            action: if action & 0xffff == FLOOD { Action::Flood } else { Action::Forward(action as u16) },
            generation: (action >> 32) as u32,
            source: MacRef::from_word(source),
            destination: MacRef::from_word(destination),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_back() {
        for action in [Action::Forward(0), Action::Forward(0xfffe), Action::Flood] {
            let verdict = Verdict {
                action,
                generation: 0xdead_beef,
                source: MacRef::from_word(0x1234_5678_9abc_def0),
                destination: MacRef::ALWAYS,
            };
            assert_eq!(Verdict::from_words(verdict.words()), verdict);
        }
    }
}
